/**
 * The command lines of those who start passt, as they write them, and what each of them relies on: QEMU's `-netdev passt`,
 * libvirt, libkrun with muvm and crun, avocado-vt, KubeVirt. libvirt itself is in test/e2e/libvirt.test.ts.
 */
import { once } from 'node:events';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { needNamespaces, needVeth, requireOrSkip } from '../../support/netns/capabilities.ts';
import { createHost, HOST_NET, type Host } from '../../support/netns/host.ts';
import { waitForExit, waitUntil } from '../../support/netns/namespace.ts';
import { itExceptOnDebian } from '../../support/rig-suite.ts';
import { ScriptedGuest } from '../../support/scripted-guest.ts';
import { isDebianStack, stackCommand } from '../../support/stack-under-test.ts';

/** Debian's is from a time when the host's own address was the default. */
const OUR_MAC = isDebianStack() ? HOST_NET.hostMac : '9a:55:9a:55:9a:55';

const describeSuite = await requireOrSkip(needNamespaces, needVeth);

describeSuite('a caller', () => {
  let host: Host;
  let serial = 0;
  /** Where the files of one test are: a prefix. */
  let base = '';
  beforeAll(async () => {
    host = await createHost();
  });
  beforeEach(() => {
    base = `${host.directory}/caller-${serial++}`;
  });
  afterEach(() => {
    for (const pid of host.processes().filter(isAlive)) process.kill(pid, 'SIGKILL');
  });
  afterAll(() => host?.close());

  interface Started {
    /** Exit status of the process that was started. */
    readonly status: Promise<number>;
    readonly pid: number;
    /** Our end of the pair whose other end it has as `fd`. */
    readonly socket: Socket | undefined;
    stderr(): string;
  }

  /** Starts the stack as a caller does; `fd` is the number it inherits one end of a socket pair as. */
  function start(args: readonly string[], fd?: number): Started {
    const { command, args: before } = stackCommand();
    const stdio: ('ignore' | 'pipe')[] = ['ignore', 'ignore', 'pipe'];
    while (fd !== undefined && stdio.length < fd) stdio.push('ignore');
    if (fd !== undefined) stdio.push('pipe');
    const child = host.spawn(command, [...before, ...args], { stdio });
    let stderr = '';
    child.stderr?.on('data', (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    const socket = fd === undefined ? undefined : (child.stdio[fd] as unknown as Socket);
    const { pid } = child;
    if (pid === undefined) throw new Error('the stack could not be started');
    // Not "close": a stack in the background may have kept standard error, which its caller would notice.
    const status = waitForExit(child).then(async (code) => {
      if (child.stderr !== null && !child.stderr.readableEnded) await once(child.stderr, 'end');
      return code;
    });
    return { status, pid, socket, stderr: () => stderr };
  }

  const readPid = (path: string): number => {
    const pid = Number(readFileSync(path, 'utf8'));
    expect(pid).toBeGreaterThan(1);
    return pid;
  };

  /** As callers end it: a signal, and no patience. */
  async function kill(pid: number): Promise<void> {
    process.kill(pid, 'SIGTERM');
    await waitUntil('the stack to end', () => !isAlive(pid));
  }

  describe('such as QEMU with -netdev passt', () => {
    /** All that its properties become, in its order; `--pid` and `--fd` come last. */
    const everything = (pidFile: string): string[] => [
      ...['--quiet', '--mtu', '9000', '--address', '192.0.2.40', '--netmask', '255.255.255.0'],
      ...['--mac-addr', '9a:55:9a:55:9a:77', '--gateway', HOST_NET.gatewayV4, '--interface', HOST_NET.interfaceName],
      ...['--outbound', HOST_NET.hostV4, '--outbound-if4', HOST_NET.interfaceName, '--dns', HOST_NET.remoteV4],
      ...['--fqdn', 'vm.passel.test', '--no-dhcp-dns', '--no-dhcp-search', '--map-host-loopback', '192.0.2.50'],
      ...['--map-guest-addr', '192.0.2.51', '--dns-forward', '192.0.2.52', '--dns-host', HOST_NET.remoteV4],
      ...['--no-icmp', '--no-dhcpv6', '--no-ra', '--freebind', '--ipv4-only', '--search', 'a.test b.test'],
      ...['--tcp-ports', '2222:22,8080', '--udp-ports', '5000-5003', '--pid', pidFile, '--fd', '3'],
    ];
    /** It makes the file beforehand. */
    const makePidFile = (): string => {
      writeFileSync(`${base}.pid`, '', { mode: 0o600 });
      return `${base}.pid`;
    };

    itExceptOnDebian(
      'lacks half of the options',
      'has its guest served on descriptor 3 once the launcher has ended',
      async () => {
        const pidFile = makePidFile();
        const started = start(everything(pidFile), 3);
        expect(await started.status).toBe(0);
        expect(started.stderr()).toBe('');
        const pid = readPid(pidFile);
        expect(pid).not.toBe(started.pid);
        const guest = new ScriptedGuest(started.socket!);
        expect(await guest.checkAlive()).toBe('9a:55:9a:55:9a:77');
        // It also ends the stack by a signal, after the guest is gone or while it is there.
        await kill(pid);
        await guest.closed;
        expect(statSync(pidFile).mode & 0o777).toBe(0o600);
      },
    );

    it('sees it end by itself when the guest is gone', async () => {
      const pidFile = makePidFile();
      const started = start(
        [...(isDebianStack() ? ['--runas', '0'] : []), '--quiet', '--pid', pidFile, '--fd', '3'],
        3,
      );
      expect(await started.status).toBe(0);
      const pid = readPid(pidFile);
      const guest = new ScriptedGuest(started.socket!);
      expect(await guest.checkAlive()).toBe(OUR_MAC);
      await guest.close();
      await waitUntil('the stack to end', () => !isAlive(pid));
    });

    itExceptOnDebian('takes it', 'is told what is wrong, finds its PID file empty and its socket closed', async () => {
      const pidFile = makePidFile();
      const started = start(['--quiet', '--tcp-ports', '99999', '--pid', pidFile, '--fd', '3'], 3);
      const guest = new ScriptedGuest(started.socket!);
      expect(await started.status).toBe(1);
      expect(started.stderr()).toMatch(/^passel-passt: --tcp-ports: '99999'/);
      await guest.closed;
      expect(readFileSync(pidFile, 'utf8')).toBe('');
    });
  });

  describe('such as libvirt', () => {
    const current = (): string[] => [
      ...['--one-off', '--socket', `${base}.socket`, '--pid', `${base}-passt.pid`, '--mtu', '1500'],
      ...[
        '--interface',
        HOST_NET.interfaceName,
        '--log-file',
        `${base}.log`,
        '--hostname',
        'vm',
        '--fqdn',
        'vm.passel.test',
      ],
      ...['--address', '192.0.2.40', '--netmask', '24', '--address', '2001:db8:1::40'],
      ...['--tcp-ports', '127.0.0.1%lo/2001-2004:20001-20004,~2003,2010:22', '--udp-ports', '4000-4010,~4005'],
    ];

    itExceptOnDebian(
      'lacks some of the options',
      'can connect and read the PID file as soon as the launcher has ended',
      async () => {
        const started = start(current());
        expect(await started.status).toBe(0);
        expect(started.stderr()).toBe('');
        const pid = readPid(`${base}-passt.pid`);
        expect(existsSync(`/proc/${pid}`)).toBe(true);
        const guest = await ScriptedGuest.connect(`${base}.socket`, 0);
        expect(await guest.checkAlive()).toBe(OUR_MAC);
        expect(readFileSync(`${base}.log`, 'utf8')).toContain('192.0.2.40/24');
        const listening = (await host.run('ss', ['-H', '-ltn', 'sport', '<', ':3000'])).stdout;
        for (const port of ['2001', '2002', '2004', '2010']) expect(listening).toContain(`127.0.0.1%lo:${port}`);
        expect(listening).not.toContain(':2003');
        // Its way to stop: a signal, then both files are removed, which may be gone already.
        await kill(pid);
        await guest.closed;
        expect(existsSync(`${base}.socket`)).toBe(false);
        expect(existsSync(`${base}-passt.pid`)).toBe(true);
      },
    );

    itExceptOnDebian(
      'lacks some of the options',
      'sees the stack of a domain end with its QEMU, and the second client sent away',
      async () => {
        expect(await start(current()).status).toBe(0);
        const pid = readPid(`${base}-passt.pid`);
        const guest = await ScriptedGuest.connect(`${base}.socket`, 0);
        await guest.checkAlive();
        const second = await ScriptedGuest.connect(`${base}.socket`, 0);
        await second.closed;
        await guest.checkAlive();
        await guest.close();
        await waitUntil('the stack to end', () => !isAlive(pid));
        expect(existsSync(`${base}.socket`)).toBe(false);
      },
    );

    itExceptOnDebian(
      'has no such option',
      'puts what a failing start says in its own message, and has nothing to clean up',
      async () => {
        for (const [wrong, message] of [
          [['--interface', 'nosuch0'], "--interface: no network interface is called 'nosuch0'"],
          [['--socket', `${host.directory}/no/such/folder.socket`], 'no/such/folder.socket'],
          [['--log-file', `${host.directory}/no/such/file.log`], 'no/such/file.log'],
          [['--tcp-ports', '2010'], '--tcp-ports: cannot listen on *:2010/tcp: EADDRINUSE'],
        ] as const) {
          const started = start([...current(), ...wrong]);
          expect([await started.status, started.stderr()]).toEqual([1, expect.stringContaining(message)]);
          expect(started.stderr()).toMatch(/^passel-passt: /);
          expect([`${base}.socket`, `${base}-passt.pid`].filter(existsSync)).toEqual([]);
        }
      },
    );

    it("of the first release, which gives the guest's address as ours and writes the PID file itself, is content", async () => {
      const started = start([
        ...['--one-off', '--socket', `${base}.socket`, '--mac-addr', '52:54:00:12:34:56'],
        ...['--interface', HOST_NET.interfaceName, '--tcp-ports', '2022:22', '--udp-ports', '5000'],
      ]);
      expect(await started.status).toBe(0);
      const [pid] = host.processes().filter(isAlive);
      const guest = await ScriptedGuest.connect(`${base}.socket`, 0);
      expect(await guest.checkAlive()).toBe('52:54:00:12:34:56');
      await guest.close();
      await waitUntil('the stack to end', () => !isAlive(pid!));
    });
  });

  describe('such as libkrun, for muvm and crun', () => {
    for (const fd of [3, 9]) {
      it(`keeps it in the foreground with a guest on descriptor ${fd}, until the guest is gone`, async () => {
        const started = start(
          [
            '-q',
            '-f',
            '-t',
            '3000:3000',
            '-t',
            '127.0.0.1/3001:80',
            '-u',
            'none',
            '--fd',
            String(fd),
            '--log-file',
            `${base}.log`,
          ],
          fd,
        );
        const guest = new ScriptedGuest(started.socket!);
        await guest.checkAlive(10_000);
        expect((await host.run('ss', ['-H', '-ltn'])).stdout).toMatch(/127\.0\.0\.1:3001 /);
        await guest.close();
        expect(await started.status).toBe(0);
        expect(existsSync(`${base}.log`)).toBe(true);
      });
    }

    itExceptOnDebian('goes on', 'learns that its descriptor is no socket', async () => {
      const started = start(['-q', '-f', '-t', '3000:3000', '--fd', '7']);
      expect(await started.status).toBe(1);
      expect(started.stderr()).toMatch(/^passel-passt: --fd: descriptor 7 cannot be used: /);
    });
  });

  describe('such as avocado-vt', () => {
    it('connects its machine by a path, with ports one by one', async () => {
      const started = start([
        ...[
          '--one-off',
          '--socket',
          `${base}.socket`,
          '--tcp-ports',
          '5022:22',
          '--tcp-ports',
          '5023',
          '--pid',
          `${base}.pid`,
        ],
        ...(isDebianStack() ? ['--runas', '0'] : []),
      ]);
      expect(await started.status).toBe(0);
      const pid = readPid(`${base}.pid`);
      const guest = await ScriptedGuest.connect(`${base}.socket`, 0);
      await guest.checkAlive();
      const listening = (await host.run('ss', ['-H', '-ltn'])).stdout;
      expect(listening).toContain(':5022 ');
      expect(listening).toContain(':5023 ');
      await guest.close();
      await waitUntil('the stack to end', () => !isAlive(pid));
    });
  });

  describe('such as KubeVirt', () => {
    itExceptOnDebian(
      'opens more sockets than a user may have',
      'forwards all ports but those of the proxy beside the machine',
      async () => {
        // All but the ephemeral ports are forwarded; so that this needs no more descriptors than a user may have.
        await host.sh('echo 1024 64999 > /proc/sys/net/ipv4/ip_local_port_range');
        const taken = ['15000', '65001', '65002', '22'];
        const started = start([
          ...['--one-off', '--socket', `${base}.socket`, '--pid', `${base}.pid`, '--log-file', `${base}.log`],
          ...(isDebianStack() ? ['--runas', '0'] : []),
          ...['--interface', HOST_NET.interfaceName, '--tcp-ports', taken.map((port) => `~${port}`).join(',')],
        ]);
        expect(await started.status).toBe(0);
        const pid = readPid(`${base}.pid`);
        const { stdout } = await host.run('ss', ['-H', '-ltn']);
        const ports = new Set([...stdout.matchAll(/:(\d+) +\S+:\*/g)].map((match) => match[1]!));
        for (const port of ['21', '80', '443', '1023', '65000', '65535']) expect(ports).toContain(port);
        for (const port of [...taken, '5000', '64999']) expect(ports).not.toContain(port);
        const guest = await ScriptedGuest.connect(`${base}.socket`, 0);
        await guest.checkAlive();
        await guest.close();
        await waitUntil('the stack to end', () => !isAlive(pid));
      },
    );
  });
});

/** A process that has ended but that nobody waited for yet is not alive. */
function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'latin1'));
  } catch {
    return false;
  }
}
