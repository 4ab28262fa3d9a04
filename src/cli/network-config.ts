/**
 * What options and host facts mean for a network stack, whatever its guest is. Pure: reads nothing and opens nothing, so every rule about
 * defaults can be tested on its own.
 */
import { PasselError } from '../base/errors.ts';
import { isMappedIpv4 } from '../base/ip-text.ts';
import type { LogLevel } from '../base/logger.ts';
import type { AddressMapConfig } from '../forward/address-map.ts';
import type { DnsRoute } from '../forward/dns/routes.ts';
import { type PortForwardRule, type PortRange, parsePortSpecs } from '../forward/port-spec.ts';
import type { GuestForward } from '../qemu/user-net/guest-forward.ts';
import type { StackConfig } from '../stack/config.ts';
import type { HostFacts } from '../sys/host-facts.ts';
import type { CaptureLimits } from './captures.ts';
import { buildFamilies } from './guest-addresses.ts';
import type { StaticName } from './names/guest-names.ts';
import { type GivenOptions, narrowOptions } from './options/definition.ts';
import { DEFAULT_BUSY_POLL_US, type NETWORK_OPTIONS } from './options/network-options.ts';
import type { LINK_OPTIONS, PROCESS_OPTIONS } from './options/process-options.ts';

/** The options that all stacks have. */
export type NetworkOptionTable = typeof NETWORK_OPTIONS & typeof LINK_OPTIONS & typeof PROCESS_OPTIONS;
export type NetworkGiven = GivenOptions<NetworkOptionTable>;

export interface LoggingConfig {
  readonly level: LogLevel;
  readonly format: 'text' | 'json';
  /** Write here and nowhere else; undefined: standard error. */
  readonly filePath: string | undefined;
  /** The file is cut from its beginning when it grows beyond this. */
  readonly fileMaxBytes: number;
}

/** Who to become once everything is open. */
export interface RunAs {
  readonly user: string;
  readonly group: string | undefined;
}

export interface ServicesConfig {
  /** Empty: no TFTP server. */
  readonly tftpFolder: string;
  readonly guestForwards: readonly GuestForward[];
  /** The folder of the SMB server and its address in the guest's network, 4 words; undefined: there is none. */
  readonly smb?: { readonly folder: string; readonly server: Uint32Array } | undefined;
}

/** Names that the network answers for itself, its guests' and others, and who is asked about the rest. */
export interface NamesConfig {
  /** What may stand behind a guest's name; empty: nothing. */
  readonly domain: string;
  readonly statics: readonly StaticName[];
  /** Who is asked about other names; a route for all of them is the last. */
  readonly routes: readonly DnsRoute[];
  /** The host's own list of names; undefined: it is not looked at. */
  readonly hostsPath: string | undefined;
}

/** What every stack needs to know. */
export interface NetworkConfig {
  readonly stack: StackConfig;
  readonly addressMap: AddressMapConfig;
  readonly forwards: readonly PortForwardRule[];
  /** What the guest meets at addresses of its network, if there is anything: by `--user-net`. */
  readonly services?: ServicesConfig | undefined;
  /** Left out: the host's resolver is asked for every name, by the guest itself. */
  readonly names?: NamesConfig | undefined;
  /** How long a guest may be silent where nobody says that it has gone; left out: for ever. */
  readonly silenceSeconds?: number | undefined;
  /** `--freebind`: forwards may be bound to addresses that do not exist (yet). */
  readonly freebind: boolean;
  /** `--busy-poll`: how long at most to look for an answer before sleeping, microseconds; 0: not at all. */
  readonly busyPollUs: number;
  /** Record all frames here. */
  readonly pcapPath: string | undefined;
  readonly captureLimits: CaptureLimits;
  readonly pidPath: string | undefined;
  /** `--conf-path`: the control socket. */
  readonly controlPath: string | undefined;
  /** `--stats`: shortest time between two lines of event counts. */
  readonly statsSeconds: number | undefined;
  /** The host's ports for outgoing connections, for specifications that come later. */
  readonly ephemeral: PortRange;
  readonly foreground: boolean;
  /** Undefined: the default, nobody when started as root. */
  readonly runAs: RunAs | undefined;
  readonly logging: LoggingConfig;
  /** Name of the template interfaces, for the start-up message; empty: link-local fallback. */
  readonly templates: { readonly ipv4: string; readonly ipv6: string };
}

/** What differs between kinds of guests. */
export interface GuestTraits {
  /** Known beforehand, (first 16 bits, last 32 bits); 0, 0: learnt. */
  readonly mac: { readonly hi: number; readonly lo: number };
  readonly advertiseDns: boolean;
  readonly advertiseSearch: boolean;
  /** Given addresses already: router advertisements would add others. */
  readonly isConfigured: boolean;
  readonly forwards: readonly PortForwardRule[];
}

/** passt's own default, which guests with recorded ARP entries may know: 9a:55:9a:55:9a:55. */
const DEFAULT_MAC = { hi: 0x9a55, lo: 0x9a559a55 };
const DEFAULT_MTU = 65520;
const DEFAULT_LOG_BYTES = 1024 * 1024;

/** Options that exclude each other whatever their values. */
const CONFLICTS = [
  ['ipv4-only', 'ipv6-only'],
  ['debug', 'quiet'],
  ['trace', 'quiet'],
] as const;

/** The logging part alone: needed before anything else can go wrong. */
export function buildLoggingConfig(given: NetworkGiven): LoggingConfig {
  let level: LogLevel = 'info';
  if (given.has('quiet')) level = 'warn';
  if (given.has('debug')) level = 'debug';
  if (given.has('trace')) level = 'trace';
  return {
    level,
    format: given.last('log-format') ?? 'text',
    filePath: given.last('log-file'),
    fileMaxBytes: given.last('log-size') ?? DEFAULT_LOG_BYTES,
  };
}

