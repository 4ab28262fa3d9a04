/**
 * A bare stack behind a tap, for tests and measurements of the link: no command line, no namespaces of its own, no sandbox. It opens a
 * tap where it runs, says its name, and serves it; whoever started it moves the device to where the guest is.
 *
 * Argument: JSON of {@link TapStackConfig}. Prints an event `ready` with the tap's name once it is there, and `end` with counters.
 */

import { randomFillSync } from 'node:crypto';
import { openSync } from 'node:fs';
import { createArena } from '../../../src/base/arena.ts';
import { systemClock } from '../../../src/base/clock.ts';
import { parseIp } from '../../../src/base/ip-text.ts';
import { silentLogger } from '../../../src/base/logger.ts';
import { createAddressMap } from '../../../src/forward/address-map.ts';
import { openListeners } from '../../../src/forward/listeners.ts';
import { parsePortSpecs } from '../../../src/forward/port-spec.ts';
import { createFaultLink } from '../../../src/link/fault.ts';
import { createPcapLink } from '../../../src/link/pcap.ts';
import { CaptureFile } from '../../../src/link/pcap-file.ts';
import { PCAP_FORMAT } from '../../../src/link/pcap-format.ts';
import { createTapLink } from '../../../src/link/tap.ts';
import {
  ENDPOINT_BYTES,
  type GuestLink,
  KIND_LINK,
  KIND_PING,
  KIND_TCP,
  KIND_TCP_LISTENER,
  KIND_UDP,
  KIND_UDP_LISTENER,
} from '../../../src/stack/ports.ts';
import { NetworkStack } from '../../../src/stack/stack.ts';
import { createHostSockets } from '../../../src/sys/host-sockets.ts';
import { loadNative } from '../../../src/sys/native.ts';
import { createPoller } from '../../../src/sys/poller.ts';
import { openTap, prepareTapOffloads } from '../../../src/sys/tap.ts';
import { makeStackConfig } from '../stack-config.ts';
import type { TapStackConfig } from './start.ts';

const config = JSON.parse(process.argv[2] ?? '{}') as TapStackConfig;
const address = (text: string): Uint32Array => parseIp(text)!;

const native = loadNative();
const arena = createArena(40 << 20);
const poller = createPoller(native, arena);
const sockets = createHostSockets(native, arena, poller.fd);
const endpoint = arena.allocate(ENDPOINT_BYTES);

const device = openTap(native, { name: 'tap%d', vnetHeader: config.offloads });
const offloads = prepareTapOffloads(native, device.fd);
const tap = createTapLink({ arena, sockets, native, ...offloads });
let link: GuestLink = tap;
const { faults } = config;
if (faults !== undefined) {
  link = createFaultLink({ link, arena, seed: 7, toGuest: faults, fromGuest: faults });
}
const pcap =
  config.pcapPath === undefined
    ? undefined
    : new CaptureFile({ fd: openSync(config.pcapPath, 'w'), format: PCAP_FORMAT, interfaces: ['tap'], arena });
if (pcap !== undefined) link = createPcapLink({ link, sinks: [{ file: pcap, link: 0 }] });

const ranges = { first: 32768, last: 60999 };
const forwards = openListeners(
  [
    ...parsePortSpecs('-t', 'tcp', config.tcpPorts.map(String), ranges),
    ...parsePortSpecs('-u', 'udp', config.udpPorts.map(String), ranges),
  ],
  { sockets, view: arena.view, scratchOffset: endpoint, logger: silentLogger, ipv4: true, ipv6: true, freebind: false },
);
const guest4 = address(config.guest4);
const guest6 = address(config.guest6);
const router4 = address(config.router4);
const router6 = address(config.router6);
const family = (guest: Uint32Array, router: Uint32Array) => ({
  guest,
  router,
  loopbackAlias: router,
  guestAlias: undefined,
  dnsAlias: undefined,
  dnsHost: undefined,
});
const stack = new NetworkStack({
  arena,
  config: makeStackConfig(
    {
      ipv4: {
        guestAddress: guest4[3]!,
        prefixLength: 24,
        gateway: router4[3]!,
        resolvers: [],
        outboundAddress: 0,
        outboundInterface: '',
      },
      ipv6: {
        guestAddress: guest6,
        prefixLength: 64,
        gateway: router6,
        ourLinkLocal: router6,
        resolvers: [],
        outboundAddress: undefined,
        outboundInterface: '',
      },
    },
    { mtu: config.mtu },
  ),
  link,
  sockets,
  map: createAddressMap({ ipv4: family(guest4, router4), ipv6: family(guest6, router6), linkLocalScopeId: 0 }),
  forwards,
  clock: systemClock,
  log: silentLogger,
  secret: randomFillSync(new Uint32Array(8)),
});

poller.handlers[KIND_LINK] = (_index, events) => {
  if (tap.onHostEvent(events)) stack.onLinkReadable();
};
poller.handlers[KIND_TCP] = (index, events) => stack.onFlowEvent(KIND_TCP, index, events);
poller.handlers[KIND_UDP] = (index, events) => stack.onFlowEvent(KIND_UDP, index, events);
poller.handlers[KIND_PING] = (index, events) => stack.onFlowEvent(KIND_PING, index, events);
poller.handlers[KIND_TCP_LISTENER] = (index) => stack.onTcpListener(index);
poller.handlers[KIND_UDP_LISTENER] = (index) => stack.onUdpListener(index);
poller.onTurnEnd = () => stack.endTurn();
tap.onRoom = () => stack.onLinkRoom();

let ended = false;
const end = (reason: string): void => {
  if (ended) return;
  ended = true;
  const { tcpRetransmits, badTcp, badUdp, badEthernet } = stack.counters;
  const counts = { tcpRetransmits, badTcp, badUdp, badEthernet, refusedFrames: tap.refusedFrames };
  process.stdout.write(`${JSON.stringify({ event: 'end', reason, ...counts })}\n`);
  pcap?.close();
  poller.stop();
  process.exit(0);
};
tap.onGone = (reason) => end(reason);
process.on('SIGTERM', () => end('SIGTERM'));
const attached = tap.attach(device.fd);
if (attached < 0) throw new Error(`attach: errno ${-attached}`);
stack.onGuestConnected();
forwards.watchAll();
poller.start();
process.stdout.write(`${JSON.stringify({ event: 'ready', tap: device.name, ...offloads })}\n`);
