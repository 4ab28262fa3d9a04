/**
 * From options and host facts to what a run of passel-passt does. Pure: reads nothing and opens nothing, so every rule about
 * defaults can be tested on its own.
 */
import { PasselError } from '../base/errors.ts';
import type { PortForwardRule, PortRange } from '../forward/port-spec.ts';
import { inheritedFd } from '../qemu/netdev-facts.ts';
import type { GuestForward } from '../qemu/user-net/guest-forward.ts';
import { readUserNet } from '../qemu/user-net/user-net.ts';
import type { HostFacts } from '../sys/host-facts.ts';
import { buildGuests, checkLinks, type GuestConfig, guestNames } from './guests-config.ts';
import { buildNames } from './names/names-config.ts';
import { buildForwards, buildNetworkConfig, checkNetworkOptions, type NetworkConfig } from './network-config.ts';
import { type GivenOptions, narrowOptions } from './options/definition.ts';
import type { PasstOptionTable } from './options/passt-options.ts';
import { applyUserNet } from './user-net/user-net-config.ts';

/** Everything that a run of passel-passt needs to know. */
export interface PasstConfig extends NetworkConfig {
  /** At least one. */
  readonly guests: readonly GuestConfig[];
  /** End when the first guest, or the last of several, has left. */
  readonly oneOff: boolean;
}

type Given = GivenOptions<PasstOptionTable>;

const DEFAULT_SILENCE_SECONDS = 60;

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
  checkLinks(given);
  if (given.gave('stats') && !given.has('foreground')) {
    throw new PasselError('PASSEL_E_OPTION_REQUIRES', { option: given.typed('stats'), other: '--foreground' });
  }
  const isSeveral = given.all('netdev').length > 1;
  const settled = SETTLED_BY_USER_NET.find((name) => given.gave(name));
  if (settled !== undefined && (given.gave('user-net') || isSeveral)) {
    const other = given.gave('user-net') ? given.typed('user-net') : `several ${given.typed('netdev')}`;
    throw new PasselError('PASSEL_E_OPTION_CONFLICT', { option: given.typed(settled), other });
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
  const network = buildNetworkConfig(narrowOptions(given), facts, ephemeral, {
    mac: { hi: 0, lo: 0 },
    advertiseDns: !given.has('no-dhcp-dns'),
    advertiseSearch: !given.has('no-dhcp-search'),
    isConfigured: false,
    forwards: buildPasstForwards(given, ephemeral),
  });
  const isSeveral = given.all('netdev').length > 1;
  const guestForwards = given.all('guest-forward').map(({ parsed }) => parsed);
  const named = given.last('user-net') ?? (isSeveral ? readUserNet('') : undefined);
  const userNet = named && { ...named, guestForwards: [...named.guestForwards, ...guestForwards] };
  const whole =
    userNet === undefined ? addGuestForwards(network, guestForwards) : applyUserNet(network, userNet, facts.resolvers);
  const guests = buildGuests(given, isSeveral ? network : whole, userNet, facts.resolvers);
  const [{ transport, stack, addressMap }] = guests as [GuestConfig];
  const isInherited =
    transport.kind === 'netdev' ? inheritedFd(transport.netdev) !== undefined : transport.kind === 'fd';
  return {
    ...whole,
    stack,
    addressMap,
    guests,
    names: buildNames(given, whole, facts, userNet),
    silenceSeconds: given.gave('guest-silence') ? given.last('guest-silence') : DEFAULT_SILENCE_SECONDS,
    oneOff: given.has('one-off') || isInherited,
  };
}

function addGuestForwards(network: NetworkConfig, guestForwards: readonly GuestForward[]): NetworkConfig {
  return guestForwards.length === 0 ? network : { ...network, services: { tftpFolder: '', guestForwards } };
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
        guests: given.all('netdev').length > 1 ? guestNames(given) : [],
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
