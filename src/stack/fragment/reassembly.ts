/**
 * IP fragments from the guest, put together (RFC 791 §3.2, RFC 815, RFC 8200 §4.5).
 *
 * A datagram that is being collected has one of 64 slots in the arena, each large enough for the longest one, so memory is bounded
 * (4 MiB) whatever the guest does. When all are taken, the oldest incomplete datagram gives way. One that is not complete 30 s (IPv4) or
 * 60 s (IPv6, RFC 8200) after its first piece is forgotten, and if its beginning had come, the guest is told.
 *
 * **Overlaps.** A piece that has come before, byte for byte, is ignored. Any other overlap, a piece beyond the end, and two different
 * ends condemn the whole datagram, those of its pieces included that are yet to come (RFC 5722 §4; for IPv4 it is as
 * wise). Its slot stays taken till then.
 *
 * **What comes out** is a whole IP packet in the slot: the first fragment's header, without the fragment header or with the
 * fragment fields cleared, and the payload behind it. It stays there until `endInput`: what is sent from it
 * may not have been sent yet.
 *
 * Not done: ECN marks of later fragments (RFC 3168 §5.3); ICMPv6 parameter problems about pieces of odd length.
 */
import { finishChecksum, sumBytes } from '../../wire/checksum.ts';
import { IP_PROTOCOL_FRAGMENT, IP_PROTOCOL_ICMP, IP_PROTOCOL_ICMPV6 } from '../../wire/ip-protocol.ts';
import {
  getIpv4Dst,
  getIpv4FragmentOffset,
  getIpv4HeaderLength,
  getIpv4Id,
  getIpv4Protocol,
  getIpv4Src,
  getIpv4TotalLength,
  hasIpv4MoreFragments,
  storeIpv4Mapped,
} from '../../wire/ipv4.ts';
import {
  createIpv6Extensions,
  getIpv6PayloadLength,
  IPV6_DST_OFFSET,
  IPV6_FRAGMENT_HEADER_BYTES,
  IPV6_HEADER_BYTES,
  IPV6_SRC_OFFSET,
  loadIpv6,
  skipIpv6Extensions,
} from '../../wire/ipv6.ts';
import type { StackContext } from '../context.ts';
import type { IcmpErrorSender } from '../icmp/errors.ts';
import { REASON_REASSEMBLY } from '../icmp/reasons.ts';
import { addUnits, countUnits, UNIT_BYTES, UNIT_MAP_WORDS } from './unit-map.ts';

export const REASSEMBLY_SLOTS = 64;
export const REASSEMBLY_TIMEOUT_4_MS = 30_000;
export const REASSEMBLY_TIMEOUT_6_MS = 60_000;

/** Space in front of the payload for the first fragment's headers; more extension headers than fit have no honest use. */
const HEADER_SPACE_BYTES = 256;
const SLOT_BYTES = HEADER_SPACE_BYTES + 65_536;
const MAX_PACKET_BYTES = 65_535;
/** How often at most `expire` has to be called. */
const EXPIRE_INTERVAL_MS = 1000;

const FREE = 0;
const COLLECTING = 1;
/** Pieces contradicted each other: whatever else comes is thrown away. */
const CONDEMNED = 2;
/** Complete, and possibly still referred to. */
const HELD = 3;

/** `input4`/`input6` without a whole packet. */
const INCOMPLETE = -1;

export class Reassembler {
  private readonly ctx: StackContext;
  private readonly errors: IcmpErrorSender | undefined;
  private readonly releaseReferences: (() => void) | undefined;
  private readonly slots: number;
  private readonly state = new Uint8Array(REASSEMBLY_SLOTS);
  private readonly family = new Uint8Array(REASSEMBLY_SLOTS);
  private readonly protocol = new Uint8Array(REASSEMBLY_SLOTS);
  private readonly id = new Uint32Array(REASSEMBLY_SLOTS);
  private readonly source = new Uint32Array(REASSEMBLY_SLOTS * 4);
  private readonly destination = new Uint32Array(REASSEMBLY_SLOTS * 4);
  private readonly startedMs = new Float64Array(REASSEMBLY_SLOTS);
  /** Payload bytes that have come. */
  private readonly received = new Int32Array(REASSEMBLY_SLOTS);
  /** End of the piece that reaches farthest. */
  private readonly farthest = new Int32Array(REASSEMBLY_SLOTS);
  /** Payload bytes in all; -1 until the last piece has come. */
  private readonly total = new Int32Array(REASSEMBLY_SLOTS);
  /** Bytes of the first fragment's headers, which stand right in front of the payload; 0 until it has come. */
  private readonly headerBytes = new Int32Array(REASSEMBLY_SLOTS);
  /** Payload bytes of the first fragment. */
  private readonly firstBytes = new Int32Array(REASSEMBLY_SLOTS);
  /** Where in these headers the number of the fragment header stands; the fragment header's own is put there. */
  private readonly nextHeaderAt = new Int32Array(REASSEMBLY_SLOTS);
  private readonly units = new Uint32Array(REASSEMBLY_SLOTS * UNIT_MAP_WORDS);
  private readonly extensions = createIpv6Extensions();
  private readonly keySource = new Uint32Array(4);
  private readonly keyDestination = new Uint32Array(4);
  private pending = 0;
  private held = 0;
  private nextExpireMs = 0;

