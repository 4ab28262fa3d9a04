/**
 * A stack of UDP, echo and reassembly behind the real dispatch, with sockets, link and clock in the test's hand; and packets built and read
 * byte by byte, without the codecs under test.
 */

import { createArena } from '../../../../src/base/arena.ts';
import { formatIp, parseIp } from '../../../../src/base/ip-text.ts';
import { type Logger, silentLogger } from '../../../../src/base/logger.ts';
import { createAddressMap } from '../../../../src/forward/address-map.ts';
import type { StackConfig } from '../../../../src/stack/config.ts';
import type { StackContext } from '../../../../src/stack/context.ts';
import { Counters } from '../../../../src/stack/counters.ts';
import { FLOW_UDP, FlowTable } from '../../../../src/stack/flow/table.ts';
import { TimerWheel } from '../../../../src/stack/flow/timer-wheel.ts';
import { Reassembler } from '../../../../src/stack/fragment/reassembly.ts';
import { GuestState } from '../../../../src/stack/guest.ts';
import { EchoModule } from '../../../../src/stack/icmp/echo.ts';
import { IcmpErrorSender } from '../../../../src/stack/icmp/errors.ts';
import type { RawEcho } from '../../../../src/stack/icmp/raw-echo.ts';
import { Input } from '../../../../src/stack/input.ts';
import {
  ENDPOINT_BYTES,
  EVENT_IN,
  type ForwardTarget,
  KIND_PING,
  KIND_UDP,
  KIND_UDP_LISTENER,
  SOCKET_DGRAM,
} from '../../../../src/stack/ports.ts';
import { RoomQueue } from '../../../../src/stack/room-queue.ts';
import { UdpModule } from '../../../../src/stack/udp/module.ts';
import { FakeLink } from '../../../support/fake-link.ts';
import { endpointRecord, type FakeSocket } from '../../../support/fake-socket.ts';
import { FakeSockets } from '../../../support/fake-sockets.ts';
import { cutFrame } from '../../../support/segmenter.ts';
import { makeStackConfig } from '../../../support/stack-config.ts';

export const GUEST_4 = '192.0.2.2';
export const ROUTER_4 = '192.0.2.1';
export const GUEST_6 = '2001:db8::2';
export const ROUTER_6 = 'fe80::1';
export const OUR_LINK_LOCAL = 'fe80::55';
const OUR_MAC = [0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55];
const GUEST_MAC = [0x52, 0x54, 0, 1, 2, 3];

export const ip = (text: string): Uint32Array => parseIp(text)!;
export const endpoint = (address: string, port: number, scope = 0): Uint8Array =>
  endpointRecord(ip(address), port, scope);

export interface StackOptions {
  readonly mtu?: number;
  readonly txBytes?: number;
  readonly rxBytes?: number;
  readonly capacity?: number;
  readonly raw?: RawEcho;
  readonly log?: Logger;
  readonly dnsHost?: string;
  readonly outbound?: string;
  /** OFFLOAD_* of the link; not 0: it has virtio-net headers. */
  readonly offloads?: number;
}

let defaultOffloads = 0;

/** The link of every later {@link TestStack} that does not say otherwise has these OFFLOAD_*. */
export function setDefaultOffloads(offloads: number): void {
  defaultOffloads = offloads;
}

export class TestStack {
  readonly arena = createArena(24 << 20);
  readonly sockets = new FakeSockets(this.arena);
  readonly link: FakeLink;
  readonly ctx: StackContext;
  readonly udp: UdpModule;
  readonly echo: EchoModule;
  readonly reassembly: Reassembler;
  readonly targets: (ForwardTarget | undefined)[] = [];
  readonly listenerFds: number[] = [];
  private readonly input: Input;
  private readonly frameList = new Int32Array(8192);

