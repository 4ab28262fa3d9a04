/** The guest in a network namespace: the kernel's own network stack behind a tap device, without root where that is allowed. */
import { accessSync, closeSync, constants } from 'node:fs';
import { Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { reasonOf } from '../../base/errors.ts';
import { loadNative } from '../../sys/native.ts';
import { CLONE_NEWNET, CLONE_NEWUSER, listEnvironment, startProgram } from '../../sys/process.ts';
import { createSocketPair } from '../../sys/unix-socket.ts';
import type { DemoGuest } from './demo-guest.ts';
import { AGENT_CONTROL_FD, AGENT_FRAME_FD, type AgentMethods } from './namespace-agent.ts';

const SIGKILL = 9;
const TUN_DEVICE = '/dev/net/tun';

/** Namespaces of one child, as startProgram wants them. */
interface NamespaceRequest {
  readonly namespaces: number;
  readonly uidMap?: string;
  readonly gidMap?: string;
}

/** Root makes a network namespace as it is; others need a user namespace in which they are root. */
function listRequests(): NamespaceRequest[] {
  const mapped: NamespaceRequest = {
    namespaces: CLONE_NEWUSER | CLONE_NEWNET,
    uidMap: `0 ${process.getuid!()} 1`,
    gidMap: `0 ${process.getgid!()} 1`,
  };
  return process.geteuid!() === 0 ? [{ namespaces: CLONE_NEWNET }, mapped] : [mapped];
}

/** What works here, or why nothing does. */
function probeNamespaces(): NamespaceRequest | string {
  try {
    accessSync(TUN_DEVICE, constants.R_OK | constants.W_OK);
  } catch (error) {
    return `${TUN_DEVICE} cannot be opened (${reasonOf(error)})`;
  }
  let reason = '';
  for (const request of listRequests()) {
    try {
      const probe = { file: process.execPath, args: ['node', '--eval', ''], env: [] };
      startProgram(loadNative(), { ...probe, ...request }).ended.catch(() => {});
      return request;
    } catch (error) {
      reason = `network namespaces are not allowed (${reasonOf(error)})`;
    }
  }
  return reason;
}

/** @returns what is in the way, or undefined */
export function lackForNamespaceGuest(): string | undefined {
  const result = probeNamespaces();
  return typeof result === 'string' ? result : undefined;
}

/** @param fd - our end of the stream socket to the stack; owned by the guest */
export async function createNamespaceGuest(fd: number): Promise<DemoGuest> {
  const request = probeNamespaces();
  if (typeof request === 'string') throw new Error(request);
  const native = loadNative();
  const [ours, theirs] = createSocketPair(native);
  const child = startProgram(native, {
    file: process.execPath,
    args: [process.execPath, process.argv[1]!, 'demo-namespace-agent'],
    env: listEnvironment(process.env),
    fds: Int32Array.of(AGENT_FRAME_FD, fd, AGENT_CONTROL_FD, theirs),
    deathSignal: SIGKILL,
    ...request,
  });
  closeSync(fd);
  closeSync(theirs);
  const control = new Socket({ fd: ours });
  control.on('error', () => {});
  const call = createCaller(control);
  const how = request.uidMap === undefined ? 'made by root' : 'made without root';
  return {
    kind: 'namespace',
    title: `a network namespace (${how}): the kernel's own TCP/IP behind a tap device`,
    improvement: undefined,
    getLease: () => call('getLease'),
    getAdvertisement: () => call('getAdvertisement'),
    resolveName: (...args) => call('resolveName', ...args),
    fetchPage: (...args) => call('fetchPage', ...args),
    answerOnce: (...args) => call('answerOnce', ...args),
    download: (...args) => call('download', ...args),
    upload: (...args) => call('upload', ...args),
    async stop() {
      // The agent ends with its control socket.
      control.destroy();
      await child.ended;
    },
  };
}

type Caller = <Name extends keyof AgentMethods>(
  method: Name,
  ...args: Parameters<AgentMethods[Name]>
) => Promise<Awaited<ReturnType<AgentMethods[Name]>>>;

function createCaller(control: Socket): Caller {
  const waiting = new Map<number, { resolve: (result: never) => void; reject: (error: Error) => void }>();
  let lastId = 0;
  const lines = createInterface({ input: control });
  lines.on('line', (line) => {
    const { id, result, error } = JSON.parse(line) as { id: number; result: never; error?: string };
    const entry = waiting.get(id);
    waiting.delete(id);
    if (error === undefined) entry?.resolve(result);
    else entry?.reject(new Error(error));
  });
  lines.on('close', () => {
    for (const entry of waiting.values()) entry.reject(new Error('the process in the namespace ended'));
    waiting.clear();
  });
  return (method, ...args) =>
    new Promise((resolve, reject) => {
      const id = ++lastId;
      waiting.set(id, { resolve, reject });
      control.write(`${JSON.stringify({ id, method, args })}\n`);
    });
}