  /**
   * @param errors tells the guest of datagrams that never became complete; undefined: nobody does
   * @param releaseReferences called when the slots of complete packets are needed again: sends, or forgets, what refers to them
   */
  constructor(ctx: StackContext, errors?: IcmpErrorSender, releaseReferences?: () => void) {
    this.ctx = ctx;
    this.errors = errors;
    this.releaseReferences = releaseReferences;
    this.slots = ctx.arena.allocate(REASSEMBLY_SLOTS * SLOT_BYTES);
  }

  /** Datagrams of which pieces are missing. */
  get pendingCount(): number {
    return this.pending;
  }

  /** When `expire` is due, in the clock's milliseconds; Infinity while nothing is pending. */
  nextDueMs(): number {
    return this.pending > 0 ? this.nextExpireMs : Number.POSITIVE_INFINITY;
  }

  /**
   * Takes an IPv4 fragment, its header checked.
   * @returns the arena offset of the whole packet's IP header if this was the last piece missing, else negative
   */
  input4(l3Offset: number, nowMs: number): number {
    const { keySource, keyDestination } = this;
    const { view } = this.ctx;
    storeIpv4Mapped(keySource, 0, getIpv4Src(view, l3Offset));
    storeIpv4Mapped(keyDestination, 0, getIpv4Dst(view, l3Offset));
    const slot = this.findOrOpen(4, getIpv4Protocol(view, l3Offset), getIpv4Id(view, l3Offset), nowMs);
    const headerBytes = getIpv4HeaderLength(view, l3Offset);
    const fragmentOffset = getIpv4FragmentOffset(view, l3Offset);
    const payloadBytes = getIpv4TotalLength(view, l3Offset) - headerBytes;
    const more = hasIpv4MoreFragments(view, l3Offset);
    if (!this.addPiece(slot, l3Offset + headerBytes, fragmentOffset, payloadBytes, more)) return INCOMPLETE;
    if (fragmentOffset === 0) this.keepHeaders(slot, l3Offset, headerBytes, payloadBytes, 0);
    return this.complete(slot);
  }

  /** As `input4` for an IPv6 packet with a fragment header, its extension headers checked by `skipIpv6Extensions`. */
  input6(l3Offset: number, nowMs: number): number {
    const { keySource, keyDestination, extensions } = this;
    const { view } = this.ctx;
    const end = l3Offset + IPV6_HEADER_BYTES + getIpv6PayloadLength(view, l3Offset);
    if (skipIpv6Extensions(view, l3Offset, end, extensions) < 0) return INCOMPLETE;
    loadIpv6(view, l3Offset + IPV6_SRC_OFFSET, keySource, 0);
    loadIpv6(view, l3Offset + IPV6_DST_OFFSET, keyDestination, 0);
    const { fragmentOffset, fragmentHeaderOffset, l4Offset } = extensions;
    const headerBytes = l4Offset - l3Offset;
    if (headerBytes > HEADER_SPACE_BYTES) return INCOMPLETE;
    // IPv6 tells datagrams apart without the protocol (RFC 8200 §4.5).
    const slot = this.findOrOpen(6, 0, extensions.fragmentId, nowMs);
    if (!this.addPiece(slot, l4Offset, fragmentOffset, end - l4Offset, extensions.moreFragments)) return INCOMPLETE;
    if (fragmentOffset === 0) {
      const nextHeaderAt = findNextHeaderField(view, l3Offset, fragmentHeaderOffset);
      this.keepHeaders(slot, l3Offset, headerBytes, end - l4Offset, nextHeaderAt);
    }
    return this.complete(slot);
  }

  /** Packets given out so far are no longer referred to. */
  endInput(): void {
    if (this.held === 0) return;
    for (let slot = 0; slot < REASSEMBLY_SLOTS; slot++) {
      if (this.state[slot] === HELD) this.state[slot] = FREE;
    }
    this.held = 0;
  }

