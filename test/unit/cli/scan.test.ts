import { describe, expect, it } from 'vitest';
import { PasselError } from '../../../src/base/errors.ts';
import { flag, refused, value, values } from '../../../src/cli/options/definition.ts';
import { PASST_OPTIONS } from '../../../src/cli/options/passt-options.ts';
import { scanOptions } from '../../../src/cli/options/scan.ts';
import { parseText } from '../../../src/cli/options/values.ts';

const text = { group: 'G', help: 'h', valueName: 'V', parse: parseText };
const TABLE = {
  quiet: flag({ short: 'q', group: 'G', help: 'h' }),
  debug: flag({ short: 'd', group: 'G', help: 'h' }),
  'log-file': value({ ...text, short: 'l' }),
  'log-size': value(text),
  socket: value({ ...text, short: 's', aliases: ['socket-path'] }),
  port: values({ ...text, short: 't' }),
  vhost: refused({ takesValue: false, reason: 'later' }),
} as const;
const scan = (...argv: string[]) => scanOptions(TABLE, argv);

/** The code and message of the error that a command line causes. */
function refusal(table: Parameters<typeof scanOptions>[0], ...argv: string[]): string {
  try {
    scanOptions(table, argv);
  } catch (error) {
    expect(error).toBeInstanceOf(PasselError);
    return `${(error as PasselError).code}: ${(error as PasselError).message}`;
  }
  throw new Error(`accepted: ${argv.join(' ')}`);
}

describe('command lines in the manner of getopt_long', () => {
  it.each([
    [['--log-file=a']],
    [['--log-file', 'a']],
    [['-la']],
    [['-l', 'a']],
    [['-ql', 'a']],
    [['-qdla']],
    [['--log-f', 'a']],
    [['--log-f=a']],
    [['-l', 'x', '-la']],
  ])('%j sets a value', (argv) => {
    expect(scan(...argv).last('log-file')).toBe('a');
  });
  it('keeps an equals sign after a short option as part of the value', () => {
    expect(scan('-l=a').last('log-file')).toBe('=a');
  });
  it('takes a value that looks like an option', () => {
    expect(scan('--log-file', '--quiet').last('log-file')).toBe('--quiet');
    expect(scan('--log-file', '--quiet').has('quiet')).toBe(false);
  });
  it('bundles flags', () => {
    const given = scan('-qd');
    expect([given.has('quiet'), given.has('debug')]).toEqual([true, true]);
  });
  it('lets every occurrence of a repeatable option count, and remembers how it was typed', () => {
    const given = scan('-t1', '--port=2', '-t', '3');
    expect(given.all('port').map((o) => `${o.typed} ${o.parsed}`)).toEqual(['-t 1', '--port 2', '-t 3']);
    expect(given.typed('port')).toBe('-t');
  });
  it('resolves aliases, also by prefix', () => {
    expect(scan('--socket-path=a').last('socket')).toBe('a');
    expect(scan('--sock=a').last('socket')).toBe('a');
  });
  it('collects operands anywhere, and everything after --', () => {
    expect(scan('a', '-q', 'b', '--', '-d', 'c').operands).toEqual(['a', 'b', '-d', 'c']);
    expect(scan('-').operands).toEqual(['-']);
  });
  it('stops at the first operand when asked to', () => {
    const given = scanOptions(TABLE, ['-q', 'qemu', '-d'], { stopAtOperand: true });
    expect(given.operands).toEqual(['qemu', '-d']);
    expect(given.has('debug')).toBe(false);
  });
  it.each([
    [['--bogus'], "PASSEL_E_OPTION_UNKNOWN: unknown option '--bogus'"],
    [['-x'], "PASSEL_E_OPTION_UNKNOWN: unknown option '-x'"],
    [['-qx'], "PASSEL_E_OPTION_UNKNOWN: unknown option '-x'"],
    [['--=a'], "PASSEL_E_OPTION_UNKNOWN: unknown option '--'"],
    [['--log', 'a'], "PASSEL_E_OPTION_AMBIGUOUS: option '--log' is ambiguous: it could be --log-file, --log-size"],
    [['--log-file'], "PASSEL_E_OPTION_NO_ARGUMENT: option '--log-file' needs a value: V"],
    [['-t'], "PASSEL_E_OPTION_NO_ARGUMENT: option '-t' needs a value: V"],
    [['--quiet=1'], "PASSEL_E_OPTION_UNWANTED_ARGUMENT: option '--quiet' takes no value, but '1' was given"],
    [['--vhost'], 'PASSEL_E_OPTION_UNSUPPORTED: --vhost is not supported by this version: later'],
    [['--log-file='], "PASSEL_E_OPTION_VALUE: --log-file: '' is not valid: expected a text that is not empty"],
  ])('%j is refused', (argv, message) => {
    expect(refusal(TABLE, ...argv)).toBe(message);
  });
});

