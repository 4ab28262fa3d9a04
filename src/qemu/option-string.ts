/**
 * QEMU's option strings: what stands behind `-device`, `-netdev`, `-machine` and most others.
 *
 * Two forms. A list: `virtio-net-pci,netdev=n0,mac=…`, where a comma within a value is written twice, a word without `=` is a
 * switch, and the first such word is the value of a key that the option implies (`driver` for -device, `type` for -netdev and
 * -machine). Or JSON: `{"driver": "virtio-net-pci", …}`, where objects within are what `a.b=` is in a list.
 *
 * Not done: what a key means, and which values it takes.
 */
import { type JsonObject, type JsonValue, looksLikeJson, parseJsonObject } from './json.ts';

/** One `key=value`. */
export interface Property {
  readonly key: string;
  /** Undefined for a switch. */
  readonly value: string | undefined;
}

/** The key that the first word of an option's value stands for. */
export const IMPLIED_KEYS: Readonly<Record<string, string>> = {
  device: 'driver',
  netdev: 'type',
  net: 'type',
  nic: 'type',
  machine: 'type',
  M: 'type',
  chardev: 'backend',
  object: 'qom-type',
  drive: 'file',
};

/** Splits a list into its properties. Every text is a list. */
export function parseOptionList(text: string, impliedKey?: string): Property[] {
  const properties: Property[] = [];
  for (let at = 0; at < text.length; ) {
    const equals = text.indexOf('=', at);
    const comma = text.indexOf(',', at);
    const isSwitch = equals < 0 || (comma >= 0 && comma < equals);
    if (!isSwitch) {
      const [value, next] = readValue(text, equals + 1);
      properties.push({ key: text.slice(at, equals), value });
      at = next;
    } else if (at === 0 && impliedKey !== undefined) {
      const [value, next] = readValue(text, 0);
      properties.push({ key: impliedKey, value });
      at = next;
    } else {
      const end = comma < 0 ? text.length : comma;
      properties.push({ key: text.slice(at, end), value: undefined });
      at = end + 1;
    }
  }
  return properties;
}

/** A value up to a single comma, and the offset behind that. */
function readValue(text: string, start: number): [value: string, next: number] {
  let value = '';
  for (let at = start; ; ) {
    const comma = text.indexOf(',', at);
    if (comma < 0) return [value + text.slice(at), text.length];
    value += text.slice(at, comma);
    if (text[comma + 1] !== ',') return [value, comma + 1];
    value += ',';
    at = comma + 2;
  }
}

/** The opposite of {@link parseOptionList}. */
export function formatOptionList(properties: readonly Property[], impliedKey?: string): string {
  return properties
    .map(({ key, value }, index) => {
      if (value === undefined) return key;
      const escaped = escapeValue(value);
      return index === 0 && key === impliedKey && isBareWord(value) ? escaped : `${key}=${escaped}`;
    })
    .join(',');
}

/** Whether a first word stands for the implied key's value: not with `=` before its first comma, nor when empty. */
function isBareWord(value: string): boolean {
  return value !== '' && !value.split(',')[0]!.includes('=');
}

/** A value as it is written in a list. */
export function escapeValue(value: string): string {
  return value.replaceAll(',', ',,');
}

/**
 * The properties of an option's value in either form. In JSON, keys within objects are joined with dots, numbers and booleans are
 * written as a list would have them (`on`, `off`), and members of arrays have their index for a key.
 * @throws SyntaxError for a value that begins like JSON and is none
 */
export function readProperties(text: string, impliedKey?: string): Property[] {
  return looksLikeJson(text) ? flattenJson(parseJsonObject(text)) : parseOptionList(text, impliedKey);
}

function flattenJson(object: JsonObject | readonly JsonValue[], prefix = ''): Property[] {
  return Object.entries(object).flatMap(([name, value]: [string, JsonValue]) => {
    const key = `${prefix}${name}`;
    if (value !== null && typeof value === 'object') return flattenJson(value, `${key}.`);
    if (typeof value === 'boolean') return [{ key, value: value ? 'on' : 'off' }];
    return [{ key, value: value === null ? undefined : String(value) }];
  });
}

/** The value of a key; the last one counts, as in QEMU. */
export function getProperty(properties: readonly Property[], key: string): string | undefined {
  return properties.findLast((property) => property.key === key && property.value !== undefined)?.value;
}
