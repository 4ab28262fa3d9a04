import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { HmpClient, HmpError } from '../../../src/broker/hmp-client.ts';
import { chooseNetdev } from '../../../src/broker/hot-plug.ts';
import { MonitorError, QmpClient, QmpError } from '../../../src/broker/qmp-client.ts';
import { loadNative } from '../../../src/sys/native.ts';

const native = loadNative();
const GREETING =
  '{"QMP": {"version": {"qemu": {"micro": 3, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}\r\n';

let folder: string;
let path: string;
let server: Server | undefined;
let received: string[];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'passel-qmp-'));
  path = join(folder, 'monitor');
  received = [];
});
afterEach(() => {
  server?.close();
  server = undefined;
  rmSync(folder, { recursive: true });
});

/** A monitor that greets with `greeting` and answers each line by `answer`. */
async function serve(greeting: string, answer: (socket: Socket, line: string) => void): Promise<void> {
  server = createServer((socket) => {
    socket.on('error', () => {});
    socket.write(greeting);
    let text = '';
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
        const line = text.slice(0, end);
        text = text.slice(end + 1);
        received.push(line);
        answer(socket, line);
      }
    });
  });
  await new Promise<void>((resolve) => server!.listen(path, resolve));
}

/** Answers the negotiation, and what follows by `answer`. */
const serveQmp = (answer: (socket: Socket, asked: { execute: string; id: number }) => void): Promise<void> =>
  serve(GREETING, (socket, line) => {
    const asked = JSON.parse(line) as { execute: string; id: number };
    if (asked.execute === 'qmp_capabilities') socket.write(`{"return": {}, "id": ${asked.id}}\r\n`);
    else answer(socket, asked);
  });
const failure = (promise: Promise<unknown>): Promise<unknown> => promise.catch((error: unknown) => error);

describe('QmpClient', () => {
  it('sends nothing before the answer to the last command has come', async () => {
    const answers: (() => void)[] = [];
    await serveQmp((socket, { id }) => answers.push(() => socket.write(`{"return": ${id}, "id": ${id}}\n`)));
    const client = await QmpClient.connect(native, path);
    expect(client.version).toEqual({ major: 7, minor: 2, micro: 3 });
    const both = Promise.all([client.execute('a', { x: 1 }), client.execute('b')]);
    await expect.poll(() => answers.length).toBe(1);
    expect(received.slice(1)).toEqual(['{"execute":"a","arguments":{"x":1},"id":2}']);
    answers[0]!();
    await expect.poll(() => answers.length).toBe(2);
    answers[1]!();
    expect(await both).toEqual([2, 3]);
    client.close();
  });
  it('puts an answer together that comes in pieces, with events in between and letters cut in two', async () => {
    await serveQmp((socket, { id }) => {
      const bytes = Buffer.from(`{"event": "STOP", "timestamp": {}}\r\n{"return": "grüß", "id": ${id}}\r\n`);
      let at = 0;
      const next = (): void => {
        if (at < bytes.length) socket.write(bytes.subarray(at, ++at), () => setImmediate(next));
      };
      next();
    });
    const client = await QmpClient.connect(native, path);
    const events: string[] = [];
    const end = client.onEvent(({ event }) => events.push(event));
    expect(await client.execute('a')).toBe('grüß');
    end();
    await client.execute('b');
    expect(events).toEqual(['STOP']);
    client.close();
  });
  it('goes on after a refusal', async () => {
    await serveQmp((socket, { execute, id }) =>
      socket.write(
        execute === 'bad'
          ? `{"id": ${id}, "error": {"class": "DeviceNotFound", "desc": "no such"}}\n`
          : `{"id": ${id}, "return": {}}\n`,
      ),
    );
    const client = await QmpClient.connect(native, path);
    const refused = await failure(client.execute('bad'));
    expect(refused).toBeInstanceOf(QmpError);
    expect(refused).toMatchObject({ class: 'DeviceNotFound', desc: 'no such', message: 'no such' });
    expect(await client.execute('good')).toEqual({});
    client.close();
  });
  it.each([
    ['another id', '{"return": {}, "id": 77}\n', 'not-a-monitor'],
    ['something else', '[1]\n', 'not-a-monitor'],
    ['no JSON', 'x\n', 'not-a-monitor'],
    ['no line and no JSON', 'HTTP', 'not-a-monitor'],
  ])('gives up a monitor that answers %s', async (_what, text, code) => {
    await serveQmp((socket) => socket.write(text));
    const client = await QmpClient.connect(native, path);
    const [first, second] = await Promise.all([failure(client.execute('a')), failure(client.execute('b'))]);
    expect(first).toMatchObject({ name: 'MonitorError', code });
    expect(second).toMatchObject({ name: 'MonitorError', code: 'closed' });
  });
  it('gives up a monitor that does not answer, and tells those who wait for an event when it goes', async () => {
    await serveQmp((socket, { execute }) => {
      if (execute === 'die') socket.destroy();
    });
    const silent = await QmpClient.connect(native, path);
    expect(await failure(silent.execute('wait', undefined, { timeoutMs: 50 }))).toMatchObject({ code: 'timeout' });
    expect(await failure(silent.execute('more'))).toMatchObject({ code: 'closed' });
    const client = await QmpClient.connect(native, path);
    const early = client.watchEvent(() => true, 50);
    expect(await failure(early.event)).toMatchObject({ code: 'timeout' });
    const watching = client.watchEvent(() => true, 20_000);
    expect(await failure(client.execute('die'))).toMatchObject({ code: 'closed' });
    expect(await failure(watching.event)).toBeInstanceOf(MonitorError);
  });
  it.each([
    ['of another protocol', 'SSH-2.0-x\r\n', 'not-a-monitor'],
    ['that is not QMP', '{"hello": 1}\n', 'not-a-monitor'],
    ['that does not come', '', 'timeout'],
  ])('refuses a greeting %s', async (_what, greeting, code) => {
    await serve(greeting, () => {});
    expect(await failure(QmpClient.connect(native, path, { timeoutMs: 200 }))).toMatchObject({ code });
  });
  it('says what the system says when nobody listens', async () => {
    expect(await failure(QmpClient.connect(native, path))).toMatchObject({ code: 'ENOENT' });
  });
});

