/** `passel-fd-broker run` and the real QEMU: every form in which it inherits a descriptor, the monitor, and what it would refuse. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { PROJECT_ROOT } from '../../support/native-tools.ts';
import { needCommand, needNamespaces, needQemu, needRoot, requireOrSkip } from '../../support/netns/capabilities.ts';
import { stopChild, waitForExit, waitUntil } from '../../support/netns/process.ts';

const PROGRAM = join(PROJECT_ROOT, 'dist/helpers/passel-fd-broker');
const QEMU = ['qemu-system-x86_64', '-M', 'none', '-S', '-nodefaults', '-display', 'none', '-accel', 'tcg'];
/** More for a long run. */
const STARTS = Number(process.env['PASSEL_MONITOR_STARTS'] ?? 50);

let folder: string;
let monitor: string;
const running: ChildProcess[] = [];
const servers: Server[] = [];
const sockets: Socket[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'passel-run-qemu-'));
  monitor = join(folder, 'qmp');
});
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await Promise.all(running.splice(0).map((child) => stopChild(child)));
  for (const server of servers.splice(0)) server.close();
  rmSync(folder, { recursive: true });
});

interface Started {
  readonly child: ChildProcess;
  stderr(): string;
}

/** Starts QEMU by `run`, after the words of `before`. */
function start(options: readonly string[], args: readonly string[], before: readonly string[] = []): Started {
  const [command, ...words] = [...before, PROGRAM, 'run', ...options, '--', ...QEMU, ...args];
  const child = spawn(command!, words, { stdio: ['ignore', 'ignore', 'pipe'] });
  running.push(child);
  let stderr = '';
  child.stderr!.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  return { child, stderr: () => stderr };
}

interface Qmp {
  readonly greeting: unknown;
  execute(command: string, args?: object): Promise<unknown>;
}

/** Speaks QMP over a connection. */
async function speak(socket: Socket): Promise<Qmp> {
  sockets.push(socket);
  const lines = createInterface({ input: socket })[Symbol.asyncIterator]();
  const read = async (): Promise<Record<string, unknown>> => {
    const { done, value } = await lines.next();
    if (done === true) throw new Error('QEMU has ended the connection');
    return JSON.parse(value) as Record<string, unknown>;
  };
  const greeting = await read();
  const execute = async (command: string, args: object = {}): Promise<unknown> => {
    socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    for (;;) {
      const answer = await read();
      if ('error' in answer) throw new Error(JSON.stringify(answer['error']));
      if ('return' in answer) return answer['return'];
    }
  };
  await execute('qmp_capabilities');
  return { greeting, execute };
}

/** One connect, as soon as the file is there: no second try. */
async function connectOnce(path: string): Promise<Qmp> {
  await waitUntil('the socket', () => existsSync(path), 30_000);
  const socket = connect({ path });
  await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject));
  return speak(socket);
}

/** A listener, and its first connection. */
async function listen(path: string): Promise<{ first: Promise<Socket> }> {
  const server = createServer();
  servers.push(server);
  const first = new Promise<Socket>((resolve) => server.once('connection', resolve));
  first.then((socket) => sockets.push(socket));
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return { first };
}

const human = (qmp: Qmp, line: string): Promise<unknown> =>
  qmp.execute('human-monitor-command', { 'command-line': line });

const describeQemu = await requireOrSkip(needQemu);

