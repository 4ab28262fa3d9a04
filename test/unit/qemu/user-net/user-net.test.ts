import { describe, expect, it } from 'vitest';
import { formatIp, formatIpv4, parseIp } from '../../../../src/base/ip-text.ts';
import { splitWords } from '../../../../src/qemu/user-net/guest-forward.ts';
import { readUserNet } from '../../../../src/qemu/user-net/user-net.ts';

/** network/bits host first lease dns, as text. */
function v4(text: string): string {
  const { ipv4 } = readUserNet(text);
  if (ipv4 === undefined) return 'none';
  const { network, prefixLength, host, dhcpStart, dns } = ipv4;
  return `${formatIpv4(network)}/${prefixLength} ${[host, dhcpStart, dns].map(formatIpv4).join(' ')}`;
}

function v6(text: string): string {
  const { ipv6 } = readUserNet(text);
  if (ipv6 === undefined) return 'none';
  return `${formatIp(ipv6.network)}/${ipv6.prefixLength} ${formatIp(ipv6.host)} ${formatIp(ipv6.dns)}`;
}

describe('the network of -netdev user', () => {
  it('is that of the manual without options, whatever stands in front of them', () => {
    for (const text of ['', 'user', 'user,id=n0', 'id=n0', '{"type": "user", "id": "n0"}']) {
      expect(v4(text)).toBe('10.0.2.0/24 10.0.2.2 10.0.2.15 10.0.2.3');
      expect(v6(text)).toBe('fec0::/64 fec0::2 fec0::3');
    }
  });
  // What QEMU 7.2 makes of each, by `info usernet` of a forward and by which hosts it takes.
  it.each([
    ['192.168.76.0/24', '192.168.76.0/24 192.168.76.2 192.168.76.15 192.168.76.3'],
    ['192.168.76.9/255.255.255.0', '192.168.76.0/24 192.168.76.2 192.168.76.15 192.168.76.3'],
    ['192.168.76.9', '192.168.0.0/16 192.168.2.2 192.168.2.15 192.168.2.3'],
    ['192.168.76.0/23', '192.168.76.0/23 192.168.76.2 192.168.76.15 192.168.76.3'],
    ['10.5.0.0', '10.0.0.0/8 10.0.2.2 10.0.2.15 10.0.2.3'],
    ['172.20.3.0', '172.16.0.0/12 172.16.2.2 172.16.2.15 172.16.2.3'],
    ['130.5.0.0', '130.5.0.0/16 130.5.2.2 130.5.2.15 130.5.2.3'],
    ['200.1.1.0', '200.1.1.0/24 200.1.1.2 200.1.1.15 200.1.1.3'],
    ['50.1.2.0', '50.0.0.0/8 50.0.2.2 50.0.2.15 50.0.2.3'],
    ['10.0.2.0/27', '10.0.2.0/27 10.0.2.2 10.0.2.15 10.0.2.3'],
  ])('net=%s', (net, expected) => {
    expect(v4(`net=${net}`)).toBe(expected);
  });
  it('has the addresses that are named', () => {
    expect(v4('host=10.0.2.9,dhcpstart=10.0.2.40,dns=192.0.2.1')).toBe('10.0.2.0/24 10.0.2.9 10.0.2.40 192.0.2.1');
    expect(v6('ipv6-net=fd00:1::/48')).toBe('fd00:1::/48 fd00:1::2 fd00:1::3');
    expect(v6('ipv6-prefix=fd00::,ipv6-prefixlen=80')).toBe('fd00::/80 fd00::2 fd00::3');
    expect(v6('ipv6-net=fd00::,ipv6-host=fd00::9,ipv6-dns=fd00::53')).toBe('fd00::/64 fd00::9 fd00::53');
  });
  it('has one family where only that one is switched on, or the other one off', () => {
    const families = (text: string): boolean[] => [v4(text) !== 'none', v6(text) !== 'none'];
    for (const text of ['ipv4=on', 'ipv6=off', 'ipv6=no,ipv4=yes']) expect(families(text)).toEqual([true, false]);
    for (const text of ['ipv6=on', 'ipv4=off']) expect(families(text)).toEqual([false, true]);
    expect(families('ipv4=on,ipv6=on')).toEqual([true, true]);
  });
  it('has names, a restriction and forwards', () => {
    const text = 'hostname=vm,domainname=example.org,dnssearch=a.example,dnssearch=b.example,restrict=y';
    expect(
      readUserNet(`${text},hostfwd=tcp::5555-:23,hostfwd=udp:127.0.0.1:53-10.0.2.20:5353,hostfwd=::6-:7`),
    ).toMatchObject({
      hostname: 'vm',
      domainName: 'example.org',
      searchDomains: ['a.example', 'b.example'],
      isRestricted: true,
      hostForwards: [
        { proto: 'tcp', hostAddress: '0.0.0.0', hostPort: 5555, guestAddress: '10.0.2.15', guestPort: 23 },
        { proto: 'udp', hostAddress: '127.0.0.1', hostPort: 53, guestAddress: '10.0.2.20', guestPort: 5353 },
        { proto: 'tcp', hostAddress: '0.0.0.0', hostPort: 6, guestAddress: '10.0.2.15', guestPort: 7 },
      ],
    });
    expect(readUserNet('dhcpstart=10.0.2.40,hostfwd=tcp::1-:2').hostForwards[0]!.guestAddress).toBe('10.0.2.40');
    expect(readUserNet('hostfwd=unix:/run/a-b:1-:22,hostfwd=unix:@x-[fec0::9]:23').hostForwards).toMatchObject([
      { proto: 'tcp', hostPath: '/run/a-b:1', guestAddress: '10.0.2.15', guestPort: 22 },
      { proto: 'tcp', hostPath: '@x', guestAddress: 'fec0::9', guestPort: 23 },
    ]);
    expect(readUserNet('ipv4=off,hostfwd=unix:/x-:22').hostForwards[0]).toMatchObject({ guestAddress: undefined });
    expect(
      readUserNet('hostfwd=tcp:[::1]:0-[fec0::15]:22,hostfwd=udp:[::]:5-:6,hostfwd=tcp::7-[fec0::9]:8').hostForwards,
    ).toEqual([
      { proto: 'tcp', hostAddress: '::1', hostPort: 0, guestAddress: 'fec0::15', guestPort: 22 },
      { proto: 'udp', hostAddress: '::', hostPort: 5, guestAddress: undefined, guestPort: 6 },
      { proto: 'tcp', hostAddress: '::', hostPort: 7, guestAddress: 'fec0::9', guestPort: 8 },
    ]);
    const json = readUserNet(
      '{"type":"user","restrict":true,"hostfwd":[{"str":"tcp::1-:2"}],"dnssearch":[{"str":"a"}]}',
    );
    expect(json).toMatchObject({ isRestricted: true, searchDomains: ['a'], hostForwards: [{ hostPort: 1 }] });
  });
});

