/**
 * The services agent (native/services/services.c): a process that opens files, connections and commands for a stack that is confined.
 * Requests and answers are messages on a socket; an answer brings a descriptor.
 */

import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { EAGAIN, EIO, EPIPE } from '../base/errno.ts';
import { checkStatus, createSystemError } from './errors.ts';
import { nativePath } from './native.ts';
import type { NativeAddon } from './native-addon.ts';
import { type Child, CLONE_NEWNS, listEnvironment, startProgram } from './process.ts';
import { createSocketPair } from './unix-socket.ts';

/** What the guest's connections to a service meet. */
export type AgentService =
  /** A path, or a name of the abstract namespace behind `@`. */
  | { readonly kind: 'unix'; readonly path: string }
  /** Found by PATH; a process for each connection, which is a socket of TCP over loopback where it has to be. */
  | { readonly kind: 'command'; readonly words: readonly string[]; readonly wantsTcp?: boolean };

export interface ServicesAgentOptions {
  /** By number. */
  readonly services: readonly AgentService[];
  /** The folder that files are opened in; it stays the caller's. -1: none. */
  readonly folderFd: number;
  /** A folder that the agent removes when it ends, after its commands; undefined: none. */
  readonly ownFolder?: string | undefined;
  /** Whom the agent becomes; undefined: nobody else. */
  readonly user: { readonly uid: number; readonly gid: number } | undefined;
  /** This process is going to leave the file systems of its mount namespace: the agent gets one of its own. */
  readonly ownMounts: boolean;
  /** Standard error of the agent and its commands is nowhere, and not this process's. */
  readonly isQuiet: boolean;
}

/** @param result - an fd, which becomes the receiver's, or -errno */
export type AnswerHandler = (ticketA: number, ticketB: number, result: number) => void;

export interface ServicesAgent {
  /** Readable when there are answers; the agent's. */
  readonly fd: number;
  /** @returns false when the agent takes no request now, or is gone */
  openFile(path: string, ticketA: number, ticketB: number): boolean;
  connect(service: number, ticketA: number, ticketB: number): boolean;
  /** Hands on the answers that have come. */
  takeAnswers(onAnswer: AnswerHandler): void;
  /** Ends the agent and its commands; resolves when the agent's folder is removed, at once where it has none. Harmless when called twice. */
  close(): Promise<void>;
}

const UNIX_SEQPACKET = 5;
const STACK_FD = 3;
const FOLDER_FD = 4;
const REQUEST_BYTES = 16;
const REQUEST_FILE = 1;
const REQUEST_CONNECTION = 2;
/** `PATH_BYTES` of the agent. */
const PATH_BYTES = 1024;
const ANSWER_BYTES = 12;
const SHUT_WRITE = 1;
/** Longer than the agent waits for its commands. */
const CLEAN_UP_MS = 5000;
const POLL_MS = 5;

/** Where the agent's executable is: beside the addon. */
function agentPath(): string {
  const beside = join(dirname(nativePath()), 'services-agent');
  return existsSync(beside) ? beside : join(dirname(nativePath()), '../../build/Release/services-agent');
}

/** @throws ExecError */
export function startServicesAgent(native: NativeAddon, options: ServicesAgentOptions): ServicesAgent {
  const [fd, agentFd] = createSocketPair(native, UNIX_SEQPACKET);
  let child: Child;
  try {
    checkStatus(native.setNonBlocking(fd, 1), 'fcntl');
    // The agent waits for requests in recv(2).
    checkStatus(native.setNonBlocking(agentFd, 0), 'fcntl');
    const { user, folderFd, ownFolder } = options;
    const ids = [String(user?.uid ?? '-'), String(user?.gid ?? '-')];
    child = startProgram(native, {
      file: agentPath(),
      args: [
        ...['passel-services', ...ids, options.isQuiet ? 'quiet' : '-'],
        ...(ownFolder === undefined ? [] : ['folder', ownFolder]),
        ...listWords(options.services),
      ],
      env: listEnvironment(process.env).filter((text) => !text.startsWith('PASSEL_')),
      fds: Int32Array.from(folderFd < 0 ? [STACK_FD, agentFd] : [STACK_FD, agentFd, FOLDER_FD, folderFd]),
      ...(options.ownMounts ? { namespaces: CLONE_NEWNS } : {}),
    });
  } catch (error) {
    native.close(fd);
    throw error;
  } finally {
    native.close(agentFd);
  }
  // Its end is told by its socket; the wait only takes what is left of it.
  child.ended.catch(() => {});
  return createAgent(native, fd, options.ownFolder !== undefined);
}

function listWords(services: readonly AgentService[]): string[] {
  return services.flatMap((service) =>
    service.kind === 'unix'
      ? ['unix', service.path]
      : [service.wantsTcp === true ? 'tcp' : 'cmd', String(service.words.length), ...service.words],
  );
}

function createAgent(native: NativeAddon, fd: number, cleansUp: boolean): ServicesAgent {
  const bytes = Buffer.alloc(REQUEST_BYTES + PATH_BYTES);
  const answer = Buffer.alloc(ANSWER_BYTES);
  const fds = new Int32Array(2);
  const credentials = new Int32Array(3);
  const nothing = new Int32Array(0);
  let open = true;
  const send = (kind: number, service: number, pathBytes: number, ticketA: number, ticketB: number): boolean => {
    if (!open) return false;
    bytes.writeUInt32LE(ticketA, 0);
    bytes.writeUInt32LE(ticketB, 4);
    bytes.writeUInt32LE(kind, 8);
    bytes.writeUInt32LE(service, 12);
    return native.sendFds(fd, bytes, 0, REQUEST_BYTES + pathBytes, nothing, 0) > 0;
  };
  /** The agent closes its end when it is done. Who is in a process namespace of ours would end with us. */
  const waitForEnd = async (): Promise<void> => {
    for (let waitedMs = 0; waitedMs < CLEAN_UP_MS; waitedMs += POLL_MS) {
      const received = native.receiveFds(fd, answer, 0, ANSWER_BYTES, fds, credentials);
      if (received <= 0 && received !== EAGAIN) return;
      // What the agent has answered before: nobody wants it any more.
      if (received > 0 && fds[0] === 1) native.close(fds[1]!);
      if (received === EAGAIN) await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  };
  return {
    fd,
    openFile(path, ticketA, ticketB) {
      if (path.includes('\0') || Buffer.byteLength(path) > PATH_BYTES) return false;
      return send(REQUEST_FILE, 0, bytes.write(path, REQUEST_BYTES), ticketA, ticketB);
    },
    connect: (service, ticketA, ticketB) => send(REQUEST_CONNECTION, service, 0, ticketA, ticketB),
    takeAnswers(onAnswer) {
      while (open) {
        const received = native.receiveFds(fd, answer, 0, ANSWER_BYTES, fds, credentials);
        if (received === EAGAIN) return;
        if (received <= 0) throw createSystemError('recvmsg', received === 0 ? EPIPE : received, 'services agent');
        const result = answer.readInt32LE(8);
        onAnswer(answer.readUInt32LE(0), answer.readUInt32LE(4), fds[0] === 1 ? fds[1]! : result < 0 ? result : EIO);
      }
    },
    async close() {
      if (!open) return;
      open = false;
      if (cleansUp) {
        native.shutdown(fd, SHUT_WRITE);
        await waitForEnd();
      }
      native.close(fd);
    },
  };
}