  constructor(options: StackOptions = {}) {
    this.link = new FakeLink(
      this.arena,
      options.txBytes ?? 1 << 23,
      options.rxBytes ?? 1 << 17,
      options.offloads ?? defaultOffloads,
    );
    const config = makeConfig(options);
    const capacity = options.capacity ?? 256;
    const flows = new FlowTable(capacity, [1, 2]);
    const family = (guest: string, router: string) => ({
      guest: ip(guest),
      router: ip(router),
      loopbackAlias: ip(router),
      guestAlias: undefined,
      dnsAlias: undefined as Uint32Array | undefined,
      dnsHost: undefined as Uint32Array | undefined,
    });
    const ipv4 = family(GUEST_4, ROUTER_4);
    if (options.dnsHost !== undefined) {
      ipv4.dnsAlias = ip('192.0.2.3');
      ipv4.dnsHost = ip(options.dnsHost);
    }
    this.ctx = {
      arena: this.arena,
      view: this.arena.view,
      config,
      link: this.link,
      sockets: this.sockets,
      map: createAddressMap({ ipv4, ipv6: family(GUEST_6, ROUTER_6), linkLocalScopeId: 7 }),
      bypass: undefined,
      forwards: {
        targetOf: (index) => this.targets[index],
        fdOf: (index) => this.listenerFds[index] ?? -1,
        // Forwards here lead from each port to the same one.
        udpListenerAt: (port) => this.targets.findIndex((target) => target?.guestPort === port),
      },
      flows,
      timers: new TimerWheel(capacity, 0),
      roomQueue: new RoomQueue(flows),
      guest: new GuestState(config),
      counters: new Counters(),
      log: options.log ?? silentLogger,
      nowMs: 1000,
      endpoint: this.arena.allocate(ENDPOINT_BYTES),
      secret: new Uint32Array([11, 22, 33, 44]),
    };
    const errors = new IcmpErrorSender(this.ctx);
    this.udp = new UdpModule(this.ctx, errors);
    this.echo = new EchoModule(this.ctx, errors, options.raw);
    this.reassembly = new Reassembler(this.ctx, errors, () => this.udp.endInput());
    const nothing = { input: () => undefined };
    this.input = new Input(this.ctx, {
      arp: nothing,
      ndp: nothing,
      tcp: { input: () => false, inputNext: () => false, endInput: () => {} },
      dhcp: { input: () => false },
      dhcpv6: { input: () => false },
      echo: this.echo,
      udp: this.udp,
      reassembly: this.reassembly,
    });
  }

  /** The guest sends IP packets, read by the stack in one go; the turn ends. */
  fromGuest(...packets: Uint8Array[]): void {
    for (const packet of packets) this.link.pushFromGuest(frameOf(packet));
    for (;;) {
      const count = this.link.receive(this.frameList);
      for (let i = 0; i < count; i++) this.input.frame(this.frameList[2 * i]!, this.frameList[2 * i + 1]!);
      this.udp.endInput();
      this.reassembly.endInput();
      if (count === 0) break;
    }
    this.endTurn();
  }

  /** The guest leaves the cutting of a packet into datagrams of `datagramBytes` to us. */
  fromGuestUncut(packet: Uint8Array, datagramBytes: number): void {
    const header = Uint8Array.of(1, 5, 42, 0, datagramBytes & 255, datagramBytes >> 8, 34, 0, 6, 0, 0, 0);
    this.link.pushFromGuest(frameOf(packet), header);
    this.fromGuest();
  }

  /** Hands out the sockets' events; the turn ends. */
  handleEvents(): number {
    const count = this.sockets.deliverEvents((kind, index, events) => {
      if (kind === KIND_UDP && this.ctx.flows.isLive(index)) this.udp.onHostEvent(index, events);
      else if (kind === KIND_PING && this.ctx.flows.isLive(index)) this.echo.onHostEvent(index, events);
      else if (kind === KIND_UDP_LISTENER) this.udp.onReadable(index);
    });
    this.endTurn();
    return count;
  }