  /** Forgets datagrams whose time is over. */
  expire(nowMs: number): void {
    if (nowMs < this.nextExpireMs) return;
    for (let slot = 0; slot < REASSEMBLY_SLOTS; slot++) {
      const state = this.state[slot];
      if (state !== COLLECTING && state !== CONDEMNED) continue;
      const timeoutMs = this.family[slot] === 4 ? REASSEMBLY_TIMEOUT_4_MS : REASSEMBLY_TIMEOUT_6_MS;
      if (nowMs - this.startedMs[slot]! < timeoutMs) continue;
      if (state === COLLECTING) this.fail(slot);
      this.drop(slot);
    }
    this.nextExpireMs = nowMs + EXPIRE_INTERVAL_MS;
  }

  private findOrOpen(family: number, protocol: number, id: number, nowMs: number): number {
    const { state, keySource, keyDestination } = this;
    let free = -1;
    let oldest = -1;
    for (let slot = 0; slot < REASSEMBLY_SLOTS; slot++) {
      const slotState = state[slot];
      if (slotState === FREE) {
        if (free < 0) free = slot;
        continue;
      }
      if (slotState === HELD) continue;
      if (
        this.id[slot] === id &&
        this.family[slot] === family &&
        this.protocol[slot] === protocol &&
        isSameWords(this.source, slot * 4, keySource) &&
        isSameWords(this.destination, slot * 4, keyDestination)
      ) {
        return slot;
      }
      if (oldest < 0 || this.startedMs[slot]! < this.startedMs[oldest]!) oldest = slot;
    }
    if (free < 0 && this.held > 0) {
      this.releaseReferences?.();
      this.endInput();
      free = state.indexOf(FREE);
    }
    if (free < 0) {
      // Every slot is collecting or condemned.
      free = oldest;
      this.ctx.counters.reassemblyFailed++;
      this.drop(free);
    }
    this.open(free, family, protocol, id, nowMs);
    return free;
  }

  private open(slot: number, family: number, protocol: number, id: number, nowMs: number): void {
    this.state[slot] = COLLECTING;
    this.family[slot] = family;
    this.protocol[slot] = protocol;
    this.id[slot] = id;
    for (let i = 0; i < 4; i++) {
      this.source[slot * 4 + i] = this.keySource[i]!;
      this.destination[slot * 4 + i] = this.keyDestination[i]!;
    }
    this.startedMs[slot] = nowMs;
    this.received[slot] = 0;
    this.farthest[slot] = 0;
    this.total[slot] = -1;
    this.headerBytes[slot] = 0;
    this.firstBytes[slot] = 0;
    this.units.fill(0, slot * UNIT_MAP_WORDS, (slot + 1) * UNIT_MAP_WORDS);
    this.pending++;
    if (this.pending === 1) this.nextExpireMs = nowMs + EXPIRE_INTERVAL_MS;
  }

  /** @returns whether the piece was news */
  private addPiece(slot: number, from: number, at: number, lengthBytes: number, more: boolean): boolean {
    if (this.state[slot] !== COLLECTING) return false;
    const end = at + lengthBytes;
    const total = this.total[slot]!;
    // An empty piece, or one that ends off the grid without being the last, says nothing and harms nothing.
    if (lengthBytes === 0 || (more && lengthBytes % UNIT_BYTES !== 0)) return false;
    const contradicts =
      end > MAX_PACKET_BYTES ||
      (more ? total >= 0 && end >= total : (total >= 0 && end !== total) || end < this.farthest[slot]!);
    if (contradicts) {
      this.condemn(slot);
      return false;
    }
    const base = slot * UNIT_MAP_WORDS;
    const firstUnit = at / UNIT_BYTES;
    const endUnit = Math.ceil(end / UNIT_BYTES);
    const known = countUnits(this.units, base, firstUnit, endUnit);
    const target = this.payloadOf(slot) + at;
    if (known !== 0) {
      const isRepetition = known === endUnit - firstUnit && this.holdsSameBytes(target, from, lengthBytes);
      if (!isRepetition) this.condemn(slot);
      return false;
    }
    addUnits(this.units, base, firstUnit, endUnit);
    this.ctx.arena.bytes.copyWithin(target, from, from + lengthBytes);
    this.received[slot] = this.received[slot]! + lengthBytes;
    if (end > this.farthest[slot]!) this.farthest[slot] = end;
    if (!more) this.total[slot] = end;
    return true;
  }

  private holdsSameBytes(a: number, b: number, lengthBytes: number): boolean {
    const { bytes } = this.ctx.arena;
    for (let i = 0; i < lengthBytes; i++) if (bytes[a + i] !== bytes[b + i]) return false;
    return true;
  }

