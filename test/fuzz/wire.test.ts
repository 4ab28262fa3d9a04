/**
 * Seeded mutations of every kind of frame through every check, and through the accessors behind a check that passed: nothing may
 * throw, read outside [offset, end), or write at all.
 */
import { describe, expect, it } from 'vitest';
import { checkArp, getArpOperation, getArpSenderAddress, getArpTargetAddress } from '../../src/wire/arp.ts';
import {
  checkDhcp,
  findDhcpOption,
  getDhcpMaxMessageSize,
  getDhcpMessageType,
  getDhcpOptionAddress,
  getDhcpOptionLength,
  getDhcpRelayAddress,
  getDhcpXid,
} from '../../src/wire/dhcp.ts';
import {
  checkDhcpv6,
  DHCPV6_IA_NA_BYTES,
  DHCPV6_OPTION_IA_ADDRESS,
  DHCPV6_OPTION_IA_NA,
  DHCPV6_OPTION_REQUEST,
  DHCPV6_OPTION_SERVER_ID,
  DHCPV6_OPTION_STATUS_CODE,
  findDhcpv6Option,
  getDhcpv6Iaid,
  getDhcpv6OptionLength,
  getDhcpv6Status,
  getDhcpv6ValidSec,
  getDhcpv6Xid,
  isDhcpv6DuidLl,
  isDhcpv6OptionRequested,
} from '../../src/wire/dhcpv6.ts';
import { readDnsName, readDnsNameList } from '../../src/wire/dns-name.ts';
import { checkEthernet, getEtherType, getMacHi, getMacLo } from '../../src/wire/ethernet.ts';
import { checkFrameLength, getFrameLength } from '../../src/wire/frame-length.ts';
import { checkIcmp, getIcmpEchoId, getIcmpMtu, getIcmpType } from '../../src/wire/icmp.ts';
import { checkIcmpv6, getIcmpv6Mtu, getIcmpv6Type } from '../../src/wire/icmpv6.ts';
import {
  checkIpv4,
  getIpv4Dst,
  getIpv4FragmentOffset,
  getIpv4Protocol,
  getIpv4Src,
  getIpv4TotalLength,
} from '../../src/wire/ipv4.ts';
import {
  checkIpv6,
  createIpv6Extensions,
  getIpv6HopLimit,
  getIpv6PayloadLength,
  loadIpv6,
  skipIpv6Extensions,
} from '../../src/wire/ipv6.ts';
import {
  checkNdp,
  findNdpOption,
  getNdpMtu,
  getNdpOptionBytes,
  getNdpPrefixLength,
  NDP_OPTION_DNSSL,
  NDP_OPTION_MTU,
  NDP_OPTION_PREFIX,
  NDP_OPTION_RDNSS,
  NDP_OPTION_SOURCE_LINK_ADDRESS,
} from '../../src/wire/ndp.ts';
import { WIRE_UNSUPPORTED } from '../../src/wire/status.ts';
import { checkTcp, createTcpOptions, getTcpUrgent, getTcpWindow, parseTcpOptions } from '../../src/wire/tcp.ts';
import { checkUdp, getUdpChecksum, getUdpLength } from '../../src/wire/udp.ts';
import { seededRandom } from '../support/seeded-random.ts';
import { naiveChecksum } from '../unit/wire/bytes.ts';
import * as frames from '../unit/wire/golden-frames.ts';

// The library's type of DataView is generic and cannot be extended by name alone.
const PlainView = DataView as unknown as new (buffer: ArrayBuffer) => DataView<ArrayBuffer>;

/** A view whose reads must lie in [low, high) and that cannot be written. */
class GuardedView extends PlainView {
  low = 0;
  high = 0;

  #guard(offset: number, bytes: number): void {
    if (!Number.isInteger(offset) || offset < this.low || offset + bytes > this.high) {
      throw new Error(`read of ${bytes} bytes at ${offset}, outside [${this.low}, ${this.high})`);
    }
  }

  override getUint8(offset: number): number {
    this.#guard(offset, 1);
    return super.getUint8(offset);
  }

  override getUint16(offset: number): number {
    this.#guard(offset, 2);
    return super.getUint16(offset);
  }

  override getUint32(offset: number): number {
    this.#guard(offset, 4);
    return super.getUint32(offset);
  }

  override setUint8(): never {
    throw new Error('write');
  }

  override setUint16(): never {
    throw new Error('write');
  }

  override setUint32(): never {
    throw new Error('write');
  }
}

const words = new Uint32Array(8);
const extensions = createIpv6Extensions();
const tcpOptions = createTcpOptions();

/** Runs one codec over [offset, end): its check, and if that passes, its accessors. @returns the check's result */
type Probe = (view: DataView, offset: number, end: number) => number;

function probeEthernet(view: DataView, offset: number, end: number): number {
  const status = checkEthernet(view, offset, end);
  if (status > 0) getEtherType(view, offset) + getMacHi(view, offset) + getMacLo(view, offset + 6);
  return status;
}

