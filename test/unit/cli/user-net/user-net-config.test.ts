import { describe, expect, it } from 'vitest';
import { formatIp, formatIpv4, parseIp, parseIpv4 } from '../../../../src/base/ip-text.ts';
import { PASST_OPTIONS } from '../../../../src/cli/options/passt-options.ts';
import { scanOptions } from '../../../../src/cli/options/scan.ts';
import { buildPasstConfig, type PasstConfig } from '../../../../src/cli/passt-config.ts';
import { createAddressMap } from '../../../../src/forward/address-map.ts';
import { MAP_REFUSED } from '../../../../src/stack/ports.ts';
import type { HostFacts } from '../../../../src/sys/host-facts.ts';

const ip = (text: string): Uint32Array => parseIp(text)!;
const HOST: HostFacts = {
  ipv4: { interfaceName: 'eth0', address: parseIpv4('192.0.2.2')!, prefixLength: 25, gateway: parseIpv4('192.0.2.1')! },
  ipv6: undefined,
  resolvers: [ip('127.0.0.53'), ip('192.0.2.53')],
  searchDomains: ['example.org'],
};
const OFFLINE: HostFacts = { ipv4: undefined, ipv6: undefined, resolvers: [], searchDomains: [] };

function build(line: string, facts: HostFacts = HOST): PasstConfig {
  return buildPasstConfig(scanOptions(PASST_OPTIONS, line.split(' ')), facts, { first: 32768, last: 60999 });
}

/** What the host is asked for when the guest asks for `to`. */
function reach({ addressMap }: PasstConfig, to: string, port = 80, protocol = 6): string {
  const address = ip(to);
  return createAddressMap(addressMap).toHost(address, port, protocol) === MAP_REFUSED ? 'refused' : formatIp(address);
}

describe('--user-net', () => {
  it.each([
    ['on a host with a network', HOST],
    ['on a host without one', OFFLINE],
  ])('gives the world of the manual %s', (_case, facts) => {
    const { stack } = build('--user-net user', facts);
    const { ipv4, ipv6 } = stack;
    expect(formatIpv4(ipv4!.guestAddress)).toBe('10.0.2.15');
    expect([ipv4!.prefixLength, formatIpv4(ipv4!.gateway), ...ipv4!.resolvers.map(formatIpv4)]).toEqual([
      24,
      '10.0.2.2',
      '10.0.2.3',
    ]);
    expect([formatIp(ipv6!.gateway), formatIp(ipv6!.ourLinkLocal), ...ipv6!.resolvers.map(formatIp)]).toEqual([
      'fec0::2',
      'fe80::2',
      'fec0::3',
    ]);
    expect(formatIp(ipv6!.guestAddress)).toBe('fec0::15');
    expect(stack.searchDomains).toEqual([]);
  });
  it.each([
    ['bootfile=/pxelinux.0', 'tftp://[fec0::2]/pxelinux.0'],
    ['bootfile=a%20b/c,tftp-server-name=boot.example', 'tftp://boot.example/a%2520b/c'],
    ['bootfile=http://boot.example/a?b', 'http://boot.example/a?b'],
    ['ipv6=off,bootfile=a', ''],
    ['tftp=/tmp', ''],
  ])('tells by DHCPv6 that %s is at %s', (options, url) => {
    expect(build(`--user-net ${options}`).stack.boot?.url).toBe(url);
  });
  it("leads the host's address to loopback, the name server's DNS ports to the host's resolver, and the rest of its network nowhere", () => {
    const config = build('--user-net user');
    expect(reach(config, '10.0.2.2')).toBe('127.0.0.1');
    expect(reach(config, 'fec0::2')).toBe('::1');
    expect(reach(config, '10.0.2.3', 53, 17)).toBe('127.0.0.53');
    expect(reach(config, 'fec0::3', 53, 17)).toBe('127.0.0.53');
    for (const to of ['10.0.2.3', '10.0.2.4', '10.0.2.15', '10.0.2.255', 'fec0::4', 'fe80::2', '127.0.0.1', '::1']) {
      expect([to, reach(config, to)]).toEqual([to, 'refused']);
    }
    for (const to of ['10.0.3.1', '198.51.100.1', '2001:db8::1', 'fec0:0:0:1::4']) expect(reach(config, to)).toBe(to);
    expect(reach(build('--user-net user --dns-host 192.0.2.9'), '10.0.2.3', 53, 17)).toBe('192.0.2.9');
    expect(reach(build('--user-net user', OFFLINE), '10.0.2.3', 53, 17)).toBe('refused');
  });
  it('shows connections from loopback as those of the host', () => {
    const address = ip('127.0.0.1');
    createAddressMap(build('--user-net user').addressMap).toGuest(address, 1, 6);
    expect(formatIp(address)).toBe('10.0.2.2');
  });
  it('lets nothing out with restrict=on', () => {
    const config = build('--user-net restrict=on');
    for (const to of ['10.0.2.2', 'fec0::2', '10.0.2.3', '198.51.100.1', '2001:db8::1', '192.0.2.2', '127.0.0.1']) {
      for (const [port, protocol] of [
        [53, 17],
        [53, 6],
        [80, 6],
        [0, 1],
      ] as const)
        expect(reach(config, to, port, protocol)).toBe('refused');
    }
  });
  it('makes forwards of hostfwd, beside those of other options', () => {
    const { forwards } = build('--user-net hostfwd=tcp::5555-:23,hostfwd=udp:127.0.0.1:53-:53 -t 80');
    expect(forwards).toMatchObject([
      { proto: 'tcp', bindAddress: '0.0.0.0', first: 5555, last: 5555, targetAddress: '10.0.2.15', targetFirst: 23 },
      { proto: 'udp', bindAddress: '127.0.0.1', first: 53, targetFirst: 53 },
      { proto: 'tcp', first: 80, targetFirst: 80 },
    ]);
  });
  it('tells names', () => {
    expect(build('--user-net hostname=vm,domainname=a.example,dnssearch=b.example').stack).toMatchObject({
      hostname: 'vm',
      domainName: 'a.example',
      searchDomains: ['b.example'],
    });
  });
  it('keeps what else is given: outbound address, MTU', () => {
    const { stack } = build('--user-net user -o 192.0.2.2 -m 1400');
    expect(stack.mtu).toBe(1400);
    expect(formatIpv4(stack.ipv4!.outboundAddress)).toBe('192.0.2.2');
  });
  it.each(['-a 10.0.2.9', '-g 10.0.2.1', '-4', '-D 192.0.2.1', '-H vm', '--no-map-gw'])('excludes %s', (options) => {
    expect(() => build(`--user-net user ${options}`)).toThrow(/exclude/);
  });
});
