import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { waitUntil } from '../../../support/netns/process.ts';
import { createHarness, findFreePort, type Harness, type HarnessOptions, listen, rule } from './harness.ts';

const MIB = 1024 * 1024;

let harness: Harness | undefined;
const servers: Server[] = [];
const clients: Socket[] = [];

function start(options: HarnessOptions): Harness {
  harness = createHarness(options);
  return harness;
}

async function serve(onConnection: (socket: Socket) => void, host?: string): Promise<number> {
  const { port, server } = await listen((socket) => {
    clients.push(socket);
    onConnection(socket);
  }, host);
  servers.push(server);
  return port;
}

function dial(port: number, host = '127.0.0.1'): Socket {
  const socket = connect({ port, host, allowHalfOpen: true });
  socket.on('error', () => {});
  clients.push(socket);
  return socket;
}

/** All that comes until the other side ends. */
function readAll(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  return once(socket, 'end').then(() => Buffer.concat(chunks));
}

/** How a connection ended: the code of its error, or undefined. */
function whyClosed(socket: Socket): Promise<string | undefined> {
  return new Promise((resolve) => {
    socket.once('close', () => resolve((socket.errored as NodeJS.ErrnoException | null)?.code));
  });
}

const hash = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

afterEach(async () => {
  for (const client of clients.splice(0)) client.destroy();
  harness?.close();
  harness = undefined;
  await Promise.all(servers.splice(0).map((server) => new Promise((resolve) => server.close(resolve))));
});

