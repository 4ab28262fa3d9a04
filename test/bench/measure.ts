/** One measurement each: traffic over a rig, and what it cost the stack. */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Host } from '../support/netns/host.ts';
import type { Namespace } from '../support/netns/namespace.ts';
import { exitStatus, waitUntil } from '../support/netns/process.ts';
import { type PeerOptions, type PeerResults, runPeer, startListener, type TcpResult } from '../support/peer.ts';
import { describeProcess } from '../support/stack-process.ts';
import type { StackCommand } from '../support/stack-under-test.ts';
import type { Sample } from './statistics.ts';

const TCP_PORT = 5001;

/** UDP port that a rig for {@link measureUdpToGuest} must forward. */
export const UDP_FORWARDED_PORT = 6001;

/** Direction of the payload: `tx` from guest to host, `rx` from host to guest. */
export type Direction = 'tx' | 'rx';

/** A stack at work between a host and a guest, and what can be read off it. */
export interface BenchRig {
  readonly stackName: string;
  readonly host: Namespace;
  /** Runs a peer to its end in the guest. */
  runInGuest<M extends 'connect' | 'rr' | 'crr' | 'udp-stream'>(mode: M, options: PeerOptions): Promise<PeerResults[M]>;
  /** The guest's name for the host's loopback: passt's and pasta's default is the gateway. */
  readonly hostSeenByGuest: string;
  /** Of all processes that the stack consists of. */
  readonly stack: StackReadings;
  /** Segments that crossed the link more than once: the guest's own retransmissions, and what it got though it had it. */
  countResent(): Promise<number>;
  /** Frames lost between guest and stack. */
  countDrops(): Promise<number>;
  close(): Promise<void>;
}

/** What /proc says of a stack's processes together. */
export interface StackReadings {
  cpuSeconds(): number;
  rssBytes(): number;
  /** The greatest resident set so far. */
  peakBytes(): number;
}

/** A rig whose guest is a network namespace of this machine. */
export interface NamespaceRig extends BenchRig {
  readonly guest: Namespace;
  /** Where the host reaches the guest's forwarded ports. */
  readonly guestSeenByHost: string;
}

/** What both kinds of rig with a namespace share. */
export function describeGuest(guest: Namespace): Pick<NamespaceRig, 'guest' | 'runInGuest' | 'countResent'> {
  return {
    guest,
    runInGuest: (mode, options) => runPeer(guest, mode, options),
    countResent: async () => {
      const [snmp, netstat] = ['snmp', 'netstat'].map((file) => readFileSync(`/proc/${guest.pid}/net/${file}`, 'utf8'));
      return countResent(`${snmp}${netstat}`);
    },
  };
}

/** @param tables - /proc/net/snmp and /proc/net/netstat of the guest */
export function countResent(tables: string): number {
  return readCounter(tables, 'Tcp', 'RetransSegs') + readCounter(tables, 'TcpExt', 'DelayedACKLost');
}

/** A counter of a table of two lines, names and values, each with the table's name in front; 0: there is none. */
function readCounter(tables: string, table: string, name: string): number {
  const lines = tables.split('\n').filter((line) => line.startsWith(`${table}: `));
  const [names, values] = lines.map((line) => line.split(' '));
  return Number(values?.[names?.indexOf(name) ?? -1] ?? 0);
}

/** Runs `traffic` and adds what it cost. */
async function withCosts(
  rig: BenchRig,
  traffic: () => Promise<{ value: number; bytes: number } & Partial<Sample>>,
): Promise<Sample> {
  const resentBefore = await rig.countResent();
  const dropsBefore = await rig.countDrops();
  const cpuBefore = rig.stack.cpuSeconds();
  const { bytes, ...sample } = await traffic();
  const cpuSeconds = rig.stack.cpuSeconds() - cpuBefore;
  return {
    retransmits: (await rig.countResent()) - resentBefore,
    drops: (await rig.countDrops()) - dropsBefore,
    ...(bytes > 0 ? { cpuSecondsPerGb: (cpuSeconds / bytes) * 2 ** 30 } : {}),
    rssMib: rig.stack.rssBytes() / 2 ** 20,
    ...sample,
  };
}

