/** Options merged with the facts of this host: the reading that {@link buildPasstConfig} leaves to its caller. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { PasselError } from '../base/errors.ts';
import { DEFAULT_EPHEMERAL, type PortForwardRule, type PortRange, parseEphemeralRange } from '../forward/port-spec.ts';
import { resolvePaths } from '../qemu/netdev-facts.ts';
import { type HostFacts, hasInterface, readHostFacts } from '../sys/host-facts.ts';
import { isAbstract } from './forward-sockets.ts';
import type { TransportConfig } from './guests-config.ts';
import type { NetworkGiven } from './network-config.ts';
import { type GivenOptions, narrowOptions } from './options/definition.ts';
import type { PasstOptionTable } from './options/passt-options.ts';
import { buildPasstConfig, type PasstConfig } from './passt-config.ts';

/**
 * The facts about the host that the options ask for.
 * @throws PasselError PASSEL_E_INTERFACE
 */
export function readFacts(given: NetworkGiven): HostFacts {
  for (const name of ['interface', 'outbound-if4', 'outbound-if6'] as const) {
    const wanted = given.last(name);
    if (wanted !== undefined && !hasInterface(wanted)) {
      throw new PasselError('PASSEL_E_INTERFACE', { option: given.typed(name), value: wanted });
    }
  }
  const interface4 = given.last('interface') ?? given.last('outbound-if4');
  const interface6 = given.last('interface') ?? given.last('outbound-if6');
  return readHostFacts({
    ...(interface4 === undefined ? {} : { interface4 }),
    ...(interface6 === undefined ? {} : { interface6 }),
  });
}

/** @throws PasselError */
export function prepareConfig(given: GivenOptions<PasstOptionTable>): PasstConfig {
  const facts = readFacts(narrowOptions(given));
  const config = buildPasstConfig(given, facts, readEphemeralRange());
  const { guests, controlPath } = config;
  // Absolute, because the working directory is left before the sockets are removed.
  return {
    ...config,
    forwards: config.forwards.map(resolveForward),
    controlPath: controlPath === undefined ? undefined : resolve(controlPath),
    guests: guests.map((guest) => ({ ...guest, transport: resolveTransport(guest.transport) })),
  };
}

function resolveForward(rule: PortForwardRule): PortForwardRule {
  const { bindPath } = rule;
  return bindPath === undefined || isAbstract(bindPath) ? rule : { ...rule, bindPath: resolve(bindPath) };
}

function resolveTransport(transport: TransportConfig): TransportConfig {
  if (transport.kind === 'netdev') return { kind: 'netdev', netdev: resolvePaths(transport.netdev, resolve) };
  if (transport.kind === 'fd' || transport.path === undefined) return transport;
  return { kind: 'listen', path: resolve(transport.path) };
}

/** The host's ports for outgoing connections. */
export function readEphemeralRange(): PortRange {
  try {
    return parseEphemeralRange(readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'latin1'));
  } catch {
    return DEFAULT_EPHEMERAL;
  }
}