describe('HmpClient', () => {
  it('tells echo, output and prompt apart, in pieces', async () => {
    await serve('QEMU 7.2\r\n(qemu) ', (socket, line) => {
      socket.write(`g\x1b[K\x1b[D${line}\x1b[K\r\n${line.includes('bad') ? 'Error: (qemu) is no\r\n' : ''}(qe`);
      setImmediate(() => socket.write('mu) '));
    });
    const client = await HmpClient.connect(native, path);
    await client.getFd('good', 0);
    await client.closeFd('good');
    const refused = await failure(client.getFd('bad', 0));
    expect(refused).toBeInstanceOf(HmpError);
    expect((refused as Error).message).toBe('Error: (qemu) is no');
    expect(await failure(client.getFd('x\nquit', 0))).toBeInstanceOf(RangeError);
    expect(received).toEqual(['getfd good', 'closefd good', 'getfd bad']);
    client.close();
  });
  it('recognises QMP, and a monitor without a prompt', async () => {
    await serve(GREETING, () => {});
    expect(await failure(HmpClient.connect(native, path))).toMatchObject({ code: 'not-a-monitor' });
    server!.close();
    path = join(folder, 'silent');
    await serve('', () => {});
    expect(await failure(HmpClient.connect(native, path, 50))).toMatchObject({ code: 'timeout' });
  });
});

describe('the form of a netdev', () => {
  const fd = { access: 'read-write', pathOnly: false } as const;
  it('follows from the descriptor', () => {
    const stream = { ...fd, kind: 'socket', family: 'unix', type: 'stream' } as const;
    expect(chooseNetdev({ ...stream, listening: false }, ['x'])).toEqual({ type: 'socket', fd: 'x' });
    expect(() => chooseNetdev({ ...stream, listening: true }, ['x'])).toThrow('this one listens');
    expect(chooseNetdev({ ...stream, type: 'dgram' }, ['x'])).toEqual({
      type: 'dgram',
      local: { type: 'fd', str: 'x' },
    });
    expect(() => chooseNetdev({ ...stream, type: 'seqpacket' }, ['x'])).toThrow('this is a seqpacket socket');
    expect(chooseNetdev({ ...fd, kind: 'tap' }, ['x'])).toEqual({ type: 'tap', fd: 'x' });
    expect(chooseNetdev({ ...fd, kind: 'tap' }, ['x', 'y'])).toEqual({ type: 'tap', fds: 'x:y' });
    expect(() => chooseNetdev({ ...stream, listening: false }, ['x', 'y'])).toThrow('one for each queue of a tap');
    expect(() => chooseNetdev({ ...fd, kind: 'fifo' }, ['x'])).toThrow('this is a fifo');
  });
});