describe('services', () => {
  const forwards = (rule: string) => readUserNet(`guestfwd=${rule}`).guestForwards;
  it('have the forms of the manual', () => {
    expect(forwards('tcp:10.0.2.100:1234-tcp:10.10.1.1:4321')).toEqual([
      { address: parseIp('10.0.2.100'), port: 1234, to: { kind: 'tcp', address: parseIp('10.10.1.1'), port: 4321 } },
    ]);
    expect(forwards('tcp:10.0.2.100:1234-cmd:netcat 10.10.1.1 4321')[0]!.to).toEqual({
      kind: 'command',
      words: ['netcat', '10.10.1.1', '4321'],
    });
    expect(forwards(':10.0.2.100:1-unix:/run/a-b:c')[0]!.to).toEqual({ kind: 'unix', path: '/run/a-b:c' });
    expect(forwards('tcp:10.0.2.100:1-tcp:[::1]:80')[0]!.to).toMatchObject({ address: parseIp('::1'), port: 80 });
    expect(forwards('tcp:10.0.2.100:1-tcp:localhost:80')[0]!.to).toMatchObject({ address: parseIp('127.0.0.1') });
  });
  it('may be at an address of IPv6', () => {
    expect(forwards('tcp:[fec0::100]:80-unix:@name')).toEqual([
      { address: parseIp('fec0::100'), port: 80, to: { kind: 'unix', path: '@name' } },
    ]);
  });
  it('share a folder, at x.x.2.4 or elsewhere', () => {
    const server = (text: string): string => `${readUserNet(text).smbFolder} ${formatIp(readUserNet(text).smbServer)}`;
    expect(server('smb=/srv')).toBe('/srv 10.0.2.4');
    expect(server('net=192.168.5.0/24,smb=/srv')).toBe('/srv 192.168.5.4');
    expect(server('smb=/srv,smbserver=10.0.2.9')).toBe('/srv 10.0.2.9');
    expect(readUserNet('').smbFolder).toBe('');
  });
  it('are repeatable, and read the folder and names for booting', () => {
    const rules = 'guestfwd=tcp:10.0.2.100:1-cmd:a,guestfwd=tcp:10.0.2.100:2-cmd:b';
    expect(readUserNet(`${rules},tftp=/srv/a,,b,bootfile=/pxelinux.0,tftp-server-name=boot.example`)).toMatchObject({
      guestForwards: [{ port: 1 }, { port: 2 }],
      tftpFolder: '/srv/a,b',
      bootFile: '/pxelinux.0',
      tftpServerName: 'boot.example',
    });
  });
  it.each([
    ['a b  c', ['a', 'b', 'c']],
    [` a 'b  "c' `, ['a', 'b  "c']],
    [`a "b \\" $c" ''`, ['a', 'b " $c', '']],
    ['a\\ b \\"c', ['a b', '"c']],
    [`a"b"'c'd "\\x"`, ['abcd', '\\x']],
  ])('splits the words of %s as a shell does', (command, words) => {
    const refuse = (expected: string): never => {
      throw new Error(expected);
    };
    expect(splitWords(command, refuse)).toEqual(words);
    for (const open of ['a "b', "a 'b", 'a \\']) expect(() => splitWords(open, refuse)).toThrow();
  });
  it.each([
    '10.0.2.100:1234-cmd:cat',
    'udp:10.0.2.100:1234-cmd:cat',
    'tcp:10.0.3.100:1234-cmd:cat',
    'tcp:10.0.2.2:1234-cmd:cat',
    'tcp:10.0.2.3:53-cmd:cat',
    'tcp:10.0.2.100:0-cmd:cat',
    'tcp:10.0.2.100:1234-chardev:foo',
    'tcp:10.0.2.100:1234-',
    'tcp:10.0.2.100:1234',
    'tcp:10.0.2.100:1234-cmd:',
    'tcp:10.0.2.100:1234-null',
    'tcp:10.0.2.100:1234-tcp:host.example:1',
    'tcp:10.0.2.100:1234-tcp:10.0.0.1',
    'tcp:10.0.2.100:1234-unix:',
  ])('guestfwd=%s is refused', (rule) => {
    expect(() => forwards(rule)).toThrow(/^--user-net guestfwd/);
  });
  it('have limits for what has to fit a message', () => {
    expect(readUserNet(`bootfile=${'a'.repeat(127)}`).bootFile).toHaveLength(127);
    expect(() => readUserNet(`bootfile=${'a'.repeat(128)}`)).toThrow(/bootfile/);
    expect(() => readUserNet('bootfile=é')).toThrow(/bootfile/);
    expect(() => readUserNet(`tftp-server-name=${'a'.repeat(256)}`)).toThrow(/tftp-server-name/);
  });
});

