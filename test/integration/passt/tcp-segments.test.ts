/** TCP segments as Linux would not send them, from a guest that decides each one; the host's side is real sockets. */
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN } from '../../support/frames.ts';
import { createHost, HOST_NET, type Host } from '../../support/netns/host.ts';
import { waitUntil } from '../../support/netns/namespace.ts';
import { type Listener, type PeerOptions, startListener, type TcpResult } from '../../support/peer.ts';
import { rigSuiteExceptOnDebian } from '../../support/rig-suite.ts';
import { ScriptedGuest, sleep } from '../../support/scripted-guest.ts';
import { ScriptedConnection, type Segment } from '../../support/scripted-tcp.ts';
import { type StackProcess, startStack } from '../../support/stack-process.ts';
import { stackCommand } from '../../support/stack-under-test.ts';

const { remoteV4 } = HOST_NET;
const PORT = 5001;

rigSuiteExceptOnDebian('it ends by SIGSEGV at the first SYN of this guest', 'TCP segments of a scripted guest', () => {
  let host: Host;
  let stack: StackProcess;
  let guest: ScriptedGuest;
  let server: Listener<TcpResult> | undefined;

  beforeAll(async () => {
    host = await createHost();
    const path = `${host.directory}/passt.socket`;
    stack = startStack(host, stackCommand(), ['--foreground', '--socket', path, '-t', '6001']);
    guest = await ScriptedGuest.connect(path);
    await guest.checkAlive();
  });
  afterEach(async () => {
    await server?.stop().catch(() => {});
    server = undefined;
    guest.received.length = 0;
  });
  afterAll(async () => {
    const status = await stack?.stop();
    await guest?.close();
    await host?.close();
    expect(status).toBe(0);
  });

  /** Opens a connection to a server with these options. */
  const openTo = async (options: PeerOptions): Promise<ScriptedConnection> => {
    server = await startListener(host.wan, 'listen', { addr: remoteV4, port: PORT, 'no-verify': true, ...options });
    const connection = new ScriptedConnection(guest, remoteV4, PORT);
    await connection.open();
    return connection;
  };

  const waitForStream = (connection: ScriptedConnection, text: string, timeoutMs = 3_000): Promise<void> =>
    waitUntil(
      `the stream to be '${text}', not '${connection.stream()}'`,
      () => connection.stream() === text,
      timeoutMs,
    );

  it('a SYN that comes twice opens one connection', async () => {
    server = await startListener(host.wan, 'listen', { addr: remoteV4, port: PORT, echo: true, 'no-verify': true });
    const connection = new ScriptedConnection(guest, remoteV4, PORT);
    const answer = connection.next('SYN-ACK', ({ flags }) => flags === (TCP_SYN | TCP_ACK));
    await connection.sendSyn();
    await connection.sendSyn();
    connection.irs = (await answer).seq;
    await connection.send(1);
    await connection.sendData(1, 'hello');
    await waitForStream(connection, 'hello');
    expect(connection.received().some(({ flags }) => (flags & TCP_RST) !== 0)).toBe(false);
    await connection.send(6, { flags: TCP_RST });
    await sleep(50);
    const { opened } = (await server.stop()) as TcpResult;
    server = undefined;
    expect(opened).toBe(1);
  });

  it('a SYN to a closed port is answered by a reset that the guest can believe', async () => {
    const connection = new ScriptedConnection(guest, remoteV4, 5998);
    const answer = connection.next('RST', ({ flags }) => (flags & TCP_RST) !== 0);
    await connection.sendSyn();
    const reset = await answer;
    expect(reset.flags & TCP_ACK).toBe(TCP_ACK);
    expect(connection.acked(reset)).toBe(1);
  });

  it('are put in order, whatever order they come in', async () => {
    const connection = await openTo({ echo: true });
    await connection.sendData(9, 'IJKL');
    await connection.sendData(5, 'EFGH');
    // The numbers wrap in the middle of this one.
    await connection.sendData(13, 'MNOPQRSTUVWXYZ');
    await sleep(30);
    expect(connection.stream()).toBe('');
    await connection.sendData(1, 'ABCD');
    await waitForStream(connection, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ');
    await connection.send(27, { flags: TCP_RST });
  });

  it('that overlap are taken once', async () => {
    const connection = await openTo({ echo: true });
    await connection.sendData(1, 'ABCDEFGHIJ');
    await connection.sendData(6, 'FGHIJKLMNOPQ');
    await connection.sendData(3, 'CDE');
    await connection.sendData(1, 'ABCDEFGHIJKLMNOPQRST');
    await waitForStream(connection, 'ABCDEFGHIJKLMNOPQRST');
    await connection.send(21, { flags: TCP_RST });
  });

  it('that come again are acknowledged again', async () => {
    const connection = await openTo({ echo: true });
    const first = connection.nextAck(6);
    await connection.sendData(1, 'hello');
    await first;
    await sleep(30);
    const second = connection.nextAck(6);
    await connection.sendData(1, 'hello');
    await second;
    expect(connection.stream()).toBe('hello');
    await connection.send(6, { flags: TCP_RST });
  });

  it('padded to the smallest Ethernet frame bring no padding along', async () => {
    const connection = await openTo({ echo: true });
    const frame = connection.frame(1, { payload: Buffer.from('x') });
    await guest.sendFrame(Buffer.concat([frame, Buffer.alloc(60 - frame.length, 0xff)]));
    await waitForStream(connection, 'x');
    await connection.sendData(2, 'y');
    await waitForStream(connection, 'xy');
    await connection.send(3, { flags: TCP_RST });
  });

  it('of no connection are answered by a reset', async () => {
    const connection = new ScriptedConnection(guest, remoteV4, 5997);
    connection.irs = 1000;
    const answer = connection.next('RST', ({ flags }) => (flags & TCP_RST) !== 0);
    await connection.sendData(1, 'hello');
    // RFC 9293, section 3.5.2: the reset takes its number from what the segment acknowledged.
    expect((await answer).seq).toBe(1001);
  });

  it('that reset the connection far outside the window are not believed', async () => {
    const connection = await openTo({ echo: true });
    await connection.send(0x4000_0000, { flags: TCP_RST });
    await sleep(50);
    await connection.sendData(1, 'still here');
    await waitForStream(connection, 'still here');
    await connection.send(11, { flags: TCP_RST });
  });

  it('with a window of zero hold the data back; it comes when the window opens', async () => {
    const connection = new ScriptedConnection(guest, remoteV4, PORT);
    server = await startListener(host.wan, 'listen', { addr: remoteV4, port: PORT, send: 5000, accept: 1 });
    connection.window = 0;
    await connection.open();
    await sleep(400);
    // A probe may carry a byte; more than that has no place to go.
    expect(connection.stream().length).toBeLessThanOrEqual(1);
    connection.window = 65_535;
    await connection.send(1);
    await waitUntil('all data', () => connection.stream().length === 5000, 3_000);
    await connection.send(1, { flags: TCP_RST });
  });

  it('with a window smaller than a segment get smaller segments', async () => {
    const connection = new ScriptedConnection(guest, remoteV4, PORT);
    server = await startListener(host.wan, 'listen', { addr: remoteV4, port: PORT, send: 1000, accept: 1 });
    connection.window = 100;
    await connection.open();
    const deadlineMs = performance.now() + 8_000;
    let size = 0;
    while (size < 1000 && performance.now() < deadlineMs) {
      await sleep(5);
      size = connection.stream().length;
      if (size + 1 <= connection.ackNumber) continue;
      connection.ackNumber = size + 1;
      await connection.send(1);
    }
    expect(size).toBe(1000);
    for (const { payload } of connection.received()) expect(payload.length).toBeLessThanOrEqual(100);
    await connection.send(1, { flags: TCP_RST });
  });

  it('that never come make the stack send again, each time after a longer wait', async () => {
    const connection = await openTo({ send: 100, finish: 'wait' });
    const times: number[] = [];
    const isFirst = (segment: Segment): boolean => segment.payload.length > 0 && connection.position(segment) === 1;
    while (times.length < 3) {
      if (times.length > 0 || !connection.received().some(isFirst)) await connection.next('data', isFirst, 6_000);
      times.push(performance.now());
    }
    const [first = 0, second = 0, third = 0] = times;
    expect(second - first).toBeGreaterThan(150);
    expect(third - second).toBeGreaterThan((second - first) * 1.5);
    connection.ackNumber = 101;
    await connection.send(1, { flags: TCP_RST | TCP_ACK });
  });

  it('that end the connection are acknowledged, and again when they come again', async () => {
    const connection = await openTo({ send: 10, finish: 'fin' });
    await waitUntil('the FIN of the stack', () => connection.sawFin(), 3_000);
    connection.ackNumber = 12;
    const acknowledged = connection.nextAck(2);
    await connection.send(1, { flags: TCP_FIN | TCP_ACK });
    await acknowledged;
  });

  it('that do not acknowledge the FIN make it come again', async () => {
    const connection = await openTo({ send: 10, finish: 'fin' });
    const isFin = ({ flags }: Segment): boolean => (flags & TCP_FIN) !== 0;
    if (!connection.received().some(isFin)) await connection.next('FIN', isFin);
    connection.ackNumber = 11;
    await connection.send(1);
    await connection.next('FIN again', isFin, 6_000);
    connection.ackNumber = 12;
    await connection.send(1, { flags: TCP_RST | TCP_ACK });
  });
});
