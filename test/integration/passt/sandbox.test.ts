/** The sandbox: what the real executable looks like from outside, and each barrier tried from inside. */
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { PROJECT_ROOT } from '../../support/native-tools.ts';
import { needNamespaces, needRoot, requireOrSkip } from '../../support/netns/capabilities.ts';
import { createHost, type Host } from '../../support/netns/host.ts';
import { waitUntil } from '../../support/netns/namespace.ts';
import { rigSuite } from '../../support/rig-suite.ts';
import { type Agent, buildAgent, type Starter } from '../../support/sandboxed/start.ts';
import { ScriptedGuest } from '../../support/scripted-guest.ts';
import { type StackProcess, startStack } from '../../support/stack-process.ts';
import { isDebianStack, type StackCommand, stackCommand } from '../../support/stack-under-test.ts';

const EPERM = -1;

/** The program without its front. */
const BUNDLE: StackCommand = {
  name: 'ours',
  command: process.execPath,
  args: [join(PROJECT_ROOT, 'dist/helpers/passel-passt.cjs')],
};
const ENOSYS = -38;

/** A field of /proc/PID/task/TID/status, once for each different value that a thread has. */
function valuesOf(pid: number, field: string): string[] {
  const values = readdirSync(`/proc/${pid}/task`).map((thread) => {
    const status = readFileSync(`/proc/${pid}/task/${thread}/status`, 'latin1');
    return new RegExp(`^${field}:\\s*(.*)$`, 'm').exec(status)?.[1] ?? '';
  });
  return [...new Set(values)];
}

/** Whether all threads have the sandbox's filter, which comes upon the one that Node is started with. */
function isFiltered(pid: number): boolean {
  return valuesOf(pid, 'Seccomp_filters').join() === '2';
}

const rootSuite = await requireOrSkip(needRoot);
const namespaceSuite = await requireOrSkip(needNamespaces);
const oursOnly = isDebianStack() ? describe.skipIf(true) : rigSuite;

oursOnly('the executable', () => {
  let host: Host;
  let stack: StackProcess | undefined;
  let guest: ScriptedGuest | undefined;
  let serial = 0;
  beforeAll(async () => {
    host = await createHost();
  });
  afterEach(async () => {
    await guest?.close();
    await stack?.stop();
    guest = undefined;
    stack = undefined;
  });
  afterAll(() => host?.close());

  const start = async (...args: string[]): Promise<{ stack: StackProcess; path: string }> => {
    const path = `${host.directory}/confined-${serial++}`;
    stack = startStack(host, stackCommand(), ['--foreground', '--socket', path, ...args]);
    guest = await ScriptedGuest.connect(path);
    await guest.checkAlive();
    return { stack, path };
  };

  it('has no new privileges, no capabilities and a filter in each of its threads', async () => {
    const { stack } = await start();
    await waitUntil('the filter', () => isFiltered(stack.pid));
    expect(readdirSync(`/proc/${stack.pid}/task`).length).toBeGreaterThan(4);
    expect(valuesOf(stack.pid, 'NoNewPrivs')).toEqual(['1']);
    const allowed = 1n << 10n;
    for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapAmb']) {
      for (const value of valuesOf(stack.pid, set)) expect([set, BigInt(`0x${value}`) & ~allowed]).toEqual([set, 0n]);
    }
  });
  it('writes its PID file and is confined when its launcher ends', async () => {
    const path = `${host.directory}/confined-${serial++}`;
    const { command, args } = stackCommand();
    const started = await host.run(command, [...args, '--socket', path, '--pid', `${path}.pid`], { check: false });
    expect(started).toMatchObject({ status: 0, stderr: expect.not.stringContaining('sandbox') });
    const pid = Number(readFileSync(`${path}.pid`, 'latin1'));
    expect(isFiltered(pid)).toBe(true);
    guest = await ScriptedGuest.connect(path);
    await guest.checkAlive();
    process.kill(pid, 'SIGTERM');
    await waitUntil('the daemon to end', () => !existsSync(`/proc/${pid}`));
  });
  it('keeps its log below the limit, and records frames, with nothing but what it had open', async () => {
    const log = `${host.directory}/confined.log`;
    const pcap = `${host.directory}/confined.pcap`;
    const { stack } = await start('--trace', '--log-file', log, '--log-size', '4096', '--pcap', pcap);
    for (let i = 0; i < 40; i++) await guest!.checkAlive();
    await stack.stop();
    const text = readFileSync(log, 'latin1');
    expect(text.length).toBeLessThanOrEqual(4096);
    expect(text.split('\n')[0]).toContain('passel-passt');
    expect(text).toContain('stopping');
    expect(readFileSync(pcap).length).toBeGreaterThan(40 * 2 * 40);
  });
  it('survives SIGUSR1, on which Node would open its debugger', async () => {
    const { stack } = await start();
    stack.child.kill('SIGUSR1');
    await guest!.checkAlive();
    expect(stack.running()).toBe(true);
    expect(stack.output()).not.toContain('Debugger');
  });
  it('says loudly that --no-sandbox leaves it open', async () => {
    const { stack } = await start('--no-sandbox', '--quiet');
    expect(stack.output()).toContain('--no-sandbox');
    expect(valuesOf(stack.pid, 'Seccomp')).toEqual(['0']);
  });
});

