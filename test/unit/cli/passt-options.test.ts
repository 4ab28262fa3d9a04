/**
 * Every option of passt(1), in every form that getopt_long(3) takes, has its effect on what a run does. Two tables are compared: the
 * program's own, and here the list of the C program's options (of July 2026), so that none can be missing from both.
 */
import { describe, expect, it } from 'vitest';
import { parseIp, parseIpv4 } from '../../../src/base/ip-text.ts';
import type { OptionDefinition } from '../../../src/cli/options/definition.ts';
import { PASST_OPTIONS } from '../../../src/cli/options/passt-options.ts';
import { scanOptions } from '../../../src/cli/options/scan.ts';
import { buildPasstConfig, type PasstConfig } from '../../../src/cli/passt-config.ts';
import type { HostFacts } from '../../../src/sys/host-facts.ts';

/** passt(1): long names, with `=` where a value follows, and short ones. */
const PASST_1 = `
  d/debug trace q/quiet f/foreground e/stderr stats= l/log-file= log-size= runas= h/help version c/conf-path= chroot-fallback
  p/pcap= P/pid= m/mtu= a/address= n/netmask= M/mac-addr= g/gateway= i/interface= o/outbound= outbound-if4= outbound-if6=
  D/dns= dns-forward= dns-host= S/search= no-dhcp-dns no-dhcp-search H/hostname= fqdn=
  no-tcp no-udp no-icmp no-dhcp no-dhcpv6 no-ndp no-ra 4/ipv4-only 6/ipv6-only freebind
  map-host-loopback= no-map-gw map-guest-addr= t/tcp-ports= u/udp-ports=
  s/socket= s/socket-path= vhost-user print-capabilities F/fd= 1/one-off repair-path= migrate-exit migrate-no-linger`;
/** pasta(1): known in order to be refused here. */
const PASTA_1 = `
  I/ns-ifname= T/tcp-ns= U/udp-ns= userns= netns= netns-only no-netns-quit config-net no-copy-routes no-copy-addrs ns-mac-addr=
  no-splice splice-only host-lo-to-ns-lo dhcp-dns dhcp-search`;

interface Listed {
  name: string;
  short: string | undefined;
  takesValue: boolean;
}

function readList(text: string): Listed[] {
  return text
    .trim()
    .split(/\s+/)
    .map((entry) => {
      const [, short, name = '', equals] = /^(?:(.)\/)?([\w-]+)(=?)$/.exec(entry)!;
      return { name, short, takesValue: equals === '=' };
    });
}

const ip = (text: string): Uint32Array => parseIp(text)!;
const mapped = (a: number, b: number, c: number, d: number): number => ((a << 24) | (b << 16) | (c << 8) | d) >>> 0;

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
    prefixLength: 64,
    gateway: ip('fe80::99'),
    linkLocal: ip('fe80::2'),
  },
  resolvers: [ip('192.0.2.53'), ip('2001:db8::53')],
  searchDomains: ['example.org'],
};
const EPHEMERAL = { first: 32768, last: 60999 };

interface Sample {
  value?: string;
  /** Options that must be there too. */
  with?: readonly string[];
  /** What the run does then. */
  does: (config: PasstConfig) => unknown;
}

const tcpRule = (config: PasstConfig): boolean =>
  config.forwards.some((rule) => rule.proto === 'tcp' && rule.first === 2222 && rule.targetFirst === 22);

