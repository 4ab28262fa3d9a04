import { describe, expect, it } from 'vitest';
import { parseIpv4, parseIpv6 } from '../../../src/base/ip-text.ts';
import { PASTA_OPTIONS } from '../../../src/cli/options/pasta-options.ts';
import { scanOptions } from '../../../src/cli/options/scan.ts';
import {
  buildPastaConfig,
  checkPastaOptions,
  chooseTarget,
  formatMac,
  type PastaConfig,
} from '../../../src/cli/pasta-config.ts';
import type { HostFacts } from '../../../src/sys/host-facts.ts';

const EPHEMERAL = { first: 32768, last: 60999 };
const HOST: HostFacts = {
  ipv4: {
    interfaceName: 'eth0',
    address: parseIpv4('192.0.2.15')!,
    prefixLength: 24,
    gateway: parseIpv4('192.0.2.1')!,
  },
  ipv6: {
    interfaceName: 'eth0',
    interfaceIndex: 2,
    address: parseIpv6('2001:db8:1::15')!,
    prefixLength: 64,
    gateway: parseIpv6('fe80::1')!,
    linkLocal: undefined,
  },
  resolvers: [],
  searchDomains: [],
};
const OFFLINE: HostFacts = { ipv4: undefined, ipv6: undefined, resolvers: [], searchDomains: [] };
const EXTRAS = {
  addresses4: [
    { address: '192.0.2.15', prefixLength: 24 },
    { address: '198.51.100.7', prefixLength: 28 },
  ],
  addresses6: [{ address: '2001:db8:1::15', prefixLength: 64 }],
  routes4: [{ address: '203.0.113.0', prefixLength: 24, gateway: '192.0.2.2', metric: 50, optional: true }],
  routes6: [{ address: '2001:db8:5::', prefixLength: 48, gateway: '2001:db8:1::2', metric: 1024, optional: true }],
};
const RANDOM = { hi: 0x0212, lo: 0x34567890 };

const given = (line: string) => scanOptions(PASTA_OPTIONS, line === '' ? [] : line.split(' '), { stopAtOperand: true });
const build = (line: string, facts = HOST): PastaConfig =>
  buildPastaConfig(given(line), facts, EXTRAS, EPHEMERAL, RANDOM);
const network = (line: string, facts = HOST) => build(`--config-net ${line}`.trim(), facts).tap!.network!;
const routes = (line: string, facts = HOST): string[] =>
  network(line, facts).routes.map(
    ({ address, prefixLength, gateway }) => `${address}/${prefixLength} ${gateway ?? '-'}`,
  );
const addresses = (line: string): string[] =>
  network(line).addresses.map(({ address, prefixLength }) => `${address}/${prefixLength}`);
const refusal = (line: string): string => {
  try {
    checkPastaOptions(given(line));
  } catch (error) {
    return (error as { code: string }).code;
  }
  return 'accepted';
};

describe('whose network a command line asks for', () => {
  it.each([
    ['', { kind: 'command', command: [] }],
    ['-- id -u', { kind: 'command', command: ['id', '-u'] }],
    ['sh -c true', { kind: 'command', command: ['sh', '-c', 'true'] }],
    // A number with arguments is the name of a program.
    ['7 8', { kind: 'command', command: ['7', '8'] }],
    ['12', { kind: 'join', netPath: '/proc/12/ns/net', userPath: '/proc/12/ns/user', pid: 12, watch: true }],
    ['--netns-only 12', { kind: 'join', netPath: '/proc/12/ns/net', userPath: undefined, pid: 12, watch: true }],
    ['--userns /u 12', { kind: 'join', netPath: '/proc/12/ns/net', userPath: '/u', pid: 12, watch: true }],
    ['--netns blue', { kind: 'join', netPath: '/run/netns/blue', userPath: undefined, pid: undefined, watch: true }],
    ['--netns ./b', { kind: 'join', netPath: './b', userPath: undefined, pid: undefined, watch: true }],
    [
      '--no-netns-quit --userns /u --netns /n',
      { kind: 'join', netPath: '/n', userPath: '/u', pid: undefined, watch: false },
    ],
  ])('%s', (line, target) => {
    expect(chooseTarget(given(line))).toEqual(target);
  });

  it.each([
    ['--netns a 12', 'PASSEL_E_OPTION_CONFLICT'],
    ['--netns a sh', 'PASSEL_E_OPTION_CONFLICT'],
    ['--userns /u --netns-only 12', 'PASSEL_E_OPTION_CONFLICT'],
    ['--splice-only --no-splice', 'PASSEL_E_OPTION_CONFLICT'],
    ['--splice-only --config-net', 'PASSEL_E_OPTION_CONFLICT'],
    ['-4 -6', 'PASSEL_E_OPTION_CONFLICT'],
    ['--userns /u', 'PASSEL_E_OPTION_REQUIRES'],
    ['--netns-only sh', 'PASSEL_E_OPTION_REQUIRES'],
    ['--no-netns-quit', 'PASSEL_E_OPTION_REQUIRES'],
    ['--stats 1 12', 'PASSEL_E_OPTION_REQUIRES'],
    ['--stats 1 sh', 'accepted'],
    ['0', 'PASSEL_E_OPERAND'],
    ['99999999', 'PASSEL_E_OPERAND'],
  ])('%s: %s', (line, code) => {
    expect(refusal(line)).toBe(code);
  });

  it.each(['-s x', '--fd 3', '-1', '--vhost-user', '--no-dhcp-dns'])('%s is refused by name', (line) => {
    expect(() => given(line)).toThrow(/not supported/);
  });
});

