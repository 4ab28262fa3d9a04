/**
 * Several guests on one network, each a real Linux network stack behind a pump:
 *
 *     wan ── veth ── host: passel-passt ── a unix socket each ── pump ── tap0 ── a namespace each
 */
import { join } from 'node:path';
import { createHost, type Host } from './netns/host.ts';
import { createNamespace, type Namespace, waitUntil } from './netns/namespace.ts';
import { type Pump, startPump, waitForPump } from './pump.ts';
import { type StackProcess, startStack } from './stack-process.ts';
import { stackCommand } from './stack-under-test.ts';

/** One of the guests. */
export interface NetworkGuest {
  readonly name: string;
  readonly namespace: Namespace;
  readonly pump: Pump;
  readonly mac: string;
}

/** A running network. */
export interface GuestNetwork {
  readonly host: Host;
  readonly stack: StackProcess;
  readonly controlPath: string;
  readonly guests: readonly NetworkGuest[];
  /** Guest by its name. */
  guest(name: string): NetworkGuest;
  /** Asks for a lease, and gives the interface what it says; resolves with the address. */
  lease(name: string): Promise<string>;
  /** Ends the stack and the pumps and starts them anew, in the same way. */
  restart(): Promise<void>;
  /** Ends all; rejects if the stack did not end with status 0 on SIGTERM. */
  close(): Promise<void>;
}

/** What udhcpc runs when it has a lease: the address and the default route, nothing else. */
const LEASE_SCRIPT = `#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr flush dev "$interface" scope global
ip addr add "$ip/$mask" dev "$interface" && ip route replace default via $router dev "$interface" && echo "$ip" > "$PASSEL_OUT"
`;

/**
 * @param names - of the guests
 * @param args - more options for the stack
 * @param prepareHost - what the host needs before the stack starts
 */
export async function createGuestNetwork(
  names: readonly string[],
  args: readonly string[] | ((host: Host) => readonly string[]) = [],
  prepareHost: (host: Host) => Promise<void> = async () => {},
): Promise<GuestNetwork> {
  const host = await createHost();
  const namespaces = await Promise.all(names.map((name) => createNamespace(name)));
  const controlPath = join(host.directory, 'control');
  const script = join(host.directory, 'lease');
  const socketOf = (name: string): string => join(host.directory, `${name}.socket`);
  const links = names.flatMap((name) => [
    '--netdev',
    `stream,id=${name},server=on,addr.type=unix,addr.path=${socketOf(name)}`,
  ]);
  const options = typeof args === 'function' ? args(host) : args;
  let stack: StackProcess;
  let guests: NetworkGuest[] = [];
  const start = async (): Promise<void> => {
    stack = startStack(host, stackCommand(), ['--foreground', '--conf-path', controlPath, ...links, ...options]);
    guests = names.map((name, number) => {
      const namespace = namespaces[number]!;
      const mac = `52:54:00:00:00:0${number + 1}`;
      const pump = startPump(namespace, { socket: socketOf(name), mac, mtu: 65520, connectTimeoutMs: 20_000 });
      return { name, namespace, mac, pump };
    });
    try {
      for (const { namespace, pump } of guests) {
        await waitForPump(pump, 20_000);
        await namespace.sh(`ip link set ${pump.tapName} up`);
      }
    } catch (error) {
      throw new Error(`${(error as Error).message}\nthe stack said:\n${stack.output()}`);
    }
  };
  const stop = async (): Promise<void> => {
    const status = await stack.stop();
    if (status !== 0) throw new Error(`the stack ended with status ${status}; it said:\n${stack.output()}`);
    await Promise.all(guests.map(({ pump }) => pump.ended()));
    await waitUntil('the stack to leave no process', () => host.processes().length === 0, 5_000);
  };
  const close = async (): Promise<void> => {
    await Promise.all([host, ...namespaces].map((each) => each.close()));
  };
  try {
    await host.sh(`cat > ${script} <<'END'\n${LEASE_SCRIPT}END\nchmod 755 ${script}`);
    await prepareHost(host);
    await start();
  } catch (error) {
    await close();
    throw error;
  }
  const guestOf = (name: string): NetworkGuest => {
    const guest = guests.find((each) => each.name === name);
    if (guest === undefined) throw new Error(`no guest is called ${name}`);
    return guest;
  };
  return {
    host,
    controlPath,
    get stack() {
      return stack;
    },
    get guests() {
      return guests;
    },
    guest: guestOf,
    async lease(name) {
      const { namespace, pump } = guestOf(name);
      const out = join(host.directory, `${name}.address`);
      await namespace.run('udhcpc', ['-i', pump.tapName, '-f', '-n', '-q', '-t', '10', '-T', '1', '-s', script], {
        env: { PASSEL_OUT: out },
        timeoutMs: 30_000,
      });
      const { stdout } = await namespace.run('cat', [out]);
      return stdout.trim();
    },
    async restart() {
      await stop();
      await start();
    },
    async close() {
      try {
        await stop();
      } finally {
        await close();
      }
    },
  };
}
