/**
 * Forwards that come and go at run time. A change applies as a whole or not at all, and changes come one after the other: one that binds
 * many ports gives the data path its turns in between, and the next must not see half of it.
 */
import { PasselError } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import type { ForwardListeners, OpenForward } from '../../forward/listeners.ts';
import {
  type ForwardProto,
  formatPortForward,
  isSameForward,
  type PortForwardRule,
  type PortRange,
  parsePortSpec,
} from '../../forward/port-spec.ts';

export interface ForwardRulesOptions {
  readonly listeners: ForwardListeners;
  readonly ephemeral: PortRange;
  /** Names that may stand as targets; none with one guest. */
  readonly guests: readonly string[];
  readonly log: Logger;
  /** What the guest has. */
  readonly has: { readonly ipv4: boolean; readonly ipv6: boolean; readonly tcp: boolean; readonly udp: boolean };
  /** Tells the stack that the socket of a listener is about to be closed. */
  readonly onRemove: (index: number) => void;
  /** Ends the turn that the removals were part of. */
  readonly endTurn: () => void;
}

export interface ForwardRules {
  list(): OpenForward[];
  /**
   * Opens what a specification (`-t`'s or `-u`'s) says.
   * @returns the forwards that it came to
   * @throws PasselError; nothing has changed then
   */
  add(proto: ForwardProto, spec: string): Promise<OpenForward[]>;
  /** Closes one forward. @throws PasselError PASSEL_E_FORWARD_UNKNOWN */
  removeById(id: number): Promise<OpenForward[]>;
  /** Closes the forwards that a specification came to. @throws PasselError, also if one of them is not there; none is closed then */
  removeBySpec(proto: ForwardProto, spec: string): Promise<OpenForward[]>;
}

const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

export function createForwardRules(options: ForwardRulesOptions): ForwardRules {
  const { listeners, log } = options;
  let last: Promise<unknown> = Promise.resolve();

  const inOrder = <T>(change: () => Promise<T>): Promise<T> => {
    const result = last.then(change);
    last = result.catch(() => {});
    return result;
  };
  const parse = (proto: ForwardProto, spec: string): PortForwardRule[] => {
    const rules = parsePortSpec('spec', proto, spec, options.ephemeral, options.guests);
    for (const rule of rules) checkRule(rule, spec, options);
    return rules;
  };
  const remove = (removed: readonly OpenForward[]): void => {
    for (const forward of removed) {
      listeners.remove(forward.id, options.onRemove);
      log.info(`forward ${forward.id} removed: ${describeForward(forward)}`);
    }
    options.endTurn();
  };

  return {
    list: () => listeners.list(),
    add: (proto, spec) =>
      inOrder(async () => {
        const rules = parse(proto, spec);
        if (rules.some(({ bindPath }) => bindPath !== undefined)) {
          const expected = 'ports: unix sockets are made when the program starts, which can make none later';
          throw new PasselError('PASSEL_E_OPTION_VALUE', { option: 'spec', value: spec, expected });
        }
        if (rules.length === 0)
          throw new PasselError('PASSEL_E_CONTROL_REQUEST', { reason: `'${spec}' is no forward` });
        const added = await listeners.add(rules, nextTurn);
        for (const forward of added) log.info(`forward ${forward.id} added: ${describeForward(forward)}`);
        return added;
      }),
    removeById: (id) =>
      inOrder(async () => {
        const found = listeners.list().filter((forward) => forward.id === id);
        if (found.length === 0) throw new PasselError('PASSEL_E_FORWARD_UNKNOWN', { value: id });
        remove(found);
        return found;
      }),
    removeBySpec: (proto, spec) =>
      inOrder(async () => {
        const all = listeners.list();
        const found = parse(proto, spec).map((rule) => {
          const match = all.find((forward) => isSameForward(forward.rule, rule));
          if (match === undefined) {
            throw new PasselError('PASSEL_E_FORWARD_UNKNOWN', { value: `${proto} ${formatPortForward(rule)}` });
          }
          return match;
        });
        remove(found);
        return found;
      }),
  };
}

function describeForward({ rule }: OpenForward): string {
  return `${rule.proto} ${formatPortForward(rule)}`;
}

/** The rules about forwards that depend on what the guest has been given; the command line has the same. */
function checkRule(rule: PortForwardRule, spec: string, { has }: ForwardRulesOptions): void {
  if (rule.scan) {
    const expected = "ports: 'auto' follows what the other side listens on, which cannot be seen in a virtual machine";
    throw new PasselError('PASSEL_E_OPTION_VALUE', { option: 'spec', value: spec, expected });
  }
  if (!has[rule.proto]) {
    throw new PasselError('PASSEL_E_OPTION_CONFLICT', {
      option: `a ${rule.proto} forward`,
      other: `--no-${rule.proto}`,
    });
  }
  for (const address of [rule.bindAddress, rule.targetAddress]) {
    if (address === undefined) continue;
    const isIpv6 = address.includes(':');
    if (isIpv6 ? has.ipv6 : has.ipv4) continue;
    const other = isIpv6 ? 'a guest without IPv6' : 'a guest without IPv4';
    throw new PasselError('PASSEL_E_OPTION_CONFLICT', { option: `a forward with ${address}`, other });
  }
}
