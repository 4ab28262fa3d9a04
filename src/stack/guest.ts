/**
 * What the stack has learned about the guest: its MAC and the addresses it uses. Forwards go to the *observed* address, so a guest
 * with a static address other than the leased one is reached too; before anything was observed they go to the leased one.
 *
 * A guest that comes back after its link was gone is known by its MAC, or one of those that it had before. Any other is another guest.
 */
import type { StackConfig } from './config.ts';

const BROADCAST_HI = 0xffff;
const BROADCAST_LO = 0xffffffff;
const TWO_TO_32 = 0x1_0000_0000;
/** A guest has one, or a few when it runs guests of its own; with more, nobody is taken for another guest. */
const MACS_MAX = 64;

export class GuestState {
  /** Broadcast until a frame was seen or the configuration names it. */
  macHi: number;
  macLo: number;
  /** Last source addresses seen, 4 words each; start as the configured ones. */
  readonly ipv4 = new Uint32Array([0, 0, 0xffff, 0]);
  readonly ipv6 = new Uint32Array(4);
  /** All zero until seen. */
  readonly linkLocal = new Uint32Array(4);

  /** When DHCP and DHCPv6 last gave the guest its address, by the stack's clock; NaN: never. */
  leased4Ms = Number.NaN;
  leased6Ms = Number.NaN;
  /** Which addresses these were, and whose MAC (as a 48-bit number); before that, what the link would give. */
  leased4 = 0;
  readonly leased6 = new Uint32Array(4);
  leased4Mac = 0;
  leased6Mac = 0;

  /** Another guest than the one that has left sends its first frame. Called from inside `observeMac`. */
  onOther: () => void = ignore;

  private readonly config: StackConfig;
  /** As 48-bit numbers. */
  private readonly macs = new Set<number>();
  private hasLeft = false;

  constructor(config: StackConfig) {
    this.config = config;
    const known = config.guestMacHi !== 0 || config.guestMacLo !== 0;
    this.macHi = known ? config.guestMacHi : BROADCAST_HI;
    this.macLo = known ? config.guestMacLo : BROADCAST_LO;
    if (known) this.macs.add(this.macHi * TWO_TO_32 + this.macLo);
    this.forgetAddresses();
  }

  /** Whether frames can be addressed to the guest alone. */
  get isMacKnown(): boolean {
    return this.macHi !== BROADCAST_HI;
  }

  /** Notes that DHCP has given an address to this MAC. */
  noteLease4(address: number, macHi: number, macLo: number, nowMs: number): void {
    this.leased4 = address;
    this.leased4Mac = macHi * TWO_TO_32 + macLo;
    this.leased4Ms = nowMs;
  }

  /** As `noteLease4`, for DHCPv6. */
  noteLease6(address: Uint32Array, macHi: number, macLo: number, nowMs: number): void {
    this.leased6.set(address);
    this.leased6Mac = macHi * TWO_TO_32 + macLo;
    this.leased6Ms = nowMs;
  }

  /** Notes the sender of a frame. */
  observeMac(hi: number, lo: number): void {
    if (hi !== this.macHi || lo !== this.macLo || this.hasLeft) this.noteMac(hi, lo);
  }

  /** Its link is gone: whoever sends next may be another. */
  noteGone(): void {
    this.hasLeft = this.isMacKnown;
  }

  /** Notes the source address of an IP packet; unspecified and multicast sources say nothing. */
  observeAddress(family: number, source: Uint32Array): void {
    if (family === 4) {
      const address = source[3]!;
      if (address !== 0 && address >>> 28 !== 0xe && address !== 0xffffffff) this.ipv4[3] = address;
      return;
    }
    const first = source[0]!;
    if (first >>> 24 === 0xff || (first | source[1]! | source[2]! | source[3]!) === 0) return;
    const target = first >>> 22 === 0x3fa ? this.linkLocal : this.ipv6;
    target[0] = first;
    target[1] = source[1]!;
    target[2] = source[2]!;
    target[3] = source[3]!;
  }

  private noteMac(hi: number, lo: number): void {
    const { macs } = this;
    const mac = hi * TWO_TO_32 + lo;
    const isOther = this.hasLeft && macs.size < MACS_MAX && !macs.has(mac);
    this.hasLeft = false;
    if (isOther) {
      macs.clear();
      this.forgetAddresses();
      this.onOther();
    }
    this.macHi = hi;
    this.macLo = lo;
    if (macs.size < MACS_MAX) macs.add(mac);
  }

  private forgetAddresses(): void {
    const { ipv4, ipv6 } = this.config;
    if (ipv4 !== undefined) this.ipv4[3] = ipv4.guestAddress;
    if (ipv6 !== undefined) this.ipv6.set(ipv6.guestAddress);
    this.linkLocal.fill(0);
    this.leased4Ms = Number.NaN;
    this.leased6Ms = Number.NaN;
  }
}

function ignore(): void {}
