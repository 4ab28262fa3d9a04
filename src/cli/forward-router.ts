/** Which of several guests a forward leads to: the one that it names, else the one whose address it names, or who uses it, else the first. */
import { isSameIp, mapIpv4, parseIp } from '../base/ip-text.ts';
import type { ForwardListeners } from '../forward/listeners.ts';
import type { PortForwardRule } from '../forward/port-spec.ts';
import type { GuestSide } from './guest-side.ts';

/**
 * @param guests - may be filled later, but before the first event of a listener
 * @returns the guest by the index of a listener
 */
export function createForwardRouter(
  listeners: ForwardListeners,
  guests: readonly GuestSide[],
): (index: number) => GuestSide {
  return (index) => (guests.length === 1 ? guests[0]! : (guestOfRule(listeners.ruleOf(index), guests) ?? guests[0]!));
}

function guestOfRule(rule: PortForwardRule | undefined, guests: readonly GuestSide[]): GuestSide | undefined {
  if (rule?.targetGuest !== undefined) return guests.find(({ plan }) => plan.name === rule.targetGuest);
  const address = rule?.targetAddress === undefined ? undefined : parseIp(rule.targetAddress);
  if (address === undefined) return undefined;
  const owner = guests.find(({ plan: { stack } }) => {
    const own4 = stack.ipv4 === undefined ? undefined : mapIpv4(stack.ipv4.guestAddress);
    return [own4, stack.ipv6?.guestAddress].some((own) => own !== undefined && isSameIp(own, address));
  });
  return owner ?? guests.find(({ stack: { guest } }) => [guest.ipv4, guest.ipv6].some((own) => isSameIp(own, address)));
}