/**
 * TCP throughput in Gbit/s, from the first byte received to the last. Received bytes are discarded in the kernel, and not
 * looked at: what the ends do not spend is there for the stack.
 */
export function measureTcp(rig: BenchRig, direction: Direction, seconds: number, streams = 1): Promise<Sample> {
  return withCosts(rig, async () => {
    const sender: PeerOptions = { duration: seconds };
    const receiver: PeerOptions = { finish: 'wait' };
    const common: PeerOptions = { port: TCP_PORT, 'no-verify': true, timeout: seconds + 15 };
    const [atGuest, atHost] = direction === 'tx' ? [sender, receiver] : [receiver, sender];
    const server = await startListener(rig.host, 'listen', { ...common, ...atHost, accept: streams });
    const client = await rig.runInGuest('connect', {
      ...common,
      ...atGuest,
      addr: rig.hostSeenByGuest,
      count: streams,
    });
    const received = direction === 'rx' ? client : await endListener(server);
    if (direction === 'rx') await endListener(server);
    return { value: (received.received * 8) / received.receiveSeconds / 1e9, bytes: received.received };
  });
}

/** The listener ends with its last connection; one whose end never came (a stalled stack) is ended here. */
async function endListener(server: {
  result(timeoutMs?: number): Promise<TcpResult>;
  stop(): Promise<TcpResult>;
}): Promise<TcpResult> {
  try {
    return await server.result(3_000);
  } catch {
    return await server.stop();
  }
}

/** UDP goodput in thousands of datagrams a second, with a bounded number of datagrams under way. */
export function measureUdp(rig: NamespaceRig, direction: Direction, size: number, seconds: number): Promise<Sample> {
  return withCosts(rig, async () => {
    const toHost = direction === 'tx';
    const [from, to] = toHost ? [rig.guest, rig.host] : [rig.host, rig.guest];
    const port = UDP_FORWARDED_PORT + (toHost ? 1 : 0);
    const sink = await startListener(to, 'udp-listen', { port, 'no-verify': true });
    const result = await runPeer(from, 'udp-stream', {
      addr: toHost ? rig.hostSeenByGuest : rig.guestSeenByHost,
      port,
      size,
      duration: seconds,
    });
    await sink.stop();
    return { value: result.perSecond / 1000, bytes: result.answered * size, drops: result.lost };
  });
}

/** Round trips of one byte on one connection: microseconds at the median, and at the 99th percentile. */
export function measureRequestResponse(rig: BenchRig, seconds: number): Promise<Sample> {
  return measureLatency(rig, 'rr', seconds, (result) => ({ value: result.p50Us, second: result.p99Us }));
}

/** Connections opened, used for one byte each way and closed, one after the other: how many a second, and p99 in microseconds. */
export function measureConnectRequestResponse(rig: BenchRig, seconds: number): Promise<Sample> {
  return measureLatency(rig, 'crr', seconds, (result) => ({ value: result.perSecond, second: result.p99Us }));
}

/**
 * Ports of the guest that the host's loopback reaches, and of the host that the guest's does, TCP and UDP, by splicing. Servers listen on
 * all addresses, since newer pastas connect to the guest's own address rather than to its loopback.
 */
export const SPLICED_TO_GUEST = 6003;
export const SPLICED_TO_HOST = 6004;

