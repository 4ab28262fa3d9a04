import { describe, expect, it } from 'vitest';
import { formatIp, formatIpv4 } from '../../../../src/base/ip-text.ts';
import type { NetworkConfig } from '../../../../src/cli/network-config.ts';
import { rejectFor } from '../../../../src/cli/options/definition.ts';
import { GUESTS_OPTIONS } from '../../../../src/cli/options/guests-options.ts';
import { placeGuests, type StaticLease } from '../../../../src/cli/user-net/several-guests.ts';
import { readUserNet } from '../../../../src/qemu/user-net/user-net.ts';
import { makeStackConfig } from '../../../support/stack-config.ts';

const base = {
  stack: makeStackConfig({ ipv4: undefined, ipv6: undefined }),
  addressMap: { ipv4: undefined, ipv6: undefined, linkLocalScopeId: 0 },
  forwards: [],
} as unknown as NetworkConfig;

function place(net: string, names: string[], leases: Record<string, string> = {}): NetworkConfig[] {
  const given: StaticLease[] = Object.entries(leases).map(([who, what]) => ({
    ...GUESTS_OPTIONS.lease.parse(`${who}=${what}`, rejectFor('--lease', `${who}=${what}`)),
    typed: '--lease',
    text: `${who}=${what}`,
  }));
  return placeGuests(base, readUserNet(net), [], names, given);
}

const addresses = (...args: Parameters<typeof place>): string[] =>
  place(...args).map(({ stack }) => formatIpv4(stack.ipv4!.guestAddress));

describe('guests of one network', () => {
  it('have addresses one after the other, and their names', () => {
    const guests = place('', ['web', 'db', 'mail']);
    expect(guests.map(({ stack }) => stack.hostname)).toEqual(['web', 'db', 'mail']);
    expect(guests.map(({ stack }) => formatIpv4(stack.ipv4!.guestAddress))).toEqual([
      '10.0.2.15',
      '10.0.2.16',
      '10.0.2.17',
    ]);
    expect(guests.map(({ stack }) => formatIp(stack.ipv6!.guestAddress))).toEqual(['fec0::15', 'fec0::16', 'fec0::17']);
    expect(guests.map(({ addressMap }) => formatIp(addressMap.ipv4!.guest))[2]).toBe('10.0.2.17');
  });
  it('answer for themselves: ours are the host and the name server alone', () => {
    for (const { stack } of place('', ['web', 'db'])) {
      expect(stack.ownAddresses!.map(formatIp)).toEqual(['10.0.2.2', '10.0.2.3', 'fec0::2', 'fec0::3']);
    }
    expect(place('ipv6=off', ['a', 'b'])[0]!.stack.ownAddresses!.map(formatIp)).toEqual(['10.0.2.2', '10.0.2.3']);
  });
  it('step over what others have', () => {
    const services = 'guestfwd=tcp:10.0.2.16:25-tcp:127.0.0.1:25';
    expect(addresses(services, ['a', 'b'])).toEqual(['10.0.2.15', '10.0.2.17']);
    expect(place(services, ['a', 'b'])[0]!.stack.ownAddresses!.map(formatIp)).toContain('10.0.2.16');
    expect(addresses('dhcpstart=10.0.2.1', ['a', 'b'])).toEqual(['10.0.2.1', '10.0.2.4']);
    expect(addresses('', ['a', 'b', 'c'], { c: '10.0.2.15', a: '10.0.2.200' })).toEqual([
      '10.0.2.200',
      '10.0.2.16',
      '10.0.2.15',
    ]);
  });
  it.each([
    [{ d: '10.0.2.20' }, /expected a guest's name, a, b, or a MAC address/],
    [{ a: '10.0.3.20' }, /expected an address of 10\.0\.2\.0\/24/],
    [{ a: '10.0.2.2' }, /expected an address that nobody else has/],
    [{ a: '10.0.2.255' }, /expected an address that nobody else has/],
    [{ a: '10.0.2.20', b: '10.0.2.20' }, /'b=10\.0\.2\.20'.*expected an address that nobody else has/],
  ])('cannot have %j', (leases, message) => {
    expect(() => place('', ['a', 'b'], leases as Record<string, string>)).toThrow(message);
  });
  it('may have addresses of IPv6 of their own, which no other gets', () => {
    const [a, b] = place('', ['a', 'b'], { b: '10.0.2.40,fec0::40' });
    expect([a!, b!].map(({ stack }) => formatIp(stack.ipv6!.guestAddress))).toEqual(['fec0::15', 'fec0::40']);
    expect(formatIp(b!.addressMap.ipv6!.guest)).toBe('fec0::40');
    for (const [address, message] of [
      ['2001:db8::1', /an address of fec0::\/64/],
      ['fec0::15', /nobody else has/],
      ['fec0::3', /nobody else has/],
      ['fe80::1', /an address of fec0::\/64/],
    ] as const) {
      expect(() => place('', ['a', 'b'], { b: address })).toThrow(message);
    }
    expect(() => place('ipv6=off', ['a', 'b'], { b: 'fec0::40' })).toThrow(/no addresses of IPv6/);
  });
  it('leave to machines the addresses that these have by their MAC, on every link', () => {
    const leases = { '52:54:00:00:00:09': '10.0.2.15,fec0::99,laptop', '52:54:00:00:00:0a': '10.0.2.17' };
    const guests = place('', ['a', 'b'], leases);
    expect(guests.map(({ stack }) => formatIpv4(stack.ipv4!.guestAddress))).toEqual(['10.0.2.16', '10.0.2.18']);
    for (const { stack } of guests) {
      expect(stack.macLeases!.map(({ macHi, macLo, ipv4 }) => [macHi, macLo, formatIpv4(ipv4!)])).toEqual([
        [0x5254, 9, '10.0.2.15'],
        [0x5254, 10, '10.0.2.17'],
      ]);
    }
    expect(() => place('', ['a', 'b'], { '52:54:00:00:00:09': '10.0.2.2' })).toThrow(/nobody else has/);
    expect(() => place('', ['a', 'b'], { '52:54:0:0:0:9': '10.0.2.20', '52:54:00:00:00:09': '10.0.2.21' })).toThrow(
      /one --lease for each/,
    );
  });
  it('must fit into the network', () => {
    const net = 'net=10.9.0.0/29,dhcpstart=10.9.0.4';
    expect(addresses(net, ['a', 'b', 'c'])).toEqual(['10.9.0.4', '10.9.0.5', '10.9.0.6']);
    expect(() => place(net, ['a', 'b', 'c', 'd'])).toThrow(/'d'.*no address left/);
    expect(() => place('ipv4=off', ['a', 'b'], { a: '10.0.2.20' })).toThrow(/no addresses of IPv4/);
  });
});
