/** Which guests there are, by the links of the command line, and what the options about them mean. */
import { PasselError } from '../base/errors.ts';
import type { AddressMapConfig } from '../forward/address-map.ts';
import type { Impairment } from '../link/impairment.ts';
import type { Netdev } from '../qemu/netdev.ts';
import { inheritedFd, isOverUdp, UDP_FRAME_BYTES } from '../qemu/netdev-facts.ts';
import { readUserNet, type UserNet } from '../qemu/user-net/user-net.ts';
import type { StackConfig } from '../stack/config.ts';
import { ETHERNET_HEADER_BYTES } from '../wire/ethernet.ts';
import { captureFormatOf } from './capture-format.ts';
import { checkImpairedGuests, findImpairment } from './impair-config.ts';
import type { NetworkConfig } from './network-config.ts';
import { type GivenOptions, narrowOptions } from './options/definition.ts';
import type { PasstOptionTable } from './options/passt-options.ts';
import { placeGuests } from './user-net/several-guests.ts';

export type TransportConfig =
  /** Listen on a unix socket; path undefined: the first free default path. */
  | { readonly kind: 'listen'; readonly path: string | undefined }
  /** Use a connected stream socket that we inherited. */
  | { readonly kind: 'fd'; readonly fd: number }
  /** What `--netdev` says. */
  | { readonly kind: 'netdev'; readonly netdev: Netdev };

/** One guest. */
export interface GuestConfig {
  /** The `id` of its link. */
  readonly name: string;
  readonly transport: TransportConfig;
  readonly stack: StackConfig;
  readonly addressMap: AddressMapConfig;
  readonly pcapPath: string | undefined;
  /** `--impair`; undefined: none. */
  readonly impairment: Impairment | undefined;
}

type Given = GivenOptions<PasstOptionTable>;

/** Each has 32 MiB of address space for its frames, and a descriptor or two. */
const MAX_GUESTS = 32;
/** A label of a host name: the guest is known by it. */
const GUEST_NAME = /^[a-z]([a-z\d-]{0,61}[a-z\d])?$/i;
const ONLY_GUEST = 'guest';
/** As long as a guest may leave what it was sent unanswered. */
const DEFAULT_GRACE_SECONDS = 120;

/** The names of the guests, in the order of their links. */
export function guestNames(given: Given): string[] {
  const links = given.all('netdev');
  if (links.length < 2) return [links[0]?.parsed.id ?? ONLY_GUEST];
  return links.map(({ parsed }, number) => parsed.id ?? `${ONLY_GUEST}${number + 1}`);
}

/**
 * Rules about links that need no host facts.
 * @throws PasselError
 */
export function checkLinks(given: Given): void {
  const links = given.all('netdev');
  checkImpairedGuests(narrowOptions(given), guestNames(given));
  if (given.gave('lease') && links.length < 2) {
    const values = { option: given.typed('lease'), other: 'several guests, each with a --netdev' };
    throw new PasselError('PASSEL_E_OPTION_REQUIRES', values);
  }
  if (links.length === 0) return;
  const option = given.typed('netdev');
  for (const other of ['socket', 'fd'] as const) {
    if (given.gave(other)) throw new PasselError('PASSEL_E_OPTION_CONFLICT', { option, other: given.typed(other) });
  }
  const mtu = given.last('mtu');
  for (const { parsed, text } of links) {
    const limit = mtuLimit(parsed);
    if (limit === undefined || mtu === undefined || mtu <= limit) continue;
    const expected = `at most ${limit}, which fits a UDP datagram, with ${option} ${text}`;
    throw new PasselError('PASSEL_E_OPTION_VALUE', { option: given.typed('mtu'), value: String(mtu), expected });
  }
  if (links.length > 1) checkSeveral(given);
}

function checkSeveral(given: Given): void {
  const links = given.all('netdev');
  const option = given.typed('netdev');
  if (links.length > MAX_GUESTS) {
    throw new PasselError('PASSEL_E_NETDEV_SEVERAL', { option, count: links.length, most: MAX_GUESTS });
  }
  const names = guestNames(given);
  for (const [number, name] of names.entries()) {
    const { text, parsed } = links[number]!;
    let expected: string | undefined;
    if (!GUEST_NAME.test(name)) {
      expected = "an id that is the guest's host name: a letter, then letters, digits and hyphens";
    } else if (names.findIndex((other) => other.toLowerCase() === name.toLowerCase()) < number) {
      expected = 'an id that no other guest has';
    } else if (inheritedFd(parsed) !== undefined) {
      expected = 'a link that this program opens itself, with several guests';
    }
    if (expected !== undefined) throw new PasselError('PASSEL_E_OPTION_VALUE', { option, value: text, expected });
  }
}

/**
 * The guests with what each of them is told.
 * @param network - of a guest that is alone; several have addresses of `--user-net` instead
 * @throws PasselError when there are too few addresses
 */
export function buildGuests(
  given: Given,
  network: NetworkConfig,
  userNet: UserNet | undefined,
  resolvers: readonly Uint32Array[],
): GuestConfig[] {
  const links = given.all('netdev').map(({ parsed }) => parsed);
  const names = guestNames(given);
  // On one network, the shortest frames are everybody's.
  const mtu = Math.min(network.stack.mtu, ...links.map((link) => mtuLimit(link) ?? network.stack.mtu));
  const reconnectGraceMs = 1000 * (given.last('reconnect-grace') ?? DEFAULT_GRACE_SECONDS);
  if (links.length < 2) {
    const [name] = names;
    const { stack, addressMap, pcapPath } = network;
    const impairment = findImpairment(narrowOptions(given), name!);
    const transport = buildTransport(given);
    return [{ name: name!, transport, stack: { ...stack, mtu, reconnectGraceMs }, addressMap, pcapPath, impairment }];
  }
  const leases = given.all('lease').map(({ parsed, typed, text }) => ({ ...parsed, typed, text }));
  const placed = placeGuests(network, userNet ?? readUserNet(''), resolvers, names, leases);
  return placed.map(({ stack, addressMap, pcapPath }, number) => ({
    name: names[number]!,
    transport: { kind: 'netdev', netdev: links[number]! },
    stack: { ...stack, mtu, reconnectGraceMs },
    addressMap,
    pcapPath: pcapPath === undefined ? undefined : nameInPath(pcapPath, names[number]!),
    impairment: findImpairment(narrowOptions(given), names[number]!),
  }));
}

function buildTransport(given: Given): TransportConfig {
  const netdev = given.all('netdev')[0]?.parsed;
  const fd = given.last('fd');
  if (netdev !== undefined) return { kind: 'netdev', netdev };
  return fd === undefined ? { kind: 'listen', path: given.last('socket') } : { kind: 'fd', fd };
}

/** `lan.pcap` of the guest `web` is `lan-web.pcap`; a file in the other format has all guests. */
function nameInPath(path: string, name: string): string {
  if (captureFormatOf(path) === 'pcapng') return path;
  const [, before, extension = ''] = /^(.*?[^/])(\.[^./]*)?$/.exec(path) ?? [undefined, path];
  return `${before}-${name}${extension}`;
}

/** Frames that do not fit the link's datagrams would be lost. Whole 32-bit words, as for the default. */
function mtuLimit(netdev: Netdev): number | undefined {
  return isOverUdp(netdev) ? (UDP_FRAME_BYTES - ETHERNET_HEADER_BYTES) & ~3 : undefined;
}