  endTurn(): void {
    this.udp.endTurn();
    this.link.flush();
    for (let left = this.ctx.flows.count; left > 0 && this.link.roomBytes() >= 128 * 1024; left--) {
      const index = this.ctx.roomQueue.take();
      if (index < 0) break;
      if (this.ctx.flows.isLive(index)) this.owner(index).onRoom(index);
    }
    this.link.flush();
    this.ctx.flows.sweep((index) => {
      this.owner(index).onRelease(index);
      this.ctx.timers.cancel(index);
      if (this.ctx.flows.fd[index]! >= 0) this.sockets.close(this.ctx.flows.fd[index]!);
    });
  }

  private owner(index: number): UdpModule | EchoModule {
    return this.ctx.flows.kind[index] === FLOW_UDP ? this.udp : this.echo;
  }

  /** Time passes; timers fire. */
  advance(ms: number): void {
    this.ctx.nowMs += ms;
    this.ctx.timers.advance(this.ctx.nowMs, (index) => {
      if (this.ctx.flows.isLive(index)) this.owner(index).onTimer(index);
    });
    if (this.reassembly.pendingCount > 0) this.reassembly.expire(this.ctx.nowMs);
    this.endTurn();
  }

  /** Opens a forwarded UDP port. */
  addListener(target: ForwardTarget): FakeSocket {
    this.sockets.open(6, SOCKET_DGRAM, 0);
    const socket = this.sockets.last;
    const index = this.targets.length;
    this.targets.push(target);
    this.listenerFds.push(socket.fd);
    this.sockets.watch(socket.fd, EVENT_IN, KIND_UDP_LISTENER, index);
    return socket;
  }

  /** Takes the packets that the guest has got since the last call. */
  takePackets(): Packet[] {
    const { sent, sentHeaders, hasVnetHeader } = this.link;
    const frames = sent.splice(0);
    if (!hasVnetHeader) return frames.map(parseFrame);
    const headers = sentHeaders.splice(0);
    return frames.flatMap((frame, i) => cutFrame(headers[i]!, frame)).map(parseFrame);
  }
}

function makeConfig(options: StackOptions): StackConfig {
  return makeStackConfig(
    {
      ipv4: {
        guestAddress: ip(GUEST_4)[3]!,
        prefixLength: 24,
        gateway: ip(ROUTER_4)[3]!,
        resolvers: [],
        outboundAddress: options.outbound === undefined ? 0 : ip(options.outbound)[3]!,
        outboundInterface: options.outbound === undefined ? '' : 'eth7',
      },
      ipv6: {
        guestAddress: ip(GUEST_6),
        prefixLength: 64,
        gateway: ip(ROUTER_6),
        ourLinkLocal: ip(OUR_LINK_LOCAL),
        resolvers: [],
        outboundAddress: undefined,
        outboundInterface: '',
      },
    },
    { guestMacHi: 0x5254, guestMacLo: 0x00010203, mtu: options.mtu ?? 1500 },
  );
}

// ------------------------------------------------------------------------------------------------------------ bytes, naively

export function concat(...parts: ArrayLike<number>[]): Uint8Array {
  const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

export function pattern(length: number, seed = 1): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 31 + seed * 7 + (i >> 8)) & 255);
}

const u16 = (value: number): number[] => [(value >> 8) & 255, value & 255];

function addressBytes(text: string): Uint8Array {
  const words = ip(text);
  const bytes = new Uint8Array(16);
  words.forEach((word, i) => {
    new DataView(bytes.buffer).setUint32(4 * i, word);
  });
  return text.includes(':') ? bytes : bytes.slice(12);
}

export function naiveChecksum(bytes: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i++) sum += (i & 1) === 0 ? bytes[i]! * 256 : bytes[i]!;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

function pseudoHeader(source: string, destination: string, protocol: number, length: number): Uint8Array {
  return concat(addressBytes(source), addressBytes(destination), [0, 0, ...u16(length), 0, 0, 0, protocol]);
}