describe('the options of passel-passt', () => {
  it.each([
    ['--mtu', '67', '0, or 68 to 65520 bytes'],
    ['--mtu', '65521', '0, or 68 to 65520 bytes'],
    ['-m', 'x', '0, or 68 to 65520 bytes'],
    ['--address', 'foo', 'ADDRESS or ADDRESS/LENGTH'],
    ['--address', '224.0.0.1', 'ADDRESS or ADDRESS/LENGTH'],
    ['--address', '127.0.0.1', 'ADDRESS or ADDRESS/LENGTH'],
    ['--address', '192.0.2.1/33', 'LENGTH from 1 to 32'],
    ['--address', '2001:db8::1/129', 'LENGTH from 1 to 128'],
    ['--address', '192.0.2.1/24/1', 'LENGTH from 1 to 32'],
    ['--netmask', '33', 'an IPv4 netmask'],
    ['-n', '0', 'an IPv4 netmask'],
    ['--netmask', '255.0.255.0', 'an IPv4 netmask'],
    ['--mac-addr', 'zz', 'a MAC address'],
    ['-M', '01:00:00:00:00:01', 'a unicast MAC address'],
    ['--gateway', '0.0.0.0', 'an IPv4 or IPv6 address'],
    ['--interface', 'averyverylongname', 'the name of a network interface'],
    ['--outbound', '::', 'an IPv4 or IPv6 address'],
    ['--dns', 'foo', "an IPv4 or IPv6 address, or 'none'"],
    ['--dns-forward', '127.0.0.1', 'an IPv4 or IPv6 address that a host can have'],
    ['--dns-host', '', 'an IPv4 or IPv6 address'],
    ['--search', 'a..b', 'domain names separated by spaces'],
    ['--hostname', 'a b', 'a name of letters'],
    ['--fqdn', '-x', 'a name of letters'],
    ['--map-host-loopback', 'yes', "or 'none'"],
    ['--map-guest-addr', '::1', "or 'none'"],
    ['--fd', '1', 'the number of an open, connected stream socket'],
    ['-F', 'x', 'the number of an open, connected stream socket'],
    ['--socket', '', 'a path'],
    ['--log-size', '1T', 'a number of bytes'],
    ['--log-format', 'xml', "'text' or 'json'"],
    ['--runas', 'a:b:c', 'USER or USER:GROUP'],
  ])('%s %j is refused in one line that names option, value and expectation', (option, text, expected) => {
    const message = refusal(PASST_OPTIONS, option, text);
    expect(message).toContain(`PASSEL_E_OPTION_VALUE: ${option}: '${text}' is not valid: expected `);
    expect(message).toContain(expected);
    expect(message).not.toContain('\n');
  });
  it.each([
    ['--vhost-user', '--vhost-user'],
    ['--repair-path=none', '--repair-path'],
    ['--migrate-exit', '--migrate-exit'],
    ['--migrate-no-linger', '--migrate-no-linger'],
    ['-Ieth0', '-I (--ns-ifname)'],
    ['--config-net', '--config-net'],
    ['--netns=/x', '--netns'],
  ])('%s is refused by name', (argument, name) => {
    expect(refusal(PASST_OPTIONS, argument)).toContain(`PASSEL_E_OPTION_UNSUPPORTED: ${name} is not supported`);
  });
  it('include everything that libvirt passes', () => {
    const given = scanOptions(
      PASST_OPTIONS,
      '--one-off --socket /run/vm.socket --pid /run/vm-passt.pid --mtu 1500 --interface eth0 --log-file /tmp/l --hostname h --fqdn h.example.org --address 192.0.2.2 --netmask 24 --address 2001:db8::2 --tcp-ports 192.0.2.1%eth0/22-23:2222 --udp-ports ~25,1-100'.split(
        ' ',
      ),
    );
    expect(given.operands).toEqual([]);
    expect(given.all('address')).toHaveLength(2);
  });
  it('include everything that QEMU passes', () => {
    const given = scanOptions(PASST_OPTIONS, [
      ...'--quiet --mtu 1500 --address 192.0.2.2 --netmask 24 --mac-addr 52:54:00:12:34:56 --gateway 192.0.2.1 --interface eth0 --outbound 192.0.2.3 --outbound-if4 eth0 --outbound-if6 eth0 --dns 192.0.2.53 --fqdn h.example.org --no-dhcp-dns --no-dhcp-search --map-host-loopback 192.0.2.7 --map-guest-addr 192.0.2.8 --dns-forward 192.0.2.9 --dns-host 192.0.2.10 --no-tcp --no-udp --no-icmp --no-dhcp --no-ndp --no-dhcpv6 --no-ra --freebind --ipv4-only'.split(
        ' ',
      ),
      '--search',
      'example.org example.com',
      '--tcp-ports',
      'none',
      '--pid',
      '/tmp/passt.pid',
      '--fd',
      '3',
    ]);
    expect(given.operands).toEqual([]);
    expect(given.last('search')).toEqual(['example.org', 'example.com']);
    expect(given.last('fd')).toBe(3);
    expect(given.last('mac-addr')).toEqual({ hi: 0x5254, lo: 0x00123456 });
  });
  it('have unique names and letters', () => {
    const names = Object.entries(PASST_OPTIONS).flatMap(([name, row]) => [
      name,
      ...('aliases' in row ? row.aliases : []),
      ...('short' in row && row.short ? [row.short] : []),
    ]);
    expect(new Set(names).size).toBe(names.length);
  });
});

describe('options that the C program does not have', () => {
  const table = {
    socket: flag({ group: '', help: '' }),
    'socket-mode': flag({ isExtension: true, group: '', help: '' }),
    deny: flag({ isExtension: true, group: '', help: '' }),
  };
  it('give way where an abbreviation could mean one that it has, and can be abbreviated where not', () => {
    expect(scanOptions(table, ['--so']).has('socket')).toBe(true);
    expect(scanOptions(table, ['--so']).has('socket-mode')).toBe(false);
    expect(scanOptions(table, ['--socket-m', '--d']).has('socket-mode')).toBe(true);
  });
});