/** TCP from loopback to loopback in Gbit/s: `rx` from a client at the host to a server in the guest, `tx` the other way. */
export function measureSplicedTcp(rig: NamespaceRig, direction: Direction, seconds: number): Promise<Sample> {
  return withCosts(rig, async () => {
    const [from, to] = direction === 'rx' ? [rig.host, rig.guest] : [rig.guest, rig.host];
    const common: PeerOptions = {
      port: direction === 'rx' ? SPLICED_TO_GUEST : SPLICED_TO_HOST,
      'no-verify': true,
      timeout: seconds + 15,
    };
    const server = await startListener(to, 'listen', { ...common, finish: 'wait', accept: 1 });
    await runPeer(from, 'connect', { ...common, addr: '127.0.0.1', duration: seconds });
    const received = await endListener(server);
    return { value: (received.received * 8) / received.receiveSeconds / 1e9, bytes: received.received };
  });
}

/** UDP from the host's loopback to the guest's, thousands of datagrams a second. */
export function measureSplicedUdp(rig: NamespaceRig, size: number, seconds: number): Promise<Sample> {
  return withCosts(rig, async () => {
    const common: PeerOptions = { port: SPLICED_TO_GUEST };
    const sink = await startListener(rig.guest, 'udp-listen', { ...common, 'no-verify': true });
    const result = await runPeer(rig.host, 'udp-stream', { ...common, addr: '127.0.0.1', size, duration: seconds });
    await sink.stop();
    return { value: result.perSecond / 1000, bytes: result.answered * size, drops: result.lost };
  });
}

async function measureLatency(
  rig: BenchRig,
  mode: 'rr' | 'crr',
  seconds: number,
  pick: (result: { p50Us: number; p99Us: number; perSecond: number }) => { value: number; second: number },
): Promise<Sample> {
  return await withCosts(rig, async () => {
    const server = await startListener(rig.host, 'listen', { port: TCP_PORT, echo: true, 'no-verify': true });
    try {
      const options = { addr: rig.hostSeenByGuest, port: TCP_PORT, duration: seconds, timeout: 10 };
      const result = await rig.runInGuest(mode, options);
      return { ...pick(result), bytes: 0, drops: result.failed };
    } finally {
      await server.stop();
    }
  });
}

/** CPU milliseconds a second with a guest that is connected and silent. */
export async function measureIdle(rig: BenchRig, seconds: number): Promise<Sample> {
  const before = rig.stack.cpuSeconds();
  const duration = Math.max(seconds, 5);
  await new Promise((resolve) => setTimeout(resolve, duration * 1000));
  return { value: ((rig.stack.cpuSeconds() - before) / duration) * 1000, rssMib: rig.stack.rssBytes() / 2 ** 20 };
}

/** The greatest resident set so far, MiB. */
export async function measurePeak(rig: BenchRig): Promise<Sample> {
  return { value: rig.stack.peakBytes() / 2 ** 20 };
}

let startupSerial = 0;

/**
 * Milliseconds from starting the command to its exit with status 0 in daemon mode, when it listens and its PID file is there:
 * what a manager such as libvirt waits for. Some 2 ms of it are for entering the namespace. With the resident set that it has then.
 */
export async function measureStartup(host: Host, stack: StackCommand): Promise<Sample> {
  const base = join(host.directory, `startup-${startupSerial++}`);
  const [command, args] = host.enter(stack.command, [
    ...stack.args,
    '--quiet',
    '--socket',
    `${base}.socket`,
    '--pid',
    `${base}.pid`,
  ]);
  const start = performance.now();
  const child = spawn(command, args, { stdio: 'ignore' });
  const status = await new Promise<number>((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (code, signal) => resolve(exitStatus(code, signal)));
  });
  const value = performance.now() - start;
  if (status !== 0) throw new Error(`${stack.name} did not start: status ${status}`);
  const pid = Number(readFileSync(`${base}.pid`, 'utf8'));
  const rssMib = describeProcess(pid).rssBytes() / 2 ** 20;
  process.kill(pid, 'SIGTERM');
  await waitUntil(`${stack.name} to end`, () => !isAlive(pid));
  await Promise.all([rm(`${base}.pid`, { force: true }), rm(`${base}.socket`, { force: true })]);
  return { value, rssMib };
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