function probeArp(view: DataView, offset: number, end: number): number {
  const status = checkArp(view, offset, end);
  if (status > 0) {
    getArpOperation(view, offset);
    getArpSenderAddress(view, offset);
    getArpTargetAddress(view, offset);
  }
  return status;
}

function probeIpv4(view: DataView, offset: number, end: number): number {
  const status = checkIpv4(view, offset, end);
  if (status > 0) {
    expect(offset + getIpv4TotalLength(view, offset)).toBeLessThanOrEqual(end);
    getIpv4Protocol(view, offset);
    getIpv4Src(view, offset);
    getIpv4Dst(view, offset);
    getIpv4FragmentOffset(view, offset);
  }
  return status;
}

function probeIpv6(view: DataView, offset: number, end: number): number {
  const status = checkIpv6(view, offset, end);
  if (status > 0) {
    const packetEnd = offset + 40 + getIpv6PayloadLength(view, offset);
    expect(packetEnd).toBeLessThanOrEqual(end);
    getIpv6HopLimit(view, offset);
    loadIpv6(view, offset + 8, words, 0);
    loadIpv6(view, offset + 24, words, 4);
    if (skipIpv6Extensions(view, offset, packetEnd, extensions) === 0) {
      expect(extensions.l4Offset).toBeLessThanOrEqual(packetEnd);
      expect(extensions.l4Offset).toBeGreaterThanOrEqual(offset + 40);
    }
  }
  return status;
}

function probeUdp(view: DataView, offset: number, end: number): number {
  const status = checkUdp(view, offset, end);
  if (status > 0) {
    expect(offset + getUdpLength(view, offset)).toBeLessThanOrEqual(end);
    getUdpChecksum(view, offset);
  }
  return status;
}

function probeTcp(view: DataView, offset: number, end: number): number {
  const status = checkTcp(view, offset, end);
  if (status > 0) {
    expect(offset + status).toBeLessThanOrEqual(end);
    getTcpWindow(view, offset);
    getTcpUrgent(view, offset);
    parseTcpOptions(view, offset, status, tcpOptions);
    expect(tcpOptions.sackCount).toBeLessThanOrEqual(4);
    expect(tcpOptions.windowScale).toBeLessThanOrEqual(14);
  }
  return status;
}

function probeIcmp(view: DataView, offset: number, end: number): number {
  const status = checkIcmp(view, offset, end);
  if (status > 0) getIcmpType(view, offset) + getIcmpEchoId(view, offset) + getIcmpMtu(view, offset);
  return status;
}

function probeIcmpv6(view: DataView, offset: number, end: number): number {
  const status = checkIcmpv6(view, offset, end, 0);
  if (status > 0) getIcmpv6Type(view, offset) + getIcmpv6Mtu(view, offset);
  return status;
}

function probeNdp(view: DataView, offset: number, end: number): number {
  const status = checkNdp(view, offset, end);
  if (status > 0) {
    const find = (type: number): number => findNdpOption(view, offset + status, end, type);
    const link = find(NDP_OPTION_SOURCE_LINK_ADDRESS);
    if (link > 0) getMacLo(view, link + 2);
    const mtu = find(NDP_OPTION_MTU);
    if (mtu > 0) getNdpMtu(view, mtu);
    const prefix = find(NDP_OPTION_PREFIX);
    if (prefix > 0) {
      getNdpPrefixLength(view, prefix);
      loadIpv6(view, prefix + 16, words, 0);
    }
    const rdnss = find(NDP_OPTION_RDNSS);
    if (rdnss > 0) loadIpv6(view, rdnss + getNdpOptionBytes(view, rdnss) - 16, words, 0);
    const dnssl = find(NDP_OPTION_DNSSL);
    if (dnssl > 0) readDnsNameList(view, dnssl + 8, dnssl + getNdpOptionBytes(view, dnssl));
  }
  return status;
}

function probeDhcp(view: DataView, offset: number, end: number): number {
  const status = checkDhcp(view, offset, end);
  if (status > 0) {
    getDhcpXid(view, offset);
    getDhcpRelayAddress(view, offset);
    getDhcpMessageType(view, offset, end);
    getDhcpMaxMessageSize(view, offset, end);
    for (let code = 1; code < 255; code++) {
      getDhcpOptionAddress(view, offset, end, code);
      const data = findDhcpOption(view, offset, end, code);
      if (data <= 0) continue;
      const length = getDhcpOptionLength(view, data);
      if (length > 0) view.getUint8(data + length - 1);
      readDnsName(view, data, data + length);
      readDnsNameList(view, data, data + length);
    }
  }
  return status;
}