(isDebianStack() ? describe.skipIf(true) : rootSuite)('the executable, started as root', () => {
  let host: Host;
  beforeAll(async () => {
    host = await createHost();
  });
  afterAll(() => host?.close());
  it.each([['nobody'], ['root']])('has an empty root and next to no bounding set, as %s', async (user) => {
    const path = `${host.directory}/as-${user}`;
    // Started by its front it would have left all file systems: this is what is left to do without.
    const stack = startStack(host, BUNDLE, ['--foreground', '--socket', path, '--runas', user]);
    await waitUntil('the filter', () => valuesOf(stack.pid, 'Seccomp').join() === '2');
    for (const value of valuesOf(stack.pid, 'CapBnd')) expect(BigInt(`0x${value}`) & ~(1n << 10n)).toBe(0n);
    expect(readlinkSync(`/proc/${stack.pid}/root`)).toMatch(/\(deleted\)$/);
    expect(readlinkSync(`/proc/${stack.pid}/cwd`)).toMatch(/\(deleted\)$/);
    expect(await stack.stop()).toBe(0);
    // Anybody may remove files in that folder: by the name that was sealed before the root was left, this process can.
    expect(existsSync(path)).toBe(false);
  });
});

describe('from inside the sandbox', () => {
  let agent: Agent;
  beforeAll(async () => {
    agent = await buildAgent();
  });
  afterAll(() => agent?.close());

  const barriers = (starter: Starter): void => {
    const attempt = (name: string): unknown => agent.attempt(name, starter).answer;

    it('no file can be opened, made, moved or removed', () => {
      expect(attempt('files')).toEqual({
        ...{ read: 'EACCES', create: 'EACCES', list: 'EACCES' },
        ...{ rename: 'EPERM', link: 'EPERM', mkdir: 'EPERM', chmod: 'EPERM', remove: 'EPERM', removeFolder: 'EPERM' },
        ...{ removeAt: EPERM, removeSealedByOtherPointer: EPERM },
      });
    });
    it('the own socket file can be removed, and its name not be changed', () => {
      expect(attempt('sealed')).toEqual({
        ...{ write: EPERM, unmap: EPERM, unmapAround: EPERM, unmapFromBefore: EPERM, replace: EPERM, move: EPERM },
        ...{ replaceElsewhere: true, unmapElsewhere: 0, removed: 0 },
      });
    });
    it('no process can be started, looked for or signalled', () => {
      expect(attempt('processes')).toEqual({
        ...{ fork: EPERM, clone3: ENOSYS, pidfd: EPERM, signalAll: EPERM, signalParentsThread: EPERM },
        ...{ signalParent: 'EPERM', signalSelf: 'possible' },
      });
      expect(attempt('spawn')).toBe('EPERM');
    });
    it('sockets are TCP, UDP and ping only, and cannot be made to do more', () => {
      expect(attempt('sockets')).toEqual({
        ...{ tcp4: true, tcp6: true, udp4: true, udp6: true, noDelay: 0 },
        ...{ unix: EPERM, netlink: EPERM, packet: EPERM, alg: EPERM, vsock: EPERM, raw: EPERM, raw6: EPERM },
        ...{ sctp: EPERM, mptcp: EPERM, listen: EPERM },
        ...{ attachFilter: EPERM, upperProtocol: EPERM, otherLevel: EPERM, owner: EPERM, terminalInput: EPERM },
      });
    });
    it('no memory becomes executable but what V8 has for code', () => {
      expect(attempt('memory')).toEqual({
        ...{ data: true, readExecute: EPERM, writeExecute: EPERM, makeExecutable: EPERM, makeExecutableByKey: EPERM },
        ...{ makeExecutableOutOfCode: EPERM, makeExecutableBeforeCode: EPERM },
      });
    });
    it('no identity, capability or kernel facility can be had', () => {
      expect(attempt('privileges')).toEqual({
        setuid: 'EPERM',
        ...{ capset: EPERM, prctl: EPERM, memfd: EPERM, ioUring: EPERM, hostname: EPERM },
      });
    });
    it('Node lives on: timers, signals, threads, compiled code, garbage, the log', () => {
      expect(attempt('life')).toEqual({
        ...{ timer: 'timer', signal: 'SIGUSR2', pooled: true, refused: 'ECONNREFUSED', bytes: 100_000 },
        ...{ date: '01/01/1970, 00:00:00', garbage: true },
      });
    });
  };

  describe('entered as it is', () => {
    barriers('as it is');
    it.each([
      ...['execve', 'execveat', 'ptrace', 'process_vm_writev', 'mount', 'unshare', 'setns', 'bpf', 'init_module'],
      ...['chroot', ...(process.arch === 'x64' ? ['foreign ABI'] : [])],
    ])('%s ends the process', (name) => {
      expect(agent.attempt(name)).toMatchObject({ signal: 'SIGSYS', answer: undefined });
    });
    it('the exit status is passed on, and a fault is still told', () => {
      expect(agent.attempt('exit')).toMatchObject({ status: 42 });
      expect(agent.attempt('crash')).toMatchObject({ status: 1, stderr: expect.stringContaining('as expected') });
      expect(agent.attempt('abort')).toMatchObject({ signal: 'SIGABRT' });
    });
    it('is what makes the difference: the same is possible without', () => {
      const attempt = (name: string): unknown => agent.attempt(name, 'as it is, without the sandbox').answer;
      expect(attempt('files')).toMatchObject({ create: 'possible', rename: 'possible', mkdir: 'possible' });
      expect(attempt('processes')).toMatchObject({ signalParent: 'possible', signalParentsThread: 0 });
      const { unix, netlink, listen, otherLevel } = attempt('sockets') as Record<string, number>;
      expect([unix! > 0, netlink! > 0, listen, otherLevel]).toEqual([true, true, 0, -92]);
      const { readExecute, makeExecutable } = attempt('memory') as Record<string, number>;
      expect([readExecute! > 0, makeExecutable]).toEqual([true, 0]);
      expect(attempt('privileges')).toMatchObject({ prctl: 0 });
    });
  });
  rootSuite('entered as an ordinary user', () => barriers('as an ordinary user'));
  rootSuite('entered from namespaces of its own', () => barriers('detached'));
  namespaceSuite('entered from namespaces of its own, as an ordinary user', () =>
    barriers('detached, as an ordinary user'),
  );
  namespaceSuite('entered in a user namespace', () => barriers('in a user namespace'));
});
