/** Help text from an option table, laid out by yargs. Loaded only when somebody asks: yargs costs more to start than a helper. */
import yargs from 'yargs';
import type { OptionTable } from './definition.ts';

const WIDTH_MAX = 100;

/**
 * @param usage - the line after "Usage:"
 * @returns text with a final newline
 */
export async function formatHelp(usage: string, table: OptionTable): Promise<string> {
  const parser = yargs([])
    .scriptName('')
    .usage(`Usage: ${usage}`)
    .help(false)
    .version(false)
    .parserConfiguration({ 'camel-case-expansion': false, 'boolean-negation': false })
    .wrap(Math.min(WIDTH_MAX, process.stdout.columns ?? WIDTH_MAX));
  for (const [name, definition] of Object.entries(table)) {
    if (definition.kind === 'refused') continue;
    const alias = [...(definition.short === undefined ? [] : [definition.short]), ...(definition.aliases ?? [])];
    const { group, help } = definition;
    if (definition.kind === 'flag') {
      parser.option(name, { alias, group, describe: help });
      continue;
    }
    const byDefault = definition.defaultText === undefined ? '' : ` [default: ${definition.defaultText}]`;
    parser.option(name, { alias, group, describe: `${definition.valueName}: ${help}${byDefault}` });
  }
  // yargs takes a digit for a long name.
  return `${(await parser.getHelp()).replace(/--(\d\b\s*)/g, '-$1 ')}\n`;
}