const SAMPLES: Partial<Record<keyof typeof PASST_OPTIONS, Sample>> = {
  socket: {
    value: '/s',
    does: ({ guests: [guest] }) => guest!.transport.kind === 'listen' && guest!.transport.path === '/s',
  },
  fd: {
    value: '7',
    does: ({ guests: [guest], oneOff }) => guest!.transport.kind === 'fd' && guest!.transport.fd === 7 && oneOff,
  },
  netdev: {
    value: 'stream,server=on,addr.type=unix,addr.path=/s',
    does: ({ guests }) => {
      const { transport } = guests[0]!;
      return transport.kind === 'netdev' && transport.netdev.form === 'stream' && transport.netdev.server;
    },
  },
  lease: {
    value: 'b=10.0.2.77',
    with: ['--netdev', 'socket,id=a,listen=:1', '--netdev', 'socket,id=b,listen=:2'],
    does: ({ guests: [, guest] }) => guest?.stack.ipv4?.guestAddress === mapped(10, 0, 2, 77),
  },
  'reconnect-grace': { value: '7', does: ({ stack }) => stack.reconnectGraceMs === 7000 },
  'guest-silence': { value: '7', does: ({ silenceSeconds }) => silenceSeconds === 7 },
  'dns-server': { value: 'corp.example=192.0.2.9', does: ({ names }) => names?.routes[0]?.domain === 'corp.example' },
  'dns-hosts': { value: '/srv/hosts', does: ({ names }) => names?.hostsPath === '/srv/hosts' },
  'guest-forward': {
    value: 'tcp:192.0.2.9:80-unix:/run/web',
    does: ({ services }) => services?.guestForwards[0]?.port === 80,
  },
  'dns-record': { value: 'printer=192.0.2.9', does: ({ names }) => names?.statics[0]?.name === 'printer' },
  'one-off': { does: (config) => config.oneOff },
  'user-net': { value: 'user', does: ({ stack }) => stack.ipv4?.guestAddress === mapped(10, 0, 2, 15) },
  impair: { value: 'loss=1%', does: ({ guests }) => guests[0]?.impairment?.toGuest?.loss === 0.01 },
  'pcap-size': { value: '1M', with: ['-p', '/p'], does: (config) => config.captureLimits.maxBytes === 1 << 20 },
  'pcap-snaplen': { value: '96', with: ['-p', '/p'], does: (config) => config.captureLimits.snapBytes === 96 },
  pcap: { value: '/p', does: (config) => config.pcapPath === '/p' },
  mtu: { value: '9000', does: ({ stack }) => stack.mtu === 9000 },
  address: { value: '10.1.2.3', does: ({ stack }) => stack.ipv4?.guestAddress === mapped(10, 1, 2, 3) },
  netmask: { value: '255.255.0.0', does: ({ stack }) => stack.ipv4?.prefixLength === 16 },
  gateway: { value: '192.0.2.9', does: ({ stack }) => stack.ipv4?.gateway === mapped(192, 0, 2, 9) },
  'mac-addr': { value: '02:00:00:00:00:05', does: ({ stack }) => stack.ourMacHi === 0x0200 && stack.ourMacLo === 5 },
  'ipv4-only': { does: ({ stack }) => stack.ipv6 === undefined },
  'ipv6-only': { does: ({ stack }) => stack.ipv4 === undefined },
  dns: { value: '192.0.2.77', does: ({ stack }) => stack.ipv4?.resolvers.join() === String(mapped(192, 0, 2, 77)) },
  'dns-forward': {
    value: '192.0.2.78',
    does: ({ addressMap }) => addressMap.ipv4?.dnsAlias?.[3] === mapped(192, 0, 2, 78),
  },
  'dns-host': {
    value: '192.0.2.79',
    with: ['--dns-forward', '192.0.2.78'],
    does: ({ addressMap }) => addressMap.ipv4?.dnsHost?.[3] === mapped(192, 0, 2, 79),
  },
  search: { value: 'a.test b.test', does: ({ stack }) => stack.searchDomains.join() === 'a.test,b.test' },
  'no-dhcp-dns': { does: ({ stack }) => !stack.advertiseDns },
  'no-dhcp-search': { does: ({ stack }) => !stack.advertiseSearch },
  hostname: { value: 'vm', does: ({ stack }) => stack.hostname === 'vm' },
  fqdn: { value: 'vm.test', does: ({ stack }) => stack.fqdn === 'vm.test' },
  outbound: {
    value: '192.0.2.2',
    does: ({ stack }) => stack.ipv4?.outboundAddress === mapped(192, 0, 2, 2),
  },
  'outbound-if4': { value: 'eth7', does: ({ stack }) => stack.ipv4?.outboundInterface === 'eth7' },
  'outbound-if6': { value: 'eth7', does: ({ stack }) => stack.ipv6?.outboundInterface === 'eth7' },
  'map-host-loopback': {
    value: '192.0.2.80',
    does: ({ addressMap }) => addressMap.ipv4?.loopbackAlias?.[3] === mapped(192, 0, 2, 80),
  },
  'no-map-gw': { does: ({ addressMap }) => addressMap.ipv4?.loopbackAlias === undefined },
  'map-guest-addr': {
    value: '192.0.2.81',
    does: ({ addressMap }) => addressMap.ipv4?.guestAlias?.[3] === mapped(192, 0, 2, 81),
  },
  'tcp-ports': { value: '2222:22', does: tcpRule },
  'udp-ports': { value: '53', does: ({ forwards }) => forwards.some((r) => r.proto === 'udp' && r.first === 53) },
  'busy-poll': { value: '7', does: (config) => config.busyPollUs === 7 },
  freebind: { does: (config) => config.freebind },
  'no-tcp': { does: ({ stack }) => !stack.tcp },
  'no-udp': { does: ({ stack }) => !stack.udp },
  'no-icmp': { does: ({ stack }) => !stack.icmp && !stack.ndp && !stack.routerAdvertisements },
  'no-dhcp': { does: ({ stack }) => !stack.dhcp },
  'no-dhcpv6': { does: ({ stack }) => !stack.dhcpv6 },
  'no-ndp': { does: ({ stack }) => !stack.ndp && !stack.routerAdvertisements && stack.icmp },
  'no-ra': { does: ({ stack }) => !stack.routerAdvertisements && stack.ndp },
  debug: { does: ({ logging }) => logging.level === 'debug' },
  trace: { does: ({ logging }) => logging.level === 'trace' },
  quiet: { does: ({ logging }) => logging.level === 'warn' },
  'log-file': { value: '/l', does: ({ logging }) => logging.filePath === '/l' },
  'log-size': { value: '64K', does: ({ logging }) => logging.fileMaxBytes === 65536 },
  'log-format': { value: 'json', does: ({ logging }) => logging.format === 'json' },
  foreground: { does: (config) => config.foreground },
  pid: { value: '/i', does: (config) => config.pidPath === '/i' },
  runas: { value: 'one:two', does: ({ runAs }) => runAs?.user === 'one' && runAs.group === 'two' },
  'conf-path': { value: '/c', does: (config) => config.controlPath === '/c' },
  stats: { value: '5', with: ['-f'], does: (config) => config.statsSeconds === 5 },
};

