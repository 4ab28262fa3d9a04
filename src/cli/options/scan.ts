/**
 * getopt_long(3) over an option table: `--name=value`, `--name value`, unambiguous prefixes of long names, `-nVALUE`,
 * `-n VALUE`, bundled flags, `--`. Callers of the C programs use all of these, and yargs understands options in ways of its
 * own (camel case, dot notation, numbers, `--no-` negation), so the command line is taken apart here and yargs only prints.
 */
import { PasselError } from '../../base/errors.ts';
import {
  type GivenOptions,
  type Occurrence,
  type OptionDefinition,
  type OptionTable,
  rejectFor,
} from './definition.ts';

export interface ScanSettings {
  /** Stop at the first operand and leave everything from there on alone, for commands that start commands. */
  readonly stopAtOperand?: boolean;
}

/**
 * Takes a command line (without program name) apart.
 * @throws PasselError naming option, value and expectation
 */
export function scanOptions<Table extends OptionTable>(
  table: Table,
  argv: readonly string[],
  settings: ScanSettings = {},
): GivenOptions<Table> {
  const longNames = indexLongNames(table);
  const shortNames = indexShortNames(table);
  const occurrences = new Map<string, Occurrence<unknown>[]>();
  const operands: string[] = [];
  let position = 0;

  const take = (name: string, typed: string, text: string): void => {
    const definition = table[name]!;
    const parsed = definition.kind === 'value' ? definition.parse(text, rejectFor(typed, text)) : true;
    const list = occurrences.get(name) ?? [];
    list.push({ typed, text, parsed });
    occurrences.set(name, list);
  };
  const nextArgument = (definition: OptionDefinition, typed: string): string => {
    const text = argv[position];
    if (text === undefined)
      throw new PasselError('PASSEL_E_OPTION_NO_ARGUMENT', { option: typed, expected: wantOf(definition) });
    position++;
    return text;
  };

  const scanLong = (argument: string): void => {
    const equals = argument.indexOf('=');
    const given = equals < 0 ? argument.slice(2) : argument.slice(2, equals);
    const inline = equals < 0 ? undefined : argument.slice(equals + 1);
    const name = resolveLong(table, longNames, given);
    const definition = table[name]!;
    const typed = `--${given}`;
    if (takesValue(definition)) take(name, typed, inline ?? nextArgument(definition, typed));
    else if (inline === undefined) take(name, typed, '');
    else throw new PasselError('PASSEL_E_OPTION_UNWANTED_ARGUMENT', { option: typed, value: inline });
    refuseIfRefused(definition, `--${name}`);
  };
  const scanShort = (argument: string): void => {
    for (let i = 1; i < argument.length; i++) {
      const typed = `-${argument[i]}`;
      const name = shortNames.get(argument[i]!);
      if (name === undefined) throw new PasselError('PASSEL_E_OPTION_UNKNOWN', { option: typed });
      const definition = table[name]!;
      refuseIfRefused(definition, `${typed} (--${name})`);
      if (!takesValue(definition)) {
        take(name, typed, '');
        continue;
      }
      const rest = argument.slice(i + 1);
      take(name, typed, rest === '' ? nextArgument(definition, typed) : rest);
      return;
    }
  };

  while (position < argv.length) {
    const argument = argv[position]!;
    if (argument === '--') {
      operands.push(...argv.slice(position + 1));
      break;
    }
    if (argument === '-' || !argument.startsWith('-')) {
      if (settings.stopAtOperand) {
        operands.push(...argv.slice(position));
        break;
      }
      operands.push(argument);
      position++;
      continue;
    }
    position++;
    if (argument.startsWith('--')) scanLong(argument);
    else scanShort(argument);
  }

  const of = (name: string): readonly Occurrence<never>[] => (occurrences.get(name) ?? []) as Occurrence<never>[];
  return {
    has: (name) => occurrences.has(name),
    gave: (name) => occurrences.has(name),
    last: (name) => of(name).at(-1)?.parsed,
    all: (name) => of(name),
    typed: (name) => of(name).at(-1)?.typed ?? `--${name}`,
    operands,
  };
}

function takesValue(definition: OptionDefinition): boolean {
  return definition.kind === 'value' || (definition.kind === 'refused' && definition.takesValue);
}

function wantOf(definition: OptionDefinition): string {
  return definition.kind === 'value' ? definition.valueName : 'a value';
}

function refuseIfRefused(definition: OptionDefinition, option: string): void {
  if (definition.kind !== 'refused') return;
  throw new PasselError('PASSEL_E_OPTION_UNSUPPORTED', { option, reason: definition.reason });
}

function indexLongNames(table: OptionTable): Map<string, string> {
  const names = new Map<string, string>();
  for (const [name, definition] of Object.entries(table)) {
    names.set(name, name);
    for (const alias of definition.aliases ?? []) names.set(alias, name);
  }
  return names;
}

function indexShortNames(table: OptionTable): Map<string, string> {
  const names = new Map<string, string>();
  for (const [name, definition] of Object.entries(table)) {
    if (definition.short !== undefined) names.set(definition.short, name);
  }
  return names;
}

/** An exact name, or a prefix that only one option has (several names of one option count once). */
function resolveLong(table: OptionTable, names: ReadonlyMap<string, string>, given: string): string {
  const exact = names.get(given);
  if (exact !== undefined) return exact;
  const matching = [...names.keys()].filter((name) => given !== '' && name.startsWith(given));
  const classic = matching.filter((name) => table[names.get(name)!]!.isExtension !== true);
  const candidates = classic.length > 0 ? classic : matching;
  const meanings = new Set(candidates.map((name) => names.get(name)!));
  const [only] = meanings;
  if (only === undefined) throw new PasselError('PASSEL_E_OPTION_UNKNOWN', { option: `--${given}` });
  if (meanings.size === 1) return only;
  const list = candidates.map((name) => `--${name}`).join(', ');
  throw new PasselError('PASSEL_E_OPTION_AMBIGUOUS', { option: `--${given}`, candidates: list });
}
