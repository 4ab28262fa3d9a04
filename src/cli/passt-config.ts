/**
 * From options and host facts to what a run of passel-passt does. Pure: reads nothing and opens nothing, so every rule about
 * defaults can be tested on its own.
 */
import { PasselError } from '../base/errors.ts';
import type { PortForwardRule, PortRange } from '../forward/port-spec.ts';
import type { Netdev } from '../qemu/netdev.ts';
import { inheritedFd, isOverUdp, UDP_FRAME_BYTES } from '../qemu/netdev-facts.ts';
import type { HostFacts } from '../sys/host-facts.ts';
import { ETHERNET_HEADER_BYTES } from '../wire/ethernet.ts';
import { buildForwards, buildNetworkConfig, checkNetworkOptions, type NetworkConfig } from './network-config.ts';
import { type GivenOptions, narrowOptions } from './options/definition.ts';
import type { PasstOptionTable } from './options/passt-options.ts';
import { applyUserNet } from './user-net/user-net-config.ts';

export type TransportConfig =
  /** Listen on a unix socket; path undefined: the first free default path. */
  | { readonly kind: 'listen'; readonly path: string | undefined }
  /** Use a connected stream socket that we inherited. */
  | { readonly kind: 'fd'; readonly fd: number }
  /** What `--netdev` says. */
  | { readonly kind: 'netdev'; readonly netdev: Netdev };

/** Everything that a run of passel-passt needs to know. */
export interface PasstConfig extends NetworkConfig {
  readonly transport: TransportConfig;
  /** End when the first guest has left. */
  readonly oneOff: boolean;
}

type Given = GivenOptions<PasstOptionTable>;

/** What the options of --user-net settle. */
const SETTLED_BY_USER_NET = [
  ...([
    'address',
    'netmask',
    'gateway',
    'interface',
    'ipv4-only',
    'ipv6-only',
    'dns',
    'dns-forward',
    'search',
  ] as const),
  ...(['hostname', 'map-host-loopback', 'no-map-gw', 'map-guest-addr'] as const),
];

/**
 * Rules that need no host facts: a launcher can refuse a command line before it starts anything.
 * @throws PasselError
 */
export function checkPasstOptions(given: Given): void {
  checkNetworkOptions(narrowOptions(given));
  if (given.gave('socket') && given.gave('fd')) {
    throw new PasselError('PASSEL_E_OPTION_CONFLICT', { option: given.typed('socket'), other: given.typed('fd') });
  }
  checkNetdev(given);
  if (given.gave('stats') && !given.has('foreground')) {
    throw new PasselError('PASSEL_E_OPTION_REQUIRES', { option: given.typed('stats'), other: '--foreground' });
  }
  const settled = given.gave('user-net') ? SETTLED_BY_USER_NET.find((name) => given.gave(name)) : undefined;
  if (settled !== undefined) {
    throw new PasselError('PASSEL_E_OPTION_CONFLICT', { option: given.typed(settled), other: given.typed('user-net') });
  }
  const [operand] = given.operands;
  if (operand !== undefined) {
    throw new PasselError('PASSEL_E_OPERAND', { value: operand, expected: 'options only' });
  }
}

/**
 * Merges options with host facts.
 * @param ephemeral - the host's ephemeral ports, which sweeping forwards leave alone
 * @throws PasselError
 */
export function buildPasstConfig(given: Given, facts: HostFacts, ephemeral: PortRange): PasstConfig {
  checkPasstOptions(given);
  const netdev = given.last('netdev');
  const fd = given.last('fd');
  const network = buildNetworkConfig(narrowOptions(given), facts, ephemeral, {
    mac: { hi: 0, lo: 0 },
    advertiseDns: !given.has('no-dhcp-dns'),
    advertiseSearch: !given.has('no-dhcp-search'),
    isConfigured: false,
    forwards: buildPasstForwards(given, ephemeral),
  });
  const transport: TransportConfig =
    netdev !== undefined
      ? { kind: 'netdev', netdev }
      : fd !== undefined
        ? { kind: 'fd', fd }
        : { kind: 'listen', path: given.last('socket') };
  const oneOff =
    given.has('one-off') || fd !== undefined || (netdev !== undefined && inheritedFd(netdev) !== undefined);
  const limit = netdev === undefined ? undefined : mtuLimit(netdev);
  const userNet = given.last('user-net');
  const whole = userNet === undefined ? network : applyUserNet(network, userNet, facts.resolvers);
  const { stack } = whole;
  return {
    ...whole,
    stack: limit === undefined ? stack : { ...stack, mtu: Math.min(stack.mtu, limit) },
    transport,
    oneOff,
  };
}

/** Frames that do not fit the link's datagrams would be lost. Whole 32-bit words, as for the default. */
function mtuLimit(netdev: Netdev): number | undefined {
  return isOverUdp(netdev) ? (UDP_FRAME_BYTES - ETHERNET_HEADER_BYTES) & ~3 : undefined;
}

function checkNetdev(given: Given): void {
  const [first, second] = given.all('netdev');
  if (first === undefined) return;
  const option = given.typed('netdev');
  if (second !== undefined) {
    throw new PasselError('PASSEL_E_NETDEV_SEVERAL', { option, count: given.all('netdev').length });
  }
  for (const other of ['socket', 'fd'] as const) {
    if (given.gave(other)) throw new PasselError('PASSEL_E_OPTION_CONFLICT', { option, other: given.typed(other) });
  }
  const limit = mtuLimit(first.parsed);
  const mtu = given.last('mtu');
  if (limit !== undefined && mtu !== undefined && mtu > limit) {
    const expected = `at most ${limit}, which fits a UDP datagram, with ${option} ${first.text}`;
    throw new PasselError('PASSEL_E_OPTION_VALUE', { option: given.typed('mtu'), value: String(mtu), expected });
  }
}

function buildPasstForwards(given: Given, ephemeral: PortRange): PortForwardRule[] {
  return (['tcp', 'udp'] as const).flatMap((proto) => {
    const option = `${proto}-ports` as const;
    const off = `no-${proto}` as const;
    const specs = given.all(option);
    const rules = buildForwards(
      narrowOptions(given),
      {
        typed: given.typed(option),
        specs: specs.map((s) => s.text),
        proto,
        off: given.has(off) ? given.typed(off) : undefined,
      },
      ephemeral,
    );
    if (rules.some((rule) => rule.scan)) {
      const { typed, text } = specs.find((s) => s.text.includes('auto'))!;
      const expected =
        "ports: 'auto' follows the ports that the other side listens on, which cannot be seen in a virtual machine";
      throw new PasselError('PASSEL_E_OPTION_VALUE', { option: typed, value: text, expected });
    }
    return rules;
  });
}