/** Settled before a configuration is made, or nothing to be settled: tested with the executable. */
const ELSEWHERE = ['interface', 'stderr', 'chroot-fallback', 'no-sandbox', 'help', 'version', 'print-capabilities'];

/** Every way to write an option, with others around it. */
function formsOf(name: string, row: OptionDefinition, value: string | undefined): string[][] {
  const forms: string[][] = [];
  for (const long of [name, ...(row.aliases ?? [])]) {
    if (value === undefined) forms.push([`--${long}`]);
    else forms.push([`--${long}=${value}`], [`--${long}`, value]);
  }
  const { short } = row;
  if (short === undefined) return forms;
  // -e has no effect of its own.
  if (value === undefined) return [...forms, [`-${short}`], [`-e${short}`], [`-${short}e`], [`-ee${short}ee`]];
  return [...forms, [`-${short}${value}`], [`-${short}`, value], [`-e${short}${value}`], [`-e${short}`, value]];
}

const entries = Object.entries(PASST_OPTIONS) as [keyof typeof PASST_OPTIONS, OptionDefinition][];
const build = (argv: readonly string[]): PasstConfig =>
  buildPasstConfig(scanOptions(PASST_OPTIONS, argv), HOST, EPHEMERAL);

describe('the options of passt(1)', () => {
  it.each(readList(`${PASST_1} ${PASTA_1}`))('are known, as they are: --$name', ({ name, short, takesValue }) => {
    const [, row] = entries.find(([own, { aliases = [] }]) => own === name || aliases.includes(name)) ?? [];
    expect(row).toBeDefined();
    expect(row!.short).toBe(short);
    expect(row!.kind === 'value' || (row!.kind === 'refused' && row!.takesValue)).toBe(takesValue);
  });
  it('have a sample here, and so have those of our own', () => {
    const unrefused = entries.filter(([, row]) => row.kind !== 'refused').map(([name]) => name);
    expect([...Object.keys(SAMPLES), ...ELSEWHERE].sort()).toEqual([...unrefused].sort());
  });

  for (const [name, row] of entries) {
    const sample = SAMPLES[name];
    if (sample === undefined) continue;
    const { value, does, with: others = [] } = sample;
    it.each(formsOf(name, row, value).map((form) => ({ line: form.join(' '), form })))(
      'have their effect: $line',
      ({ form }) => {
        expect(does(build([...others, ...form]))).toBe(true);
        expect(does(build([...form, ...others, '--stderr']))).toBe(true);
        expect(does(build(others))).not.toBe(true);
      },
    );
  }

  for (const [name, row] of entries) {
    if (row.kind !== 'refused') continue;
    it.each(formsOf(name, row, row.takesValue ? 'value' : undefined).map((form) => ({ line: form.join(' '), form })))(
      'that cannot be had are refused by name: $line',
      ({ form }) => {
        expect(() => build(form)).toThrow(
          expect.objectContaining({
            code: 'PASSEL_E_OPTION_UNSUPPORTED',
            message: expect.stringContaining(`--${name}`) as string,
          }),
        );
      },
    );
  }

  it.each([
    ['-f1q4', ['foreground', 'one-off', 'quiet', 'ipv4-only']],
    ['-1f6', ['one-off', 'foreground', 'ipv6-only']],
  ])('can be bundled: %s', (bundle, names) => {
    const given = scanOptions(PASST_OPTIONS, [bundle]);
    expect(
      entries
        .map(([name]) => name)
        .filter((name) => given.gave(name))
        .sort(),
    ).toEqual([...names].sort());
  });
  it('can be bundled with a last one that takes a value, attached or not', () => {
    for (const argv of [['-1fqt2222:22'], ['-1fqt', '2222:22']]) {
      const config = build(argv);
      expect(config).toMatchObject({ oneOff: true, foreground: true, logging: { level: 'warn' } });
      expect(tcpRule(config)).toBe(true);
    }
  });
  it('count from the last occurrence, or add up where they are repeatable', () => {
    expect(build(['-m', '1500', '--mtu=9000']).stack.mtu).toBe(9000);
    expect(build(['-P', '/a', '--pid=/b']).pidPath).toBe('/b');
    expect(build(['-t', '1', '--tcp-ports=2', '-t3']).forwards.map(({ first }) => first)).toEqual([1, 2, 3]);
    expect(build(['-a', '10.0.0.5', '-a', 'fd00::5']).stack).toMatchObject({
      ipv4: { guestAddress: mapped(10, 0, 0, 5) },
    });
  });
  it.each(['auto', '127.0.0.1/auto', '80,auto'])('do not take %s for ports of a virtual machine', (spec) => {
    expect(() => build(['-t', spec])).toThrow(/--?t(cp-ports)?: .*'auto' follows/);
  });
});
