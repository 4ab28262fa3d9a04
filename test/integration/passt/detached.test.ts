/** The namespaces and the root directory that a stack has to itself, for each kind of user who starts one, and what must go on working. */
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { PROJECT_ROOT } from '../../support/native-tools.ts';
import { needNamespaces, needRoot, requireOrSkip } from '../../support/netns/capabilities.ts';
import { createHost, type Host } from '../../support/netns/host.ts';
import { waitUntil } from '../../support/netns/namespace.ts';
import { runProcess } from '../../support/netns/process.ts';
import { ScriptedGuest } from '../../support/scripted-guest.ts';
import { isDebianStack, stackCommand } from '../../support/stack-under-test.ts';

const NOBODY = ['--reuid', '65534', '--regid', '65534', '--clear-groups'];
const AS_NOBODY = ['setpriv', ...NOBODY, '--'];
const MAY_BIND = ['setpriv', ...NOBODY, '--inh-caps', '+net_bind_service', '--ambient-caps', '+net_bind_service', '--'];
const IN_USER_NAMESPACE = ['unshare', '-U', '-r', '--'];
/** Root of a user namespace in which a kind of namespace cannot be made. */
const without = (kind: string, ...rest: string[]): string[] => [
  ...IN_USER_NAMESPACE,
  ...['sh', '-c', `echo 0 > /proc/sys/user/max_${kind}_namespaces && exec "$@"`, 'sh', ...rest],
];
const POWERLESS = ['setpriv', '--securebits', '+noroot', '--inh-caps', '-all', '--bounding-set', '-all', '--'];

const KINDS = ['user', 'mnt', 'ipc', 'uts', 'pid', 'net'] as const;

const rootSuite = await requireOrSkip(needRoot);
const namespaceSuite = await requireOrSkip(needNamespaces);

interface Running {
  readonly pid: number;
  readonly path: string;
  readonly stderr: string;
}