describe('the interface in the namespace', () => {
  it('is called as that of the host, or as asked, or tap0', () => {
    expect(build('').tap?.name).toBe('eth0');
    expect(build('-I blue').tap?.name).toBe('blue');
    expect(build('', OFFLINE).tap?.name).toBe('tap0');
  });
  it('has a MAC address that the stack knows beforehand', () => {
    for (const [line, mac] of [
      ['', '02:12:34:56:78:90'],
      ['--ns-mac-addr 9a:00:01:02:03:04', '9a:00:01:02:03:04'],
    ] as const) {
      const { tap, network: of } = build(line);
      expect(tap?.mac).toBe(mac);
      expect(formatMac({ hi: of.stack.guestMacHi, lo: of.stack.guestMacLo })).toBe(mac);
    }
  });
  it('is left alone without --config-net, and not made with --splice-only', () => {
    expect(build('').tap?.network).toBeUndefined();
    expect(build('').network.stack.routerAdvertisements).toBe(true);
    expect(build('--splice-only').tap).toBeUndefined();
  });
});

describe('--config-net', () => {
  it('gives what the host has: addresses, default routes, other routes', () => {
    expect(addresses('')).toEqual(['192.0.2.15/24', '198.51.100.7/28', '2001:db8:1::15/64']);
    expect(routes('')).toEqual([
      '0.0.0.0/0 192.0.2.1',
      '203.0.113.0/24 192.0.2.2',
      '::/0 fe80::1',
      '2001:db8:5::/48 2001:db8:1::2',
    ]);
  });
  it('copies nothing of a family that was given an address, and no routes past a gateway that was', () => {
    expect(addresses('-a 10.0.2.100/24 -g 10.0.2.2')).toEqual(['10.0.2.100/24', '2001:db8:1::15/64']);
    expect(routes('-4 -a 10.0.2.100/24 -g 10.0.2.2')).toEqual(['0.0.0.0/0 10.0.2.2']);
    expect(routes('-4 -g 192.0.2.9')).toEqual(['0.0.0.0/0 192.0.2.9']);
    expect(routes('-6 -g fe80::9')).toEqual(['::/0 fe80::9']);
  });
  it('copies no more than asked', () => {
    expect(addresses('--no-copy-addrs -4')).toEqual(['192.0.2.15/24']);
    expect(routes('--no-copy-routes')).toEqual(['0.0.0.0/0 192.0.2.1', '::/0 fe80::1']);
  });
  it('makes a gateway reachable that is not in the network of the address', () => {
    expect(routes('-4 -a 10.9.9.9/32 -g 192.0.2.1')).toEqual(['192.0.2.1/32 -', '0.0.0.0/0 192.0.2.1']);
    expect(routes('-6 -g 2001:db8:9::1')).toEqual(['2001:db8:9::1/128 -', '::/0 2001:db8:9::1']);
    expect(routes('', OFFLINE)[0]).toBe('0.0.0.0/0 169.254.2.2');
  });
  it('sets the MTU, unless that is 0, and sends no router advertisements', () => {
    expect(network('').mtu).toBe(65520);
    expect(network('-m 1400').mtu).toBe(1400);
    expect(network('-m 0').mtu).toBe(0);
    expect(build('--config-net').network.stack.routerAdvertisements).toBe(false);
  });
});

describe('forwards', () => {
  const kinds = (line: string): string[] => {
    const { network: of, namespaceForwards } = build(line);
    return [...of.forwards, ...namespaceForwards].map(
      ({ proto, scan, first }) => `${proto}${scan ? ' auto' : ` ${first}`}`,
    );
  };
  it('follow what is listened on, all four, without a word', () => {
    expect([...new Set(kinds(''))]).toEqual(['tcp auto', 'udp auto']);
    expect(build('').network.forwards.length).toBeGreaterThan(0);
    expect(build('').namespaceForwards.length).toBeGreaterThan(0);
  });
  it('are those that were asked for', () => {
    expect(kinds('-t 80 -u none -T none -U 53')).toEqual(['tcp 80', 'udp 53']);
    expect(kinds('--no-udp -t none -T 22')).toEqual(['tcp 22']);
  });
  it('cannot be of a protocol that is off', () => {
    expect(() => build('--no-tcp -T 22')).toThrow(/exclude each other/);
  });
  it('from loopback lead to the address, or to loopback when asked', () => {
    expect(build('')).toMatchObject({ splice: true, loopbackToLoopback: false });
    expect(build('--host-lo-to-ns-lo')).toMatchObject({ splice: true, loopbackToLoopback: true });
    expect(build('--splice-only')).toMatchObject({ splice: true, loopbackToLoopback: true });
    expect(build('--no-splice')).toMatchObject({ splice: false });
  });
});

describe('names', () => {
  it('are told only when asked: a namespace has the host files', () => {
    expect(build('').network.stack).toMatchObject({ advertiseDns: false, advertiseSearch: false });
    expect(build('--dhcp-dns --dhcp-search').network.stack).toMatchObject({
      advertiseDns: true,
      advertiseSearch: true,
    });
  });
});

describe('--impair', () => {
  it('is for the only link that there is', () => {
    expect(build('').impairment).toBeUndefined();
    expect(build('--impair delay=1ms').impairment?.fromGuest?.delayMs).toBe(1);
    expect(build('--impair namespace:delay=2ms').impairment?.fromGuest?.delayMs).toBe(2);
    expect(() => build('--impair web:delay=2ms')).toThrow('expected namespace in front of');
    expect(() => build('--impair delay=2ms --splice-only')).toThrow('exclude each other');
  });
});
