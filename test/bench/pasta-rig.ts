/**
 * A network namespace behind each of the programs that join one to a host: ours, ours without offloads, Debian's pasta, slirp4netns.
 * Each gets a host and a guest of its own, alike in everything else.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { PROJECT_ROOT } from '../support/native-tools.ts';
import { findCommand } from '../support/netns/capabilities.ts';
import { createHost, HOST_NET, type Host } from '../support/netns/host.ts';
import { createNamespace, type Namespace, waitUntil } from '../support/netns/namespace.ts';
import { exitStatus, runProcess, stopChild } from '../support/netns/process.ts';
import { describeProcess } from '../support/stack-process.ts';
import { createTapRig } from '../support/tap-stack/start.ts';
import { describeGuest, type NamespaceRig, SPLICED_TO_GUEST, SPLICED_TO_HOST, UDP_FORWARDED_PORT } from './measure.ts';
import type { Sample } from './statistics.ts';

/**
 * `ours-plain` is our stack and link with a tap that has no virtio-net header, without the command around them; `ours-bare` the same
 * with all offloads, and measured only if it is asked for.
 */
export const PASTA_STACKS = ['ours', 'ours-plain', 'debian', 'slirp4netns', 'ours-bare'] as const;
export type PastaStackName = (typeof PASTA_STACKS)[number];

const TAP = 'tap0';
/** As the pump has it by default. */
const TAP_QUEUE_FRAMES = 30_000;
const OURS = join(PROJECT_ROOT, 'dist/helpers/passel-pasta.cjs');
/** slirp4netns's addresses are its own: the guest's, and the host's loopback as the guest sees it. */
const SLIRP_GUEST = '10.0.2.100';
const SLIRP_HOST = '10.0.2.2';

/** Why a program cannot be measured here; empty: it can. */
export function missingReason(name: PastaStackName): string {
  if (name === 'ours') return existsSync(OURS) ? '' : 'passel-pasta is not built';
  if (isBare(name)) return '';
  const command = name === 'debian' ? 'pasta' : 'slirp4netns';
  return findCommand(command) === '' ? `${command} is not installed` : '';
}

/** pasta is a program of ordinary users: Debian's, started by root, hangs when it has become another user in its own way. */
const AS_USER = process.getuid?.() === 0 ? ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', '--'] : [];

function pastaCommand(name: PastaStackName): [string, string[]] {
  const [program, ...args] = [...AS_USER, ...(name === 'ours' ? [process.execPath, OURS] : ['pasta'])];
  return [program as string, args];
}

/** A host whose tun device that user may open. */
export async function createOpenHost(): Promise<Host> {
  const host = await createHost();
  if (AS_USER.length === 0) return host;
  const device = `${host.directory}/dev`;
  await host.sh(
    [
      `mkdir ${device}`,
      `mount -t tmpfs tmpfs ${device}`,
      `mknod -m 666 ${device}/tun c 10 200`,
      `mount --bind ${device}/tun /dev/net/tun`,
    ].join('\n'),
  );
  return host;
}

