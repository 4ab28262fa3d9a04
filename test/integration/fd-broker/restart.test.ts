/** `passel-fd-broker serve` under a service manager that keeps descriptors: what it is told, and that a restart, however it comes, loses nothing. */
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { connectBroker, type FdBroker } from '../../../src/broker/client.ts';
import { loadNative } from '../../../src/sys/native.ts';
import { receiveWithFds, sendWithFds } from '../../../src/sys/scm.ts';
import { createSocketPair, listenUnix } from '../../../src/sys/unix-socket.ts';
import { PROJECT_ROOT } from '../../support/native-tools.ts';
import { waitForExit, waitUntil } from '../../support/netns/process.ts';
import { type Service, StandInManager, type StartOptions } from '../../support/service-manager.ts';

const BROKER = join(PROJECT_ROOT, 'dist/helpers/passel-fd-broker.cjs');
const native = loadNative();

let folder: string;
let socket: string;
let manager: StandInManager;
let counter = 0;
const clients: FdBroker[] = [];
const opened: number[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'passel-restart-'));
  socket = join(folder, 'socket');
});
afterEach(async () => {
  for (const client of clients.splice(0)) client.close();
  await manager.close();
  for (const fd of opened.splice(0)) closeSync(fd);
  rmSync(folder, { recursive: true });
});

const own = (fd: number): number => {
  opened.push(fd);
  return fd;
};
const file = (text: string): number => {
  const path = join(folder, `file-${counter++}`);
  writeFileSync(path, text);
  return own(openSync(path, 'r+'));
};
const command = (...options: string[]): string[] => [process.execPath, BROKER, 'serve', '--socket', socket, ...options];
const start = (options: StartOptions = {}, ...args: string[]): Promise<Service> =>
  manager.start(command(...args), options);
const connect = (): FdBroker => {
  const client = connectBroker(native, socket);
  clients.push(client);
  return client;
};
async function kill({ child }: Service, signal: NodeJS.Signals): Promise<void> {
  child.kill(signal);
  await waitForExit(child);
}
const textOf = (fd: number): string => {
  const bytes = Buffer.alloc(100);
  return bytes.toString('utf8', 0, readSync(fd, bytes, 0, 100, null));
};

describe.each([
  ['a path', () => join(folder, 'notify')],
  ['an abstract name', () => `@passel-notify-${process.pid}-${counter++}`],
])('a service manager with %s', (_what, address) => {
  it('is told that the broker serves, what it keeps, and that it ends', async () => {
    manager = new StandInManager(address());
    const service = await start({ env: { WATCHDOG_USEC: '200000' } });
    expect([...manager.senders]).toEqual([service.child.pid]);
    // READY means that one can connect.
    await connect().ask('put', { name: 'disk' }, [file('x'), file('y')]);
    await manager.waitFor('STATUS=1 names, 2 descriptors kept', service);
    await manager.waitFor('WATCHDOG=1', service);
    await kill(service, 'SIGTERM');
    manager.drain();
    expect(manager.told).toContain('STOPPING=1');
    expect(service.child.exitCode).toBe(0);
  });
});

