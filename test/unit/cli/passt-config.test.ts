import { describe, expect, it } from 'vitest';
import { formatIp, formatIpv4, parseIp, parseIpv4 } from '../../../src/base/ip-text.ts';
import { PASST_OPTIONS } from '../../../src/cli/options/passt-options.ts';
import { scanOptions } from '../../../src/cli/options/scan.ts';
import { buildPasstConfig, type PasstConfig } from '../../../src/cli/passt-config.ts';
import type { HostFacts } from '../../../src/sys/host-facts.ts';

const ip = (text: string): Uint32Array => parseIp(text)!;
const HOST: HostFacts = {
  ipv4: {
    interfaceName: 'eth0',
    address: parseIpv4('192.0.2.2')!,
    prefixLength: 25,
    gateway: parseIpv4('192.0.2.1')!,
  },
  ipv6: {
    interfaceName: 'eth0',
    interfaceIndex: 2,
    address: ip('2001:db8::2'),
    prefixLength: 128,
    gateway: ip('fe80::99'),
    linkLocal: ip('fe80::2'),
  },
  resolvers: [ip('192.0.2.53'), ip('2001:db8::53')],
  searchDomains: ['example.org'],
};
const OFFLINE: HostFacts = { ipv4: undefined, ipv6: undefined, resolvers: [], searchDomains: [] };
const EPHEMERAL = { first: 32768, last: 60999 };

function build(line: string, facts: HostFacts = HOST): PasstConfig {
  const argv = line === '' ? [] : line.split(' ');
  return buildPasstConfig(scanOptions(PASST_OPTIONS, argv), facts, EPHEMERAL);
}
const resolvers = (config: PasstConfig): string[] => [
  ...(config.stack.ipv4?.resolvers ?? []).map(formatIpv4),
  ...(config.stack.ipv6?.resolvers ?? []).map(formatIp),
];
const shown = (words: Uint32Array | undefined): string => (words === undefined ? 'none' : formatIp(words));

describe('defaults', () => {
  const { stack, addressMap, ...rest } = build('');
  it("give the guest the host's addresses, router, resolvers and search list", () => {
    expect(formatIpv4(stack.ipv4!.guestAddress)).toBe('192.0.2.2');
    expect(stack.ipv4!.prefixLength).toBe(25);
    expect(formatIpv4(stack.ipv4!.gateway)).toBe('192.0.2.1');
    expect(formatIp(stack.ipv6!.guestAddress)).toBe('2001:db8::2');
    expect(formatIp(stack.ipv6!.gateway)).toBe('fe80::99');
    expect(formatIp(stack.ipv6!.ourLinkLocal)).toBe('fe80::99');
    expect(resolvers(build(''))).toEqual(['192.0.2.53', '2001:db8::53']);
    expect(stack.searchDomains).toEqual(['example.org']);
  });
  it("make the gateway the name of the host's loopback", () => {
    expect(shown(addressMap.ipv4!.loopbackAlias)).toBe('192.0.2.1');
    expect(shown(addressMap.ipv6!.loopbackAlias)).toBe('fe80::99');
    expect(shown(addressMap.ipv4!.dnsAlias)).toBe('none');
    expect(addressMap.linkLocalScopeId).toBe(2);
  });
  it('are those of passt for the rest', () => {
    expect([stack.ourMacHi, stack.ourMacLo, stack.mtu, stack.advertiseMtu]).toEqual([0x9a55, 0x9a559a55, 65520, true]);
    expect(rest).toMatchObject({
      guests: [{ name: 'guest', transport: { kind: 'listen', path: undefined } }],
      oneOff: false,
      forwards: [],
      foreground: false,
      pidPath: undefined,
      logging: { level: 'info', format: 'text', fileMaxBytes: 1048576 },
    });
  });
});

