/**
 * Every form of a link between passel-passt and a real QEMU: one guest, whose card is plugged into one link after the other. The stack is told our end
 * of each, QEMU the other end as `passel netdev-args` would print it, so that both texts are tried.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { listQemuArguments } from '../../src/cli/netdev-args/netdev-args-command.ts';
import { readProperties } from '../../src/qemu/option-string.ts';
import { loadNative } from '../../src/sys/native.ts';
import { createSocketPair, UNIX_DATAGRAM, UNIX_STREAM } from '../../src/sys/unix-socket.ts';
import { PROJECT_ROOT } from '../support/native-tools.ts';
import { type Agent, startAgent } from '../support/netns/agent.ts';
import { needNamespaces, needVeth, requireOrSkip } from '../support/netns/capabilities.ts';
import { createHost, HOST_NET, type Host } from '../support/netns/host.ts';
import { stopChild, waitUntil } from '../support/netns/namespace.ts';
import { bootGuest, type Guest, needGuest } from '../support/qemu-guest/guest.ts';
import { isDebianStack, stackCommand } from '../support/stack-under-test.ts';
import { fetchAndHash, GET_DHCPV4_LEASE, GET_SLAAC_ADDRESS, parseEnvironment, postFile } from './guest-commands.ts';

const SIZE_BYTES = 20 * 1024 * 1024;
const SEED = 7;
const MAC = '52:54:00:70:61:73';
const FIRST_BUS_CARDS = 16;
const BROKER = join(PROJECT_ROOT, 'dist/helpers/passel-fd-broker.cjs');
const URL4 = `http://${HOST_NET.remoteV4}:8080/bytes/${SIZE_BYTES}/${SEED}`;

interface Form {
  readonly name: string;
  /** Our end; DIR is the test's folder. */
  readonly link: string;
  /** QEMU's end can be lost and found again: all but descriptors, and who connects once. */
  readonly reconnects?: boolean;
  /** A pair of sockets is made, and our end is inherited as descriptor 3. */
  readonly pair?: number;
  /** Over IPv6 too. */
  readonly both?: boolean;
}

const FORMS: readonly Form[] = [
  {
    name: 'stream, unix path, listening',
    link: 'stream,server=on,addr.type=unix,addr.path=DIR/a',
    both: true,
    reconnects: true,
  },
  {
    name: 'stream, unix path, connecting',
    link: 'stream,addr.type=unix,addr.path=DIR/b,reconnect=1',
    reconnects: true,
  },
  {
    name: 'stream, abstract, listening',
    link: 'stream,server=on,addr.type=unix,addr.path=q-a,addr.abstract=on',
    reconnects: true,
  },
  {
    name: 'stream, abstract, connecting',
    link: 'stream,addr.type=unix,addr.path=q-b,addr.abstract=on,reconnect=1',
    reconnects: true,
  },
  {
    name: 'stream, IPv4, listening',
    link: 'stream,server=on,addr.type=inet,addr.host=127.0.0.1,addr.port=5501',
    reconnects: true,
  },
  {
    name: 'stream, IPv4, connecting',
    link: 'stream,addr.type=inet,addr.host=127.0.0.1,addr.port=5502,reconnect=1',
    reconnects: true,
  },
  {
    name: 'stream, IPv6, listening',
    link: 'stream,server=on,addr.type=inet,addr.host=::1,addr.port=5503',
    both: true,
    reconnects: true,
  },
  {
    name: 'stream, IPv6, connecting',
    link: 'stream,addr.type=inet,addr.host=::1,addr.port=5504,reconnect=1',
    reconnects: true,
  },
  {
    name: 'dgram, unix paths',
    link: 'dgram,local.type=unix,local.path=DIR/c,remote.type=unix,remote.path=DIR/d',
    both: true,
    reconnects: true,
  },
  {
    name: 'dgram, IPv4',
    link: 'dgram,local.type=inet,local.host=127.0.0.1,local.port=5505,remote.type=inet,remote.host=127.0.0.1,remote.port=5506',
    reconnects: true,
  },
  {
    name: 'dgram, multicast',
    link: 'dgram,remote.type=inet,remote.host=239.1.2.3,remote.port=5507,local.type=inet,local.host=127.0.0.1,local.port=5507',
    reconnects: true,
  },
  { name: 'dgram, descriptor', link: 'dgram,local.type=fd,local.str=3', pair: UNIX_DATAGRAM },
  { name: 'stream, descriptor', link: 'stream,addr.type=fd,addr.str=3', pair: UNIX_STREAM },
  { name: 'socket, listening', link: 'socket,listen=127.0.0.1:5508', both: true, reconnects: true },
  { name: 'socket, connecting', link: 'socket,connect=127.0.0.1:5509' },
  { name: 'socket, UDP', link: 'socket,udp=127.0.0.1:5510,localaddr=127.0.0.1:5511', reconnects: true },
  { name: 'socket, multicast', link: 'socket,mcast=239.1.2.3:5512,localaddr=127.0.0.1', reconnects: true },
  { name: 'socket, descriptor', link: 'socket,fd=3', pair: UNIX_STREAM },
];