  private keepHeaders(
    slot: number,
    l3Offset: number,
    headerBytes: number,
    payloadBytes: number,
    nextHeaderAt: number,
  ): void {
    this.ctx.arena.bytes.copyWithin(this.payloadOf(slot) - headerBytes, l3Offset, l3Offset + headerBytes);
    this.headerBytes[slot] = headerBytes;
    this.firstBytes[slot] = payloadBytes;
    this.nextHeaderAt[slot] = nextHeaderAt;
  }

  private complete(slot: number): number {
    const total = this.total[slot]!;
    if (total < 0 || this.received[slot] !== total || this.headerBytes[slot] === 0) return INCOMPLETE;
    const { counters } = this.ctx;
    const l3Offset = this.family[slot] === 4 ? this.finish4(slot, total) : this.finish6(slot, total);
    this.pending--;
    if (l3Offset < 0) {
      this.state[slot] = FREE;
      counters.reassemblyFailed++;
      return INCOMPLETE;
    }
    this.state[slot] = HELD;
    this.held++;
    counters.reassembled++;
    return l3Offset;
  }

  private finish4(slot: number, total: number): number {
    const { view } = this.ctx;
    const headerBytes = this.headerBytes[slot]!;
    if (headerBytes + total > MAX_PACKET_BYTES) return -1;
    const l3Offset = this.payloadOf(slot) - headerBytes;
    view.setUint16(l3Offset + 2, headerBytes + total);
    view.setUint16(l3Offset + 6, 0);
    view.setUint16(l3Offset + 10, 0);
    view.setUint16(l3Offset + 10, finishChecksum(sumBytes(view, l3Offset, headerBytes, 0)));
    return l3Offset;
  }

  private finish6(slot: number, total: number): number {
    const { view, arena } = this.ctx;
    const keptBytes = this.headerBytes[slot]!;
    const headerBytes = keptBytes - IPV6_FRAGMENT_HEADER_BYTES;
    if (headerBytes - IPV6_HEADER_BYTES + total > MAX_PACKET_BYTES) return -1;
    const payload = this.payloadOf(slot);
    const nextHeader = view.getUint8(payload - IPV6_FRAGMENT_HEADER_BYTES);
    const l3Offset = payload - headerBytes;
    arena.bytes.copyWithin(l3Offset, payload - keptBytes, payload - keptBytes + headerBytes);
    view.setUint8(l3Offset + this.nextHeaderAt[slot]!, nextHeader);
    view.setUint16(l3Offset + 4, headerBytes - IPV6_HEADER_BYTES + total);
    return l3Offset;
  }

  /** RFC 792, RFC 8200 §4.5: the sender is told if the first fragment has come, unless it might itself be an ICMP error. */
  private fail(slot: number): void {
    this.ctx.counters.reassemblyFailed++;
    const headerBytes = this.headerBytes[slot]!;
    if (headerBytes === 0 || this.errors === undefined) return;
    const { view } = this.ctx;
    const payload = this.payloadOf(slot);
    const family = this.family[slot]!;
    const protocol = family === 4 ? this.protocol[slot]! : view.getUint8(payload - IPV6_FRAGMENT_HEADER_BYTES);
    if (protocol === IP_PROTOCOL_ICMP || protocol === IP_PROTOCOL_ICMPV6) return;
    const at = slot * 4;
    const packet = payload - headerBytes;
    const packetBytes = headerBytes + this.firstBytes[slot]!;
    const { source, destination } = this;
    this.errors.sendAboutPacket(family, REASON_REASSEMBLY, packet, packetBytes, source, at, destination, at);
  }

  private condemn(slot: number): void {
    this.state[slot] = CONDEMNED;
    this.ctx.counters.reassemblyFailed++;
  }

  private drop(slot: number): void {
    this.state[slot] = FREE;
    this.pending--;
  }

  private payloadOf(slot: number): number {
    return this.slots + slot * SLOT_BYTES + HEADER_SPACE_BYTES;
  }
}

function isSameWords(a: Uint32Array, at: number, b: Uint32Array): boolean {
  return a[at] === b[0] && a[at + 1] === b[1] && a[at + 2] === b[2] && a[at + 3] === b[3];
}

/** Offset, from the IPv6 header, of the field that announces the fragment header. */
function findNextHeaderField(view: DataView, l3Offset: number, fragmentHeaderOffset: number): number {
  let field = l3Offset + 6;
  let at = l3Offset + IPV6_HEADER_BYTES;
  while (at < fragmentHeaderOffset) {
    const isFragment = view.getUint8(field) === IP_PROTOCOL_FRAGMENT;
    field = at;
    at += isFragment ? IPV6_FRAGMENT_HEADER_BYTES : (view.getUint8(at + 1) + 1) * 8;
  }
  return field - l3Offset;
}