describe('what the manager does not take', () => {
  it('is not kept, and others are served', async () => {
    manager = new StandInManager(join(folder, 'notify'));
    const service = await start();
    const client = connect();
    manager.pause();
    let failure: { code: string; errno: string } | undefined;
    let kept = 0;
    // Its queue is what the kernel allows (net.unix.max_dgram_qlen).
    for (; failure === undefined && kept < 600; kept++) {
      await client.ask('put', { name: `n${kept}` }, [file('x')]).catch((error) => {
        failure = error;
      });
    }
    expect(failure).toMatchObject({ code: 'system', errno: 'EAGAIN' });
    kept--;
    expect((await client.ask('list', {})).result['total']).toBe(kept);
    // It waits no second time; and what ends meanwhile is told when there is room.
    await expect(client.ask('put', { name: 'again' }, [file('x')])).rejects.toMatchObject({ code: 'system' });
    for (let i = 0; i < kept; i++) await client.ask('drop', { name: `n${i}` });
    manager.read();
    await waitUntil('the manager to let all go', () => manager.keptKeys().length === 0, 10_000);
    // What waited for room is still being told: for that long, nothing new is taken.
    const putAgain = (): Promise<boolean> =>
      client.ask('put', { name: 'again' }, [file('x')]).then(
        () => true,
        () => false,
      );
    await waitUntil('the broker to keep again', putAgain, 10_000);
    await waitUntil('the manager to have it', () => manager.keptKeys().length === 1, 10_000);
    await kill(service, 'SIGKILL');
  });
  it('is refused by quota when the manager is full, so that it drops nothing by itself', async () => {
    manager = new StandInManager(join(folder, 'notify'), 6);
    await start();
    const client = connect();
    await client.ask('put', { name: 'a' }, [file('1'), file('2')]);
    await client.ask('put', { name: 'b' }, [file('3'), file('4')]);
    await expect(client.ask('put', { name: 'c' }, [file('5')])).rejects.toMatchObject({ code: 'quota' });
    // The old one is there until the new one is.
    await expect(client.ask('put', { name: 'b', replace: true }, [file('6')])).rejects.toMatchObject({ code: 'quota' });
    await client.ask('drop', { name: 'a' });
    await waitUntil('them to be closed', async () =>
      client.ask('put', { name: 'c', replace: true }, [file('7')]).then(
        () => true,
        () => false,
      ),
    );
    expect(manager.stored.length).toBeLessThanOrEqual(6);
  });
  it('is kept as long as the broker runs where there is no store', async () => {
    manager = new StandInManager(join(folder, 'notify'));
    const service = await start({ announcedMax: 0 });
    await connect().ask('put', { name: 'a' }, [file('1')]);
    await kill(service, 'SIGKILL');
    manager.drain();
    expect(manager.stored).toEqual([]);
    await start({ announcedMax: 0 });
    expect((await connect().ask('list', {})).result['total']).toBe(0);
  });
  it('is told as lost when it does not come back', async () => {
    manager = new StandInManager(join(folder, 'notify'));
    const first = await start();
    const client = connect();
    await client.ask('put', { name: 'half' }, [file('1'), file('2')]);
    await client.ask('put', { name: 'whole' }, [file('3')]);
    await kill(first, 'SIGKILL');
    manager.drain();
    const index = manager.stored.findIndex(({ name }) => name === 'passel-kept-2');
    native.close(manager.stored.splice(index, 1)[0]!.fd);
    const second = await start();
    expect(second.log()).toContain("'half' of user");
    expect(second.log()).toContain('is lost');
    expect((await connect().ask('list', {})).result['names']).toMatchObject([{ name: 'whole' }]);
    // Nor is the other half kept for nobody.
    await waitUntil('the manager to let it go', () => manager.keptKeys().length === 1);
  });
});

it('the journal is written anew when it has grown, and the old one goes', async () => {
  manager = new StandInManager(join(folder, 'notify'));
  const first = await start({}, '--quiet');
  const client = connect();
  await client.ask('put', { name: 'stays' }, [file('stays')]);
  const journals = (): string[] =>
    manager.stored.map(({ name }) => name).filter((name) => name.startsWith('passel-state-'));
  expect(journals()).toEqual(['passel-state-1']);
  const fd = file('x');
  for (let i = 0; i < 20_000 && !manager.told.includes('FDNAME=passel-state-2'); i++) {
    await client.ask('put', { name: 'x'.repeat(120), replace: true }, [fd]);
  }
  await waitUntil('the new journal', () => journals().join() === 'passel-state-2', 10_000);
  await kill(first, 'SIGKILL');
  await start();
  const { result } = await connect().ask('list', {});
  expect(result['names']).toMatchObject([{ name: 'stays' }, { name: 'x'.repeat(120) }]);
  await waitUntil('one journal', () => journals().join() === 'passel-state-3', 10_000);
});

