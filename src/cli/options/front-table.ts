/**
 * An option table for an executable's front, which is in C: it has to know before Node starts whether the program goes to the background.
 * The bundler writes it beside the executable. First a line that says how operands are meant, then a line for each long name: a number that all
 * names of one option share, whether it takes a value, what it means to the front (one letter), its short form or `-`, the name.
 */
import type { OptionDefinition, OptionTable } from './definition.ts';

/** Rows that mean something to the front; all others it passes over. */
const ROLES: Readonly<Record<string, string>> = {
  // Stays in the foreground.
  ...{ foreground: 's', help: 's', version: 's', 'print-capabilities': 's' },
  // Its value is a descriptor that the program needs.
  fd: 'd',
  // A descriptor may be named in its value.
  netdev: 'n',
  // Not confined.
  'no-sandbox': 'o',
  // Joins a namespace, so that there is no command to wait for.
  netns: 'j',
};

/** @param operands - `none`; `namespaces`: a command, which is waited for, or a process to join */
export function formatFrontTable(table: OptionTable, operands: 'none' | 'namespaces'): string {
  const lines = Object.entries(table).flatMap(([name, definition], number) =>
    [name, ...(definition.aliases ?? [])].map((each) =>
      [number, takesValue(definition) ? 1 : 0, ROLES[name] ?? '.', definition.short ?? '-', each].join(' '),
    ),
  );
  return `${[operands, ...lines].join('\n')}\n`;
}

function takesValue(definition: OptionDefinition): boolean {
  return definition.kind === 'value' || (definition.kind === 'refused' && definition.takesValue);
}