/**
 * Rules that need no host facts: a launcher can refuse a command line before it starts anything.
 * @throws PasselError
 */
export function checkNetworkOptions(given: NetworkGiven): void {
  for (const [a, b] of CONFLICTS) {
    if (given.gave(a) && given.gave(b)) {
      throw new PasselError('PASSEL_E_OPTION_CONFLICT', { option: given.typed(a), other: given.typed(b) });
    }
  }
  for (const name of ['pcap-size', 'pcap-snaplen'] as const) {
    if (given.gave(name) && !given.gave('pcap')) {
      throw new PasselError('PASSEL_E_OPTION_REQUIRES', { option: given.typed(name), other: '--pcap' });
    }
  }
  const addressed = given
    .all('address')
    .find((a) => isMappedIpv4(a.parsed.address) && a.parsed.prefixLength !== undefined);
  if (addressed !== undefined && given.last('netmask') !== undefined) {
    const other = `${addressed.typed} ${addressed.text}`;
    throw new PasselError('PASSEL_E_OPTION_CONFLICT', { option: given.typed('netmask'), other });
  }
}

/**
 * Merges options with host facts.
 * @param ephemeral - the host's ephemeral ports, which sweeping forwards leave alone
 * @throws PasselError
 */
export function buildNetworkConfig(
  given: NetworkGiven,
  facts: HostFacts,
  ephemeral: PortRange,
  traits: GuestTraits,
): NetworkConfig {
  const families = buildFamilies(narrowOptions<typeof NETWORK_OPTIONS, NetworkOptionTable>(given), facts);
  const mac = given.last('mac-addr') ?? DEFAULT_MAC;
  const mtu = given.last('mtu') ?? DEFAULT_MTU;
  const noIcmp = given.has('no-icmp');
  // Neighbour discovery is ICMPv6: without the one there cannot be the other.
  const ndp = !given.has('no-ndp') && !noIcmp;
  return {
    stack: {
      ourMacHi: mac.hi,
      ourMacLo: mac.lo,
      guestMacHi: traits.mac.hi,
      guestMacLo: traits.mac.lo,
      mtu: mtu === 0 ? DEFAULT_MTU : mtu,
      advertiseMtu: mtu !== 0,
      ipv4: families.stack4,
      ipv6: families.stack6,
      searchDomains: buildSearchList(given, facts),
      hostname: given.last('hostname') ?? '',
      fqdn: given.last('fqdn') ?? '',
      tcp: !given.has('no-tcp'),
      udp: !given.has('no-udp'),
      icmp: !noIcmp,
      dhcp: !given.has('no-dhcp'),
      dhcpv6: !given.has('no-dhcpv6'),
      ndp,
      routerAdvertisements: ndp && !given.has('no-ra') && !traits.isConfigured,
      advertiseDns: traits.advertiseDns,
      advertiseSearch: traits.advertiseSearch,
    },
    addressMap: {
      ipv4: families.map4,
      ipv6: families.map6,
      linkLocalScopeId: facts.ipv6?.interfaceIndex ?? 0,
    },
    forwards: traits.forwards,
    freebind: given.has('freebind'),
    busyPollUs: given.last('busy-poll') ?? DEFAULT_BUSY_POLL_US,
    pcapPath: given.last('pcap'),
    captureLimits: { snapBytes: given.last('pcap-snaplen'), maxBytes: given.last('pcap-size') },
    pidPath: given.last('pid'),
    controlPath: given.last('conf-path'),
    statsSeconds: given.last('stats'),
    ephemeral,
    foreground: given.has('foreground'),
    runAs: given.last('runas'),
    logging: buildLoggingConfig(given),
    templates: { ipv4: facts.ipv4?.interfaceName ?? '', ipv6: facts.ipv6?.interfaceName ?? '' },
  };
}

function buildSearchList(given: NetworkGiven, facts: HostFacts): readonly string[] {
  const lists = given.all('search');
  if (lists.length === 0) return facts.searchDomains;
  // An empty list ("none") clears what came before it, so that the last word counts.
  let domains: string[] = [];
  for (const { parsed } of lists) domains = parsed.length === 0 ? [] : [...domains, ...parsed];
  return domains;
}

/** What one kind of port option asks for. */
export interface PortRequest {
  /** The option as it was typed. */
  readonly typed: string;
  readonly specs: readonly string[];
  readonly proto: 'tcp' | 'udp';
  /** Names that may stand as targets. */
  readonly guests?: readonly string[];
  /** The option that switches the protocol off, as typed; undefined: it is on. */
  readonly off: string | undefined;
}

/** @throws PasselError */
export function buildForwards(given: NetworkGiven, request: PortRequest, ephemeral: PortRange): PortForwardRule[] {
  const { typed, specs, proto, guests, off } = request;
  const rules = parsePortSpecs(typed, proto, specs, ephemeral, guests);
  if (rules.length > 0 && off !== undefined) {
    throw new PasselError('PASSEL_E_OPTION_CONFLICT', { option: typed, other: off });
  }
  for (const rule of rules) checkFamily(given, rule);
  return rules;
}

/** A forward bound to an address of a family that was switched off could never reach the guest. */
function checkFamily(given: NetworkGiven, rule: PortForwardRule): void {
  const addresses = [rule.bindAddress, rule.targetAddress].filter((a) => a !== undefined);
  for (const address of addresses) {
    const only = address.includes(':') ? 'ipv4-only' : 'ipv6-only';
    if (!given.has(only)) continue;
    const option = `--${rule.proto}-ports ${address}/${rule.first}`;
    throw new PasselError('PASSEL_E_OPTION_CONFLICT', { option, other: given.typed(only) });
  }
}
