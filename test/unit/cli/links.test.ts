import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { findInPath } from '../../../src/cli/links/callers.ts';
import { listDropIns, makeLinks } from '../../../src/cli/links/links.ts';

let folder: string;
let helpers: string;
let links: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'passel-links-'));
  helpers = join(folder, 'helpers');
  links = join(folder, 'a', 'links');
  mkdirSync(helpers);
  for (const name of ['passel-passt.cjs', 'passel-qrap', 'passel-qrap.cjs', 'passel.cjs']) {
    writeFileSync(join(helpers, name), '');
    chmodSync(join(helpers, name), 0o755);
  }
});
afterEach(() => rmSync(folder, { recursive: true }));

describe('links', () => {
  it('are made for the executables that exist, and may be made again', () => {
    const dropIns = listDropIns(helpers);
    expect(dropIns.map(({ name }) => name)).toEqual(['passt', 'qrap']);
    makeLinks(links, dropIns, false);
    makeLinks(links, dropIns, false);
    expect(readlinkSync(join(links, 'passt'))).toBe(join(helpers, 'passel-passt.cjs'));
    expect(readlinkSync(join(links, 'qrap'))).toBe(join(helpers, 'passel-qrap'));
  });
  it('take the place of those of another installation', () => {
    mkdirSync(links, { recursive: true });
    symlinkSync('/elsewhere/passel-passt.cjs', join(links, 'passt'));
    makeLinks(links, listDropIns(helpers), false);
    expect(readlinkSync(join(links, 'passt'))).toBe(join(helpers, 'passel-passt.cjs'));
  });
  it.each([
    ['a file', (path: string) => writeFileSync(path, 'mine')],
    ['a link to something else', (path: string) => symlinkSync('/usr/bin/passt', path)],
    ['a link that leads nowhere', (path: string) => symlinkSync('/nonexistent', path)],
  ])('do not replace %s unless told to, and then none is made', (_what, put) => {
    mkdirSync(links, { recursive: true });
    put(join(links, 'qrap'));
    expect(() => makeLinks(links, listDropIns(helpers), false)).toThrow(/qrap': there is something that is not ours/);
    expect(() => readlinkSync(join(links, 'passt'))).toThrow(/ENOENT/);
    makeLinks(links, listDropIns(helpers), true);
    expect(readlinkSync(join(links, 'qrap'))).toBe(join(helpers, 'passel-qrap'));
  });
  it('never replace a directory', () => {
    mkdirSync(join(links, 'passt'), { recursive: true });
    expect(() => makeLinks(links, listDropIns(helpers), true)).toThrow(/there is a directory/);
  });
  it('cannot be made where there is a file', () => {
    writeFileSync(join(folder, 'a'), 'mine');
    expect(() => makeLinks(links, listDropIns(helpers), true)).toThrow(/cannot make/);
    expect(readFileSync(join(folder, 'a'), 'utf8')).toBe('mine');
  });
});

describe('a search path', () => {
  it('leads to ours, to another before ours, to another, or to nothing', () => {
    const other = join(folder, 'other');
    mkdirSync(other);
    writeFileSync(join(other, 'passt'), '');
    expect(findInPath('passt', [other], links)).toEqual({ kind: 'none' });
    chmodSync(join(other, 'passt'), 0o755);
    makeLinks(links, listDropIns(helpers), false);
    expect(findInPath('passt', [links, other], links)).toEqual({ kind: 'ours' });
    const path = join(other, 'passt');
    expect(findInPath('passt', [other, links], links)).toEqual({ kind: 'other', path, oursLater: true });
    expect(findInPath('passt', [other], links)).toEqual({ kind: 'other', path, oursLater: false });
  });
});