describeQemu('QEMU behind passel-fd-broker run', () => {
  it(
    `answers one connect to its monitor, ${STARTS} times`,
    async () => {
      for (let i = 0; i < STARTS; i++) {
        const path = join(folder, `qmp-${i}`);
        const { child } = start(['--monitor', path], []);
        const qmp = await connectOnce(path);
        expect(qmp.greeting).toHaveProperty('QMP');
        await qmp.execute('quit').catch(() => undefined);
        expect(await waitForExit(child)).toBe(0);
      }
    },
    STARTS * 6_000,
  );

  it('has its own chardev of the same id, and a monitor beside it', async () => {
    start(['--monitor', monitor], ['-chardev', 'null,id=passel-monitor']);
    const qmp = await connectOnce(monitor);
    const labels = ((await qmp.execute('query-chardev')) as { label: string }[]).map(({ label }) => label);
    expect(labels).toEqual(expect.arrayContaining(['passel-monitor', 'passel-monitor-1']));
  });

  it('that cannot start ends the connection, says why, and is told from one that is slow', async () => {
    const { child, stderr } = start(['--monitor', monitor], ['-device', 'no-such-device']);
    expect(await waitForExit(child)).toBe(1);
    expect(stderr()).toContain("'no-such-device' is not a valid device model name");
    const { code } = await new Promise<NodeJS.ErrnoException>((resolve) =>
      connect({ path: monitor }).once('error', resolve),
    );
    expect(code).toBe('ECONNREFUSED');
  });

  it('has a connected chardev for a monitor', async () => {
    const { first } = await listen(join(folder, 'client'));
    const fd = ['--fd', `m=unix-connect:${folder}/client`];
    start(fd, ['-chardev', 'socket,id=m,fd=@m@', '-mon', 'chardev=m,mode=control']);
    expect(await (await speak(await first)).execute('query-status')).toMatchObject({ status: 'prelaunch' });
  });

  it('has a listening chardev for a monitor', async () => {
    const fd = ['--fd', `m=unix-listen:${folder}/listener`];
    start(fd, ['-chardev', 'socket,id=m,fd={fd:m},server=on,wait=off', '-mon', 'chardev=m,mode=control']);
    expect(await (await connectOnce(join(folder, 'listener'))).execute('query-status')).toMatchObject({
      status: 'prelaunch',
    });
  });

  it('has a file in a set, and a disk on it', async () => {
    writeFileSync(join(folder, 'disk'), Buffer.alloc(65_536));
    const fd = ['--monitor', monitor, '--fd', `d=file:${folder}/disk,rw`];
    start(fd, ['-add-fd', 'fd=@d@,set=5,opaque=disk', '-blockdev', 'driver=file,filename=/dev/fdset/5,node-name=d']);
    const qmp = await connectOnce(monitor);
    expect(await qmp.execute('query-fdsets')).toMatchObject([{ 'fdset-id': 5, fds: [{ opaque: 'disk' }] }]);
    expect(await qmp.execute('query-named-block-nodes')).toMatchObject([{ 'node-name': 'd', ro: false }]);
  });

  it.each([
    ['stream', 'stream,id=n,addr.type=fd,addr.str=@n@', /n: .*type=stream,unix:/],
    ['JSON', '{"type":"stream","id":"n","addr":{"type":"fd","str":"{fd:n}"}}', /n: .*type=stream,unix:/],
    ['socket', 'socket,id=n,fd=@n@', /n: .*type=socket,socket: fd=\d+/],
  ])('has a netdev of kind %s on a connection', async (_kind, netdev, expected) => {
    const { first } = await listen(join(folder, 'net'));
    start(['--monitor', monitor, '--fd', `n=passt:${folder}/net`], ['-netdev', netdev]);
    const qmp = await connectOnce(monitor);
    await first;
    let shown = '';
    // `stream` sets its connection up in another thread.
    const deadline = Date.now() + 20_000;
    do shown = String(await human(qmp, 'info network'));
    while (!expected.test(shown) && Date.now() < deadline);
    expect(shown).toMatch(expected);
  });

  it('has a netdev of datagrams', async () => {
    start(
      ['--monitor', monitor, '--fd', 'n=udp:127.0.0.1:0,to=127.0.0.1:9'],
      ['-netdev', 'dgram,id=n,local.type=fd,local.str=@n@'],
    );
    expect(await human(await connectOnce(monitor), 'info network')).toMatch(/n: .*type=dgram,fd=\d+/);
  });

  it('waits for a machine that comes by a descriptor', async () => {
    await listen(join(folder, 'incoming'));
    start(['--monitor', monitor, '--fd', `i=unix-connect:${folder}/incoming`], ['-incoming', 'fd:@i@']);
    expect(await (await connectOnce(monitor)).execute('query-status')).toMatchObject({ status: 'inmigrate' });
  });

  it.each([
    ['a client that waits', ['-chardev', 'socket,id=m,fd=@m@,wait=off'], 'wait= is for server=on only'],
    ['a client that connects again', ['-chardev', 'socket,id=m,fd=@m@,reconnect=1'], 'reconnect= needs an address'],
    ['a client with TLS', ['-chardev', 'socket,id=m,fd=@m@,tls-creds=t'], 'tls-creds= on a client'],
    ['two addresses', ['-chardev', 'socket,id=m,fd=@m@,path=/x'], 'path= names another one'],
    ['a set without number', ['-add-fd', 'fd=@m@'], 'set= must be there'],
    ['a standard stream in a set', ['-add-fd', 'fd=2,set=0', '-add-fd', 'fd=@m@,set=1'], 'not be a standard stream'],
    ['a tap with a name', ['-netdev', 'tap,id=n,fd=@m@,ifname=t0'], 'fd= and ifname= exclude each other'],
    [
      'datagrams with a peer',
      ['-netdev', 'dgram,id=n,local.type=fd,local.str=@m@,remote.type=inet,remote.host=::1,remote.port=1'],
      'remote.* is not possible',
    ],
    [
      'vhost-user',
      ['-chardev', 'socket,id=m,fd=@m@,server=on,wait=off', '-netdev', 'vhost-user,id=n,chardev=m'],
      "and 'm' has fd=",
    ],
  ])('is not started with %s, which it refuses itself', (_what, args, reason) => {
    const options = ['run', '--fd', `m=unix-listen:${folder}/m`, '--', ...QEMU, ...args];
    const ours = spawnSync(PROGRAM, options, { encoding: 'utf8', timeout: 30_000 });
    expect(ours.stderr).toContain('QEMU refuses it: ');
    expect(ours.stderr).toContain(reason);
    expect(ours.status).toBe(1);
    expect(readdirSync(folder)).toEqual([]);
    // By another name it is not known for QEMU, which then says so itself.
    const theirs = spawnSync(PROGRAM, [...options.slice(0, 4), 'env', ...options.slice(4)], {
      encoding: 'utf8',
      timeout: 30_000,
    });
    expect(theirs.stderr).toMatch(/^qemu-system-x86_64: /);
    expect(theirs.status).toBe(1);
  });
});