describe('a spliced TCP connection', () => {
  it('carries large data both ways at once without loss', async () => {
    const up = randomBytes(24 * MIB);
    const down = randomBytes(24 * MIB);
    let received: Promise<Buffer> | undefined;
    const target = await serve((socket) => {
      received = readAll(socket);
      socket.end(down);
    });
    const port = await findFreePort();
    const { splice } = start({ hostRules: [rule('tcp', port, target)] });
    const client = dial(port);
    client.end(up);
    const answer = await readAll(client);
    expect(hash(answer)).toBe(hash(down));
    expect(hash(await received!)).toBe(hash(up));
    await waitUntil('the flow to end', () => splice.tcp.count === 0);
    expect(splice.tcp.bytes).toBe(48 * MIB);
    expect(splice.tcp.pipesLent).toBe(0);
    expect(splice.tcp.reset).toBe(0);
  });

  it('goes on in the next turn when it has had its share of one', async () => {
    const sent = randomBytes(4 * MIB);
    let received: Promise<Buffer> | undefined;
    const target = await serve((socket) => {
      received = readAll(socket);
    });
    const port = await findFreePort();
    start({
      hostRules: [rule('tcp', port, target)],
      wrap: ({ spliceStream }) => ({
        spliceStream: (source, read, write, to, pending, _budget, record) =>
          spliceStream(source, read, write, to, pending, 1, record),
      }),
    });
    const client = dial(port);
    client.end(sent);
    await waitUntil('the server to be connected', () => received !== undefined);
    expect(hash(await received!)).toBe(hash(sent));
  });

  it('passes the end of one direction on and keeps the other open', async () => {
    const target = await serve((socket) => {
      void readAll(socket).then((request) => {
        socket.write('half ');
        setTimeout(() => socket.end(request), 50);
      });
    });
    const port = await findFreePort();
    const { splice } = start({ hostRules: [rule('tcp', port, target)] });
    const client = dial(port);
    client.end('request');
    await once(client, 'data').then(([first]) => expect(String(first)).toBe('half '));
    expect(splice.tcp.describe(0)).toMatchObject({ state: 'half-closed', bytesFromClient: 7, bytesToClient: 5 });
    expect(String(await readAll(client))).toBe('request');
    await waitUntil('the flow to end', () => splice.tcp.count === 0);
  });

  it('holds back a sender whose receiver does not read, and loses nothing when it does', async () => {
    const sent = randomBytes(32 * MIB);
    let server: Socket | undefined;
    const target = await serve((socket) => {
      server = socket.pause();
    });
    const port = await findFreePort();
    const { splice } = start({ hostRules: [rule('tcp', port, target)] });
    const client = dial(port);
    client.end(sent);
    await once(client, 'connect');
    // All buffers together are far below 32 MiB: the sender must come to stand.
    let last = -1;
    await waitUntil('the sender to stand', async () => {
      const now = splice.tcp.bytes;
      const isSame = now === last && now > 0;
      last = now;
      await new Promise((resolve) => setTimeout(resolve, 100));
      return isSame;
    });
    expect(splice.tcp.bytes).toBeLessThan(sent.length);
    expect(splice.tcp.pipesLent).toBe(1);
    const received = readAll(server!);
    server!.resume();
    expect(hash(await received)).toBe(hash(sent));
    server!.end();
    await waitUntil('the flow to end', () => splice.tcp.count === 0);
    expect(splice.tcp.pipesLent).toBe(0);
  });

  it('resets a client whose target refuses', async () => {
    const target = await findFreePort();
    const port = await findFreePort();
    const { splice } = start({ hostRules: [rule('tcp', port, target)] });
    const client = dial(port);
    client.write('x');
    expect(await whyClosed(client)).toBe('ECONNRESET');
    expect(splice.tcp.refused).toBe(1);
    expect(splice.tcp.count).toBe(0);
  });

  it.each(['client', 'server'] as const)('passes a reset by the %s on to the other', async (side) => {
    let server: Socket | undefined;
    const target = await serve((socket) => {
      server = socket;
    });
    const port = await findFreePort();
    const { splice } = start({ hostRules: [rule('tcp', port, target)] });
    const client = dial(port);
    client.write('hello');
    await waitUntil('the server to be connected', () => server !== undefined);
    await once(server!, 'data');
    const [first, second] = side === 'client' ? [client, server!] : [server!, client];
    second.resume();
    const why = whyClosed(second);
    first.resetAndDestroy();
    expect(await why).toBe('ECONNRESET');
    await waitUntil('the flow to end', () => splice.tcp.count === 0);
  });

  it('delivers what a server said before it reset the connection', async () => {
    const target = await serve((socket) => {
      // The request is never read: closing resets, and the answer is in front of that.
      socket.pause();
      socket.end('answer', () => setTimeout(() => socket.resetAndDestroy(), 100));
    });
    const port = await findFreePort();
    start({ hostRules: [rule('tcp', port, target)] });
    const client = dial(port);
    client.write('request');
    const [data] = await once(client, 'data');
    expect(String(data)).toBe('answer');
  });

  it('goes out of the namespace to the loopback of the host, over both families', async () => {
    const answer = (socket: Socket): void => {
      socket.end(`from ${socket.remoteAddress}`);
    };
    const target = await serve(answer);
    const same = createServer(answer).listen(target, '::1');
    await once(same, 'listening');
    servers.push(same);
    const port = await findFreePort();
    const { bindAddress: _, ...unnamed } = rule('tcp', port, target);
    const { splice, opened } = start({ namespaceRules: [unnamed] });
    expect(splice.listeners.count).toBe(2);
    expect(opened()).toBe(2);
    expect(String(await readAll(dial(port)))).toBe('from 127.0.0.1');
    expect(String(await readAll(dial(port, '::1')))).toBe('from ::1');
    expect(splice.tcp.opened).toBe(2);
  });

  it('goes to the address that the guest has where one is given', async () => {
    const target = await serve((socket) => socket.end(String(socket.localAddress)), '0.0.0.0');
    const port = await findFreePort();
    start({
      hostRules: [rule('tcp', port, target)],
      guestAddress: (family) => (family === 4 ? Uint32Array.of(0, 0, 0xffff, 0x7f000305) : undefined),
    });
    expect(String(await readAll(dial(port)))).toBe('127.0.3.5');
  });

  it('can be one of a thousand at once, which hold no pipe while idle', { timeout: 60_000 }, async () => {
    const target = await serve((socket) => socket.pipe(socket));
    const port = await findFreePort();
    const { splice } = start({ hostRules: [rule('tcp', port, target)] });
    const all = Array.from({ length: 1000 }, () => dial(port));
    await Promise.all(all.map((client) => once(client, 'connect')));
    const payloads = all.map((_, i) => randomBytes(1000 + i));
    const answers = all.map((client, i) => {
      const chunks: Buffer[] = [];
      return new Promise<Buffer>((resolve) => {
        client.on('data', (chunk: Buffer) => {
          chunks.push(chunk);
          const whole = Buffer.concat(chunks);
          if (whole.length === payloads[i]!.length) resolve(whole);
        });
        client.write(payloads[i]!);
      });
    });
    const received = await Promise.all(answers);
    expect(received.every((bytes, i) => bytes.equals(payloads[i]!))).toBe(true);
    expect(splice.tcp.count).toBe(1000);
    expect(splice.tcp.pipesLent).toBe(0);
    for (const client of all) client.end();
    await waitUntil('all flows to end', () => splice.tcp.count === 0, 20_000);
  });

  it('waits for a pipe when there are no descriptors for one', async () => {
    const target = await serve((socket) => socket.pipe(socket));
    const port = await findFreePort();
    let refusals = 3;
    start({
      hostRules: [rule('tcp', port, target)],
      wrap: ({ pipe }) => ({ pipe: (size, fds) => (refusals-- > 0 ? -24 : pipe(size, fds)) }),
    });
    const client = dial(port);
    client.write('late');
    expect(String((await once(client, 'data'))[0])).toBe('late');
    expect(refusals).toBeLessThan(0);
  });

  it('is refused with a reset when the namespace gives no socket', async () => {
    const port = await findFreePort();
    const { splice } = start({ hostRules: [rule('tcp', port, 1)], namespace: { open: () => -24 } });
    const client = dial(port);
    expect(await whyClosed(client)).toBe('ECONNRESET');
    expect(splice.tcp).toMatchObject({ count: 0, refused: 1 });
  });
});
