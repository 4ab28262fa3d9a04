import { describe, expect, it } from 'vitest';
import { formatIp, isLoopbackIp, isMappedIpv4, isUnspecifiedIp, parseIp } from '../../../../src/base/ip-text.ts';
import { parseHosts } from '../../../../src/forward/dns/hosts-file.ts';
import { type DnsRoute, pickRoute } from '../../../../src/forward/dns/routes.ts';

/** As a guest of 10.0.2.0/24 sees the host, without IPv6. */
function toGuest(address: Uint32Array): Uint32Array | undefined {
  if (!isMappedIpv4(address) || isUnspecifiedIp(address)) return undefined;
  return isLoopbackIp(address) ? parseIp('10.0.2.2') : address;
}

describe('a hosts file', () => {
  const list = parseHosts(
    [
      '# comment',
      '127.0.0.1 localhost localhost.localdomain myhost # more',
      '127.0.1.1\tmyhost.example  myhost2',
      '::1 ip6-localhost ip6-loopback',
      '192.0.2.7 NAS.example. nas',
      '192.0.2.8 nas.example',
      '2001:db8::7 six.example',
      'no address at all',
      '192.0.2.9 bad/name good-name',
      '0.0.0.0 blocked.example',
      '192.0.2.10',
    ].join('\r\n'),
    toGuest,
  );
  const look = (name: string): string[] | undefined => list.addressesOf(name)?.map(formatIp);

  it('gives all addresses of a name, whatever its case, and the aliases', () => {
    expect(look('nas.example')).toEqual(['192.0.2.7', '192.0.2.8']);
    expect(look('nas')).toEqual(['192.0.2.7']);
    expect(look('good-name')).toEqual(['192.0.2.9']);
  });
  it('leads to loopback of the host by the address that stands for it', () => {
    expect([look('myhost'), look('myhost.example'), look('myhost2')]).toEqual(Array(3).fill(['10.0.2.2']));
  });
  it('has no names of loopback itself, and none that lead nowhere for the guest', () => {
    for (const name of [
      ...['localhost', 'localhost.localdomain', 'ip6-localhost', 'six.example', 'blocked.example', 'bad/name', 'at'],
      ...['', 'no'],
    ]) {
      expect([name, look(name)]).toEqual([name, undefined]);
    }
  });
  it('calls an address by the first name that it has there', () => {
    expect(['192.0.2.7', '192.0.2.8', '10.0.2.2', '192.0.2.10'].map((each) => list.nameOf(parseIp(each)!))).toEqual([
      'nas.example',
      'nas.example',
      'myhost',
      undefined,
    ]);
  });
});

describe('routes', () => {
  const routes: DnsRoute[] = ['corp.example', 'deep.corp.example', '', 'example'].map((domain) => ({
    domain,
    servers: [],
  }));
  it.each([
    ['www.corp.example', 'corp.example'],
    ['corp.example', 'corp.example'],
    ['a.b.deep.corp.example', 'deep.corp.example'],
    ['notcorp.example', 'example'],
    ['www.example.org', ''],
    ['', ''],
  ])('%s goes by the longest domain that it lies in: %s', (name, domain) => {
    expect(pickRoute(routes, name)?.domain).toBe(domain);
  });
  it('may have none for a name', () => {
    expect(pickRoute(routes.slice(0, 2), 'www.example.org')).toBeUndefined();
  });
});
