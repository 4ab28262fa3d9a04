/** Links by `--netdev`, of the real executable in its sandbox: guests that are lost and found again, and command lines that are refused. */
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { loadNative } from '../../../src/sys/native.ts';
import { createSocketPair, UNIX_DATAGRAM } from '../../../src/sys/unix-socket.ts';
import { arpRequest, DatagramGuest } from '../../support/datagram-guest.ts';
import { createHost, HOST_NET, type Host } from '../../support/netns/host.ts';
import { waitForExit, waitUntil } from '../../support/netns/namespace.ts';
import { rigSuiteExceptOnDebian } from '../../support/rig-suite.ts';
import { isArpReplyFor, ScriptedGuest } from '../../support/scripted-guest.ts';
import { type StackProcess, startStack } from '../../support/stack-process.ts';
import { stackCommand } from '../../support/stack-under-test.ts';

rigSuiteExceptOnDebian('it has no such option', 'links by --netdev', () => {
  let host: Host;
  let serial = 0;
  let stack: StackProcess | undefined;
  const closers: Array<() => void> = [];
  beforeAll(async () => {
    host = await createHost();
  });
  afterEach(async () => {
    await stack?.stop();
    stack = undefined;
    for (const close of closers.splice(0)) close();
  });
  afterAll(() => host?.close());

  const newPath = (): string => `${host.directory}/link-${serial++}`;
  const start = (link: string, ...args: string[]): StackProcess => {
    stack = startStack(host, stackCommand(), ['--foreground', '--netdev', link, ...args]);
    return stack;
  };
  const started = (process: StackProcess): Promise<void> =>
    waitUntil(
      'the stack to be ready',
      () => {
        if (!process.running()) throw new Error(`it ended:\n${process.output()}`);
        return process.output().includes('-netdev');
      },
      20_000,
    );
  const isConfined = (process: StackProcess): boolean =>
    /^Seccomp:\s+2$/m.test(readFileSync(`/proc/${process.pid}/status`, 'latin1'));

  /** A guest's end that listens, as QEMU with server=on. */
  async function listen(path: string): Promise<{ server: Server; next(): Promise<ScriptedGuest>; close(): void }> {
    const waiting: Socket[] = [];
    const takers: Array<(socket: Socket) => void> = [];
    const server = createServer((socket) => {
      const taker = takers.shift();
      if (taker === undefined) waiting.push(socket);
      else taker(socket);
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
    const close = (): void => {
      server.close();
      for (const socket of waiting) socket.destroy();
    };
    closers.push(close);
    return {
      server,
      close,
      next: async () => {
        const socket = waiting.shift() ?? (await new Promise<Socket>((resolve) => takers.push(resolve)));
        return new ScriptedGuest(socket);
      },
    };
  }

  it('connects to a guest that comes later, and again whenever it comes back, from within the sandbox', async () => {
    const path = newPath();
    const process = start(`stream,addr.type=unix,addr.path=${path},reconnect=1`);
    await started(process);
    await waitUntil('the filter', () => isConfined(process));
    expect(process.output()).toContain('nobody listens at');
    for (let i = 0; i < 3; i++) {
      const guests = await listen(path);
      const guest = await guests.next();
      await guest.checkAlive(10_000);
      guests.close();
      await guest.close();
      rmSync(path, { force: true });
    }
    expect(process.running()).toBe(true);
    expect(await process.stop()).toBe(0);
  });

  it('connects once without reconnect=, and ends with its guest', async () => {
    const path = newPath();
    const guests = await listen(path);
    const process = start(`stream,addr.type=unix,addr.path=${path}`);
    const guest = await guests.next();
    await guest.checkAlive(10_000);
    await guest.close();
    expect(await process.exited()).toBe(0);
  });

  it('fails with status 1 when there is nobody to connect to', async () => {
    const process = start(`stream,addr.type=unix,addr.path=${newPath()}`);
    expect(await process.exited()).toBe(1);
    expect(process.output()).toMatch(/--netdev: cannot connect to '.*': ENOENT/);
  });

  it('listens on an abstract name and leaves no file', async () => {
    const name = `passel-${serial++}`;
    const process = start(`stream,server=on,addr.type=unix,addr.path=${name},addr.abstract=on`);
    await started(process);
    const { stdout } = await host.run('cat', ['/proc/net/unix']);
    expect(stdout).toMatch(new RegExp(` @${name}$`, 'm'));
  });

  it('finds a guest again that has a new socket under its old name', async () => {
    const [ours, theirs] = [newPath(), newPath()];
    const process = start(`dgram,local.type=unix,local.path=${ours},remote.type=unix,remote.path=${theirs}`);
    await started(process);
    await waitUntil('the filter', () => isConfined(process));
    for (let i = 0; i < 3; i++) {
      const guest = new DatagramGuest(theirs, ours);
      await guest.checkAlive();
      // What would stop QEMU's reception does not stop ours, and is not returned.
      expect(guest.send(new Uint8Array(0))).toBe(0);
      expect(guest.send(new Uint8Array(13))).toBe(0);
      await guest.checkAlive();
      expect(guest.gotEmpty).toBe(false);
      guest.close();
    }
    expect(process.output()).toContain('a datagram was passed over: an empty one');
    expect(await process.stop()).toBe(0);
    expect(existsSync(ours)).toBe(false);
    rmSync(theirs);
  });

  it('does not listen to whoever is not the guest', async () => {
    const [ours, theirs] = [newPath(), newPath()];
    const process = start(`dgram,local.type=unix,local.path=${ours},remote.type=unix,remote.path=${theirs}`);
    await started(process);
    const stranger = new DatagramGuest(newPath(), ours);
    closers.push(() => stranger.remove());
    await expect(stranger.checkAlive(500)).rejects.toThrow('no ARP reply');
    await waitUntil('the warning', () => process.output().includes('from another socket than the guest'));
    expect(process.output()).not.toContain('guest connected');
    stranger.close();
  });

  it('replaces a datagram socket that is left over, and refuses one that is in use', async () => {
    const [ours, theirs] = [newPath(), newPath()];
    new DatagramGuest(ours, theirs).close();
    expect(existsSync(ours)).toBe(true);
    await started(start(`dgram,local.type=unix,local.path=${ours},remote.type=unix,remote.path=${theirs}`));
    const second = startStack(host, stackCommand(), [
      '--foreground',
      '--netdev',
      `dgram,local.type=unix,local.path=${ours},remote.type=unix,remote.path=${newPath()}`,
    ]);
    expect(await second.exited()).toBe(1);
    expect(second.output()).toContain('is in use by another process');
  });

  it('keeps a descriptor through its launcher', async () => {
    const native = loadNative();
    const [ours, theirs] = createSocketPair(native, UNIX_DATAGRAM);
    closers.push(() => native.close(theirs));
    const pid = newPath();
    const { command, args } = stackCommand();
    const link = 'dgram,local.type=fd,local.str=3';
    const launcher = host.spawn(command, [...args, '--quiet', '--netdev', link, '--pid', pid], {
      stdio: ['ignore', 'inherit', 'inherit', ours],
    });
    expect(await waitForExit(launcher)).toBe(0);
    native.close(ours);
    const daemon = Number(readFileSync(pid, 'latin1'));
    const frame = arpRequest();
    expect(native.sendFds(theirs, frame, 0, frame.length, new Int32Array(1), 0)).toBe(frame.length);
    const isReply = isArpReplyFor(HOST_NET.gatewayV4);
    const got = Buffer.alloc(2000);
    await waitUntil('an ARP reply', () => {
      const length = native.receiveFds(theirs, got, 0, got.length, new Int32Array(2), new Int32Array(3));
      return length > 0 && isReply(got.subarray(0, length));
    });
    process.kill(daemon, 'SIGTERM');
    await waitUntil('the daemon to end', () => !existsSync(`/proc/${daemon}`));
  });

  it.each([
    [
      'two guests of one name',
      ['--netdev', 'socket,id=Web,listen=:1', '--netdev', 'socket,id=web,listen=:2'],
      "'socket,id=web,listen=:2' is not valid: expected an id that no other guest has",
    ],
    [
      'a guest that cannot be called so',
      ['--netdev', 'socket,listen=:1', '--netdev', 'socket,id=a_b,listen=:2'],
      "expected an id that is the guest's host name",
    ],
    [
      'an inherited descriptor for one of several',
      ['--netdev', 'socket,listen=:1', '--netdev', 'socket,fd=3'],
      'expected a link that this program opens itself',
    ],
    [
      'too many guests',
      Array.from({ length: 33 }, (_, i) => ['--netdev', `socket,listen=:${i + 1}`]).flat(),
      '--netdev is given 33 times: a network has at most 32 guests',
    ],
    [
      'an address of the host for several',
      ['--netdev', 'socket,listen=:1', '--netdev', 'socket,listen=:2', '-a', '192.0.2.7'],
      '-a and several --netdev exclude each other',
    ],
    [
      'a forward to a guest that is not there',
      ['--netdev', 'socket,id=a,listen=:1', '--netdev', 'socket,id=b,listen=:2', '-t', '22:c/22'],
      "no guest is called 'c', but a, b",
    ],
    ['a lease for one guest', ['--lease', 'a=10.0.2.20'], '--lease needs several guests'],
    [
      'a lease that is none',
      ['--netdev', 'socket,id=a,listen=:1', '--netdev', 'socket,id=b,listen=:2', '--lease', 'a=10.0.2'],
      "'a=10.0.2' is not valid: expected an address behind '=', not '10.0.2'",
    ],
    ['a record without an address', ['--dns-record', 'printer'], "expected a name, '=' and an address"],
    [
      'a socket besides',
      ['--netdev', 'socket,listen=:1', '--socket', '/x'],
      '--netdev and --socket exclude each other',
    ],
    ['a descriptor that is none', ['--netdev', 'socket,fd=77'], 'descriptor 77 cannot be used'],
    [
      'an MTU that fits no datagram',
      ['--mtu', '65500', '--netdev', 'socket,mcast=239.1.1.1:1'],
      "'65500' is not valid: expected at most 65492",
    ],
    ['a wrong key', ['--netdev', 'stream,addr.type=unix,addr.path=/x,addr.prot=1'], 'expected addr.prot to be one of'],
    [
      'a family that differs',
      [
        '--netdev',
        'dgram,local.type=inet,local.host=127.0.0.1,local.port=1,remote.type=inet,remote.host=::1,remote.port=1',
      ],
      'no address of the same family',
    ],
    [
      'a group that cannot be joined',
      ['--netdev', 'socket,mcast=239.1.1.1:9,localaddr=192.0.2.99'],
      "cannot join '239.1.1.1:9': ENODEV",
    ],
    [
      'an address of somebody else',
      ['--netdev', 'socket,listen=192.0.2.99:9'],
      "cannot listen on '192.0.2.99:9': EADDRNOTAVAIL",
    ],
  ])('refuses %s', async (_what, args, text) => {
    const process = startStack(host, stackCommand(), ['--foreground', ...args]);
    expect(await process.exited()).toBe(1);
    expect(process.output()).toContain(text);
  });

  it('warns where whoever reaches the host can be the guest', async () => {
    const process = start('socket,listen=:5599');
    await started(process);
    expect(process.output()).toContain('whoever reaches this host can be the guest');
  });

  it('refuses to replace what is no socket', async () => {
    const path = newPath();
    writeFileSync(path, 'precious');
    const process = start(`dgram,local.type=unix,local.path=${path},remote.type=unix,remote.path=${newPath()}`);
    expect(await process.exited()).toBe(1);
    expect(readFileSync(path, 'latin1')).toBe('precious');
  });
});