describe('what QEMU refuses', () => {
  it.each([
    'foo=bar',
    'type=tap',
    'restrict=maybe',
    'ipv4=off,ipv6=off',
    'ipv4=off,net=10.0.3.0/24',
    'ipv4=on,ipv6-net=fd00::/64',
    'net=10.0.2.0/33',
    'net=10.0.2.0/',
    'net=10.0.2.0/255.0.255.0',
    'net=10.0.2.0/30',
    'net=abc',
    'net=192.168.1.0/24,host=192.168.2.2',
    'host=10.0.2.15',
    'dns=10.0.2.2',
    'dhcpstart=10.0.2.2',
    'dhcpstart=10.0.3.2',
    'ipv6-net=fd00::1/127',
    'ipv6-host=fd00::2',
    'hostfwd=5555-:23',
    'hostfwd=tcp::5555-:0',
    'hostfwd=tcp:localhost:5559-:22',
    'hostfwd=tcp::5555-localhost:22',
    'hostfwd=tcp::5555',
    'hostfwd=',
    'hostfwd=tcp::70000-:22',
  ])('%s is refused too', (text) => {
    expect(() => readUserNet(text)).toThrow(/--user-net/);
  });
  it.each([
    ['net=127.0.0.0/8', 'net'],
    ['net=224.0.0.0/8', 'net'],
    ['host=10.0.2.0', 'host'],
    ['dhcpstart=10.0.2.255', 'dhcpstart'],
    ['ipv6-dns=fec0::2', 'ipv6-dns'],
    ['hostfwd=unix:-:22', 'hostfwd'],
    ['hostfwd=unix:/tmp/x:22', 'hostfwd'],
    ['hostfwd=unix:/tmp/x-[fe80::1:22', 'hostfwd'],
    ['hostfwd=tcp:::1:5559-:22', 'hostfwd'],
    ['hostfwd=tcp:[10.0.0.1]:5559-:22', 'hostfwd'],
    ['hostfwd=tcp:[::1]:5559-10.0.2.15:22', 'hostfwd'],
    ['ipv6=off,hostfwd=tcp:[::1]:5-:22', 'hostfwd'],
    ['ipv4=off,hostfwd=tcp::5-:22', 'hostfwd'],
    ['dnssearch=-', 'dnssearch'],
    ['{"type":', ''],
    ['smb=/tmp,smbserver=10.0.2.2', 'smbserver'],
    ['smb=/tmp,smbserver=10.0.3.4', 'smbserver'],
    ['smb=/tmp,host=10.0.2.4', 'smb'],
    ['ipv4=off,smb=/tmp', 'smb'],
    ['guestfwd=tcp:[fec0::2]:80-cmd:cat', 'guestfwd'],
    ['guestfwd=tcp:[2001:db8::2]:80-cmd:cat', 'guestfwd'],
  ])('%s, which can never work, is refused here', (text, key) => {
    expect(() => readUserNet(text)).toThrow(new RegExp(`^--user-net${key === '' ? '' : ` ${key}`}`));
  });
});
