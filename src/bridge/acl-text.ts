/**
 * The text of qemu-bridge-helper's access list, one rule a line:
 *
 *     allow BRIDGE    allow all
 *     deny BRIDGE     deny all
 *     include FILE
 *
 * Blanks around a line do not count, empty lines and those that begin with `#` are skipped, a rule's argument is the rest of its line.
 * Keywords are lower case. There are no patterns and no comments behind a rule.
 *
 * Where the C program reads something else into a text than its author wrote, this parser refuses the text: a line too long for
 * its buffer (there the tail counted as a line of its own), a tab and then a space behind a keyword, a keyword without argument, a name that no
 * interface can have. Pure: no file is opened here.
 */

/** The longest name of a network interface: IFNAMSIZ of netdevice(7), less the NUL. */
export const MAX_INTERFACE_NAME_BYTES = 15;

/** The word that stands for every bridge. */
export const EVERY_BRIDGE = 'all';

/** Where a rule stands. */
export interface AclPlace {
  readonly file: string;
  /** From 1. */
  readonly line: number;
}

export interface AclRule extends AclPlace {
  readonly kind: 'allow' | 'deny' | 'include';
  /** Bridge, {@link EVERY_BRIDGE}, or path of a file. */
  readonly argument: string;
}

/** A text that is not an access list. */
export class AclSyntaxError extends Error {
  override readonly name = 'AclSyntaxError';
  readonly place: AclPlace;

  constructor(place: AclPlace, problem: string) {
    super(problem);
    this.place = place;
  }
}

/**
 * @param bytes - the file's contents; bridge names are bytes to the kernel, so each byte is read as one character (Latin-1)
 * @param file - its path, for messages
 * @throws AclSyntaxError for the first line that is none
 */
export function parseAclText(bytes: Uint8Array, file: string): AclRule[] {
  const rules: AclRule[] = [];
  const lines = Buffer.from(bytes).toString('latin1').split('\n');
  for (const [index, raw] of lines.entries()) {
    const text = raw.replace(BLANKS_AROUND, '');
    if (text === '' || text.startsWith('#')) continue;
    rules.push(parseRule(text, { file, line: index + 1 }));
  }
  return rules;
}

/** What isspace(3) takes for a blank in the C locale. */
const BLANKS_AROUND = /^[ \t\v\f\r]+|[ \t\v\f\r]+$/g;

function parseRule(text: string, place: AclPlace): AclRule {
  if (text.includes('\0')) throw new AclSyntaxError(place, 'a NUL byte');
  const match = /^(\S+)(?:[ \t\v\f\r]+(.*))?$/.exec(text);
  const [, keyword = '', argument] = match ?? [];
  if (keyword !== 'allow' && keyword !== 'deny' && keyword !== 'include') {
    throw new AclSyntaxError(place, `unknown command '${keyword}': expected allow, deny or include`);
  }
  if (argument === undefined) {
    const wanted = keyword === 'include' ? 'a file' : `a bridge or '${EVERY_BRIDGE}'`;
    throw new AclSyntaxError(place, `'${keyword}' needs ${wanted}`);
  }
  if (keyword !== 'include') checkName(argument, place);
  return { kind: keyword, argument, ...place };
}

function checkName(name: string, place: AclPlace): void {
  const problem = whyNoInterfaceName(name);
  if (problem !== undefined) throw new AclSyntaxError(place, `'${name}' is no name of a bridge: ${problem}`);
}

/** Why the kernel would not take `name` (one byte a character) for an interface's; undefined: it would. */
export function whyNoInterfaceName(name: string): string | undefined {
  if (name === '') return 'it is empty';
  if (name.length > MAX_INTERFACE_NAME_BYTES) {
    return `it is too long: ${name.length} bytes, at most ${MAX_INTERFACE_NAME_BYTES} are possible`;
  }
  if (name === '.' || name === '..') return 'the kernel reserves it';
  const wrong = /[\s/:\0]/.exec(name);
  if (wrong !== null) return wrong[0] === '/' || wrong[0] === ':' ? `it has a '${wrong[0]}'` : 'it has a blank';
  return undefined;
}