/** The monitor's form of a command line's text, for which QEMU 7.2 has no other. */
function toQmp(netdev: string): Record<string, unknown> {
  const result: Record<string, unknown> = {};
  for (const { key, value } of readProperties(netdev, 'type')) {
    const [name, inner] = key.split('.') as [string, string?];
    const typed = value === 'on' ? true : value === 'off' ? false : value;
    if (inner === undefined) result[name] = typed;
    else result[name] = { ...(result[name] as object | undefined), [inner]: typed };
  }
  return result;
}

const describeSuite = isDebianStack()
  ? describe.skip
  : await requireOrSkip(needNamespaces, needVeth, ...needGuest('cloud'));

describeSuite('a guest over each form of a link', () => {
  let host: Host;
  let onWan: Agent;
  let guest: Guest;
  let expected: string;
  let uploadHash: string;
  let hasReference = false;
  let stack: ChildProcess | undefined;
  /** What the stack has printed. */
  let said = '';
  let serial = 0;
  const table: string[][] = [['link', 'lease', '20 MB down', '20 MB up', '20 MB down, IPv6', 'back after a loss']];

  beforeAll(async () => {
    host = await createHost();
    onWan = await startAgent(host.wan);
    await Promise.all([onWan.serveHttp({ host: '0.0.0.0', port: 8080 }), onWan.serveHttp({ host: '::', port: 8080 })]);
    const [program, args] = host.enter('', []);
    guest = await bootGuest({
      launcher: [program, ...args.slice(0, -1)],
      // Cards stay (see cut), and one bus has no slots for all of them.
      extraArgs: [
        ...['-qmp', `unix:${join(host.directory, 'qmp')},server=on,wait=off`],
        ...['-device', 'pci-bridge,id=second,chassis_nr=1'],
      ],
    });
    uploadHash = await guest.check(
      `head -c ${SIZE_BYTES} /dev/urandom > /tmp/upload; sha256sum /tmp/upload | cut -d ' ' -f 1`,
    );
    expected = await onWan.hashPattern({ lengthBytes: SIZE_BYTES, seed: SEED });
  });

  afterAll(async () => {
    if (stack !== undefined) await stopChild(stack);
    await guest?.stop();
    await host?.close();
    const widths = table[0]!.map((_, column) => Math.max(...table.map((row) => row[column]!.length)));
    const lines = table.map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join('  ')
        .trimEnd(),
    );
    process.stdout.write(`\n${lines.join('\n')}\n`);
  });

  /** Starts the stack on its end of a link and waits until it is ready for the other one. */
  async function startStack(link: string, fd?: number): Promise<void> {
    const { command, args } = stackCommand();
    const stdio: Array<'ignore' | 'pipe' | number> = ['ignore', 'pipe', 'pipe', ...(fd === undefined ? [] : [fd])];
    const child = host.spawn(command, [...args, '--foreground', '--netdev', link], { stdio });
    stack = child;
    said = '';
    for (const stream of [child.stdout, child.stderr])
      stream?.on('data', (chunk: Buffer) => (said += chunk.toString()));
    await waitUntil(
      'the stack to be ready',
      () => {
        if (child.exitCode !== null) throw new Error(`the stack ended early:\n${said}`);
        return said.includes('-netdev') || said.includes('guest connected');
      },
      20_000,
    );
  }

  async function stopStack(): Promise<void> {
    if (stack !== undefined) await stopChild(stack);
    stack = undefined;
  }

  /** Plugs a card on QEMU's end of the link. */
  async function plug(link: string, fd: number | undefined): Promise<string> {
    const id = `n${serial++}`;
    if (fd === undefined) {
      const [, netdev] = listQemuArguments(link);
      await guest.qmp.execute('netdev_add', { ...toQmp(netdev!), id });
    } else {
      const args = [BROKER, 'qmp', join(host.directory, 'qmp'), 'netdev-add', id, '--fd', '3'];
      const child = spawn(process.execPath, args, { stdio: ['ignore', 'inherit', 'inherit', fd] });
      const status = await new Promise((resolve) => child.once('exit', resolve));
      expect(status).toBe(0);
    }
    await guest.qmp.execute('device_add', {
      driver: 'virtio-net-pci',
      id: `card-${id}`,
      netdev: id,
      bus: serial > FIRST_BUS_CARDS ? 'second' : 'pci.0',
      mac: MAC,
      romfile: '',
    });
    await guest.check('until [ -e /sys/class/net/eth0 ]; do sleep 0.05; done; ip link set eth0 up');
    return id;
  }

  /** Takes QEMU's end of the link away. The card stays, since unplugging it takes seconds, and makes room for the name of the next one. */
  async function cut(id: string): Promise<void> {
    await guest.check(`ip link set eth0 down; ip link set eth0 name old-${id}`);
    await guest.qmp.execute('netdev_del', { id });
  }

  const timed = async (work: () => Promise<void>): Promise<string> => {
    const start = performance.now();
    await work();
    return `${((performance.now() - start) / 1000).toFixed(1)} s`;
  };

  /** The first copy is proven by its hash, the others by comparing, which an emulated processor does in a fraction of the time. */
  const fetchFrom = async (url: string): Promise<void> => {
    if (hasReference) {
      await guest.check(`timeout 60 wget -q -O - '${url}' | cmp - /tmp/reference`);
      return;
    }
    expect(await guest.check(fetchAndHash(url, '/tmp/reference'))).toBe(expected);
    hasReference = true;
  };

  const lease = async (): Promise<void> => {
    await guest.check(GET_DHCPV4_LEASE);
    expect(parseEnvironment(await guest.check('cat /tmp/dhcp4.env'))).toMatchObject({ ip: HOST_NET.hostV4 });
  };

  for (const form of FORMS) {
    it(`${form.name}: lease, 20 MB each way${form.reconnects ? ', and again after a loss' : ''}`, async () => {
      const link = form.link.replaceAll('DIR', host.directory);
      const pair = form.pair === undefined ? undefined : createSocketPair(loadNative(), form.pair);
      const connectsOnce = link.startsWith('socket,connect');
      // Who connects once needs somebody there.
      if (!connectsOnce) await startStack(link, pair?.[0]);
      let id = await plug(link, pair?.[1]);
      if (connectsOnce) await startStack(link);
      for (const fd of pair ?? []) loadNative().close(fd);
      const row = [form.name];
      row.push(await timed(lease));
      row.push(await timed(() => fetchFrom(URL4)));
      row.push(
        await timed(async () => {
          const answer = await guest.check(postFile(`TCP4:${HOST_NET.remoteV4}:8080`, '/tmp/upload', SIZE_BYTES));
          expect(answer).toBe(`${uploadHash} ${SIZE_BYTES}`);
        }),
      );
      if (form.both) {
        row.push(
          await timed(async () => {
            await guest.check(GET_SLAAC_ADDRESS);
            await fetchFrom(`http://[${HOST_NET.remoteV6}]:8080/bytes/${SIZE_BYTES}/${SEED}`);
          }),
        );
      } else row.push('-');
      if (form.reconnects) {
        // QEMU's end is lost and made anew, as when the machine is started again.
        await cut(id);
        id = await plug(link, undefined);
        row.push(await timed(lease));
      } else row.push('-');
      table.push(row);
      await cut(id);
      await stopStack();
      // An emulated machine on a busy one.
    }, 240_000);
  }

  it('keeps a connection over the loss of the link between it and QEMU', async () => {
    const [near, far] = ['near', 'far'].map((name) => join(host.directory, name));
    // What can be lost without either end knowing of it beforehand.
    const joinEnds = async (): Promise<ChildProcess> => {
      await host.run('rm', ['-f', near!]);
      return host.spawn('socat', [`UNIX-LISTEN:${near}`, `UNIX-CONNECT:${far}`], { stdio: 'ignore' });
    };
    const id = await plug(`stream,addr.type=unix,addr.path=${far}`, undefined);
    let between = await joinEnds();
    await startStack(`stream,addr.type=unix,addr.path=${near},reconnect=1`);
    await lease();
    const [head, tail] = ['before the loss, ', 'and after it'];
    const whole = head + tail;
    const post = await guest.start(
      `(printf 'POST / HTTP/1.0\\r\\nContent-Length: ${whole.length}\\r\\n\\r\\n${head}'
        until [ -e /tmp/go ]; do sleep 0.1; done; printf '${tail}') |
       socat -t 60 -T 60 - TCP4:${HOST_NET.remoteV4}:8080,shut-none | tail -n 1`,
    );
    await guest.check('until netstat -tn | grep -q ":8080 .*ESTABLISHED"; do sleep 0.1; done');
    await stopChild(between);
    await waitUntil('the loss to be noticed', () => said.includes('guest disconnected'), 20_000);
    between = await joinEnds();
    await waitUntil('the link to be back', () => said.split(`connected to ${near}`).length > 2, 20_000);
    await guest.check('touch /tmp/go');
    const hash = createHash('sha256').update(whole).digest('hex');
    expect((await post.wait()).stdout.trim()).toBe(`${hash} ${whole.length}`);

    // And in the middle of a transfer, which begins with a part that waits for us.
    const total = 3 * SIZE_BYTES;
    const fetch = await guest.start(
      `wget -q -O - 'http://${HOST_NET.remoteV4}:8080/bytes/${total}/${SEED}' |
        (dd bs=4096 count=50 2> /dev/null; touch /tmp/begun; until [ -e /tmp/on ]; do sleep 0.1; done; cat) | sha256sum | cut -d ' ' -f 1`,
    );
    await guest.check('until [ -e /tmp/begun ]; do sleep 0.1; done; touch /tmp/on');
    const losses = said.split('guest disconnected').length;
    await stopChild(between);
    await waitUntil('the loss to be noticed', () => said.split('guest disconnected').length > losses, 20_000);
    between = await joinEnds();
    expect((await fetch.wait()).stdout.trim()).toBe(await onWan.hashPattern({ lengthBytes: total, seed: SEED }));
    await stopStack();
    await stopChild(between);
    await cut(id);
  });
});