describe('guest addresses', () => {
  it('can be chosen, with a prefix of their own or the one of the address class', () => {
    expect(build('-a 10.1.2.3').stack.ipv4!.prefixLength).toBe(8);
    expect(build('-a 172.16.2.3').stack.ipv4!.prefixLength).toBe(16);
    expect(build('-a 198.51.100.3').stack.ipv4!.prefixLength).toBe(24);
    expect(build('-a 10.1.2.3/20').stack.ipv4!.prefixLength).toBe(20);
    expect(build('-a 10.1.2.3 -n 255.255.252.0').stack.ipv4!.prefixLength).toBe(22);
    expect(build('-a 192.0.2.2').stack.ipv4!.prefixLength).toBe(25);
    expect(formatIp(build('-a 2001:db8:1::7').stack.ipv6!.guestAddress)).toBe('2001:db8:1::7');
  });
  it('take the last of each family', () => {
    const { stack } = build('-a 10.0.0.1 -a 2001:db8::7 -a 10.0.0.2');
    expect(formatIpv4(stack.ipv4!.guestAddress)).toBe('10.0.0.2');
    expect(formatIp(stack.ipv6!.guestAddress)).toBe('2001:db8::7');
  });
  it('can be limited to one family', () => {
    expect(build('-4').stack.ipv6).toBeUndefined();
    expect(build('-6').stack.ipv4).toBeUndefined();
    expect(build('-6').addressMap.ipv4).toBeUndefined();
  });
  it('fall back to link-local ones on a host without a default route', () => {
    const { stack, addressMap } = build('', OFFLINE);
    expect(formatIpv4(stack.ipv4!.guestAddress)).toBe('169.254.2.1');
    expect(stack.ipv4!.prefixLength).toBe(16);
    expect(formatIpv4(stack.ipv4!.gateway)).toBe('169.254.2.2');
    expect(shown(addressMap.ipv4!.loopbackAlias)).toBe('169.254.2.2');
    expect(stack.ipv6).toBeUndefined();
  });
  it('given by the user work on a host without a default route', () => {
    const { stack } = build('-a 10.0.2.15/24 -g 10.0.2.2 -a fd00::15', OFFLINE);
    expect(formatIpv4(stack.ipv4!.gateway)).toBe('10.0.2.2');
    expect(formatIp(stack.ipv6!.gateway)).toBe('fe80::1');
  });
  it('cannot be IPv6 only on a host without IPv6', () => {
    expect(() => build('-6', OFFLINE)).toThrow(/-6: the host has no usable IPv6/);
  });
  it('keep our link-local address apart from a router that is not link-local', () => {
    const { stack } = build('-g 2001:db8::1');
    expect(formatIp(stack.ipv6!.gateway)).toBe('2001:db8::1');
    expect(formatIp(stack.ipv6!.ourLinkLocal)).toBe('fe80::2');
  });
});

describe('resolvers', () => {
  const local: HostFacts = { ...HOST, resolvers: [ip('127.0.0.53'), ip('192.0.2.53')] };

  it('on loopback are told as the loopback alias, whose DNS ports lead there', () => {
    const config = build('', local);
    expect(resolvers(config)).toEqual(['192.0.2.1', '192.0.2.53']);
    expect(shown(config.addressMap.ipv4!.dnsAlias)).toBe('192.0.2.1');
    expect(shown(config.addressMap.ipv4!.dnsHost)).toBe('127.0.0.53');
  });
  it('on the address that the guest has too are told as the loopback alias', () => {
    const config = build('', { ...HOST, resolvers: [ip('192.0.2.2')] });
    expect(resolvers(config)).toEqual(['192.0.2.1']);
    expect(shown(config.addressMap.ipv4!.dnsHost)).toBe('192.0.2.2');
  });
  it('on loopback are left out where the guest has no way there', () => {
    const config = build('--no-map-gw', local);
    expect(resolvers(config)).toEqual(['192.0.2.53']);
    expect(shown(config.addressMap.ipv4!.dnsAlias)).toBe('none');
  });
  it('can be forwarded from an address of choice', () => {
    const config = build('--no-map-gw --dns-forward 192.0.2.9', local);
    expect(resolvers(config)).toEqual(['192.0.2.9', '192.0.2.53']);
    expect(shown(config.addressMap.ipv4!.dnsAlias)).toBe('192.0.2.9');
    expect(shown(config.addressMap.ipv4!.dnsHost)).toBe('127.0.0.53');
  });
  it('can be forwarded to a resolver of choice', () => {
    const { addressMap } = build('--dns-forward 192.0.2.9 --dns-host 198.51.100.53 --dns-forward 2001:db8::9');
    expect(shown(addressMap.ipv4!.dnsHost)).toBe('198.51.100.53');
    expect(shown(addressMap.ipv6!.dnsAlias)).toBe('2001:db8::9');
    expect(shown(addressMap.ipv6!.dnsHost)).toBe('2001:db8::53');
  });
  it('given by hand are passed on unmapped; none tells none', () => {
    expect(resolvers(build('-D 9.9.9.9 -D 2620:fe::fe', local))).toEqual(['9.9.9.9', '2620:fe::fe']);
    expect(resolvers(build('-D none', local))).toEqual([]);
    expect(resolvers(build('-D none -D 9.9.9.9', local))).toEqual(['9.9.9.9']);
  });
  it('come with the search list given, or none', () => {
    expect(build('-S a -S b').stack.searchDomains).toEqual(['a', 'b']);
    expect(build('-S none').stack.searchDomains).toEqual([]);
    expect(build('-S a -S none').stack.searchDomains).toEqual([]);
  });
});

describe('aliases', () => {
  it('of loopback can be moved per family, or switched off', () => {
    const { addressMap } = build('--map-host-loopback 192.0.2.7 --map-guest-addr 192.0.2.8');
    expect(shown(addressMap.ipv4!.loopbackAlias)).toBe('192.0.2.7');
    expect(shown(addressMap.ipv6!.loopbackAlias)).toBe('fe80::99');
    expect(shown(addressMap.ipv4!.guestAlias)).toBe('192.0.2.8');
    expect(shown(build('--map-host-loopback none').addressMap.ipv4!.loopbackAlias)).toBe('none');
    expect(shown(build('--no-map-gw').addressMap.ipv6!.loopbackAlias)).toBe('none');
    expect(shown(build('--no-map-gw --map-host-loopback 192.0.2.7').addressMap.ipv4!.loopbackAlias)).toBe('192.0.2.7');
  });
});

