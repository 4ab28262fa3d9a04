import { describe, expect, it } from 'vitest';
import { formatIp, parseIp } from '../../../src/base/ip-text.ts';
import { createAddressMap } from '../../../src/forward/address-map.ts';
import { MAP_AS_IS, MAP_REFUSED, MAP_REWRITTEN } from '../../../src/stack/ports.ts';

const ip = (text: string): Uint32Array => parseIp(text)!;
const TCP = 6;
const UDP = 17;
const ICMP = 1;

const map = createAddressMap({
  ipv4: {
    guest: ip('192.0.2.2'),
    router: ip('192.0.2.1'),
    loopbackAlias: ip('192.0.2.1'),
    guestAlias: ip('192.0.2.9'),
    dnsAlias: ip('192.0.2.1'),
    dnsHost: ip('127.0.0.53'),
  },
  ipv6: {
    guest: ip('2001:db8::2'),
    router: ip('fe80::1'),
    loopbackAlias: ip('fe80::1'),
    guestAlias: undefined,
    dnsAlias: undefined,
    dnsHost: undefined,
  },
  linkLocalScopeId: 2,
});
const bare = createAddressMap({
  ipv4: {
    guest: ip('192.0.2.2'),
    router: ip('192.0.2.1'),
    loopbackAlias: undefined,
    guestAlias: undefined,
    dnsAlias: undefined,
    dnsHost: undefined,
  },
  ipv6: undefined,
  linkLocalScopeId: 0,
});

function toHost(text: string, port: number, protocol: number, through = map): [string, number] {
  const words = ip(text);
  const status = through.toHost(words, port, protocol);
  return [formatIp(words), status];
}
function toGuest(text: string, through = map): [string, number] {
  const words = ip(text);
  const status = through.toGuest(words, 1234, TCP);
  return [formatIp(words), status];
}

describe('the address map towards the host', () => {
  it('sends DNS and DNS over TLS for the alias to the resolver, before the loopback alias applies', () => {
    expect(toHost('192.0.2.1', 53, UDP)).toEqual(['127.0.0.53', MAP_REWRITTEN]);
    expect(toHost('192.0.2.1', 853, TCP)).toEqual(['127.0.0.53', MAP_REWRITTEN]);
  });
  it('sends other ports and ICMP for the loopback alias to loopback', () => {
    expect(toHost('192.0.2.1', 80, TCP)).toEqual(['127.0.0.1', MAP_REWRITTEN]);
    expect(toHost('192.0.2.1', 53, ICMP)).toEqual(['127.0.0.1', MAP_REWRITTEN]);
    expect(toHost('fe80::1', 80, TCP)).toEqual(['::1', MAP_REWRITTEN]);
  });
  it('sends the guest alias to the host address that the guest hides', () => {
    expect(toHost('192.0.2.9', 80, TCP)).toEqual(['192.0.2.2', MAP_REWRITTEN]);
  });
  it('leaves other addresses alone', () => {
    expect(toHost('198.51.100.1', 53, UDP)).toEqual(['198.51.100.1', MAP_AS_IS]);
    expect(toHost('2001:db8::53', 53, UDP)).toEqual(['2001:db8::53', MAP_AS_IS]);
  });
  it.each(['127.0.0.1', '127.8.9.10', '0.0.0.0', '::1', '::', '::ffff:127.0.0.1'])('refuses %s', (text) => {
    expect(toHost(text, 80, TCP)[1]).toBe(MAP_REFUSED);
  });
  it('has no way to loopback without an alias', () => {
    expect(toHost('192.0.2.1', 80, TCP, bare)).toEqual(['192.0.2.1', MAP_AS_IS]);
    expect(toHost('127.0.0.1', 80, TCP, bare)[1]).toBe(MAP_REFUSED);
  });
});

describe('the address map towards the guest', () => {
  it('shows loopback as its alias', () => {
    expect(toGuest('127.0.0.1')).toEqual(['192.0.2.1', MAP_REWRITTEN]);
    expect(toGuest('127.1.2.3')).toEqual(['192.0.2.1', MAP_REWRITTEN]);
    expect(toGuest('::1')).toEqual(['fe80::1', MAP_REWRITTEN]);
  });
  it("shows the guest's own address as the guest alias, or as the router where there is none", () => {
    expect(toGuest('192.0.2.2')).toEqual(['192.0.2.9', MAP_REWRITTEN]);
    expect(toGuest('192.0.2.2', bare)).toEqual(['192.0.2.1', MAP_REWRITTEN]);
    expect(toGuest('2001:db8::2')).toEqual(['fe80::1', MAP_REWRITTEN]);
  });
  it('keeps every other source', () => {
    expect(toGuest('198.51.100.1')).toEqual(['198.51.100.1', MAP_AS_IS]);
  });
  it('refuses a family that the guest lacks', () => {
    expect(toGuest('2001:db8::7', bare)[1]).toBe(MAP_REFUSED);
  });
});
