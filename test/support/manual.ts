/** What the manual pages say, as plain text. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT_ROOT } from './native-tools.ts';

/** Examples by the title of the subsection (`.SS`) that they stand in, in the page's order. */
export type Examples = ReadonlyMap<string, readonly string[]>;

/**
 * The examples (`.EX` to `.EE`) of a section (`.SH`) of a page, as a reader would copy them.
 * @param page - name of the file in `man`
 */
export function readExamples(page: string, section: string): Examples {
  const text = readFileSync(join(PROJECT_ROOT, 'man', page), 'utf8');
  const start = text.indexOf(`\n.SH ${section}\n`);
  if (start < 0) throw new Error(`${page} has no section ${section}`);
  const examples = new Map<string, string[]>();
  let title = '';
  let lines: string[] | undefined;
  for (const line of text
    .slice(start + 1)
    .split('\n')
    .slice(1)) {
    if (line.startsWith('.SH ')) break;
    if (line.startsWith('.SS ')) {
      title = line.slice(4);
      examples.set(title, []);
    } else if (line === '.EX') lines = [];
    else if (line === '.EE') {
      examples.get(title)?.push(`${lines?.join('\n')}\n`);
      lines = undefined;
    } else lines?.push(readEscapes(line));
  }
  return examples;
}

const CHARACTERS: Readonly<Record<string, string>> = { '-': '-', e: '\\', '(aq': "'", '(ti': '~', '(ha': '^' };

/** A line of an example without groff's escapes (groff_char(7)); those for other characters and for fonts are refused. */
function readEscapes(line: string): string {
  return line.replace(/\\(\(..|.)/g, (text, name: string) => {
    const character = CHARACTERS[name];
    if (character === undefined) throw new Error(`an example has the escape ${text}`);
    return character;
  });
}