const describeTap = await requireOrSkip(
  needQemu,
  needRoot,
  needNamespaces,
  needCommand('ip', 'iproute2'),
  needCommand('unshare', 'util-linux'),
);

describeTap('QEMU behind passel-fd-broker run with a bridge', () => {
  it.each([
    ['a tap', 'tap:br0', 'tap,id=n,fd=@n@', /type=tap,fd=\d+/],
    ['a tap with virtio-net headers', 'tap:br0,vnet', 'tap,id=n,fds=@n@', /type=tap,fd=\d+/],
  ])('has %s', async (_what, spec, netdev, expected) => {
    const before = ['unshare', '--net', 'sh', '-c', 'ip link add br0 type bridge && exec "$@"', 'sh'];
    start(['--monitor', monitor, '--fd', `n=${spec}`], ['-netdev', netdev], before);
    expect(await human(await connectOnce(monitor), 'info network')).toMatch(expected);
  });

  it('has a tap that the broker made, without CAP_NET_ADMIN', async () => {
    const broker = join(folder, 'broker');
    const acl = join(folder, 'bridge.conf');
    const prepare = `ip link add br0 type bridge
      ${PROGRAM} serve --quiet --socket ${broker} --acl ${acl} &
      while [ ! -S ${broker} ]; do kill -0 $! || exit 1; sleep 0.05; done
      PASSEL_BROKER=${broker} setpriv --bounding-set=-net_admin --inh-caps=-net_admin "$@"`;
    // The broker ends with the namespace of pids, which ends with its first process.
    const before = ['unshare', '--net', '--pid', '--fork', '--kill-child', '--mount-proc', 'sh', '-c', prepare, 'sh'];
    const denied = start(['--monitor', monitor, '--fd', 'n=tap:br0'], ['-netdev', 'tap,id=n,fd=@n@'], before);
    expect(await waitForExit(denied.child)).toBe(1);
    expect(denied.stderr()).toContain('bridge.conf');
    writeFileSync(acl, 'allow br0\n', { mode: 0o644 });
    rmSync(broker, { force: true });
    const { child } = start(['--monitor', monitor, '--fd', 'n=tap:br0'], ['-netdev', 'tap,id=n,fd=@n@'], before);
    const qmp = await connectOnce(monitor);
    expect(await human(qmp, 'info network')).toMatch(/type=tap,fd=\d+/);
    await qmp.execute('quit').catch(() => undefined);
    expect(await waitForExit(child)).toBe(0);
  }, 60_000);
});
