/** Addresses that machines are given by their MAC address, whichever link they are on, instead of their link's. */
import type { Ipv4Config, Ipv6Config, StackConfig } from './config.ts';

/** A machine's own addresses; undefined: its link's. */
export interface MacLease {
  readonly macHi: number;
  readonly macLo: number;
  /** uint32 */
  readonly ipv4: number | undefined;
  /** 4 words */
  readonly ipv6: Uint32Array | undefined;
}

/** What a machine is told: `ipv4` itself, or the same with the address that its MAC has. */
export function leaseIpv4(config: StackConfig, ipv4: Ipv4Config, macHi: number, macLo: number): Ipv4Config {
  const guestAddress = find(config, macHi, macLo)?.ipv4;
  return guestAddress === undefined ? ipv4 : { ...ipv4, guestAddress };
}

/** As {@link leaseIpv4}. */
export function leaseIpv6(config: StackConfig, ipv6: Ipv6Config, macHi: number, macLo: number): Ipv6Config {
  const guestAddress = find(config, macHi, macLo)?.ipv6;
  return guestAddress === undefined ? ipv6 : { ...ipv6, guestAddress };
}

function find({ macLeases = [] }: StackConfig, macHi: number, macLo: number): MacLease | undefined {
  return macLeases.find((each) => each.macHi === macHi && each.macLo === macLo);
}