/** Builds the rig of one program at one MTU. @throws when the program does not come up */
export async function createPastaRig(name: PastaStackName, mtu: number): Promise<NamespaceRig> {
  if (isBare(name)) return await createBareRig(name, mtu);
  const host = await createOpenHost();
  let guest: Namespace | undefined;
  let child: ChildProcess | undefined;
  const close = async (): Promise<void> => {
    if (child !== undefined) await stopChild(child);
    await guest?.close();
    await host.close();
  };
  try {
    if (name === 'slirp4netns') {
      guest = await createNamespace('guest');
      child = await startSlirp(host, guest, mtu);
    } else {
      [child, guest] = await startPasta(name, host, mtu);
    }
    await lengthenQueue(guest, TAP);
    return {
      ...describeRig(name, host, guest, TAP, child.pid as number, guest.pid),
      hostSeenByGuest: name === 'slirp4netns' ? SLIRP_HOST : HOST_NET.gatewayV4,
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Whether it is a stack without a command, which can neither splice nor be started. */
export function isBare(name: PastaStackName): boolean {
  return name === 'ours-plain' || name === 'ours-bare';
}

async function createBareRig(name: PastaStackName, mtu: number): Promise<NamespaceRig> {
  const rig = await createTapRig({ mtu, offloads: name === 'ours-bare', udpPorts: [UDP_FORWARDED_PORT] });
  await lengthenQueue(rig.guest, rig.tapName);
  const pid = rig.process.child.pid as number;
  return { ...describeRig(name, rig.host, rig.guest, rig.tapName, pid, rig.guest.pid), close: () => rig.close() };
}

/** @param holder - the process that keeps the guest's namespace, which is no part of the stack */
function describeRig(
  name: string,
  host: Host,
  guest: Namespace,
  tap: string,
  pid: number,
  holder: number,
): Omit<NamespaceRig, 'close'> {
  return {
    stackName: name,
    host,
    ...describeGuest(guest),
    hostSeenByGuest: HOST_NET.gatewayV4,
    // Not its loopback address, from where a connection would be spliced.
    guestSeenByHost: HOST_NET.hostV4,
    stack: {
      cpuSeconds: () => sumOver(pid, holder, (one) => describeProcess(one).cpuSeconds()),
      rssBytes: () => sumOver(pid, holder, (one) => describeProcess(one).rssBytes()),
      peakBytes: () => sumOver(pid, holder, (one) => describeProcess(one).peakBytes()),
    },
    countDrops: async () => readDrops(guest, tap),
  };
}

/** Both directions' drops and errors of an interface. */
function readDrops(namespace: Namespace, name: string): number {
  const line = readFileSync(`/proc/${namespace.pid}/net/dev`, 'utf8')
    .split('\n')
    .find((text) => text.trim().startsWith(`${name}:`));
  if (line === undefined) throw new Error(`the guest has no ${name}`);
  const fields = line
    .slice(line.indexOf(':') + 1)
    .trim()
    .split(/\s+/)
    .map(Number);
  return fields[2]! + fields[3]! + fields[10]! + fields[11]!;
}

/**
 * Room for as many frames in the tap as the pump's has: with the usual 500 or 1000 the namespace drops its own frames, and the rig would
 * measure how its TCP takes that.
 */
function lengthenQueue(guest: Namespace, tap: string): Promise<unknown> {
  return guest.sh(`ip link set ${tap} txqueuelen ${TAP_QUEUE_FRAMES}`);
}

/** A process and all that descend from it, less `holder`. */
function listFamily(pid: number, holder: number): number[] {
  const parents = new Map<number, number>();
  for (const one of listProcesses()) {
    try {
      const stat = readFileSync(`/proc/${one}/stat`, 'utf8');
      if (one !== holder) parents.set(one, Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]));
    } catch {
      // Gone meanwhile.
    }
  }
  const family = [pid];
  for (let i = 0; i < family.length; i++) {
    for (const [child, parent] of parents) if (parent === family[i]) family.push(child);
  }
  return family;
}

function sumOver(pid: number, holder: number, value: (one: number) => number): number {
  return listFamily(pid, holder).reduce((sum, one) => sum + value(one), 0);
}

/** pasta with a namespace of its own making, which is the only way that works for all of them and every user. */
async function startPasta(name: PastaStackName, host: Host, mtu: number): Promise<[ChildProcess, Namespace]> {
  const [command, args] = pastaCommand(name);
  const mark = `${1_000_000 + Math.floor(Math.random() * 1_000_000)}`;
  const child = host.spawn(
    command,
    [
      ...args,
      ...['--foreground', '--config-net', '--ns-ifname', TAP, '--mtu', String(mtu)],
      // Debian's, of 2023, knows no other way.
      ...(name === 'debian' ? [] : ['--host-lo-to-ns-lo']),
      ...['-t', String(SPLICED_TO_GUEST), '-u', `${UDP_FORWARDED_PORT},${SPLICED_TO_GUEST}`],
      ...['-T', String(SPLICED_TO_HOST), '-U', 'none', 'sleep', mark],
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  const output = collectOutput(child);
  const findHolder = (): number | undefined => listProcesses().find((pid) => readCommand(pid) === `sleep ${mark} `);
  await waitUntil('the command of pasta', () => findHolder() !== undefined || child.exitCode !== null, 15_000);
  const pid = findHolder();
  if (pid === undefined) throw new Error(`it ended with status ${child.exitCode}: ${output()}`);
  // Debian's leaves the command behind when it is ended, as the first process of a PID namespace, which SIGTERM does not end.
  const close = async (): Promise<void> => {
    if (readCommand(pid) === `sleep ${mark} `) process.kill(pid, 'SIGKILL');
  };
  const guest = { ...describeNamespace(pid), close };
  try {
    await waitForTap(child, output, guest, HOST_NET.hostV4);
  } catch (error) {
    await close();
    throw error;
  }
  return [child, guest];
}

/** The namespace of a process that others have started. */
function describeNamespace(pid: number): Namespace {
  const isRoot = process.getuid?.() === 0;
  const enter = (command: string, args: readonly string[]): [string, string[]] => {
    const user = isRoot ? [] : ['-U', '--preserve-credentials'];
    return ['nsenter', ['-t', String(pid), '-n', ...user, '--', command, ...args]];
  };
  const run: Namespace['run'] = (command, args, options) => runProcess(...enter(command, args), options);
  return {
    name: 'guest',
    pid,
    enter,
    run,
    sh: (script, options) => run('sh', ['-e', '-c', script], options),
    spawn: (command, args, options = {}) => spawn(...enter(command, args), options),
    processes: () => [],
    close: async () => {},
  };
}

function listProcesses(): number[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .map(Number);
}

function readCommand(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
  } catch {
    return '';
  }
}

function collectOutput(child: ChildProcess): () => string {
  let output = '';
  const collect = (chunk: Buffer): void => {
    output += chunk.toString();
  };
  child.stdout?.on('data', collect);
  child.stderr?.on('data', collect);
  return () => output;
}

async function startSlirp(host: Host, guest: Namespace, mtu: number): Promise<ChildProcess> {
  const api = join(host.directory, 'slirp.socket');
  const child = host.spawn(
    'slirp4netns',
    [
      ...['--configure', `--mtu=${mtu}`, '--api-socket', api, '--netns-type=path'],
      ...[`/proc/${guest.pid}/ns/net`, TAP],
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  await waitForTap(child, collectOutput(child), guest, SLIRP_GUEST);
  await waitUntil('slirp4netns to listen', () => existsSync(api));
  await askSlirp(api, {
    execute: 'add_hostfwd',
    arguments: { proto: 'udp', host_addr: '0.0.0.0', host_port: UDP_FORWARDED_PORT, guest_port: UDP_FORWARDED_PORT },
  });
  return child;
}

function askSlirp(path: string, request: object): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(path, () => socket.end(JSON.stringify(request)));
    let answer = '';
    socket.on('data', (chunk: Buffer) => {
      answer += chunk.toString();
    });
    socket.on('error', reject);
    socket.on('close', () => (answer.includes('error') ? reject(new Error(answer)) : resolve()));
  });
}

async function waitForTap(child: ChildProcess, output: () => string, guest: Namespace, address: string): Promise<void> {
  const isUp = async (): Promise<boolean> => {
    if (child.exitCode !== null) throw new Error(`it ended with status ${child.exitCode}: ${output()}`);
    const { stdout } = await guest.run('ip', ['-4', 'addr', 'show', 'dev', TAP, 'up'], { check: false });
    return stdout.includes(address);
  };
  const end = Date.now() + 15_000;
  while (!(await isUp())) {
    if (Date.now() > end) throw new Error(`its tap did not come up: ${output()}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  // The default route is the last thing that is configured.
  await waitUntil('the default route', () => /\t00000000\t/.test(readFileSync(`/proc/${guest.pid}/net/route`, 'utf8')));
}

/** Milliseconds until a command in a new namespace has run: with slirp4netns, until it says that its tap is ready. */
export async function measurePastaStartup(name: PastaStackName, host: Host): Promise<Sample> {
  if (name === 'slirp4netns') return await measureSlirpStartup(host);
  const [command, args] = pastaCommand(name);
  const [program, all] = host.enter(command, [...args, '--config-net', '--quiet', '--', 'true']);
  const start = performance.now();
  const status = await new Promise<number>((resolve, reject) => {
    const child = spawn(program, all, { stdio: 'ignore' });
    child.on('error', reject);
    child.on('exit', (code, signal) => resolve(exitStatus(code, signal)));
  });
  if (status !== 0) throw new Error(`${name} ended with status ${status}`);
  return { value: performance.now() - start };
}

async function measureSlirpStartup(host: Host): Promise<Sample> {
  const guest = await createNamespace('guest');
  try {
    const args = ['--configure', '--ready-fd=3', '--netns-type=path', `/proc/${guest.pid}/ns/net`, TAP];
    const [program, all] = host.enter('slirp4netns', args);
    const start = performance.now();
    const child = spawn(program, all, { stdio: ['ignore', 'ignore', 'ignore', 'pipe'] });
    await new Promise<void>((resolve, reject) => {
      child.stdio[3]!.once('data', () => resolve());
      child.once('exit', () => reject(new Error('slirp4netns did not start')));
    });
    const value = performance.now() - start;
    child.removeAllListeners('exit');
    await stopChild(child);
    return { value };
  } finally {
    await guest.close();
  }
}
