/**
 * From options and host facts to what a run of passel-pasta does. Pure: reads nothing and opens nothing, so every rule about defaults
 * can be tested on its own.
 */
import { PasselError } from '../base/errors.ts';
import { formatIp, formatIpv4, isMappedIpv4, mapIpv4 } from '../base/ip-text.ts';
import type { PortForwardRule, PortRange } from '../forward/port-spec.ts';
import type { Impairment } from '../link/impairment.ts';
import type { HostFacts } from '../sys/host-facts.ts';
import type { TapAddress, TapRequest, TapRoute } from '../sys/namespace.ts';
import { checkImpairedGuests, findImpairment } from './impair-config.ts';
import { buildForwards, buildNetworkConfig, checkNetworkOptions, type NetworkConfig } from './network-config.ts';
import { type GivenOptions, narrowOptions } from './options/definition.ts';
import type { PastaOptionTable } from './options/pasta-options.ts';
import type { MacAddress } from './options/values.ts';

/** Whose network it is. */
export type PastaTarget =
  /** New namespaces for a command; an empty list: the user's shell. */
  | { readonly kind: 'command'; readonly command: readonly string[] }
  | {
      readonly kind: 'join';
      readonly netPath: string;
      readonly userPath: string | undefined;
      readonly pid: number | undefined;
      readonly watch: boolean;
    };

/** What the host's template interfaces have besides the address and route that every guest gets. */
export interface TemplateExtras {
  readonly addresses4: readonly TapAddress[];
  readonly addresses6: readonly TapAddress[];
  readonly routes4: readonly TapRoute[];
  readonly routes6: readonly TapRoute[];
}

export interface PastaConfig {
  readonly network: NetworkConfig;
  /** `--impair`; undefined: none. */
  readonly impairment: Impairment | undefined;
  readonly target: PastaTarget;
  /** Undefined: `--splice-only`. */
  readonly tap: TapRequest | undefined;
  /** From the namespace's loopback to the host's. */
  readonly namespaceForwards: readonly PortForwardRule[];
  readonly splice: boolean;
  /** The host's loopback leads to the namespace's, not to its address. */
  readonly loopbackToLoopback: boolean;
}

type Given = GivenOptions<PastaOptionTable>;

/** The name of the namespace, where guests are called by theirs. */
export const PASTA_GUEST = 'namespace';

const DEFAULT_TAP = 'tap0';
const NETNS_FOLDER = '/run/netns';
const PID_MAX = 2 ** 22;

/** Options that exclude each other whatever their values. */
const CONFLICTS = [
  ['no-splice', 'splice-only'],
  ['userns', 'netns-only'],
  ['splice-only', 'config-net'],
  ['splice-only', 'impair'],
] as const;

/**
 * Rules that need no host facts.
 * @throws PasselError
 */
export function checkPastaOptions(given: Given): void {
  checkNetworkOptions(narrowOptions(given));
  for (const [a, b] of CONFLICTS) {
    if (given.gave(a) && given.gave(b)) {
      throw new PasselError('PASSEL_E_OPTION_CONFLICT', { option: given.typed(a), other: given.typed(b) });
    }
  }
  checkImpairedGuests(narrowOptions(given), [PASTA_GUEST]);
  const target = chooseTarget(given);
  if (given.gave('stats') && !given.has('foreground') && target.kind === 'join') {
    throw new PasselError('PASSEL_E_OPTION_REQUIRES', { option: given.typed('stats'), other: '--foreground' });
  }
}

/**
 * Whose network the command line asks for: a number alone is a PID, other operands are a command.
 * @throws PasselError
 */
export function chooseTarget(given: Given): PastaTarget {
  const [operand, second] = given.operands;
  const netns = given.last('netns');
  const watch = !given.has('no-netns-quit');
  if (netns !== undefined) {
    if (operand !== undefined) {
      throw new PasselError('PASSEL_E_OPTION_CONFLICT', { option: given.typed('netns'), other: 'a PID or command' });
    }
    const netPath = netns.includes('/') ? netns : `${NETNS_FOLDER}/${netns}`;
    return { kind: 'join', netPath, userPath: given.last('userns'), pid: undefined, watch };
  }
  if (operand !== undefined && second === undefined && /^\d+$/.test(operand)) {
    const pid = Number(operand);
    if (pid < 1 || pid > PID_MAX) {
      throw new PasselError('PASSEL_E_OPERAND', { value: operand, expected: 'a PID, or a command' });
    }
    const userPath = given.has('netns-only') ? undefined : (given.last('userns') ?? `/proc/${pid}/ns/user`);
    return { kind: 'join', netPath: `/proc/${pid}/ns/net`, userPath, pid, watch };
  }
  for (const name of ['userns', 'netns-only', 'no-netns-quit'] as const) {
    if (!given.gave(name)) continue;
    throw new PasselError('PASSEL_E_OPTION_REQUIRES', { option: given.typed(name), other: '--netns or a PID' });
  }
  return { kind: 'command', command: given.operands };
}

/**
 * Merges options with host facts.
 * @param ephemeral - the host's ephemeral ports, which sweeping forwards leave alone
 * @param randomMac - the namespace's MAC address unless one is given
 * @throws PasselError
 */
