import { randomBytes } from 'node:crypto';
import { createSocket, type RemoteInfo, type Socket, type SocketType } from 'node:dgram';
import { once } from 'node:events';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { waitUntil } from '../../../support/netns/process.ts';
import { createHarness, type Harness, type HarnessOptions, rule } from './harness.ts';

let harness: Harness | undefined;
const sockets: Socket[] = [];

function start(options: HarnessOptions): Harness {
  harness = createHarness(options);
  return harness;
}

async function open(
  type: SocketType = 'udp4',
  host = type === 'udp4' ? '127.0.0.1' : '::1',
  port = 0,
): Promise<Socket> {
  const socket = createSocket({ type, recvBufferSize: 4 << 20 });
  socket.on('error', () => {});
  sockets.push(socket);
  socket.bind(port, host);
  await once(socket, 'listening');
  return socket;
}

async function findFreePort(): Promise<number> {
  const socket = await open();
  const { port } = socket.address();
  socket.close();
  sockets.splice(sockets.indexOf(socket), 1);
  return port;
}

async function exchange(client: Socket, port: number, bytes: Buffer | string, host = '127.0.0.1'): Promise<Buffer> {
  const answer = once(client, 'message') as Promise<[Buffer, RemoteInfo]>;
  client.send(bytes, port, host);
  return (await answer)[0];
}

const echo = (socket: Socket): void => {
  socket.on('message', (bytes, from) => socket.send(bytes, from.port, from.address));
};

afterEach(() => {
  vi.useRealTimers();
  for (const socket of sockets.splice(0)) socket.close();
  harness?.close();
  harness = undefined;
});

describe('a spliced UDP flow', () => {
  it.each([0, 1, 1472, 9000, 65_507])('carries a datagram of %d bytes there and back', async (length) => {
    const server = await open();
    echo(server);
    const port = await findFreePort();
    start({ hostRules: [rule('udp', port, server.address().port)] });
    const bytes = randomBytes(length);
    expect((await exchange(await open(), port, bytes)).equals(bytes)).toBe(true);
  });

  it('shows the server the port of the client, where that is free', async () => {
    const server = await open();
    const port = await findFreePort();
    start({
      hostRules: [rule('udp', port, server.address().port)],
      guestAddress: () => Uint32Array.of(0, 0, 0xffff, 0x7f000001),
    });
    // 127.0.0.2 leaves the client's number free at 127.0.0.1, as another namespace would.
    const client = await open('udp4', '127.0.0.2');
    client.send('x', port, '127.0.0.1');
    const [, from] = (await once(server, 'message')) as [Buffer, RemoteInfo];
    expect(from).toMatchObject({ address: '127.0.0.1', port: client.address().port });
  });

  it('keeps the datagrams of a burst whole and in order, whatever their lengths', async () => {
    const server = await open();
    const seen: string[] = [];
    server.on('message', (bytes) => seen.push(bytes.toString()));
    const port = await findFreePort();
    const cut: number[] = [];
    start({
      hostRules: [rule('udp', port, server.address().port)],
      wrap: ({ sendEqualDatagrams }) => ({
        sendEqualDatagrams: (fd, list, count, length) => {
          cut.push(sendEqualDatagrams(fd, list, count, length) - count);
          return cut.at(-1)! + count;
        },
      }),
    });
    const client = await open();
    const sent: string[] = [];
    for (let i = 0; i < 400; i++) {
      // Equal runs with a shorter end, singles, empty ones.
      const length = i % 50 < 30 ? 600 : i % 50 === 30 ? 20 : i % 7 === 0 ? 0 : (i * 37) % 1400;
      const text = `${i}`.padEnd(length, '.').slice(0, length);
      sent.push(text);
      client.send(text, port, '127.0.0.1');
    }
    await waitUntil('all to arrive', () => seen.length === sent.length);
    expect(seen).toEqual(sent);
    // Every run that was offered to the kernel as one was one that it takes.
    expect(new Set(cut)).toEqual(new Set([0]));
  });

  it('gives each client a socket of its own and answers the one that asked', async () => {
    const server = await open();
    const ports = new Set<number>();
    server.on('message', (bytes, from) => {
      ports.add(from.port);
      server.send(`re ${bytes}`, from.port, from.address);
    });
    const port = await findFreePort();
    const { splice } = start({ hostRules: [rule('udp', port, server.address().port)] });
    const all = await Promise.all(Array.from({ length: 50 }, () => open()));
    const answers = await Promise.all(all.map((client, i) => exchange(client, port, `${i}`)));
    expect(answers.map(String)).toEqual(all.map((_, i) => `re ${i}`));
    expect(ports.size).toBe(50);
    expect(splice.udp.count).toBe(50);
    // A second round opens no other.
    await Promise.all(all.map((client, i) => exchange(client, port, `${i}`)));
    expect(splice.udp.opened).toBe(50);
  });

  it('goes out of the namespace over both families', async () => {
    const server = await open();
    echo(server);
    const same = await open('udp6', '::1', server.address().port);
    echo(same);
    const port = await findFreePort();
    const { bindAddress: _, ...unnamed } = rule('udp', port, server.address().port);
    const { splice } = start({ namespaceRules: [unnamed] });
    expect(String(await exchange(await open(), port, 'four'))).toBe('four');
    expect(String(await exchange(await open('udp6'), port, 'six', '::1'))).toBe('six');
    expect(splice.udp.describe(0)).toMatchObject({ state: 'two-way', bytesFromClient: 4, bytesToClient: 4 });
  });

  it('goes on after its server was not there for a while', async () => {
    const target = await findFreePort();
    const port = await findFreePort();
    const { splice } = start({ hostRules: [rule('udp', port, target)] });
    const client = await open();
    client.send('lost', port, '127.0.0.1');
    client.send('lost too', port, '127.0.0.1');
    await waitUntil('the flow', () => splice.udp.opened === 1 && splice.udp.bytes === 12);
    echo(await open('udp4', '127.0.0.1', target));
    expect(String(await exchange(client, port, 'found'))).toBe('found');
    expect(splice.udp.count).toBe(1);
  });

  it('ends with its listener', async () => {
    const server = await open();
    echo(server);
    const port = await findFreePort();
    const { splice, forwards } = start({ hostRules: [rule('udp', port, server.address().port)] });
    await exchange(await open(), port, 'x');
    expect(splice.udp.count).toBe(1);
    forwards.remove(1, (index) => splice.onListenerClosed(index, false));
    expect(splice.udp.count).toBe(0);
  });

  it('is cut by the kernel no more once a path has refused that', async () => {
    const server = await open();
    const seen: string[] = [];
    server.on('message', (bytes) => seen.push(bytes.toString()));
    const port = await findFreePort();
    let refusals = 0;
    start({
      hostRules: [rule('udp', port, server.address().port)],
      wrap: () => ({
        sendEqualDatagrams: () => {
          refusals++;
          return -5;
        },
      }),
    });
    const client = await open();
    for (let i = 0; i < 300; i++) client.send(`${i % 10}`, port, '127.0.0.1');
    await waitUntil('all to arrive', () => seen.length === 300);
    expect(refusals).toBe(1);
  });
});
