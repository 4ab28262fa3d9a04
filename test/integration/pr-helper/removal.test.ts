/** The sockets of a helper that has become another user: removed at its end from directories that it may not write to. */
import { spawn } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { PROJECT_ROOT } from '../../support/native-tools.ts';
import { needCommand, needRoot, requireOrSkip } from '../../support/netns/capabilities.ts';
import { waitUntil } from '../../support/netns/process.ts';
import type { HelperProcess } from '../../support/pr-helper/programs.ts';
import { PROGRAMS } from '../../support/pr-helper/programs.ts';
import { startHelper } from '../../support/pr-helper/start.ts';
import { needRawIo } from './need-raw-io.ts';

const describeSuite = await requireOrSkip(needRoot, needRawIo, needCommand('setpriv', 'util-linux'));
const REMOVER = join(PROJECT_ROOT, 'dist/native/remover');
const NOBODY = 65534;

let folder: string;
let socket: string;
let helpers: HelperProcess[];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'passel-pr-'));
  chmodSync(folder, 0o755);
  // A name by which its remover is found.
  socket = join(folder, `${basename(folder)}.sock`);
  helpers = [];
});
afterEach(async () => {
  for (const helper of helpers) await helper.end('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

async function start(args: readonly string[] = [], command?: readonly string[]): Promise<HelperProcess> {
  const helper = await startHelper('ours', socket, args, command);
  helpers.push(helper);
  return helper;
}

/** Processes that remove this test's socket. */
function findRemovers(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
        return words[0] === REMOVER && words[1] === basename(socket);
      } catch {
        return false;
      }
    });
}

const noRemovers = (): Promise<void> => waitUntil('the remover to be gone', () => findRemovers().length === 0, 20_000);

describeSuite('the sockets of passel-pr-helper', () => {
  it.each([
    ['of root', 0, 0o755, ['-u', 'nobody']],
    ['of root that nobody else may look into', 0, 0o700, ['-u', 'nobody', '-g', 'nogroup']],
    ['that is sticky', 0, 0o1777, ['-u', 'nobody']],
    ['of another user, as root without capabilities', 4242, 0o755, []],
  ])('go with it from a directory %s', async (_what, owner, mode, args) => {
    chmodSync(folder, mode);
    chownSync(folder, owner, owner);
    const control = join(folder, 'control');
    const helper = await start([...args, '--conf-path', control]);
    expect(findRemovers()).toHaveLength(1);
    expect(await helper.end()).toBe(0);
    expect(helper.stderr()).toBe('');
    expect([socket, control].filter((path) => existsSync(path))).toEqual([]);
    await noRemovers();
  });

  it.each([
    ['of root, as root', 0, 0o755, []],
    ['of the user that it becomes', NOBODY, 0o755, ['-u', 'nobody']],
    ['that everybody may write to', 0, 0o777, ['-u', 'nobody']],
  ])('need no other process in a directory %s', async (_what, owner, mode, args) => {
    chmodSync(folder, mode);
    chownSync(folder, owner, owner);
    const helper = await start(args);
    expect(findRemovers()).toEqual([]);
    expect(await helper.end()).toBe(0);
    expect(existsSync(socket)).toBe(false);
  });

  it('are removed by a process that can do little else, and that holds nothing open', async () => {
    const inherited = ['sh', '-c', 'exec 9< /etc/passwd; exec "$0" "$@"'];
    const helper = await start(['-u', 'nobody'], inherited);
    expect(readlinkSync(`/proc/${helper.pid}/fd/9`)).toBe('/etc/passwd');
    const [pid] = findRemovers();
    const status = readFileSync(`/proc/${pid}/status`, 'latin1');
    // CAP_DAC_OVERRIDE and CAP_FOWNER.
    for (const set of ['CapPrm', 'CapEff']) expect(status).toMatch(new RegExp(`^${set}:\t000000000000000a$`, 'm'));
    expect(status).toMatch(/^NoNewPrivs:\t1$/m);
    expect(readlinkSync(`/proc/${pid}/cwd`)).toBe('/');
    const open = readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`).replace(/\d+/, 'N'));
    expect(open.sort()).toEqual(['/dev/null', '/dev/null', '/dev/null', folder.replace(/\d+/, 'N'), 'socket:[N]']);
    expect(readFileSync(`/proc/${helper.pid}/task/${helper.pid}/children`, 'utf8')).toBe('');
    expect(await helper.end()).toBe(0);
  });

  it('stay behind when the helper is killed, which ends the other process too, and are replaced by the next one', async () => {
    const helper = await start(['-u', 'nobody']);
    expect(await helper.end('SIGKILL')).toBe(137);
    await noRemovers();
    expect(existsSync(socket)).toBe(true);
    const next = await start(['-u', 'nobody']);
    expect(await next.end()).toBe(0);
    expect(existsSync(socket)).toBe(false);
  });

  it('stay behind, with a warning, when the other process has been ended, and are replaced by the next one', async () => {
    const helper = await start(['-u', 'nobody']);
    for (const pid of findRemovers()) process.kill(pid, 'SIGKILL');
    await noRemovers();
    expect(await helper.end()).toBe(0);
    expect(helper.stderr()).toMatch(/the socket stays behind: EACCES/);
    const next = await start();
    expect(await next.end()).toBe(0);
    expect(existsSync(socket)).toBe(false);
  });

  it('go although signals reach both processes, as from a service manager', async () => {
    const helper = await start(['-u', 'nobody']);
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
      for (const pid of findRemovers()) process.kill(pid, signal);
    }
    expect(await helper.end()).toBe(0);
    expect(helper.stderr()).toBe('');
    expect(existsSync(socket)).toBe(false);
  });

  it('are not left by a start that fails, nor is the other process', async () => {
    const args = ['-k', socket, '-u', 'nobody'];
    const child = spawn('setpriv', ['--bounding-set', '-setgid', PROGRAMS.ours, ...args], { stdio: 'ignore' });
    const status = await new Promise((resolve) => child.once('exit', resolve));
    expect(status).toBe(1);
    expect(existsSync(socket)).toBe(false);
    await noRemovers();
  });
});
