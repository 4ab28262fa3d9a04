import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { BROKER_ERROR_CODES, VERB_SCHEMAS } from '../../src/broker/protocol.ts';
import { BRIDGE_HELPER_OPTIONS } from '../../src/cli/options/bridge-helper-options.ts';
import { CTL_OPTIONS } from '../../src/cli/options/ctl-options.ts';
import type { OptionDefinition, OptionTable } from '../../src/cli/options/definition.ts';
import { DOCTOR_OPTIONS } from '../../src/cli/options/doctor-options.ts';
import { FD_BROKER_SERVE_OPTIONS } from '../../src/cli/options/fd-broker-options.ts';
import { FD_BROKER_QMP_OPTIONS } from '../../src/cli/options/fd-broker-qmp-options.ts';
import { FD_BROKER_RUN_OPTIONS } from '../../src/cli/options/fd-broker-run-options.ts';
import { formatHelp } from '../../src/cli/options/help.ts';
import { LINKS_OPTIONS } from '../../src/cli/options/links-options.ts';
import { NETDEV_ARGS_OPTIONS } from '../../src/cli/options/netdev-args-options.ts';
import { PASST_OPTIONS } from '../../src/cli/options/passt-options.ts';
import { PASTA_OPTIONS } from '../../src/cli/options/pasta-options.ts';
import { PR_HELPER_OPTIONS } from '../../src/cli/options/pr-helper-options.ts';
import { QRAP_OPTIONS } from '../../src/cli/options/qrap-options.ts';
import { RUN_OPTIONS } from '../../src/cli/options/run-options.ts';

const root = resolve(import.meta.dirname, '../..');

/** The tags of a page's `.TP` paragraphs that begin with an option, as plain text. */
function listOptionTags(page: string): string[] {
  const lines = readFileSync(join(root, 'man', page), 'utf8').split('\n');
  const tags = lines.filter((_line, index) => lines[index - 1] === '.TP').map(toPlainText);
  return tags.filter((tag) => /^-(\w, --|-)/.test(tag));
}

function toPlainText(roff: string): string {
  return roff
    .replace(/\\f[BIR]/g, '')
    .replaceAll('\\-', '-')
    .replace(/^\.[BIR]+ /, '');
}

/** How the manual must head the paragraph of an option. */
function tagOf(name: string, row: OptionDefinition): string {
  const argument = row.kind === 'value' ? ` ${row.valueName}` : '';
  const long = [name, ...(row.aliases ?? [])].map((each) => `--${each}${argument}`).join(', ');
  return row.short === undefined ? long : `-${row.short}, ${long}`;
}

function listTags(table: OptionTable): string[] {
  return Object.entries(table)
    .filter(([, row]) => row.kind !== 'refused')
    .map(([name, row]) => tagOf(name, row));
}

describe('passel-passt(1)', () => {
  it('has a paragraph for every option, with its forms and value, and for nothing else', () => {
    expect(listOptionTags('passel-passt.1').sort()).toEqual(listTags(PASST_OPTIONS).sort());
  });
  it('names every option that is refused', () => {
    const page = toPlainText(readFileSync(join(root, 'man/passel-passt.1'), 'utf8'));
    const section = page.slice(page.indexOf('.SH NOT SUPPORTED'), page.indexOf('.SH SIGNALS'));
    for (const [name, row] of Object.entries(PASST_OPTIONS)) {
      if (row.kind === 'refused') expect(section).toMatch(new RegExp(`--${name}(?![a-z-])`));
    }
  });
});

describe('passel-pasta(1)', () => {
  it('has a paragraph for every option, with its forms and value, and for nothing else', () => {
    expect(listOptionTags('passel-pasta.1').sort()).toEqual(listTags(PASTA_OPTIONS).sort());
  });
  it('names every option that is refused', () => {
    const page = toPlainText(readFileSync(join(root, 'man/passel-pasta.1'), 'utf8'));
    const section = page.slice(page.indexOf('.SH NOT SUPPORTED'), page.indexOf('.SH SIGNALS'));
    for (const [name, row] of Object.entries(PASTA_OPTIONS)) {
      if (row.kind === 'refused') expect(section).toMatch(new RegExp(`--${name}(?![a-z-])`));
    }
  });
});

describe('passel-ctl(1)', () => {
  it('has a paragraph for every option', () => {
    expect(listOptionTags('passel-ctl.1').sort()).toEqual(listTags(CTL_OPTIONS).sort());
  });
  it('names every request of the control socket and every field of its answers', () => {
    const page = toPlainText(readFileSync(join(root, 'man/passel-ctl.1'), 'utf8'));
    const routes = readFileSync(join(root, 'src/cli/control/routes.ts'), 'utf8');
    const requests = [...routes.matchAll(/^ \* +(GET|POST|DELETE) +(\/v1\/[\w/]+)/gm)];
    expect(requests.length).toBeGreaterThan(5);
    for (const [, method, path] of requests) expect(page).toContain(`${method} ${path}`);
    const view = readFileSync(join(root, 'src/cli/control/view.ts'), 'utf8');
    const fields = [...view.matchAll(/^ +readonly (\w+):/gm)].map((match) => match[1]!);
    for (const field of fields.filter((name) => name !== 'stack' && name !== 'config' && name !== 'socketPath')) {
      expect(page).toMatch(new RegExp(`\\b${field}\\b`));
    }
  });
});

