/**
 * JSON as QEMU's command line takes it: RFC 8259, and strings in single quotes besides.
 */

export type JsonValue = null | boolean | number | string | readonly JsonValue[] | JsonObject;
export interface JsonObject {
  readonly [key: string]: JsonValue;
}

/** Whether QEMU takes an option's value for JSON: it decides by the first character. */
export function looksLikeJson(text: string): boolean {
  return text.startsWith('{');
}

/**
 * Parses an object.
 * @throws SyntaxError
 */
export function parseJsonObject(text: string): JsonObject {
  const value = JSON.parse(doubleQuotes(text)) as JsonValue;
  if (value === null || typeof value !== 'object' || Array.isArray(value)) throw new SyntaxError('it is not an object');
  return value as JsonObject;
}

/** Turns strings in single quotes into strings in double quotes; everything else stays as it is. */
function doubleQuotes(text: string): string {
  if (!text.includes("'")) return text;
  return text.replace(/"(?:[^"\\]|\\.)*"|'((?:[^'\\]|\\.)*)'/gs, (whole, inner: string | undefined) =>
    inner === undefined ? whole : `"${inner.replace(/\\'|"/g, (found) => (found === '"' ? '\\"' : "'"))}"`,
  );
}