describe.skipIf(isDebianStack())('a stack of its own', () => {
  let host: Host;
  let guest: ScriptedGuest | undefined;
  let pids: number[] = [];
  let serial = 0;
  beforeAll(async () => {
    host = await createHost();
  });
  afterEach(async () => {
    await guest?.close();
    guest = undefined;
    for (const pid of pids) if (existsSync(`/proc/${pid}`)) process.kill(pid, 'SIGKILL');
    pids = [];
  });
  afterAll(() => host?.close());

  /** Starts one that serves; in the foreground until it does, with the argument. */
  const start = async (prefix: readonly string[], ...extra: string[]): Promise<Running> => {
    const path = `${host.directory}/own-${serial++}`;
    const { command, args } = stackCommand();
    const [program = '', ...rest] = [...prefix, command, ...args, '-d', '-s', path, '-P', `${path}.pid`, ...extra];
    let stderr = '';
    if (extra.includes('-f')) {
      const child = host.spawn(program, rest, { stdio: ['ignore', 'ignore', 'pipe'] });
      child.stderr!.on('data', (chunk: Buffer) => {
        stderr += chunk.toString();
      });
      await waitUntil('the sandbox', () => stderr.includes('debug: sandbox'));
    } else {
      const result = await host.run(program, rest, { check: false });
      stderr = result.stderr;
      expect([result.status, stderr]).toEqual([0, expect.stringContaining('debug: sandbox')]);
    }
    const pid = Number(readFileSync(`${path}.pid`, 'latin1'));
    expect(pid).toBeGreaterThan(1);
    pids.push(pid);
    guest = await ScriptedGuest.connect(path);
    await guest.checkAlive();
    return { pid, path, stderr };
  };
  /** Kinds of namespaces that a process does not share with those who start stacks here. */
  const ownKinds = async (pid: number): Promise<string[]> => {
    const kinds: string[] = [];
    for (const kind of KINDS) {
      const { stdout } = await host.run('readlink', [`/proc/self/ns/${kind}`]);
      if (stdout.trim() !== readlinkSync(`/proc/${pid}/ns/${kind}`)) kinds.push(kind);
    }
    return kinds;
  };
  const stop = async ({ pid, path }: Running): Promise<void> => {
    process.kill(pid, 'SIGTERM');
    await waitUntil('the stack to end', () => !existsSync(`/proc/${pid}`));
    expect(existsSync(path)).toBe(false);
  };

  const starters: [string, string[], string[]][] = [
    ['root', [], ['mnt', 'ipc', 'uts']],
    ['an ordinary user', AS_NOBODY, ['user', 'mnt', 'ipc', 'uts']],
    // Its user namespace is made by the command that stands before it.
    ['root of a user namespace', IN_USER_NAMESPACE, ['user', 'mnt', 'ipc', 'uts']],
  ];
  for (const [starter, prefix, kinds] of starters)
    rootSuite(`started by ${starter}`, () => {
      const isAlone = (pid: number): void => {
        expect(readdirSync(`/proc/${pid}/root`)).toEqual([]);
        expect(readFileSync(`/proc/${pid}/mountinfo`, 'latin1')).toMatch(
          /^\S+ \S+ \S+ \/ \/ ro,[^\n]* - tmpfs [^\n]*\n$/,
        );
        const mayBind = 1n << 10n;
        for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapAmb', 'CapBnd']) {
          expect([set, capabilities(pid, set).map((value) => value & ~mayBind)]).toEqual([set, [0n]]);
        }
      };
      it('is in namespaces of its own, PID included, and in a root with nothing in it, in the background', async () => {
        const running = await start(prefix);
        expect(await ownKinds(running.pid)).toEqual([...kinds, 'pid']);
        isAlone(running.pid);
        expect(/^NSpid:\s+(.*)$/m.exec(readFileSync(`/proc/${running.pid}/status`, 'latin1'))?.[1]).toMatch(/\t1$/);
        await stop(running);
      });
      it('is so in the foreground too, but for its PID', async () => {
        const running = await start(prefix, '-f');
        expect(await ownKinds(running.pid)).toEqual(kinds);
        isAlone(running.pid);
        await stop(running);
      });
      it('has a PID that others can use, in its file, its log and its answers', async () => {
        const log = `${host.directory}/log-${serial}`;
        const control = `${host.directory}/control-${serial}`;
        const path = `${host.directory}/own-${serial++}`;
        const { command, args } = stackCommand();
        const [program = '', ...rest] = [...prefix, command, ...args, '-s', path, '-P', `${path}.pid`, '-l', log];
        await host.run(program, [...rest, '--conf-path', control]);
        const pid = Number(readFileSync(`${path}.pid`, 'latin1'));
        pids.push(pid);
        expect(readFileSync(`/proc/${pid}/cmdline`, 'latin1')).toContain(path);
        expect(readFileSync(log, 'latin1').split('\n')[0]).toContain(`(${pid})`);
        const ctl = [join(PROJECT_ROOT, 'dist/helpers/passel.cjs'), 'ctl', '-s', control, '--json', 'status'];
        expect(JSON.parse((await runProcess(process.execPath, ctl)).stdout)).toMatchObject({ pid });
        await stop({ pid, path, stderr: '' });
      });
    });

  rootSuite('with a low port to forward', () => {
    beforeAll(async () => {
      await host.sh('echo 1024 > /proc/sys/net/ipv4/ip_unprivileged_port_start');
    });
    it.each([
      ['root', []],
      ['a user who may bind it', MAY_BIND],
    ] as [string, string[]][])('has it when started by %s', async (_, prefix) => {
      const running = await start(prefix, '-t', '80');
      expect((await host.run('ss', ['-Hltn'])).stdout).toContain(':80 ');
      await stop(running);
    });
    it('says that an ordinary user may not have it', async () => {
      const { command, args } = stackCommand();
      const [program = '', ...rest] = [...AS_NOBODY, command, ...args, '-s', `${host.directory}/low`, '-t', '80'];
      const { status, stderr } = await host.run(program, rest, { check: false });
      expect([status, stderr]).toEqual([1, expect.stringContaining('EACCES')]);
    });
  });

  namespaceSuite('where namespaces are refused', () => {
    it.each([
      ['mount namespaces, to root of a user namespace', without('mnt')],
      ['user namespaces, to an ordinary user', without('user', ...POWERLESS)],
    ])('goes on without: %s', async (_, prefix) => {
      const running = await start(prefix, '-f');
      expect(running.stderr).toContain('namespaces are those of its caller');
      await stop(running);
    });
  });

  it('is told when PID 1 of its namespace is to end before it is ready, and leaves nothing', async () => {
    const path = `${host.directory}/early-${serial++}`;
    const { command, args } = stackCommand();
    for (const delayMs of [0, 20, 60]) {
      const child = host.spawn(command, [...args, '-q', '-s', path, '-P', `${path}.pid`], { stdio: 'ignore' });
      const ended = new Promise<number | null>((resolve) => child.once('exit', (status) => resolve(status)));
      await new Promise((resolve) => setTimeout(resolve, delayMs));
      child.kill('SIGTERM');
      // Not yet a launcher, told to end, or done before.
      const status = await ended;
      expect([null, 143, 0]).toContain(status);
      if (status === 0) process.kill(Number(readFileSync(`${path}.pid`, 'latin1')), 'SIGTERM');
      await waitUntil('nobody to be left', () => host.processes().length === 0);
      expect(existsSync(path)).toBe(false);
    }
  });
});

/** A set of capabilities, once for each different value that a thread has. */
function capabilities(pid: number, set: string): bigint[] {
  const values = readdirSync(`/proc/${pid}/task`).map((thread) => {
    const status = readFileSync(`/proc/${pid}/task/${thread}/status`, 'latin1');
    return new RegExp(`^${set}:\\s*(\\w+)$`, 'm').exec(status)?.[1] ?? '';
  });
  return [...new Set(values)].map((value) => BigInt(`0x${value}`));
}
