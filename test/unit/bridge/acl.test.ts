import { chmodSync, mkdirSync, mkdtempSync, openSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Acl, AclError, decideAcl, readAcl } from '../../../src/bridge/acl.ts';
import { AclSyntaxError, parseAclText, whyNoInterfaceName } from '../../../src/bridge/acl-text.ts';

const parse = (text: string) =>
  parseAclText(Buffer.from(text, 'latin1'), 'f').map(({ kind, argument }) => [kind, argument]);

describe('the text of an access list', () => {
  it('gives one rule a line, with its place', () => {
    expect(parseAclText(Buffer.from('# x\n\n allow br0\ndeny\tbr1 \r\ninclude /a b/c'), 'f')).toEqual([
      { kind: 'allow', argument: 'br0', file: 'f', line: 3 },
      { kind: 'deny', argument: 'br1', file: 'f', line: 4 },
      { kind: 'include', argument: '/a b/c', file: 'f', line: 5 },
    ]);
  });
  it('takes bytes for bytes', () => {
    expect(parse('allow br\xe9\n')).toEqual([['allow', 'br\xe9']]);
  });
  it('has no line too long', () => {
    expect(parse(`#${'x'.repeat(100_000)}\nallow br0`)).toEqual([['allow', 'br0']]);
  });
  it.each([
    'allow',
    'allow ',
    'Allow br0',
    'allowbr0',
    'allow br0 br1',
    'allow a/b',
    'deny a:b',
    'deny ..',
    'x',
    'include',
    'allow b\0r',
  ])('refuses %j, naming the line', (line) => {
    try {
      parse(`allow br0\n${line}\n`);
    } catch (error) {
      expect(error).toBeInstanceOf(AclSyntaxError);
      expect((error as AclSyntaxError).place).toEqual({ file: 'f', line: 2 });
      return;
    }
    expect.unreachable();
  });
  it('measures names in bytes', () => {
    expect(whyNoInterfaceName('a'.repeat(15))).toBeUndefined();
    expect(whyNoInterfaceName('a'.repeat(16))).toContain('16 bytes');
  });
});

describe('an access list', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'passel-acl-'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  const path = (name: string): string => join(folder, name);
  const write = (name: string, text: string, mode = 0o644): void => {
    writeFileSync(path(name), text);
    chmodSync(path(name), mode);
  };
  const read = (name = 'main'): Acl => readAcl(path(name));
  const failure = (name = 'main'): AclError => {
    try {
      readAcl(path(name));
    } catch (error) {
      if (error instanceof AclError) return error;
      throw error;
    }
    throw new Error('it was read');
  };

  it('grants what is allowed and not denied, wherever the rules stand', () => {
    write('main', `deny br1\ninclude ${path('more')}\nallow br0\n`);
    write('more', 'allow br1\nallow br2\n');
    const acl = read();
    expect(decideAcl(acl, 'br0')).toMatchObject({ granted: true, rule: { line: 3 } });
    expect(decideAcl(acl, 'br1')).toMatchObject({ granted: false, rule: { kind: 'deny' } });
    expect(decideAcl(acl, 'br2')).toMatchObject({ granted: true, rule: { file: path('more'), line: 2 } });
    expect(decideAcl(acl, 'br3')).toEqual({ granted: false, rule: undefined });
  });
  it('passes over an include that the user may not read, and no other failure', () => {
    write('main', `allow br0\ninclude ${path('theirs')}\n`);
    const acl = readAcl(path('main'), {
      open: (file) => {
        if (file === path('theirs')) throw Object.assign(new Error('EACCES'), { code: 'EACCES' });
        return openSync(file, 'r');
      },
    });
    expect(acl.passedOver).toMatchObject([{ kind: 'include', line: 2 }]);
    expect(failure()).toMatchObject({ place: `${path('main')}:2` });
  });
  it('refuses a loop, by the same name, another one or a link', () => {
    write('main', `include ${path('a')}\n`);
    write('a', `allow br0\ninclude ${path('b')}\n`);
    symlinkSync(path('main'), path('b'));
    expect(failure()).toMatchObject({ place: `${path('a')}:2`, message: `'${path('b')}' includes itself` });
  });
  it('refuses too many files within each other', () => {
    for (let i = 0; i < 20; i++) write(`f${i}`, `include ${path(`f${i + 1}`)}\n`);
    write('f20', 'allow br0\n');
    expect(failure('f0').message).toContain('more than 16 files');
  });
  it.each([
    [0o646, 'everybody can write it'],
    [0o666, 'everybody can write it'],
  ])('refuses mode %o unless told otherwise', (mode, reason) => {
    write('main', 'allow br0\n', mode);
    expect(failure().message).toBe(reason);
    expect(decideAcl(readAcl(path('main'), { trustWritable: true }), 'br0').granted).toBe(true);
  });
  it('refuses an include that others can write', () => {
    write('main', `include ${path('more')}\n`);
    write('more', 'allow br0\n', 0o666);
    expect(failure()).toMatchObject({ place: path('more') });
  });
  it('refuses a folder, a device and an endless file', () => {
    mkdirSync(path('folder'));
    expect(failure('folder').message).toBe('it is not a regular file');
    expect(() => readAcl('/dev/zero')).toThrow('it is not a regular file');
    write('long', `allow br0\n${'#'.repeat(1024 * 1024)}\n`);
    expect(failure('long').message).toContain('more than 1048576 bytes');
  });
  it('judges the file that it reads, not what takes its place', () => {
    write('main', 'allow br0\n');
    const acl = readAcl(path('main'), {
      open: (file) => {
        const fd = openSync(file, 'r');
        unlinkSync(file);
        write('main', 'allow br1\n', 0o666);
        return fd;
      },
    });
    expect(decideAcl(acl, 'br0').granted).toBe(true);
    expect(decideAcl(acl, 'br1').granted).toBe(false);
  });
});
