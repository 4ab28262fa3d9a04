/**
 * What the stack has learned about the guest: its MAC and the addresses it uses. Forwards go to the *observed* address, so a guest
 * with a static address other than the leased one is reached too; before anything was observed they go to the leased one.
 */
import type { StackConfig } from './config.ts';

const BROADCAST_HI = 0xffff;
const BROADCAST_LO = 0xffffffff;

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

  constructor(config: StackConfig) {
    const known = config.guestMacHi !== 0 || config.guestMacLo !== 0;
    this.macHi = known ? config.guestMacHi : BROADCAST_HI;
    this.macLo = known ? config.guestMacLo : BROADCAST_LO;
    if (config.ipv4 !== undefined) this.ipv4[3] = config.ipv4.guestAddress;
    if (config.ipv6 !== undefined) this.ipv6.set(config.ipv6.guestAddress);
  }

  /** Whether frames can be addressed to the guest alone. */
  get isMacKnown(): boolean {
    return this.macHi !== BROADCAST_HI;
  }

  /** Notes the sender of a frame. */
  observeMac(hi: number, lo: number): void {
    this.macHi = hi;
    this.macLo = lo;
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
}
