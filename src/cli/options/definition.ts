/**
 * What an option is. Every option has one definition; the scanner, the help text and the man-page test all read it, so a new
 * option is one entry in a table and one paragraph in the manual.
 */
import { PasselError } from '../../base/errors.ts';

/** Rejects a value: `expected` completes the sentence "… is not valid: expected …". */
export type Reject = (expected: string) => never;

/** Turns the text of a value into what the program works with, or rejects it. */
export type ValueParser<T> = (text: string, reject: Reject) => T;

interface OptionCommon {
  /** Single-letter form, without the dash. */
  readonly short?: string;
  /** Further long names that mean the same. */
  readonly aliases?: readonly string[];
  /** The C program does not have it: an abbreviation that could mean one that it has means that one. */
  readonly isExtension?: boolean;
  /** Heading in the help text. */
  readonly group: string;
  /** One sentence for the help text. */
  readonly help: string;
}

export interface FlagDefinition extends OptionCommon {
  readonly kind: 'flag';
}

export interface ValueDefinition<T> extends OptionCommon {
  readonly kind: 'value';
  /** Name of the value in help and manual, in capitals. */
  readonly valueName: string;
  /** Every occurrence counts; otherwise the last one does. */
  readonly repeatable: boolean;
  /** The default as a person would say it. */
  readonly defaultText?: string;
  readonly parse: ValueParser<T>;
}

/** An option of the C programs that is recognised in order to say why it cannot be had. */
export interface RefusedDefinition extends OptionCommon {
  readonly kind: 'refused';
  readonly takesValue: boolean;
  /** Completes the sentence "… is not supported by this version: …". */
  readonly reason: string;
}

// The parser's result type differs from row to row; what is read back is typed through the table's own type.
// biome-ignore lint/suspicious/noExplicitAny: see above
export type OptionDefinition = FlagDefinition | ValueDefinition<any> | RefusedDefinition;

/** Long name → definition. */
export type OptionTable = Readonly<Record<string, OptionDefinition>>;

export function flag(row: Omit<FlagDefinition, 'kind'>): FlagDefinition {
  return { kind: 'flag', ...row };
}

export function value<T>(row: Omit<ValueDefinition<T>, 'kind' | 'repeatable'>): ValueDefinition<T> {
  return { kind: 'value', repeatable: false, ...row };
}

export function values<T>(row: Omit<ValueDefinition<T>, 'kind' | 'repeatable'>): ValueDefinition<T> {
  return { kind: 'value', repeatable: true, ...row };
}

export function refused(row: Omit<RefusedDefinition, 'kind' | 'group' | 'help'>): RefusedDefinition {
  return { kind: 'refused', group: 'Not supported:', help: row.reason, ...row };
}

type FlagName<Table> = { [K in keyof Table]: Table[K] extends FlagDefinition ? K : never }[keyof Table] & string;
type ValueName<Table> = { [K in keyof Table]: Table[K] extends ValueDefinition<unknown> ? K : never }[keyof Table] &
  string;
type ParsedValue<Row> = Row extends ValueDefinition<infer T> ? T : never;

/** One occurrence of a value option. */
export interface Occurrence<T> {
  /** The option as it was typed: `-t` or `--tcp-ports`. */
  readonly typed: string;
  readonly text: string;
  readonly parsed: T;
}

/** What a command line gave, by the names of a table. */
export interface GivenOptions<Table> {
  /** Whether a flag was given. */
  has(name: FlagName<Table>): boolean;
  /** Whether an option of any kind was given. */
  gave(name: keyof Table & string): boolean;
  /** The value that counts: the last one. */
  last<Name extends ValueName<Table>>(name: Name): ParsedValue<Table[Name]> | undefined;
  /** Every occurrence in order. */
  all<Name extends ValueName<Table>>(name: Name): readonly Occurrence<ParsedValue<Table[Name]>>[];
  /** The option as it was typed last, for messages; `--name` if it was not. */
  typed(name: keyof Table & string): string;
  /** What was left besides options. */
  readonly operands: readonly string[];
}

/** A {@link Reject} that names option and value. */
export function rejectFor(typed: string, text: string): Reject {
  return (expected) => {
    throw new PasselError('PASSEL_E_OPTION_VALUE', { option: typed, value: text, expected });
  };
}

/** The part of what was given that a smaller table knows: its options mean the same in the larger one. */
export function narrowOptions<Part extends OptionTable, Table extends Part>(
  given: GivenOptions<Table>,
): GivenOptions<Part> {
  // Each method takes fewer names than it could; the compiler sees only that the tables differ.
  const answers: unknown = given;
  return answers as GivenOptions<Part>;
}
