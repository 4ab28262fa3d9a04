import { describe, expect, it } from 'vitest';
import type { HostSources } from '../../../src/sys/host-facts.ts';
import {
  listIpv4Addresses,
  listIpv4Routes,
  listIpv6Addresses,
  listIpv6Routes,
} from '../../../src/sys/netns-template.ts';

// As a little-endian machine shows them: default, own network, by a gateway with metric, on link, blackhole, another interface.
const ROUTES = `Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	010200C0	0003	0	0	0	00000000	0	0	0
eth0	006433C6	020200C0	0003	0	0	50	00FFFFFF	0	0	0
eth0	000200C0	00000000	0001	0	0	0	00FFFFFF	0	0	0
eth0	007100CB	00000000	0001	0	0	0	00FFFFFF	0	0	0
*	000A0A0A	00000000	0201	0	0	0	00FFFFFF	0	0	0
eth1	000B0A0A	00000000	0001	0	0	0	00FFFFFF	0	0	0
`;
const NONE = '0'.repeat(32);
const ROUTES_V6 = [
  `20010db8000100000000000000000000 40 ${NONE} 00 ${NONE} 00000100 00000001 00000000 00000001     eth0`,
  `20010db8000500000000000000000000 30 ${NONE} 00 20010db8000100000000000000000002 00000400 00000001 00000000 00000003     eth0`,
  `fe800000000000000000000000000000 40 ${NONE} 00 ${NONE} 00000100 00000001 00000000 00000001     eth0`,
  `${NONE} 00 ${NONE} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0`,
  `20010db8000100000000000000000010 80 ${NONE} 00 ${NONE} 00000000 00000001 00000000 80200001     eth0`,
  `20010db8000600000000000000000000 40 ${NONE} 00 ${NONE} 00000100 00000001 00000000 00040001     eth0`,
  `ff000000000000000000000000000000 08 ${NONE} 00 ${NONE} 00000100 00000001 00000000 00000001     eth0`,
].join('\n');
const ADDRESSES_V6 = [
  '20010db8000100000000000000000010 02 40 00 80     eth0',
  'fe8000000000000000000000000000aa 02 40 20 80     eth0',
  '20010db8000900000000000000000010 03 40 00 80     eth1',
].join('\n');

const SOURCES: HostSources = {
  readText: (path) =>
    ({ '/proc/net/route': ROUTES, '/proc/net/ipv6_route': ROUTES_V6, '/proc/net/if_inet6': ADDRESSES_V6 })[path],
  listIpv4: (name) => (name === 'eth0' ? [{ address: 0xc000020a, prefixLength: 24 }] : []),
};

describe.runIf(new Uint8Array(Uint16Array.of(1).buffer)[0] === 1)('what a namespace is given of the host', () => {
  it('IPv4 routes: not the default, not those that come with addresses; on link first', () => {
    expect(listIpv4Routes('eth0', SOURCES)).toEqual([
      { address: '203.0.113.0', prefixLength: 24, gateway: undefined, metric: 0, optional: true },
      { address: '198.51.100.0', prefixLength: 24, gateway: '192.0.2.2', metric: 50, optional: true },
    ]);
  });
  it('IPv6 routes: not the default, local, link-local, multicast, or those of advertisements', () => {
    expect(listIpv6Routes('eth0', SOURCES).map(({ address, gateway }) => [address, gateway])).toEqual([
      ['2001:db8:1::', undefined],
      ['2001:db8:5::', '2001:db8:1::2'],
    ]);
  });
  it('addresses of one interface, not link-local', () => {
    expect(listIpv4Addresses('eth0', SOURCES)).toEqual([{ address: '192.0.2.10', prefixLength: 24 }]);
    expect(listIpv6Addresses('eth0', SOURCES)).toEqual([{ address: '2001:db8:1::10', prefixLength: 64 }]);
  });
  it('nothing of an interface that is not there', () => {
    expect(listIpv4Routes('', SOURCES)).toEqual([]);
    expect(listIpv6Routes('', SOURCES)).toEqual([]);
  });
});
