/** What the demo shows, in order. A scene returns the line that it adds to its title, or throws. */
import { once } from 'node:events';
import { connect } from 'node:net';
import { type DemoGuest, type Lease, withTimeout } from './demo-guest.ts';
import { DEMO_NAME, DEMO_NAME_ADDRESS, type DemoHost, PAGE } from './demo-host.ts';
import type { DemoStack } from './demo-stack.ts';

/** The guest's name for the host's ::1. A unique local address, since link-local ones need a zone that URLs cannot have. */
export const LOOPBACK_ALIAS_V6 = 'fd70:6173:7365:6c::1';
/** Port in the guest that the host's forward leads to. */
export const GUEST_PORT = 8080;
const GREETING = 'Hello from inside the guest.\n';

export interface DemoContext {
  readonly guest: DemoGuest;
  readonly host: DemoHost;
  readonly stack: DemoStack;
  /** Port on the host that leads to GUEST_PORT. */
  readonly forwardPort: number;
  /** Address that the guest sends DNS queries to, beside those it was told; undefined: the first one it was told. */
  readonly resolver: string | undefined;
  readonly name: string;
  readonly transferBytes: number;
  lease: Lease | undefined;
}

export interface Scene {
  readonly title: string;
  readonly needsIpv6: boolean;
  run(context: DemoContext): Promise<string>;
}

/** Thrown by a scene that cannot be shown here, which is no failure. */
export class SceneSkipped extends Error {}

function routerOf(context: DemoContext): string {
  if (context.lease === undefined) throw new SceneSkipped('the guest has no address');
  return context.lease.router;
}

async function fetchPage(context: DemoContext, address: string): Promise<string> {
  const body = await context.guest.fetchPage(address, context.host.pagePort);
  if (body !== PAGE) throw new Error(`the page was '${body}'`);
  return `"${body.trim()}" from ${address}, the host's loopback as the guest sees it`;
}

async function callGuest(context: DemoContext): Promise<string> {
  await context.guest.answerOnce(GUEST_PORT, GREETING);
  const socket = connect(context.forwardPort, '127.0.0.1');
  let text = '';
  socket.setTimeout(10_000, () => socket.destroy(new Error('no answer within 10 s')));
  socket.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });
  await once(socket, 'end');
  socket.end();
  if (text !== GREETING) throw new Error(`the guest answered '${text}'`);
  return `"${text.trim()}" by port ${context.forwardPort} of the host`;
}

async function measure(context: DemoContext, transfer: () => Promise<void>): Promise<string> {
  const cpuBefore = context.stack.cpuSeconds();
  const startMs = performance.now();
  await transfer();
  const seconds = (performance.now() - startMs) / 1000;
  const cpuAfter = context.stack.cpuSeconds();
  const rate = (context.transferBytes * 8) / seconds / 1e9;
  const size = `${context.transferBytes / 2 ** 20} MiB in ${seconds.toFixed(2)} s`;
  const gigabytes = context.transferBytes / 2 ** 30;
  const cpu =
    cpuBefore === undefined || cpuAfter === undefined
      ? ''
      : `, ${((cpuAfter - cpuBefore) / gigabytes).toFixed(2)} s of processor time per GiB in the stack`;
  return `${rate.toFixed(2)} Gbit/s (${size}${cpu})`;
}

export const SCENES: readonly Scene[] = [
  {
    title: 'DHCP lease',
    needsIpv6: false,
    async run(context) {
      const lease = await context.guest.getLease();
      context.lease = lease;
      const resolvers = lease.resolvers.length === 0 ? 'no resolver' : `resolver ${lease.resolvers.join(', ')}`;
      const mtu = lease.mtu === 0 ? '' : `, MTU ${lease.mtu}`;
      return `${lease.address}/${lease.prefixLength}, router ${lease.router}, ${resolvers}${mtu}`;
    },
  },
  {
    title: 'router advertisement',
    needsIpv6: true,
    async run(context) {
      const { prefix, address } = await context.guest.getAdvertisement();
      return `prefix ${prefix}, so the guest is ${address}`;
    },
  },
  {
    title: 'name resolution',
    needsIpv6: false,
    async run(context) {
      routerOf(context);
      const resolver = context.resolver ?? context.lease?.resolvers.find((address) => !address.includes(':'));
      if (resolver === undefined) throw new SceneSkipped('this computer has no resolver, and port 53 cannot be bound');
      const answer = await context.guest.resolveName(context.name, resolver);
      if (context.name === DEMO_NAME && answer !== DEMO_NAME_ADDRESS) throw new Error(`the answer was '${answer}'`);
      return `${context.name} is ${answer}, says ${resolver}`;
    },
  },
  { title: 'web page over IPv4', needsIpv6: false, run: (context) => fetchPage(context, routerOf(context)) },
  { title: 'web page over IPv6', needsIpv6: true, run: (context) => fetchPage(context, LOOPBACK_ALIAS_V6) },
  { title: 'connection into the guest', needsIpv6: false, run: callGuest },
  {
    title: 'host to guest',
    needsIpv6: false,
    run(context) {
      const router = routerOf(context);
      return measure(context, async () => {
        const bytes = await context.guest.download(router, context.host.sourcePort);
        if (bytes !== context.transferBytes) throw new Error(`${bytes} of ${context.transferBytes} bytes arrived`);
      });
    },
  },
  {
    title: 'guest to host',
    needsIpv6: false,
    run(context) {
      const router = routerOf(context);
      return measure(context, async () => {
        const received = context.host.nextUpload();
        await context.guest.upload(router, context.host.sinkPort, context.transferBytes);
        const bytes = await withTimeout('the end of the upload', 30_000, received);
        if (bytes !== context.transferBytes) throw new Error(`${bytes} of ${context.transferBytes} bytes arrived`);
      });
    },
  },
];