export interface IpOptions {
  readonly hopLimit?: number;
  readonly id?: number;
  /** Byte offset of a fragment; with it, or with `more`, the packet is one. */
  readonly offset?: number;
  readonly more?: boolean;
  /** IPv6 extension headers in front of the fragment header or the payload: [protocol, bytes]. */
  readonly extension?: readonly [number, Uint8Array];
}

/** An IP packet of the addresses' family around `payload`. */
export function ipPacket(
  source: string,
  destination: string,
  protocol: number,
  payload: Uint8Array,
  options: IpOptions = {},
): Uint8Array {
  const { hopLimit = 64, id = 0, offset = 0, more = false, extension } = options;
  const addresses = concat(addressBytes(source), addressBytes(destination));
  const isFragment = offset !== 0 || more;
  if (!source.includes(':')) {
    const total = 20 + payload.length;
    const header = concat([0x45, 0, ...u16(total), ...u16(id)], u16((offset >> 3) | (more ? 0x2000 : 0)), [
      hopLimit,
      protocol,
      0,
      0,
    ]);
    const whole = concat(header, addresses);
    whole.set(u16(naiveChecksum(whole)), 10);
    return concat(whole, payload);
  }
  let body = payload;
  let next = protocol;
  if (isFragment) {
    body = concat([protocol, 0, ...u16(offset | (more ? 1 : 0)), id >>> 24, (id >> 16) & 255, ...u16(id)], payload);
    next = 44;
  }
  if (extension !== undefined) {
    const [number, bytes] = extension;
    body = concat([next], bytes.subarray(1), body);
    next = number;
  }
  return concat([0x60, 0, 0, 0, ...u16(body.length), next, hopLimit], addresses, body);
}

export function udpMessage(
  source: string,
  sourcePort: number,
  destination: string,
  destinationPort: number,
  data: Uint8Array,
): Uint8Array {
  const length = 8 + data.length;
  const message = concat(u16(sourcePort), u16(destinationPort), u16(length), [0, 0], data);
  const checksum = naiveChecksum(concat(pseudoHeader(source, destination, 17, length), message)) || 0xffff;
  message.set(u16(checksum), 6);
  return message;
}

export function udpPacket(
  source: string,
  sourcePort: number,
  destination: string,
  destinationPort: number,
  data: Uint8Array,
  options: IpOptions = {},
): Uint8Array {
  const message = udpMessage(source, sourcePort, destination, destinationPort, data);
  return ipPacket(source, destination, 17, message, options);
}

/** An ICMP(v6) message from its type on; the checksum covers the pseudo-header for IPv6. */
export function icmpMessage(
  source: string,
  destination: string,
  head: readonly number[],
  data: Uint8Array,
): Uint8Array {
  const message = concat(head.slice(0, 2), [0, 0], head.slice(2), data);
  const isIpv6 = source.includes(':');
  const covered = isIpv6 ? concat(pseudoHeader(source, destination, 58, message.length), message) : message;
  message.set(u16(naiveChecksum(covered)), 2);
  return message;
}

export function echoMessage(
  source: string,
  destination: string,
  type: number,
  id: number,
  seq: number,
  data: Uint8Array,
): Uint8Array {
  return icmpMessage(source, destination, [type, 0, ...u16(id), ...u16(seq)], data);
}

export function echoRequest(
  source: string,
  destination: string,
  id: number,
  seq: number,
  data: Uint8Array,
  options: IpOptions = {},
): Uint8Array {
  const isIpv6 = source.includes(':');
  const message = echoMessage(source, destination, isIpv6 ? 128 : 8, id, seq, data);
  return ipPacket(source, destination, isIpv6 ? 58 : 1, message, options);
}

function frameOf(packet: Uint8Array): Uint8Array {
  return concat(OUR_MAC, GUEST_MAC, packet[0]! >> 4 === 4 ? [8, 0] : [0x86, 0xdd], packet);
}

