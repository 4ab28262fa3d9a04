import { describe, expect, it } from 'vitest';
import { formatIp, parseIp, parseIpv4 } from '../../../../src/base/ip-text.ts';
import { PASST_OPTIONS } from '../../../../src/cli/options/passt-options.ts';
import { scanOptions } from '../../../../src/cli/options/scan.ts';
import { buildPasstConfig } from '../../../../src/cli/passt-config.ts';
import type { HostFacts } from '../../../../src/sys/host-facts.ts';

const HOST: HostFacts = {
  ipv4: { interfaceName: 'eth0', address: parseIpv4('192.0.2.2')!, prefixLength: 24, gateway: parseIpv4('192.0.2.1')! },
  ipv6: undefined,
  resolvers: [parseIp('127.0.0.53')!, parseIp('192.0.2.53')!, parseIp('2001:db8::53')!],
  searchDomains: [],
};
const TWO = ['/a', '/b'].map((path) => `--netdev stream,server=on,addr.type=unix,addr.path=${path}`).join(' ');

const namesOf = (line: string) =>
  buildPasstConfig(scanOptions(PASST_OPTIONS, line === '' ? [] : line.split(' ')), HOST, { first: 1, last: 2 }).names;
const routesOf = (line: string): Record<string, string[]> =>
  Object.fromEntries(
    namesOf(line)!.routes.map(({ domain, servers }) => [
      domain,
      servers.map(({ address, port }) => `${formatIp(address)}#${port}`),
    ]),
  );

describe('names of the network', () => {
  it('are served when there are several guests, records, resolvers for domains, or a list; else guests ask as ever', () => {
    for (const line of ['', '--user-net domainname=x', '--dns-hosts none', '--dns 192.0.2.7'])
      expect([line, namesOf(line)]).toEqual([line, undefined]);
    for (const line of [TWO, '--dns-record a=192.0.2.9', '--dns-server a=192.0.2.9', '--dns-hosts /x'])
      expect([line, namesOf(line) !== undefined]).toEqual([line, true]);
  });
  it("are the host's own too, unless somebody says otherwise or the guest is to know nothing", () => {
    expect(namesOf(TWO)!.hostsPath).toBe('/etc/hosts');
    expect(namesOf(`${TWO} --dns-hosts none`)!.hostsPath).toBeUndefined();
    expect(namesOf(`${TWO} --dns-hosts /x`)!.hostsPath).toBe('/x');
    expect(namesOf(`${TWO} --user-net restrict=on`)!.hostsPath).toBeUndefined();
    expect(namesOf(`${TWO} --user-net restrict=on --dns-hosts /x`)!.hostsPath).toBe('/x');
  });
});

describe('who is asked', () => {
  it("is who the guest would have reached: the host's resolvers, or those that it was told", () => {
    // The first is loopback of the host, which the guest has as its router's address.
    expect(routesOf('--dns-hosts /x')).toEqual({ '': ['127.0.0.53#53', '192.0.2.53#53'] });
    expect(routesOf('--dns-hosts /x --dns 192.0.2.7')).toEqual({ '': ['192.0.2.7#53'] });
  });
  it('is all of the resolvers behind the one address of a network of its own, or the one that stands there', () => {
    expect(routesOf(TWO)).toEqual({
      '': ['127.0.0.53#53', '192.0.2.53#53', `${formatIp(parseIp('2001:db8::53')!)}#53`],
    });
    expect(routesOf(`${TWO} --dns-host 192.0.2.8`)).toEqual({ '': ['192.0.2.8#53'] });
  });
  it('goes by domain, in the order of the command line', () => {
    const line = '--dns-server Corp.Example.=10.1.2.3#5353 --dns-server corp.example=2001:db8::1 --dns-server x=none';
    expect(routesOf(line)).toEqual({
      'corp.example': ['10.1.2.3#5353', `${formatIp(parseIp('2001:db8::1')!)}#53`],
      x: [],
      '': ['127.0.0.53#53', '192.0.2.53#53'],
    });
    expect(routesOf('--dns-server .=10.1.2.3')).toEqual({ '': ['10.1.2.3#53'] });
  });
  it('is nobody where the guest is restricted', () => {
    expect(routesOf(`${TWO} --user-net restrict=on --dns-server a=192.0.2.9 --dns-server b=none`)).toEqual({ b: [] });
  });
  it.each([
    'a',
    '=192.0.2.1',
    'a=',
    'a=b',
    'a=192.0.2.1#0',
    'a=192.0.2.1#65536',
    'a=192.0.2.1#1#2',
    'a b=192.0.2.1',
    'a=0.0.0.0',
  ])('is refused as %s', (value) => {
    expect(() => scanOptions(PASST_OPTIONS, ['--dns-server', value])).toThrow(/--dns-server/);
  });
});
