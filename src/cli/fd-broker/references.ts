/** References to descriptors in the arguments of a command: `@NAME@` or `{fd:NAME}`. */

/** What a name looks like: letters, digits, `_` and `-`, a letter or `_` first. */
export const NAME_PATTERN = '[A-Za-z_][A-Za-z0-9_-]*';

const PLACE = new RegExp(`@(${NAME_PATTERN})@|\\{fd:([^{}]*)\\}`, 'g');

/** The names that arguments refer to. */
export function listReferences(args: readonly string[]): Set<string> {
  const names = new Set<string>();
  for (const arg of args) for (const match of arg.matchAll(PLACE)) names.add(match[1] ?? match[2]!);
  return names;
}

/** Arguments with each reference replaced by the number of its name, which `numbers` has; several numbers have colons between, as `fds=` wants them. */
export function replaceReferences(args: readonly string[], numbers: ReadonlyMap<string, readonly number[]>): string[] {
  return args.map((arg) =>
    arg.replace(PLACE, (_place, at: string | undefined, braced: string) => numbers.get(at ?? braced)?.join(':') ?? ''),
  );
}