describe('switches', () => {
  it('turn services off', () => {
    const { stack } = build('--no-tcp --no-udp --no-dhcp --no-dhcpv6 --no-ra --no-dhcp-dns --no-dhcp-search');
    expect(stack).toMatchObject({
      tcp: false,
      udp: false,
      icmp: true,
      dhcp: false,
      dhcpv6: false,
      ndp: true,
      routerAdvertisements: false,
      advertiseDns: false,
      advertiseSearch: false,
    });
  });
  it('without ICMP there is no neighbour discovery', () => {
    expect(build('--no-icmp').stack).toMatchObject({ icmp: false, ndp: false, routerAdvertisements: false });
  });
  it('an MTU of 0 is used but not told', () => {
    expect(build('-m0').stack).toMatchObject({ mtu: 65520, advertiseMtu: false });
  });
  it('an inherited socket means one guest', () => {
    expect(build('--fd 3')).toMatchObject({ guests: [{ transport: { kind: 'fd', fd: 3 } }], oneOff: true });
  });
  it('name outgoing addresses and interfaces', () => {
    const { stack } = build('-o 192.0.2.3 -o 2001:db8::3 --outbound-if4 eth1');
    expect(formatIpv4(stack.ipv4!.outboundAddress)).toBe('192.0.2.3');
    expect(shown(stack.ipv6!.outboundAddress)).toBe('2001:db8::3');
    expect(stack.ipv4!.outboundInterface).toBe('eth1');
  });
});

describe('combinations that make no sense', () => {
  it.each([
    ['-4 -6', '-4 and -6 exclude each other'],
    ['-q -d', '-d and -q exclude each other'],
    ['--quiet --trace', '--trace and --quiet exclude each other'],
    ['-s /tmp/x --fd 3', '-s and --fd exclude each other'],
    ['-n 24 -a 192.0.2.2/24', '-n and -a 192.0.2.2/24 exclude each other'],
    ['extra', "unexpected argument 'extra': expected options only"],
    ['-t 22 --no-tcp', '-t and --no-tcp exclude each other'],
    ['-6 -t 192.0.2.1/22', '--tcp-ports 192.0.2.1/22 and -6 exclude each other'],
    ['-t auto', "-t: 'auto' is not valid: expected ports"],
    ['-u 22:23 -u 22:24', 'port 22 was forwarded elsewhere by an earlier -u'],
  ])('%s', (line, message) => {
    expect(() => build(line)).toThrow(message);
  });
});

describe('--impair', () => {
  const delays = (line: string): (number | undefined)[] =>
    build(line).guests.map(({ impairment }) => impairment?.toGuest?.delayMs);
  const several =
    '--netdev stream,id=a,server=on,addr.type=unix,addr.path=/a --netdev stream,id=b,server=on,addr.type=unix,addr.path=/b';

  it('is nothing unless it is given, and for every guest that none names', () => {
    expect(delays('')).toEqual([undefined]);
    expect(delays(`${several} --impair delay=1ms`)).toEqual([1, 1]);
    expect(delays(`${several} --impair b:delay=1ms`)).toEqual([undefined, 1]);
  });

  it('counts by the last one that names the guest, then by the last that names none', () => {
    expect(delays('--impair delay=1ms --impair delay=2ms')).toEqual([2]);
    expect(delays(`${several} --impair a:delay=3ms --impair delay=1ms --impair delay=2ms`)).toEqual([3, 2]);
  });

  it('is for guests that there are', () => {
    expect(() => build('--impair guest:delay=1ms')).not.toThrow();
    expect(() => build('--impair web:delay=1ms')).toThrow(
      "--impair: 'web:delay=1ms' is not valid: expected guest in front of ':'",
    );
    expect(() => build(`${several} --impair c:delay=1ms`)).toThrow("expected a or b in front of ':'");
  });
});

describe('--pcap', () => {
  const several =
    '--netdev stream,id=a,server=on,addr.type=unix,addr.path=/a --netdev stream,id=b,server=on,addr.type=unix,addr.path=/b';
  const paths = (line: string) => build(line).guests.map(({ pcapPath }) => pcapPath);

  it('is a file for each of several guests, or one for all in the format that can have them', () => {
    expect(paths('--pcap /x/lan.pcap')).toEqual(['/x/lan.pcap']);
    expect(paths(`${several} --pcap /x/lan.pcap`)).toEqual(['/x/lan-a.pcap', '/x/lan-b.pcap']);
    expect(paths(`${several} --pcap /x/lan.pcapng`)).toEqual(['/x/lan.pcapng', '/x/lan.pcapng']);
  });

  it('is what limits are for', () => {
    expect(() => build('--pcap-size 1M')).toThrow('--pcap-size needs --pcap');
    expect(() => build('--pcap /x --pcap-size 4095')).toThrow('at least 4096');
    expect(() => build('--pcap /x --pcap-snaplen 13')).toThrow('from 14 to 262144');
  });
});
