/**
 * The stack under test as a process in an isolated host, in the foreground, its messages kept for failures.
 */
import type { ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import type { Host } from '../support/netns/host.ts';
import { stopChild, waitForExit, waitUntil } from '../support/netns/namespace.ts';
import { stackCommand } from '../support/stack-under-test.ts';

/** A running stack that listens on `socketPath`. */
export interface StackProcess {
  readonly child: ChildProcess;
  readonly socketPath: string;
  /** `-netdev` argument that connects a guest to it. */
  readonly netdev: string;
  /** What it wrote so far. */
  readMessages(): string;
  /** Resolves with its exit status once it ends by itself. */
  waitForExit(): Promise<number>;
  /** SIGTERM; its exit status. */
  stop(): Promise<number>;
}

/** Starts the stack and waits until its socket listens. */
export async function startStack(host: Host, args: readonly string[]): Promise<StackProcess> {
  const stack = stackCommand();
  const socketPath = join(host.directory, 'guest.socket');
  const line = [...stack.args, '--foreground', '--socket', socketPath, ...args];
  const child = host.spawn(stack.command, line, { stdio: ['ignore', 'pipe', 'pipe'] });
  let messages = '';
  const collect = (chunk: Buffer): void => {
    messages += chunk.toString();
  };
  child.stdout?.on('data', collect);
  child.stderr?.on('data', collect);
  let ended = false;
  child.once('exit', () => {
    ended = true;
  });
  // /proc/net/unix shows sockets of the reader's network namespace, and listening ones by a flag.
  await waitUntil(
    'the stack to listen',
    async () => {
      if (ended) throw new Error(`the stack ended early:\n${messages}`);
      const { stdout } = await host.run('cat', ['/proc/net/unix']);
      return stdout.split('\n').some((text) => text.endsWith(` ${socketPath}`) && text.includes(' 00010000 '));
    },
    10_000,
  );
  return {
    child,
    socketPath,
    netdev: `stream,id=n0,server=off,addr.type=unix,addr.path=${socketPath}`,
    readMessages: () => messages,
    waitForExit: () => waitForExit(child),
    stop: () => stopChild(child),
  };
}