export function buildPastaConfig(
  given: Given,
  facts: HostFacts,
  extras: TemplateExtras,
  ephemeral: PortRange,
  randomMac: MacAddress,
): PastaConfig {
  checkPastaOptions(given);
  const mac = given.last('ns-mac-addr') ?? randomMac;
  const isConfigured = given.has('config-net');
  const network = buildNetworkConfig(narrowOptions(given), facts, ephemeral, {
    mac,
    advertiseDns: given.has('dhcp-dns'),
    advertiseSearch: given.has('dhcp-search'),
    isConfigured,
    forwards: buildRules(given, ephemeral, 'ports'),
  });
  const name =
    given.last('ns-ifname') ??
    ([network.templates.ipv4, network.templates.ipv6].find((template) => template !== '') || DEFAULT_TAP);
  return {
    network,
    impairment: findImpairment(narrowOptions(given), PASTA_GUEST),
    target: chooseTarget(given),
    tap: given.has('splice-only')
      ? undefined
      : {
          name,
          mac: formatMac(mac),
          vnetHeader: true,
          network: isConfigured
            ? {
                mtu: network.stack.advertiseMtu ? network.stack.mtu : 0,
                ...joinFamilies(configureIpv4(given, network, extras), configureIpv6(given, network, extras)),
              }
            : undefined,
        },
    namespaceForwards: buildRules(given, ephemeral, 'ns'),
    splice: !given.has('no-splice'),
    loopbackToLoopback: given.has('host-lo-to-ns-lo') || given.has('splice-only'),
  };
}

/** Without a word, ports follow what is listened on, unless their protocol is off. */
function buildRules(given: Given, ephemeral: PortRange, direction: 'ports' | 'ns'): PortForwardRule[] {
  return (['tcp', 'udp'] as const).flatMap((proto) => {
    const option = `${proto}-${direction}` as const;
    const off = `no-${proto}` as const;
    const texts = given.all(option).map((occurrence) => occurrence.text);
    if (texts.length === 0 && given.has(off)) return [];
    const specs = texts.length === 0 ? ['auto'] : texts;
    const typed = given.typed(option);
    const rules = buildForwards(
      narrowOptions(given),
      { typed, specs, proto, off: given.has(off) ? given.typed(off) : undefined },
      ephemeral,
    );
    const path = rules.find(({ bindPath }) => bindPath !== undefined)?.bindPath;
    if (path === undefined) return rules;
    const expected = 'ports: unix sockets are forwarded to virtual machines only';
    throw new PasselError('PASSEL_E_OPTION_VALUE', { option: typed, value: `unix:${path}`, expected });
  });
}

interface FamilyNetwork {
  readonly addresses: readonly TapAddress[];
  readonly routes: readonly TapRoute[];
}

function joinFamilies(a: FamilyNetwork, b: FamilyNetwork): FamilyNetwork {
  return { addresses: [...a.addresses, ...b.addresses], routes: [...a.routes, ...b.routes] };
}

const NOTHING: FamilyNetwork = { addresses: [], routes: [] };

function configureIpv4(given: Given, network: NetworkConfig, extras: TemplateExtras): FamilyNetwork {
  const { ipv4 } = network.stack;
  if (ipv4 === undefined) return NOTHING;
  const mask = ipv4.prefixLength === 0 ? 0 : (-1 << (32 - ipv4.prefixLength)) >>> 0;
  const isNear = ((ipv4.guestAddress ^ ipv4.gateway) & mask) === 0;
  const own = { address: formatIpv4(ipv4.guestAddress), prefixLength: ipv4.prefixLength };
  const chosen = (name: 'address' | 'gateway'): boolean =>
    given.all(name).some(({ parsed }) => isMappedIpv4('address' in parsed ? parsed.address : parsed));
  return {
    addresses: [own, ...copyAddresses(given, chosen('address'), own, extras.addresses4)],
    routes: [
      ...defaultRoute({ address: '0.0.0.0', prefixLength: 0 }, formatIp(mapIpv4(ipv4.gateway)), isNear, 32),
      ...copyRoutes(given, chosen('address') || chosen('gateway'), extras.routes4),
    ],
  };
}

function configureIpv6(given: Given, network: NetworkConfig, extras: TemplateExtras): FamilyNetwork {
  const { ipv6 } = network.stack;
  if (ipv6 === undefined) return NOTHING;
  const own = { address: formatIp(ipv6.guestAddress), prefixLength: ipv6.prefixLength };
  // Link-local addresses are on every link; others are given a route of their own, which hurts in no case.
  const isNear = ipv6.gateway[0]! >>> 22 === 0xfe80 >>> 6;
  const chosen = (name: 'address' | 'gateway'): boolean =>
    given.all(name).some(({ parsed }) => !isMappedIpv4('address' in parsed ? parsed.address : parsed));
  return {
    addresses: [own, ...copyAddresses(given, chosen('address'), own, extras.addresses6)],
    routes: [
      ...defaultRoute({ address: '::', prefixLength: 0 }, formatIp(ipv6.gateway), isNear, 128),
      ...copyRoutes(given, chosen('address') || chosen('gateway'), extras.routes6),
    ],
  };
}

/** A gateway outside of the address's network is told to be on the link first. */
function defaultRoute(all: TapAddress, gateway: string, isNear: boolean, fullLength: number): TapRoute[] {
  const towards: TapRoute = {
    address: gateway,
    prefixLength: fullLength,
    gateway: undefined,
    metric: 0,
    optional: false,
  };
  return [...(isNear ? [] : [towards]), { ...all, gateway, metric: 0, optional: false }];
}

function copyAddresses(
  given: Given,
  isChosen: boolean,
  own: TapAddress,
  all: readonly TapAddress[],
): readonly TapAddress[] {
  if (isChosen || given.has('no-copy-addrs')) return [];
  return all.filter(({ address }) => address !== own.address);
}

function copyRoutes(given: Given, isChosen: boolean, all: readonly TapRoute[]): readonly TapRoute[] {
  return isChosen || given.has('no-copy-routes') ? [] : all;
}

/** Text of a MAC address. */
export function formatMac({ hi, lo }: MacAddress): string {
  const digits = hi.toString(16).padStart(4, '0') + (lo >>> 0).toString(16).padStart(8, '0');
  return digits.match(/../g)!.join(':');
}
