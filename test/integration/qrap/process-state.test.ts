/** What QEMU finds when qrap has become it: pid, descriptors, signals, limits, environment, words; and nothing of ours. */
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { needCommand, requireOrSkip } from '../../support/netns/capabilities.ts';
import { needDebianQrap, needMounts, Place, type Report, type RunSettings, type Which } from './place.ts';

const describePlaces = await requireOrSkip(needMounts, needDebianQrap, needCommand('env', 'coreutils'));

describePlaces('QEMU behind qrap', () => {
  let place: Place;
  beforeAll(async () => {
    place = new Place();
    await place.addPasst();
    await place.ignoreInherited();
  });
  afterAll(() => place?.close());

  const reportOf = async (which: Which, words: readonly string[], settings: RunSettings = {}): Promise<Report> => {
    const { report, status, stderr } = await place.run(which, words, settings);
    if (report === undefined) throw new Error(`${which} qrap ended with ${status}: ${stderr}`);
    return report;
  };
  /** Both, but for their pids. */
  const expectAlike = async (words: readonly string[], settings: RunSettings): Promise<Report> => {
    const [ours, theirs] = await Promise.all([reportOf('ours', words, settings), reportOf('c', words, settings)]);
    expect({ ...ours, pid: 0, unread: 0 }).toEqual({ ...theirs, pid: 0, unread: 0 });
    return ours;
  };

  const odd: RunSettings = {
    before: 'ulimit -Sn 1000;',
    envOptions: [
      '--ignore-signal=HUP',
      '--ignore-signal=PIPE',
      '--ignore-signal=USR2',
      '--block-signal=USR1',
      '--block-signal=ALRM',
    ],
    redirections: '4</dev/null 9</dev/null 14>/dev/null 40</dev/null 100</dev/null',
    env: { LANG: 'C', EMPTY: '', 'odd.name': 'a=b\nc', PWD: '/nowhere', _: '/bin/x', NODE_OPTIONS: '--no-warnings' },
  };

  it('has the pid that was started, and its exit status is the one that is seen', async () => {
    for (const words of [
      ['5', 'kvm'],
      ['-m', '1'],
    ]) {
      const { pid, report, status } = await place.run('ours', words, { env: { FAKE_QEMU_STATUS: '42' } });
      expect(report?.pid).toBe(pid);
      expect(status).toBe(42);
    }
  });

  it('has the signals, limits, descriptors and environment that the caller gave, in their order', async () => {
    const report = await expectAlike(['5', 'kvm', 'x'], odd);
    expect(report).toMatchObject({ ignored: [1, 12, 13], blocked: [10, 14], fileLimit: 1000 });
    expect(Object.keys(report.fds)).toEqual(['0', '1', '2', '4', '5', '9', '14', '40', '100']);
  });

  it('has the same with nothing special about the caller', async () => {
    const report = await expectAlike(['5', 'kvm'], {});
    expect(report).toMatchObject({ ignored: [], blocked: [] });
    expect(Object.keys(report.fds)).toEqual(['0', '1', '2', '5']);
  });

  it('has closed what the caller closed', async () => {
    const { fds } = await expectAlike(['5', 'kvm'], { redirections: '<&- 2>&-' });
    expect(Object.keys(fds)).toEqual(['1', '5']);
  });

  it('has a file limit that is lower than the number of descriptors in use on the way', async () => {
    const report = await reportOf('ours', ['5', 'kvm'], { before: 'ulimit -Sn 8;' });
    expect(report.fileLimit).toBe(8);
    expect(Object.keys(report.fds)).toEqual(['0', '1', '2', '5']);
  });

  it.each([3, 4, 5, 6, 10, 17, 18, 19, 20, 21, 22, 23, 24, 25, 62])('has the socket as %i, blocking', async (fd) => {
    // In C, 3 is the number of the socket itself, which is then closed. In Node most of these are in use.
    const { fds } = await reportOf('ours', [String(fd), 'kvm']);
    expect(fds[fd]).toEqual({ kind: 'socket', nonBlocking: false });
    expect(Object.keys(fds)).toHaveLength(4);
  });

  it('gets the socket in place of what the caller had there', async () => {
    const { fds } = await expectAlike(['9', 'kvm'], { redirections: '9</dev/null 10</dev/null' });
    expect([fds[9]?.kind, fds[10]?.kind]).toEqual(['socket', 'device']);
  });

  it('finds no answer to our probe in front of its first frame', async () => {
    const env = { FAKE_QEMU_READ: '5' };
    const [ours, theirs] = await Promise.all([
      reportOf('ours', ['-m', '1'], { env }),
      reportOf('c', ['-m', '1'], { env }),
    ]);
    expect([ours.unread, theirs.unread]).toEqual([0, 46]);
  });

  it('gets words that are not UTF-8 as they are', async () => {
    const settings = { before: `set -- "$@" "$(printf 'a\\374\\377b')"; export FILE="$(printf '\\344')";` };
    const report = await expectAlike(['5', 'kvm'], { ...settings, envOptions: [] });
    expect(report.argv.at(-1)).toBe('a\u00fc\u00ffb');
  });

  it('is the same through a symbolic link, through PATH, and by the bundle alone', async () => {
    symlinkSync('/tmp/root/dist/helpers/passel-qrap', join(place.folder, 'bin/qrap'));
    for (const command of ['/tmp/bin/qrap', 'qrap']) {
      const { report, pid } = await place.runCommand([command, '7', 'kvm', 'x'], odd);
      expect(report).toMatchObject({ argv: ['kvm', 'x'], pid, ignored: [1, 12, 13] });
    }
    const bundle = await reportOf('bundle', ['7', 'kvm', 'x']);
    expect(Object.keys(bundle.fds)).toEqual(['0', '1', '2', '7']);
  });

  it('by the bundle alone, has the descriptors that the command line names', async () => {
    const words = ['-chardev', 'socket,id=m,fd=3', '-add-fd', 'fd=4,set=1'];
    const { fds } = await reportOf('bundle', words, { redirections: '3</dev/null 4</dev/null' });
    expect(Object.keys(fds)).toEqual(['0', '1', '2', '3', '4', '5']);
  });

  it('does not get our note, nor is one believed that is about another process', async () => {
    const { report } = await place.run('bundle', ['5', 'kvm'], { env: { PASSEL_INHERITED: '1 1 1 77 0-2' } });
    expect(report?.env).toEqual(['PATH=/tmp/bin']);
    expect([report?.ignored, report?.fileLimit === 77]).toEqual([[], false]);
  });

  it('runs a script without #! by the shell, as execvp(3) does', async () => {
    writeFileSync(join(place.folder, 'bin/plain'), 'exec /tmp/bin/kvm "$0" "$@"\n', { mode: 0o755 });
    const report = await expectAlike(['5', 'plain', 'a b'], {});
    expect(report.argv).toEqual(['/tmp/bin/kvm', '/tmp/bin/plain', 'a b']);
  });
});