export interface Packet {
  readonly source: string;
  readonly destination: string;
  readonly protocol: number;
  readonly hopLimit: number;
  /** Byte offset and "more" of a fragment; undefined for whole packets. */
  readonly fragment: { id: number; offset: number; more: boolean } | undefined;
  readonly payload: Uint8Array;
  /** The IP packet. */
  readonly bytes: Uint8Array;
}

/** Reads a frame to the guest, and checks what every one of them has to fulfil. */
export function parseFrame(frame: Uint8Array): Packet {
  if (frame.length < 60) throw new Error(`frame of ${frame.length} bytes`);
  if (concat(GUEST_MAC, OUR_MAC).some((byte, i) => frame[i] !== byte)) throw new Error('wrong MAC addresses');
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  const bytes = frame.subarray(14);
  if (view.getUint16(12) === 0x0800) {
    if (naiveChecksum(bytes.subarray(0, 20)) !== 0) throw new Error('wrong IPv4 checksum');
    const total = view.getUint16(16);
    const flags = view.getUint16(20);
    const isFragment = (flags & 0x3fff) !== 0;
    return {
      source: formatIp(new Uint32Array([0, 0, 0xffff, view.getUint32(26)])),
      destination: formatIp(new Uint32Array([0, 0, 0xffff, view.getUint32(30)])),
      protocol: bytes[9]!,
      hopLimit: bytes[8]!,
      fragment: isFragment
        ? { id: view.getUint16(18), offset: (flags & 0x1fff) * 8, more: (flags & 0x2000) !== 0 }
        : undefined,
      payload: bytes.slice(20, total),
      bytes: bytes.slice(0, total),
    };
  }
  const words = (at: number): Uint32Array => Uint32Array.from([0, 4, 8, 12], (i) => view.getUint32(at + i));
  const end = 40 + view.getUint16(18);
  const isFragment = bytes[6] === 44;
  const offsetAndMore = view.getUint16(14 + 42);
  return {
    source: formatIp(words(22)),
    destination: formatIp(words(38)),
    protocol: isFragment ? bytes[40]! : bytes[6]!,
    hopLimit: bytes[7]!,
    fragment: isFragment
      ? { id: view.getUint32(14 + 44), offset: offsetAndMore & 0xfff8, more: (offsetAndMore & 1) !== 0 }
      : undefined,
    payload: bytes.slice(isFragment ? 48 : 40, end),
    bytes: bytes.slice(0, end),
  };
}

export interface Udp {
  readonly from: string;
  readonly to: string;
  readonly data: Uint8Array;
}

/** Reads a whole UDP packet; throws if its checksum is wrong. */
export function parseUdp(packet: Packet): Udp {
  const { payload, source, destination } = packet;
  const covered = concat(pseudoHeader(source, destination, 17, payload.length), payload);
  if (naiveChecksum(covered) !== 0) throw new Error('wrong UDP checksum');
  const view = new DataView(payload.buffer, payload.byteOffset);
  return {
    from: `${source} ${view.getUint16(0)}`,
    to: `${destination} ${view.getUint16(2)}`,
    data: payload.slice(8),
  };
}

/** Whether an ICMP(v6) packet's checksum is right. */
export function isIcmpChecksumRight(packet: Packet): boolean {
  const { payload, source, destination } = packet;
  if (packet.protocol === 1) return naiveChecksum(payload) === 0;
  return naiveChecksum(concat(pseudoHeader(source, destination, 58, payload.length), payload)) === 0;
}

/** Puts fragments together, assuming that they are complete and in order. */
export function joinFragments(packets: readonly Packet[]): Packet {
  const first = packets[0]!;
  let at = 0;
  packets.forEach((packet, i) => {
    if (packet.fragment?.offset !== at || packet.fragment.id !== first.fragment?.id) throw new Error('not in order');
    if (packet.fragment.more !== i < packets.length - 1) throw new Error('wrong "more fragments"');
    at += packet.payload.length;
  });
  return { ...first, fragment: undefined, payload: concat(...packets.map((p) => p.payload)) };
}
