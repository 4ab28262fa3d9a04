/** The stack under test in an isolated host, its socket ready for QEMU. */
import { join } from 'node:path';
import type { Host } from '../support/netns/host.ts';
import { waitUntil } from '../support/netns/namespace.ts';
import { type StackProcess, startStack } from '../support/stack-process.ts';
import { stackCommand } from '../support/stack-under-test.ts';

/** A stack that listens on `socketPath`. */
export interface ListeningStack extends StackProcess {
  readonly socketPath: string;
  /** `-netdev` argument that connects a guest to it. */
  readonly netdev: string;
}

/** Starts the stack with more options and waits until its socket listens. */
export async function startListeningStack(host: Host, args: readonly string[]): Promise<ListeningStack> {
  const socketPath = join(host.directory, 'guest.socket');
  const stack = startStack(host, stackCommand(), ['--foreground', '--socket', socketPath, ...args]);
  // Connecting to see whether it listens would make us its guest; /proc shows listening sockets by a flag.
  await waitUntil(
    'the stack to listen',
    async () => {
      if (!stack.running()) throw new Error(`the stack ended early:\n${stack.output()}`);
      const { stdout } = await host.run('cat', ['/proc/net/unix']);
      return stdout.split('\n').some((text) => text.endsWith(` ${socketPath}`) && text.includes(' 00010000 '));
    },
    10_000,
  );
  return { ...stack, socketPath, netdev: `stream,id=n0,server=off,addr.type=unix,addr.path=${socketPath}` };
}