function probeDhcpv6(view: DataView, offset: number, end: number): number {
  const status = checkDhcpv6(view, offset, end);
  if (status > 0) {
    getDhcpv6Xid(view, offset);
    const find = (code: number): number => findDhcpv6Option(view, offset + 4, end, code);
    const server = find(DHCPV6_OPTION_SERVER_ID);
    if (server > 0) isDhcpv6DuidLl(view, server, 1, 2);
    const request = find(DHCPV6_OPTION_REQUEST);
    if (request > 0) isDhcpv6OptionRequested(view, request, 23);
    const code = find(DHCPV6_OPTION_STATUS_CODE);
    if (code > 0) getDhcpv6Status(view, code);
    for (let ia = find(DHCPV6_OPTION_IA_NA); ia > 0; ) {
      const iaEnd = ia + getDhcpv6OptionLength(view, ia);
      getDhcpv6Iaid(view, ia);
      const address = findDhcpv6Option(view, ia + DHCPV6_IA_NA_BYTES, iaEnd, DHCPV6_OPTION_IA_ADDRESS);
      if (address > 0) getDhcpv6ValidSec(view, address);
      ia = findDhcpv6Option(view, iaEnd, end, DHCPV6_OPTION_IA_NA);
    }
  }
  return status;
}

function probeFrameLength(view: DataView, offset: number, end: number): number {
  const status = checkFrameLength(view, offset, end);
  if (status > 0) getFrameLength(view, offset);
  return status;
}

const PROBES: readonly Probe[] = [
  probeEthernet,
  probeArp,
  probeIpv4,
  probeIpv6,
  probeUdp,
  probeTcp,
  probeIcmp,
  probeIcmpv6,
  probeNdp,
  probeDhcp,
  probeDhcpv6,
  probeFrameLength,
];

/** Where headers stand in these frames: of the frame, behind Ethernet, behind IPv4 or IPv6, and behind UDP. */
const LAYERS = [0, 14, 34, 42, 54, 62];

/** Changes some bytes, mostly to values at which lengths and counts go wrong, and cuts or extends the end. */
function mutate(frame: Uint8Array, random: () => number): Uint8Array {
  const dice = (below: number): number => Math.floor(random() * below);
  const lengths = [frame.length, frame.length, dice(frame.length + 1), frame.length + dice(8)];
  const mutant = new Uint8Array(lengths[dice(lengths.length)]!);
  mutant.set(frame.subarray(0, mutant.length));
  if (mutant.length === 0) return mutant;
  const interesting = [0, 1, 2, 3, 4, 7, 8, 0x3f, 0x40, 0x7f, 0x80, 0xc0, 0xfe, 0xff];
  for (let i = dice(6); i > 0; i--) {
    const at = dice(mutant.length);
    const kind = dice(3);
    if (kind === 0) mutant[at] = interesting[dice(interesting.length)]!;
    else if (kind === 1) mutant[at]! ^= 1 << dice(8);
    else mutant[at] = dice(256);
  }
  return mutant;
}

/** Makes the IPv4 header's checksum right again, so that mutations get behind it. */
function repairIpv4(frame: Uint8Array): void {
  const header = frame.subarray(14, 14 + 4 * ((frame[14] ?? 0) & 15));
  if (header.length < 20) return;
  header.fill(0, 10, 12);
  const checksum = naiveChecksum(header);
  header[10] = checksum >> 8;
  header[11] = checksum & 0xff;
}

function runAll(bytes: Uint8Array, start: number): void {
  const view = new GuardedView(new ArrayBuffer(start + bytes.length + 16));
  new Uint8Array(view.buffer).fill(0xff);
  new Uint8Array(view.buffer).set(bytes, start);
  const end = start + bytes.length;
  for (const layer of LAYERS) {
    // Also with a start beyond the end: a layer may begin there when the one below has nothing inside.
    const offset = start + layer;
    view.low = offset;
    view.high = end;
    for (const probe of PROBES) {
      const status = probe(view, offset, end);
      if (status > 0 ? offset + status > end : status < WIRE_UNSUPPORTED || !(status < 0)) {
        throw new Error(`impossible status ${status}`);
      }
    }
  }
}

describe('every check', () => {
  it.each(Object.entries(frames))('stays within bounds for mutations of %s', (name, frame) => {
    const random = seededRandom(Object.keys(frames).indexOf(name) + 1);
    for (let length = 0; length <= frame.length; length += frame.length > 128 ? 7 : 1) {
      runAll(frame.subarray(0, length), 3);
    }
    for (let i = 0; i < 400; i++) {
      const mutant = mutate(frame, random);
      if ((i & 4) === 0) repairIpv4(mutant);
      runAll(mutant, i & 3);
    }
  });

  it('stays within bounds for noise', () => {
    const random = seededRandom(815);
    for (let i = 0; i < 1500; i++) {
      const bytes = Uint8Array.from({ length: Math.floor(random() * 128) }, () => Math.floor(random() * 256));
      runAll(bytes, i & 3);
    }
  });
});
