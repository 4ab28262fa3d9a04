import { beforeEach, describe, expect, it } from 'vitest';
import { formatIp, mapIpv4, parseIp } from '../../../../src/base/ip-text.ts';
import { createGuestNames, type NamedGuest } from '../../../../src/cli/names/guest-names.ts';
import type { FamilyAddresses } from '../../../../src/forward/address-map.ts';
import type { NetworkStack } from '../../../../src/stack/stack.ts';

const ownNetwork = { address: mapIpv4(0x0a000200), prefixLength: 96 + 24 };
const NETWORKS = { ipv4: { ownNetwork } as FamilyAddresses, ipv6: undefined };
const LEASE6 = parseIp('fec0::15')!;

/** A guest that has taken its address of IPv4, and of IPv6 nothing yet. */
function createGuest(name: string, address: number): NamedGuest {
  const guest = { ipv4: mapIpv4(address), ipv6: LEASE6.slice(), leased6Ms: Number.NaN };
  const config = { ipv4: { guestAddress: address }, ipv6: { guestAddress: LEASE6 } };
  return { name, stack: { guest, config } as unknown as NetworkStack };
}

let web: NamedGuest;
let names: ReturnType<typeof createGuestNames>;
const look = (name: string): string[] | undefined => names.addressesOf(name)?.map(formatIp);

beforeEach(() => {
  web = createGuest('web', 0x0a00020f);
  const statics = [
    { name: 'printer.example.org', address: parseIp('192.0.2.9')! },
    { name: 'web', address: parseIp('192.0.2.80')! },
    { name: 'db', address: parseIp('fec0::77')! },
  ];
  names = createGuestNames([web, createGuest('db', 0x0a000210)], 'Lab.Example', statics, NETWORKS);
});

describe('names of guests', () => {
  it('stand for the addresses that they use now, bare or in the domain', () => {
    expect(look('web')).toEqual(['10.0.2.15', '192.0.2.80']);
    expect(look('web.lab.example')).toEqual(['10.0.2.15', '192.0.2.80']);
    web.stack.guest.ipv4.set(mapIpv4(0x0a000299));
    expect(look('web')![0]).toBe('10.0.2.153');
  });
  it('stand for an address of IPv6 once it is seen, made or leased', () => {
    web.stack.guest.ipv6.set(parseIp('fec0::5054:ff:fe12:3456')!);
    expect(look('web')).toContain('fec0::5054:ff:fe12:3456');
    web.stack.guest.ipv6.set(LEASE6);
    expect(look('web')).not.toContain('fec0::15');
    web.stack.guest.leased6Ms = 5;
    expect(look('web')).toContain('fec0::15');
  });
  it('are found by their addresses, in full', () => {
    expect(names.nameOf(parseIp('10.0.2.16')!)).toBe('db.lab.example');
    expect(names.nameOf(parseIp('10.0.2.17')!)).toBeUndefined();
    expect(createGuestNames([web], '', [], { ipv4: undefined, ipv6: undefined }).nameOf(parseIp('10.0.2.15')!)).toBe(
      'web',
    );
  });
  it('are the only ones that addresses of the network have', () => {
    const isOwn = (text: string): boolean => names.isOwnAddress(parseIp(text)!);
    expect(['10.0.2.16', '10.0.2.99', '10.0.3.1', '192.0.2.9'].map(isOwn)).toEqual([true, true, false, false]);
    expect(names.domain).toBe('lab.example');
  });
  it('are no others', () => {
    for (const name of ['mail', 'www.web', 'web.example', 'lab.example', '']) expect(look(name)).toBeUndefined();
  });
});

describe('names of the command line', () => {
  it('are found both ways, and add to those of guests', () => {
    expect(look('printer.example.org')).toEqual(['192.0.2.9']);
    expect(names.nameOf(parseIp('192.0.2.9')!)).toBe('printer.example.org');
    expect(look('db')).toEqual(['10.0.2.16', 'fec0::77']);
  });
});