describePlaces('the QEMU that is taken', () => {
  it.each([
    [['kvm', 'qemu-kvm', 'qemu-system-x86_64'], 'kvm'],
    [['qemu-kvm', 'qemu-system-x86_64'], 'qemu-kvm'],
    [['qemu-system-x86_64'], 'qemu-system-x86_64'],
  ])('of %j is %s, as in C', async (programs, expected) => {
    const place = new Place(programs);
    try {
      await place.addPasst();
      for (const which of ['ours', 'c'] as const) {
        expect((await place.run(which, ['-m', '1'])).report?.argv[0]).toBe(expected);
      }
    } finally {
      place.close();
    }
  });

  it('is the next one when kvm may not be executed, or is a folder, where C gives up', async () => {
    const place = new Place(['qemu-kvm']);
    try {
      await place.addPasst();
      writeFileSync(join(place.folder, 'bin/kvm'), '', { mode: 0o644 });
      expect((await place.run('ours', ['-m', '1'])).report?.argv[0]).toBe('qemu-kvm');
      expect((await place.run('c', ['-m', '1'])).status).toBe(1);
      mkdirSync(join(place.folder, 'bin2/kvm'), { recursive: true });
      const env = { PATH: '/tmp/bin2:/tmp/bin' };
      expect((await place.run('ours', ['-m', '1'], { env })).report?.argv[0]).toBe('qemu-kvm');
    } finally {
      place.close();
    }
  });
});

describe('the note of the front', () => {
  it('is read whole', async () => {
    const { parseInheritedState } = await import('../../../src/cli/qrap/inherited-state.ts');
    expect(parseInheritedState('7 1001 8000000000000000 1024 0-2,5,9-10', 7)).toEqual({
      ignoredSignals: [1, 13],
      blockedSignals: [64],
      fileLimit: 1024,
      fds: [0, 1, 2, 5, 9, 10],
    });
    expect(parseInheritedState('7 0 0 - ,', 7)).toMatchObject({ fileLimit: 0, fds: [] });
    expect(parseInheritedState('7 0 0 - -', 7).fds).toBeUndefined();
    for (const bad of [undefined, '', '8 0 0 - -', '7 0 0', '7 0 0 - x']) {
      expect(parseInheritedState(bad, 7)).toMatchObject({ ignoredSignals: [], fds: undefined });
    }
  });
});
