/**
 * The network of QEMU's `-netdev user` from `--user-net`, in a real guest: the addresses, names and services that QEMU's manual
 * documents, and its examples for forwards.
 */
import { createHash, randomBytes } from 'node:crypto';
import { chmod, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Agent, startAgent } from '../support/netns/agent.ts';
import { needNamespaces, needVeth, requireOrSkip } from '../support/netns/capabilities.ts';
import { createHost, HOST_NET, type Host } from '../support/netns/host.ts';
import { waitUntil } from '../support/netns/namespace.ts';
import { bootGuest, type Guest, needGuest } from '../support/qemu-guest/guest.ts';
import { isDebianStack } from '../support/stack-under-test.ts';
import { fetchAndHash, GET_DHCPV4_LEASE, parseEnvironment } from './guest-commands.ts';
import { type ListeningStack, startListeningStack } from './listening-stack.ts';

const GUEST_MAC = '52:54:00:70:61:73';
/** Not a multiple of any block. */
const KERNEL = randomBytes(400_001);
const SERVER_NAME = 'server.passel.test';
const OPTIONS = [
  'user,id=n1,hostname=vm,domainname=example.org',
  'dnssearch=mgmt.example.org,dnssearch=example.org',
  'hostfwd=tcp:127.0.0.1:6001-:6000,hostfwd=tcp::5555-:23,hostfwd=udp::5353-10.0.2.15:53',
].join(',');

const describeSuite = await requireOrSkip(needNamespaces, needVeth, ...needGuest('cloud'));