describe('passel-qrap(1)', () => {
  it('has a paragraph for every option of its own, and for nothing else', () => {
    expect(listOptionTags('passel-qrap.1').sort()).toEqual(listTags(QRAP_OPTIONS).sort());
  });
});

describe('passel-bridge-helper(8)', () => {
  it('has a paragraph for every option, and for nothing else', () => {
    expect(listOptionTags('passel-bridge-helper.8').sort()).toEqual(listTags(BRIDGE_HELPER_OPTIONS).sort());
  });
});

describe('passel-pr-helper(8)', () => {
  it('has a paragraph for every option, with its forms and value, and for nothing else', () => {
    expect(listOptionTags('passel-pr-helper.8').sort()).toEqual(listTags(PR_HELPER_OPTIONS).sort());
  });
  it('names every request of the control socket and every field of its answers', () => {
    const page = toPlainText(readFileSync(join(root, 'man/passel-pr-helper.8'), 'utf8'));
    const section = page.slice(page.indexOf('.SH STATUS'), page.indexOf('.SH PRIVILEGES'));
    const routes = readFileSync(join(root, 'src/cli/pr-helper/control-routes.ts'), 'utf8');
    const requests = [...routes.matchAll(/^ \* +GET (\/v1\/\w+)/gm)];
    expect(requests.length).toBe(4);
    for (const [, path] of requests) expect(section).toContain(`GET ${path}`);
    const view = readFileSync(join(root, 'src/cli/pr-helper/control-view.ts'), 'utf8');
    const shapes = view.slice(view.indexOf('export interface TallyView'), view.indexOf('const seconds'));
    const fields = [...shapes.matchAll(/^ +readonly (\w+):/gm)].map((match) => match[1]!);
    expect(fields.length).toBeGreaterThan(30);
    for (const field of fields) expect(section).toMatch(new RegExp(`\\b${field}\\b`));
  });
  it('names every field of the access log', () => {
    const page = toPlainText(readFileSync(join(root, 'man/passel-pr-helper.8'), 'utf8'));
    const source = readFileSync(join(root, 'src/scsi/describe.ts'), 'utf8');
    const entry = /export interface AccessEntry \{([^}]+)\}/.exec(source)![1]!;
    const fields = [...entry.matchAll(/^ +readonly (\w+)\??:/gm)].map((match) => match[1]!);
    expect(fields.length).toBeGreaterThan(10);
    for (const field of fields) expect(page).toMatch(new RegExp(`\\b${field}\\b`));
  });
});

describe('passel-fd-broker(8)', () => {
  const page = 'passel-fd-broker.8';
  it('has a paragraph for every option, and for nothing else', () => {
    const all = [FD_BROKER_SERVE_OPTIONS, FD_BROKER_RUN_OPTIONS, FD_BROKER_QMP_OPTIONS].flatMap(listTags);
    expect([...new Set(listOptionTags(page))].sort()).toEqual([...new Set(all)].sort());
  });
  it('has a paragraph for every verb, and names every member and error code', () => {
    const text = toPlainText(readFileSync(join(root, 'man', page), 'utf8'));
    const tags = text.split('\n').filter((_line, index, lines) => lines[index - 1] === '.TP');
    for (const [verb, schema] of Object.entries(VERB_SCHEMAS)) {
      expect(tags.join(' ')).toMatch(new RegExp(`\\b${verb}\\b`));
      for (const member of Object.keys(schema.shape)) expect(text).toMatch(new RegExp(`\\b${member}\\b`));
    }
    for (const code of BROKER_ERROR_CODES) expect(text).toContain(code);
  });
});

describe('passel(1)', () => {
  it('has a paragraph for every option of the commands that have no page of their own', () => {
    const tags = listOptionTags('passel.1');
    for (const table of [DOCTOR_OPTIONS, LINKS_OPTIONS, NETDEV_ARGS_OPTIONS])
      expect(tags).toEqual(expect.arrayContaining(listTags(table)));
  });
  it('names what passel run has in addition, and what it lacks', () => {
    const tags = listOptionTags('passel.1');
    const page = toPlainText(readFileSync(join(root, 'man/passel.1'), 'utf8'));
    for (const [name, row] of Object.entries(RUN_OPTIONS)) {
      const inPasst = name in PASST_OPTIONS && PASST_OPTIONS[name as keyof typeof PASST_OPTIONS].kind !== 'refused';
      if (!inPasst && row.kind !== 'refused') expect(tags).toContain(tagOf(name, row));
      if (inPasst && row.kind === 'refused') expect(page).toMatch(new RegExp(`--${name}(?![a-z-])`));
    }
  });
});

describe('the help text', () => {
  it('shows every option that can be given', async () => {
    const help = await formatHelp('passel-passt [OPTION]...', PASST_OPTIONS);
    for (const [name, row] of Object.entries(PASST_OPTIONS)) {
      if (row.kind === 'refused') expect(help).not.toContain(`--${name} `);
      else expect(help).toMatch(new RegExp(`--${name}(?![a-z-])`));
    }
    expect(help).toMatch(/^Usage: passel-passt \[OPTION\]\.\.\.\n/);
  });
});