describe.each(['SIGKILL', 'SIGTERM'] as const)('after %s', (signal) => {
  beforeEach(() => {
    manager = new StandInManager(join(folder, 'notify'));
  });
  it('all kinds of descriptors are there again, as they were', async () => {
    const first = await start();
    const client = connect();
    const disk = file('0123456789');
    textOf(own(openSync('/dev/null', 'r')));
    readSync(disk, Buffer.alloc(4), 0, 4, null);
    const [ours, theirs] = createSocketPair(native);
    sendWithFds(native, ours, Buffer.from('unread'), []);
    native.close(ours);
    const listener = listenUnix(native, join(folder, 'listener'));
    await client.ask('put', { name: 'disk' }, [disk]);
    // Hung up, with something to read.
    await client.ask('put', { name: 'socket' }, [theirs]);
    await client.ask('put', { name: 'listener', share: 'all', uses: 3 }, [listener]);
    // The same open file twice, under two names and beside another.
    await client.ask('put', { name: 'both', share: [77], ttl: 1000 }, [disk, file('other'), disk]);
    await client.ask('listen', { place: { family: 'tcp', address: '127.0.0.1', port: 0 }, name: 'tcp' });
    const before = await Promise.all(
      ['disk', 'socket', 'listener', 'both', 'tcp'].map(async (name) => (await client.ask('stat', { name })).result),
    );
    for (const fd of [theirs, listener]) native.close(fd);
    await kill(first, signal);
    expect(manager.stored.filter(({ polled }) => polled)).toEqual([]);

    const second = await start();
    const again = connect();
    const after = await Promise.all(
      ['disk', 'socket', 'listener', 'both', 'tcp'].map(async (name) => (await again.ask('stat', { name })).result),
    );
    const ttl = after[3]!['ttl'] as number;
    expect(ttl).toBeGreaterThan(900);
    expect(ttl).toBeLessThan(before[3]!['ttl'] as number);
    for (const each of [before, after]) delete (each[3] as { ttl?: unknown }).ttl;
    expect(after).toEqual(before);

    const both = await again.ask('take', { name: 'both' });
    // One open file: the position is shared, and is where it was.
    expect(textOf(both.fds[0]!.fd)).toBe('456789');
    expect(textOf(both.fds[2]!.fd)).toBe('');
    expect(textOf(both.fds[1]!.fd)).toBe('other');
    const taken = await again.ask('take', { name: 'socket' });
    expect(Buffer.from(receiveWithFds(native, taken.fds[0]!.fd, 100)!.bytes).toString()).toBe('unread');
    for (const fd of [...both.fds, ...taken.fds]) fd.close();
    // 'disk' still needs the open file that 'both' had too.
    const last = await again.ask('take', { name: 'disk' });
    last.fds[0]!.close();
    for (const name of ['listener', 'tcp']) await again.ask('drop', { name });
    await waitUntil('the manager to let everything go', () => manager.keptKeys().length === 0);
    expect(second.log()).not.toContain('lost');
  });

  it('uses, times and hang-ups go on where they were', async () => {
    const first = await start();
    const client = connect();
    const [ours, theirs] = createSocketPair(native);
    await client.ask('put', { name: 'twice', uses: 2 }, [file('a')]);
    (await client.ask('copy', { name: 'twice' })).fds[0]!.close();
    await client.ask('put', { name: 'call', dropOnHangup: true }, [theirs]);
    await client.ask('put', { name: 'short', ttl: 0.2 }, [file('b')]);
    await client.ask('put', { name: 'gone' }, [file('c')]);
    await client.ask('drop', { name: 'gone' });
    await client.ask('put', { name: 'new' }, [file('old')]);
    await client.ask('put', { name: 'new', replace: true }, [file('new')]);
    native.close(theirs);
    await kill(first, signal);
    const second = await start();
    const again = connect();
    await waitUntil('the short one to end', async () => (await again.ask('list', {})).result['total'] === 3, 10_000);
    expect((await again.ask('list', {})).result['names']).toMatchObject([
      { name: 'call' },
      { name: 'new' },
      { name: 'twice' },
    ]);
    (await again.ask('copy', { name: 'twice' })).fds[0]!.close();
    await expect(again.ask('copy', { name: 'twice' })).rejects.toMatchObject({ code: 'no-such-name' });
    native.close(ours);
    await waitUntil('the hang-up', async () => (await again.ask('list', {})).result['total'] === 1);
    const { fds } = await again.ask('take', { name: 'new' });
    expect(textOf(fds[0]!.fd)).toBe('new');
    fds[0]!.close();
    await waitUntil('the manager to let everything go', () => manager.keptKeys().length === 0);
    expect(second.log()).toContain("'call' of user");
  });
});