(isDebianStack() ? describe.skip : describeSuite)('a guest in the network of -netdev user', () => {
  let host: Host;
  let onHost: Agent;
  let onWan: Agent;
  let stack: ListeningStack;
  let guest: Guest;
  let onSocket: Server;

  beforeAll(async () => {
    host = await createHost();
    [onHost, onWan] = await Promise.all([startAgent(host), startAgent(host.wan)]);
    await Promise.all([
      onWan.serveDns({ host: HOST_NET.remoteV4, records: { [SERVER_NAME]: [HOST_NET.remoteV4, HOST_NET.remoteV6] } }),
      onWan.serveDns({ host: HOST_NET.remoteV6, records: { [SERVER_NAME]: [HOST_NET.remoteV4, HOST_NET.remoteV6] } }),
      onWan.serveHttp({ host: HOST_NET.remoteV4, port: 8080 }),
      onWan.serveHttp({ host: HOST_NET.remoteV6, port: 8080 }),
      onHost.serveHttp({ host: '127.0.0.1', port: 8081 }),
      onHost.serveHttp({ host: '::1', port: 8081 }),
    ]);
    await host.wan.sh('ip addr add 10.10.1.1/32 dev lo');
    await onWan.serveHttp({ host: '10.10.1.1', port: 4321 });
    const folder = join(host.directory, 'tftp');
    await mkdir(join(folder, 'sub'), { recursive: true });
    await writeFile(join(host.directory, 'secret'), 'secret\n');
    await writeFile(join(folder, 'kernel'), KERNEL);
    await writeFile(join(folder, 'sub/blocks'), KERNEL.subarray(0, 4 * 1432));
    await writeFile(join(folder, 'empty'), '');
    await symlink('../secret', join(folder, 'escape'));
    await symlink('sub/blocks', join(folder, 'inside'));
    onSocket = createServer((socket) => socket.pipe(socket));
    await new Promise<void>((resolve) => onSocket.listen(join(host.directory, 'service'), resolve));
    await chmod(join(host.directory, 'service'), 0o777);
    const services = [
      `hostfwd=unix:${join(host.directory, 'telnet')}-:23`,
      'hostfwd=tcp:127.0.0.1:0-:23,hostfwd=tcp:[::1]:5556-:24',
      `tftp=${folder}`,
      'guestfwd=tcp:10.0.2.100:1234-tcp:10.10.1.1:4321',
      'guestfwd=tcp:10.0.2.100:1235-cmd:socat - TCP:10.10.1.1:4321',
      `guestfwd=tcp:10.0.2.100:1236-unix:${join(host.directory, 'service')}`,
      `guestfwd=:10.0.2.101:80-cmd:sh -c "id -u; echo pid \\$\\$; cat > ${join(host.directory, 'taken')}"`,
      'guestfwd=tcp:10.0.2.102:7-cmd:cat',
      'guestfwd=tcp:10.0.2.102:8-cmd:/nowhere',
      `guestfwd=tcp:10.0.2.102:9-unix:${join(host.directory, 'nobody')}`,
    ];
    stack = await startListeningStack(host, ['--user-net', [OPTIONS, ...services].join(',')]);
    guest = await bootGuest({ netdev: stack.netdev, mac: GUEST_MAC });
  });

  afterAll(async () => {
    await guest?.stop();
    await stack?.stop();
    onSocket?.close();
    await host?.close();
  });

  it('leases 10.0.2.15 with router 10.0.2.2, name server 10.0.2.3 and the names given', async () => {
    await guest.check(`${GET_DHCPV4_LEASE} -O hostname -O domain`);
    const lease = parseEnvironment(await guest.check('cat /tmp/dhcp4.env'));
    expect(lease).toMatchObject({
      ip: '10.0.2.15',
      mask: '24',
      router: '10.0.2.2',
      dns: '10.0.2.3',
      hostname: 'vm',
      domain: 'example.org',
      search: 'mgmt.example.org example.org',
      serverid: '10.0.2.2',
    });
  });

  it('announces fec0::/64, and the router answers', async () => {
    await guest.check(
      "until ip -6 addr show dev eth0 | grep 'scope site dynamic' | grep -qv tentative; do sleep 0.1; done",
    );
    expect(await guest.check('ip -6 addr show dev eth0')).toContain('fec0::5054:ff:fe70:6173/64');
    expect(await guest.check('ip -6 route show default')).toContain('via fe80::2');
    await guest.check('ping -c 1 -W 10 10.0.2.2 && ping -6 -c 1 -W 10 fec0::2 && ping -6 -c 1 -W 10 fe80::2%eth0');
  });

  it("reaches the host's loopback at 10.0.2.2 and fec0::2, and nobody else there", async () => {
    const expected = await onHost.hashPattern({ lengthBytes: 1_000_000, seed: 2 });
    for (const address of ['10.0.2.2', '[fec0::2]']) {
      expect(await guest.check(fetchAndHash(`http://${address}:8081/bytes/1000000/2`))).toBe(expected);
    }
    for (const address of ['10.0.2.3', '10.0.2.77', '[fec0::77]', '[fe80::2%eth0]']) {
      const { status, stdout } = await guest.exec(`wget -q -O - 'http://${address}:8081/from'`);
      expect([address, status, stdout]).not.toEqual([address, 0, expect.anything()]);
    }
  });

  it('resolves names by 10.0.2.3 and fec0::3, which ask the resolver of the host', async () => {
    for (const server of ['10.0.2.3', 'fec0::3']) {
      const answer = await guest.check(`nslookup ${SERVER_NAME} ${server}`);
      expect(answer).toContain(HOST_NET.remoteV4);
      expect(answer).toContain(HOST_NET.remoteV6);
    }
  });

  it('reaches servers beyond the host, which see the address of the host', async () => {
    expect(await guest.check(`wget -q -O - http://${SERVER_NAME}:8080/from`)).toMatch(/192\.0\.2\.15|2001:db8:1::15/);
    const expected = await onWan.hashPattern({ lengthBytes: 1_000_000, seed: 3 });
    for (const address of [HOST_NET.remoteV4, `[${HOST_NET.remoteV6}]`]) {
      expect(await guest.check(fetchAndHash(`http://${address}:8080/bytes/1000000/3`))).toBe(expected);
    }
  });

  it('is reached by the forwards of the manual, from loopback as 10.0.2.2', async () => {
    await guest.start(`socat TCP4-LISTEN:6000,reuseaddr,fork SYSTEM:'echo $SOCAT_PEERADDR'`);
    await guest.start(`socat TCP4-LISTEN:23,reuseaddr,fork SYSTEM:'echo telnet'`);
    await guest.start('socat UDP4-RECVFROM:53,reuseaddr,fork EXEC:cat');
    await guest.check('for port in 6000 23 53; do until netstat -ltun | grep -q ":$port "; do sleep 0.1; done; done');
    expect((await onHost.exchangeTcp({ host: '127.0.0.1', port: 6001 })).text).toBe('10.0.2.2\n');
    expect((await onHost.exchangeTcp({ host: 'localhost', port: 5555 })).text).toBe('telnet\n');
    expect((await onWan.exchangeTcp({ host: HOST_NET.hostV4, port: 5555 })).text).toBe('telnet\n');
    const [, chosen = ''] = /the host's port is (\d+)/.exec(stack.output()) ?? [];
    expect((await onHost.exchangeTcp({ host: '127.0.0.1', port: Number(chosen) })).text).toBe('telnet\n');
    await expect(onWan.exchangeTcp({ host: HOST_NET.hostV4, port: 6001 })).rejects.toThrow();
    const { same } = await onWan.exchangeUdp({ host: HOST_NET.hostV4, port: 5353, lengthBytes: 100 });
    expect(same).toBe(true);
  });

  it('is reached by a unix socket, and by the loopback of IPv6 as fec0::2', async () => {
    const { stdout } = await host.sh(`socat -t 30 - UNIX-CONNECT:${join(host.directory, 'telnet')} < /dev/null`);
    expect(stdout).toBe('telnet\n');
    await guest.start(`socat TCP6-LISTEN:24,reuseaddr,fork SYSTEM:'echo $SOCAT_PEERADDR'`);
    await guest.check('until netstat -ltn | grep -q ":24 "; do sleep 0.1; done');
    const { text } = await onHost.exchangeTcp({ host: '::1', port: 5556 });
    expect(text).toMatch(/^\[(fec0::2|fec0:0000:0000:0000:0000:0000:0000:0002)\]\n$/);
  });

  it('fetches files by TFTP, in blocks of any size', async () => {
    const hash = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');
    for (const [file, options, bytes] of [
      ['kernel', '-b 1432', KERNEL],
      ['/kernel', '-b 65464', KERNEL],
      ['sub/blocks', '-b 1432', KERNEL.subarray(0, 4 * 1432)],
      ['inside', '', KERNEL.subarray(0, 4 * 1432)],
      ['empty', '', Buffer.alloc(0)],
    ] as const) {
      await guest.check(`rm -f /tmp/file; timeout 60 tftp -g ${options} -r ${file} -l /tmp/file 10.0.2.2`);
      expect(await guest.check('sha256sum /tmp/file | cut -d " " -f 1')).toBe(hash(bytes));
    }
    await guest.check('timeout 60 tftp -g -b 1400 -r kernel -l /tmp/file fec0::2');
    expect(await guest.check('sha256sum /tmp/file | cut -d " " -f 1')).toBe(hash(KERNEL));
  });

  it('gets nothing by TFTP from outside the folder, and cannot write', async () => {
    for (const file of ['escape', '../secret', 'sub/../../secret', '/etc/passwd', 'sub', 'nowhere']) {
      const { status, stdout } = await guest.exec(`timeout 60 tftp -g -r ${file} -l /tmp/none 10.0.2.2`);
      expect([file, status, stdout]).toEqual([file, 1, expect.stringMatching(/not found|not allowed/)]);
    }
    const { stdout } = await guest.exec('timeout 60 tftp -p -l /etc/passwd -r new 10.0.2.2');
    expect(stdout).toContain('read only');
  });

  it('has its connections forwarded to a host, as in the manual', async () => {
    const expected = await onWan.hashPattern({ lengthBytes: 1_000_000, seed: 4 });
    expect(await guest.check(fetchAndHash('http://10.0.2.100:1234/bytes/1000000/4'))).toBe(expected);
  });

  it('has a command for each of its connections, as in the manual', async () => {
    const expected = await onWan.hashPattern({ lengthBytes: 1_000_000, seed: 5 });
    for (let i = 0; i < 2; i++) {
      expect(await guest.check(fetchAndHash('http://10.0.2.100:1235/bytes/1000000/5'))).toBe(expected);
    }
    const [first, second] = [await talk('10.0.2.101:80', 'one'), await talk('10.0.2.101:80', 'two')];
    expect(first).toMatch(new RegExp(`^${process.getuid?.() === 0 ? 65534 : process.getuid?.()}\npid \\d+$`));
    expect(second).not.toBe(first);
    await waitUntil('the command to have written', async () => {
      return (await readFile(join(host.directory, 'taken'), 'utf8').catch(() => '')) === 'two\n';
    });
  });

  const talk = (address: string, text: string): Promise<string> => {
    return guest.check(`echo ${text} | timeout 60 socat -t 30 - TCP4:${address}`);
  };

  it('has its connections forwarded to a unix socket and to simple commands', async () => {
    expect(await talk('10.0.2.100:1236', 'echo')).toBe('echo');
    expect(await talk('10.0.2.102:7', 'cat')).toBe('cat');
    await guest.check('head -c 3000000 /dev/urandom > /tmp/sent');
    for (const address of ['10.0.2.100:1236', '10.0.2.102:7']) {
      await guest.check(
        `timeout 60 socat -t 30 - TCP4:${address} < /tmp/sent > /tmp/received; cmp /tmp/sent /tmp/received`,
      );
    }
  });

  it('has connections reset that nobody takes', async () => {
    const { stdout } = await guest.exec('timeout 60 socat -t 30 - TCP4:10.0.2.102:9 < /dev/null');
    expect(stdout).toMatch(/refused|reset/i);
    // The command is started, and ends at once.
    expect((await guest.exec('timeout 60 socat -t 30 - TCP4:10.0.2.102:8 < /dev/null')).status).not.toBe(124);
  });
});
