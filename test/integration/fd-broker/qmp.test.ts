/** `passel-fd-broker qmp` and QmpClient against real QEMUs: every command, what QEMU refuses, what is left behind. */
import { type ChildProcess, spawn } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { connectBroker } from '../../../src/broker/client.ts';
import { QmpClient, QmpError } from '../../../src/broker/qmp-client.ts';
import { loadNative } from '../../../src/sys/native.ts';
import { connectUnix, createSocketPair, listenUnix, UNIX_DATAGRAM } from '../../../src/sys/unix-socket.ts';
import { PROJECT_ROOT } from '../../support/native-tools.ts';
import { needQemu, requireOrSkip } from '../../support/netns/capabilities.ts';
import { runProcess, stopChild, waitUntil } from '../../support/netns/process.ts';

const BROKER = join(PROJECT_ROOT, 'dist/helpers/passel-fd-broker.cjs');
/** Through the C front, which knows what was open at the start. */
const FRONT = join(PROJECT_ROOT, 'dist/helpers/passel-fd-broker');
const native = loadNative();
const suite = await requireOrSkip(needQemu);

interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

suite('passel-fd-broker qmp', () => {
  let folder: string;
  let socket: string;
  let hmp: string;
  let brokerSocket: string;
  let qemu: ChildProcess;
  const running: ChildProcess[] = [];

  const start = async (command: string, args: readonly string[]): Promise<ChildProcess> => {
    const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    running.push(child);
    return child;
  };
  const startQemu = async (monitor: string, ...args: string[]): Promise<ChildProcess> => {
    const fixed = ['-nodefaults', '-no-user-config', '-display', 'none', '-accel', 'tcg'];
    const child = await start('qemu-system-x86_64', [...fixed, '-qmp', `unix:${monitor},server=on,wait=off`, ...args]);
    const probe = async (): Promise<boolean> => {
      const client = await QmpClient.connect(native, monitor).catch(() => undefined);
      client?.close();
      return client !== undefined;
    };
    await waitUntil('QEMU', probe, 30_000);
    return child;
  };
  /** Descriptors given in `fds` are 3, 4 … of the command. */
  const run = (args: readonly string[], fds: readonly number[] = [], env = {}): Promise<Ended> =>
    new Promise((resolve) => {
      const child = spawn(process.execPath, [BROKER, 'qmp', ...args], {
        stdio: ['ignore', 'pipe', 'pipe', ...fds],
        env: { ...process.env, ...env },
      });
      let [stdout, stderr] = ['', ''];
      child.stdout!.on('data', (chunk: Buffer) => {
        stdout += chunk.toString();
      });
      child.stderr!.on('data', (chunk: Buffer) => {
        stderr += chunk.toString();
      });
      child.on('close', (status) => resolve({ status, stdout, stderr }));
    });
  const ask = async <T>(use: (client: QmpClient) => Promise<T>): Promise<T> => {
    const client = await QmpClient.connect(native, socket);
    try {
      return await use(client);
    } finally {
      client.close();
    }
  };
  const human = (line: string): Promise<string> =>
    ask(async (client) => String(await client.execute('human-monitor-command', { 'command-line': line })));
  /** While QEMU answers a client, it has closed the connections of those before. */
  const countFds = (): Promise<number> => ask(async () => readdirSync(`/proc/${qemu.pid}/fd`).length);
  const DONE = { status: 0, stdout: '', stderr: '' };

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'passel-qmp-'));
    socket = join(folder, 'qmp');
    hmp = join(folder, 'hmp');
    brokerSocket = join(folder, 'broker');
    writeFileSync(join(folder, 'file'), 'content');
    let log = '';
    const broker = await start(process.execPath, [BROKER, 'serve', '--socket', brokerSocket]);
    broker.stderr!.on('data', (chunk: Buffer) => {
      log += chunk.toString();
    });
    qemu = await startQemu(socket, '-M', 'pc', '-S', '-monitor', `unix:${hmp},server=on,wait=off`);
    await waitUntil('the broker', () => log.includes('serving on'), 20_000);
  }, 60_000);
  afterAll(async () => {
    await Promise.all(running.map((child) => stopChild(child)));
    rmSync(folder, { recursive: true });
  });

  it('getfd gives a file under a name, which closefd ends, and an inherited descriptor', async () => {
    const before = await countFds();
    expect(await run([socket, 'getfd', 'one', '--fd', `file:${join(folder, 'file')},ro`])).toEqual(DONE);
    const fd = openSync(join(folder, 'file'), 'r');
    expect(await run([socket, 'getfd', 'two', '--fd', '3'], [fd])).toEqual(DONE);
    closeSync(fd);
    expect(await countFds()).toBe(before + 2);
    for (const name of ['one', 'two']) expect(await run([socket, 'closefd', name])).toEqual(DONE);
    expect(await countFds()).toBe(before);
  });

  it("gives QEMU an inherited descriptor of any number, and none of Node's own", async () => {
    const give = async (number: number): Promise<Ended> =>
      runProcess(
        'sh',
        ['-c', `exec "$0" qmp "$1" getfd x --fd ${number} 9<"$2"`, FRONT, socket, join(folder, 'file')],
        {
          check: false,
        },
      );
    const before = await countFds();
    expect(await give(9)).toEqual(DONE);
    expect(await run([socket, 'closefd', 'x'])).toEqual(DONE);
    // Node's epoll set, eventfds and pipes are among these.
    for (const number of [10, 12, 14]) {
      const refused = await give(number);
      expect(refused).toMatchObject({ status: 1 });
      expect(refused.stderr).toContain(`--fd: cannot open '${number}': it was not open when this program`);
    }
    expect(await countFds()).toBe(before);
  });

  it("shows QEMU's error as it is", async () => {
    const ended = await run([socket, 'getfd', '1st', '--fd', '0']);
    expect(ended).toMatchObject({ status: 1, stdout: '' });
    expect(ended.stderr).toBe("passel-fd-broker: Parameter 'fdname' expects a name not starting with a digit\n");
    expect((await run([socket, 'closefd', 'none'])).stderr).toContain("File descriptor named 'none' not found");
    expect((await run([socket, 'remove-fd', '--set', '77'])).stderr).toContain("File descriptor named 'fdset-id:77'");
  });

  it('add-fd makes sets, with numbers and remarks, that a block device can use', async () => {
    const image = join(folder, 'image');
    writeFileSync(image, Buffer.alloc(65_536));
    const added = await run([socket, 'add-fd', '--set', '5', '--opaque', 'the disk', '--fd', `file:${image},rw`]);
    expect(added).toMatchObject({ status: 0, stderr: '' });
    expect(JSON.parse(added.stdout)).toEqual({ fd: expect.any(Number), 'fdset-id': 5 });
    const sets = JSON.parse((await run([socket, 'query-fdsets'])).stdout);
    const { fd } = JSON.parse(added.stdout) as { fd: number };
    expect(sets).toEqual([{ 'fdset-id': 5, fds: [{ fd, opaque: 'the disk' }] }]);
    await ask((client) =>
      client.execute('blockdev-add', { driver: 'file', 'node-name': 'b', filename: '/dev/fdset/5' }),
    );
    await ask((client) => client.execute('blockdev-del', { 'node-name': 'b' }));
    expect(await run([socket, 'remove-fd', '--set', '5', '--member', String(fd)])).toEqual(DONE);
  });

  it('says so where a set of a running guest does not last', async () => {
    const path = join(folder, 'running');
    await startQemu(path, '-M', 'none');
    const added = await run([path, 'add-fd', '--fd', '0']);
    const left = JSON.parse((await run([path, 'query-fdsets'])).stdout || '[]') as unknown[];
    // What the warning says is what this QEMU does.
    expect({ status: added.status, warned: added.stderr.includes('warning: the guest runs') }).toEqual({
      status: 0,
      warned: left.length === 0,
    });
    const client = await QmpClient.connect(native, path);
    await client.execute('add-fd', { 'fdset-id': 1 }, { fd: 0 });
    expect(await client.execute('query-fdsets')).toHaveLength(1);
    client.close();
  }, 60_000);

  it('chardev-add makes a client of a connected socket and a server of one that listens', async () => {
    const [ours, theirs] = createSocketPair(native);
    expect(await run([socket, 'chardev-add', 'c1', '--fd', '3'], [theirs])).toEqual(DONE);
    native.close(theirs);
    const path = join(folder, 'chardev');
    const listener = listenUnix(native, path);
    expect(await run([socket, 'chardev-add', 'c2', '--fd', '3'], [listener])).toEqual(DONE);
    native.close(listener);
    const text = await human('info chardev');
    expect(text).toMatch(/c1: filename=.*/);
    expect(text).toMatch(/c2: filename=.*server/);
    const client = connectUnix(native, path);
    await waitUntil('QEMU to accept', async () => /c2: filename=(?!disconnected)/.test(await human('info chardev')));
    for (const fd of [client, ours]) native.close(fd);
    const file = await run([socket, 'chardev-add', 'c3', '--fd', `file:${join(folder, 'file')}`]);
    expect(file.status).toBe(1);
    expect(file.stderr).toContain('cannot be given to QEMU: a chardev takes a stream socket: this is a file');
  });

  it('makes the socket that a chardev listens on, and leaves no file when QEMU refuses', async () => {
    const path = join(folder, 'made');
    expect(await run([socket, 'chardev-add', 'c4', '--fd', `unix-listen:${path}`])).toEqual(DONE);
    const client = connectUnix(native, path);
    await waitUntil('QEMU to accept', async () => /c4: filename=(?!disconnected)/.test(await human('info chardev')));
    native.close(client);
    const refused = await run([socket, 'chardev-add', 'c4', '--fd', `unix-listen:${path}-2`]);
    expect(refused).toMatchObject({ status: 1, stdout: '' });
    expect(refused.stderr).toContain('c4');
    expect(existsSync(`${path}-2`)).toBe(false);
  });

  it.each([
    ['a stream socket', undefined, 'socket: fd='],
    ['a datagram socket', UNIX_DATAGRAM, 'dgram'],
  ])('netdev-add joins %s', async (_what, type, shown) => {
    const [ours, theirs] = createSocketPair(native, type);
    expect(await run([socket, 'netdev-add', 'n1', '--fd', '3'], [theirs])).toEqual(DONE);
    native.close(theirs);
    const info = await human('info network');
    expect(info).toContain('n1:');
    expect(info).toContain(shown);
    expect(info).not.toContain('error');
    const before = await countFds();
    await ask((client) => client.execute('netdev_del', { id: 'n1' }));
    expect(await countFds()).toBe(before - 1);
    native.close(ours);
  });

  it('refuses what no netdev takes before QEMU is asked, and leaves nothing in QEMU when that refuses', async () => {
    const before = await countFds();
    const file = await run([socket, 'netdev-add', 'n1', '--fd', `file:${join(folder, 'file')}`]);
    expect(file.stderr).toContain('a netdev takes a stream or datagram socket or a tap: this is a file');
    const path = join(folder, 'listening');
    const listener = listenUnix(native, path);
    expect((await run([socket, 'netdev-add', 'n1', '--fd', '3'], [listener])).stderr).toContain('this one listens');
    expect((await run([socket, 'netdev-add', '1bad', '--fd', `unix-connect:${path}`])).status).toBe(1);
    // The netdev is made, the card is not: both go.
    const card = await run([socket, 'hotplug-nic', 'x', '--passt', path, '--driver', 'no-such-card']);
    expect(card).toMatchObject({
      status: 1,
      stderr: "passel-fd-broker: 'no-such-card' is not a valid device model name\n",
    });
    expect(await human('info network')).not.toContain('x:');
    expect(await countFds()).toBe(before);
    native.close(listener);
  });

  it('hotplug-nic plugs in a card on a socket from the broker, with its address and properties', async () => {
    const [ours, theirs] = createSocketPair(native);
    const broker = connectBroker(native, brokerSocket);
    await broker.ask('put', { name: 'net' }, [theirs]);
    native.close(theirs);
    const args = [socket, 'hotplug-nic', 'card', '--broker', 'net', '--mac', '52-54-00-70-61-74', '--driver', 'e1000'];
    const env = { PASSEL_BROKER: brokerSocket };
    expect(await run([...args, '--property', 'addr=0x1e'], [], env)).toEqual(DONE);
    const info = await human('info network');
    expect(info).toContain('macaddr=52:54:00:70:61:74');
    expect(info).toMatch(/card: .*type=socket|card: index=0,type=socket/);
    expect(await human('info pci')).toMatch(/device {2}30, function 0:\s+Ethernet/);
    const gone = await run([...args, '--broker-socket', brokerSocket]);
    expect(gone.status).toBe(1);
    expect(gone.stderr).toContain("--broker: cannot open 'net': user");
    broker.close();
    native.close(ours);
  });

  it('hot-unplug waits for the guest no longer than it is told, and says what is still there', async () => {
    const none = await run([socket, 'hot-unplug', 'no-such']);
    expect(none).toMatchObject({ status: 1, stderr: "passel-fd-broker: Device 'no-such' not found\n" });
    // The guest does not run, so it cannot let go.
    const held = await run([socket, 'hot-unplug', 'card', '--timeout', '1']);
    expect(held.status).toBe(1);
    expect(held.stderr).toContain("the guest has not let go of 'card' within 1 s");
    expect(await human('info network')).toContain('card:');
  });

  it('getfd works on the monitor for people', async () => {
    const before = await countFds();
    expect(await run([hmp, 'getfd', 'h', '--hmp', '--fd', `file:${join(folder, 'file')}`])).toEqual(DONE);
    expect(await countFds()).toBe(before + 1);
    expect(await run([hmp, 'closefd', 'h', '--hmp'])).toEqual(DONE);
    expect(await countFds()).toBe(before);
    const refused = await run([hmp, 'getfd', '9', '--hmp', '--fd', '0']);
    expect(refused).toMatchObject({ status: 1 });
    expect(refused.stderr).toContain("Error: Parameter 'fdname' expects a name not starting with a digit");
    expect((await run([hmp, 'getfd', 'a b', '--hmp', '--fd', '0'])).stderr).toContain("unexpected argument 'a b'");
  });

  it('tells what is no monitor, or not the right one, or busy, with status 2', async () => {
    expect(await run([join(folder, 'gone'), 'query-fdsets'])).toMatchObject({ status: 2 });
    expect((await run([join(folder, 'gone'), 'query-fdsets'])).stderr).toContain('nobody answers');
    const wrong = await run([hmp, 'query-fdsets']);
    expect(wrong).toMatchObject({ status: 2 });
    expect(wrong.stderr).toContain('it does not speak QMP');
    const other = await run([socket, 'getfd', 'x', '--hmp', '--fd', '0']);
    expect(other).toMatchObject({ status: 2 });
    expect(other.stderr).toContain('it speaks QMP');
    await ask(async () => {
      const busy = await run([socket, 'query-fdsets', '--timeout', '1']);
      expect(busy).toMatchObject({ status: 2 });
      expect(busy.stderr).toContain('no greeting within 1 s');
    });
  });

  it('does not take from the broker what a QEMU that is not there would lose', async () => {
    const broker = connectBroker(native, brokerSocket);
    await broker.ask('put', { name: 'kept' }, [0]);
    const spec = ['--fd', 'broker:kept', '--broker-socket', brokerSocket];
    expect((await run([join(folder, 'gone'), 'getfd', 'x', ...spec])).status).toBe(2);
    expect((await broker.ask('stat', { name: 'kept' })).result).toMatchObject({ name: 'kept' });
    const nobody = await run([socket, 'getfd', 'x', '--fd', 'broker:kept', '--broker-socket', join(folder, 'gone')]);
    expect(nobody).toMatchObject({ status: 1 });
    expect(nobody.stderr).toContain('the fd broker at');
    broker.close();
  });

  it.each([
    [['getfd', 'x'], 'the descriptor is missing: expected --fd'],
    [['getfd', '--fd', '0'], 'NAME is missing: expected getfd NAME'],
    [['getfd', 'x', 'y', '--fd', '0'], "unexpected argument 'y'"],
    [['getfd', 'x', '--fd', 'pipe:x'], "--fd: 'pipe:x' is not valid: expected file:…"],
    [['getfd', 'x', '--fd', 'file:'], 'expected file:PATH[,ro|rw|append|create]'],
    [['getfd', 'x', '--fd', 'tcp-connect:localhost:1'], 'expected tcp-connect:ADDRESS:PORT, a numeric address'],
    [['getfd', 'x', '--fd', '99'], "--fd: cannot open '99': EBADF"],
    [['getfd', 'x', '--fd', 'file:/no/such'], "--fd: cannot open 'file:/no/such': ENOENT"],
    [['getfd', 'x', '--fd', '0', '--set', '1'], '--set needs add-fd or remove-fd'],
    [['query-fdsets', '--hmp'], '--hmp needs getfd or closefd'],
    [['query-fdsets', 'x'], "unexpected argument 'x'"],
    [['remove-fd'], '--set is missing'],
    [['hotplug-nic', 'x', '--passt', 'a', '--tap', 'b'], '--passt and --tap exclude each other'],
    [['hotplug-nic', 'x', '--passt', 'a', '--property', 'mac=1'], 'a property other than'],
    [['nonsense'], "unknown command 'nonsense': expected one of getfd"],
  ])('says what is wrong with %j', async (args, message) => {
    const ended = await run([socket, ...args]);
    expect(ended.stderr).toContain(message);
    expect(ended).toMatchObject({ status: 1, stdout: '' });
  });

  it('QmpClient keeps the order of commands, each with its own descriptor, and gives errors their class', async () => {
    await ask(async (client) => {
      expect(client.version.major).toBeGreaterThanOrEqual(7);
      const pipes = await Promise.all(
        ['a', 'b', 'c'].map(async (text) => {
          const path = join(folder, `data-${text}`);
          writeFileSync(path, text);
          return { text, fd: openSync(path, 'r') };
        }),
      );
      // All at once: each waits for the answer to the one before, or the second would lose its descriptor.
      await Promise.all(pipes.map(({ text, fd }) => client.execute('getfd', { fdname: text }, { fd })));
      for (const { text, fd } of pipes) {
        await client.execute('closefd', { fdname: text });
        const bytes = Buffer.alloc(9);
        expect(bytes.toString('utf8', 0, readSync(fd, bytes, 0, 9, 0))).toBe(text);
        closeSync(fd);
      }
      const refused = await client.execute('no-such-command').catch((error: unknown) => error);
      expect(refused).toBeInstanceOf(QmpError);
      expect(refused).toMatchObject({
        class: 'CommandNotFound',
        desc: 'The command no-such-command has not been found',
      });
      const stopping = client.watchEvent(({ event }) => event === 'RESUME', 20_000);
      await client.execute('cont');
      expect(await stopping.event).toMatchObject({ event: 'RESUME' });
      await client.execute('stop');
    });
  });

  it('the program of the manual page works as it stands there, by the name of the package', async () => {
    const page = readFileSync(join(PROJECT_ROOT, 'man/passel-fd-broker.8'), 'utf8');
    const [, code] = /\nIn a program:\n\.PP\n\.nf\n([\s\S]*?)\.fi/.exec(page) ?? [];
    writeFileSync(join(folder, 'disk'), Buffer.alloc(512));
    const program = code!
      .replaceAll('\\-', '-')
      .replace('/tmp/qmp.sock', socket)
      .replace('/srv/images/disk', join(folder, 'disk'));
    expect(program).toContain(socket);
    const { stdout } = await runProcess(process.execPath, ['--input-type=module', '--eval', program], {
      cwd: PROJECT_ROOT,
    });
    expect(stdout).toMatch(/'fdset-id': 1/);
    await ask((client) => client.execute('blockdev-del', { 'node-name': 'disk' }));
  });

  it('shows help that names every command', async () => {
    const { stdout, status } = await run(['--help']);
    expect(status).toBe(0);
    const source = readFileSync(join(PROJECT_ROOT, 'src/cli/fd-broker/qmp-command.ts'), 'utf8');
    const table = source.slice(source.indexOf('const COMMANDS:'), source.indexOf('/** @returns exit status'));
    const names = [...table.matchAll(/^ {2}'?([a-z-]+)'?: \{/gm)].map((match) => match[1]!);
    expect(names.length).toBeGreaterThan(8);
    for (const name of names) expect(stdout).toContain(`\n  ${name} `);
  });
});
