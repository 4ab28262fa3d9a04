/** `passel-fd-broker serve` as its users meet it: start, end, bad input, clients in another language, users who compete. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { connectBroker } from '../../../src/broker/client.ts';
import { loadNative } from '../../../src/sys/native.ts';
import { listenUnix, UNIX_SEQPACKET, UNIX_STREAM } from '../../../src/sys/unix-socket.ts';
import { PROJECT_ROOT } from '../../support/native-tools.ts';
import { needCommand, needRoot, requireOrSkip } from '../../support/netns/capabilities.ts';
import { runProcess, stopChild, waitForExit, waitUntil } from '../../support/netns/process.ts';

const BROKER = join(PROJECT_ROOT, 'dist/helpers/passel-fd-broker.cjs');
const native = loadNative();

let folder: string;
let socket: string;
const running: ChildProcess[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'passel-fd-broker-'));
  chmodSync(folder, 0o755);
  socket = join(folder, 'socket');
});
afterEach(async () => {
  await Promise.all(running.splice(0).map((child) => stopChild(child)));
  rmSync(folder, { recursive: true });
});

interface Serving {
  readonly child: ChildProcess;
  log(): string;
}

async function serve(...options: string[]): Promise<Serving> {
  const child = spawn(process.execPath, [BROKER, 'serve', '--socket', socket, ...options], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  running.push(child);
  let log = '';
  child.stderr.on('data', (chunk: Buffer) => {
    log += chunk.toString();
  });
  await waitUntil('the broker', () => log.includes('serving on'), 20_000);
  return { child, log: () => log };
}

const fail = (...args: string[]) => {
  const { status, stderr, stdout } = spawnSync(process.execPath, [BROKER, ...args], { encoding: 'utf8' });
  return { status, stderr, stdout };
};
const countFds = (child: ChildProcess): number => readdirSync(`/proc/${child.pid}/fd`).length;

describe('passel-fd-broker', () => {
  it('serves, writes its PID, and leaves no socket behind when it ends', async () => {
    const { child } = await serve('--pid', join(folder, 'pid'), '--socket-mode', '0640');
    expect(readFileSync(join(folder, 'pid'), 'utf8')).toBe(`${child.pid}\n`);
    expect(statSync(socket).mode & 0o777).toBe(0o640);
    const client = connectBroker(native, socket);
    expect((await client.ask('list', {})).result).toEqual({ names: [], total: 0 });
    client.close();
    child.kill('SIGTERM');
    expect(await waitForExit(child)).toBe(0);
    expect(existsSync(socket)).toBe(false);
  });
  it('takes over the socket of one that was killed, and not that of one that lives', async () => {
    const first = await serve();
    const second = fail('serve', '--socket', socket);
    expect(second).toMatchObject({ status: 1 });
    expect(second.stderr).toContain(`'${socket}' is in use by another process`);
    first.child.kill('SIGKILL');
    await waitForExit(first.child);
    await serve();
  });
  it('keeps what a client gave that was killed', async () => {
    const { child } = await serve();
    const script = `
import os, signal, socket, json
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect(${JSON.stringify(socket)})
r, w = os.pipe(); os.write(w, b"left behind")
socket.send_fds(s, [json.dumps({"version": 1, "id": 1, "verb": "put", "name": "pipe", "fds": 1}).encode()], [r])
os.kill(os.getpid(), signal.SIGKILL)`;
    const before = countFds(child);
    const { status } = await runProcess('/usr/bin/python3', ['-c', script], { check: false });
    expect(status).toBe(137);
    const client = connectBroker(native, socket);
    const { fds } = await client.ask('take', { name: 'pipe' });
    expect(readFileSync(fds[0]!.fd, 'utf8')).toBe('left behind');
    fds[0]!.close();
    client.close();
    await waitUntil('descriptors to be closed', () => countFds(child) === before);
  });
  it('refuses 10 000 puts beyond the quota, and is as before afterwards', async () => {
    const policy = join(folder, 'policy');
    writeFileSync(policy, '{"version":1,"rules":[{"users":"all","verbs":"all","quota":{"names":20,"fds":20}}]}', {
      mode: 0o600,
    });
    const args = ['serve', '--socket', socket, '--policy', policy, '--quiet', '--log-file', join(folder, 'log')];
    const child = spawn(process.execPath, [BROKER, ...args, '--log-size', '100000'], { stdio: 'ignore' });
    running.push(child);
    await waitUntil('the socket', () => existsSync(socket), 20_000);
    const client = connectBroker(native, socket);
    await client.ask('list', {});
    const before = countFds(child);
    const codes: Record<string, number> = {};
    for (let i = 0; i < 10_000; i++) {
      const code = await client.ask('put', { name: `n${i}` }, [0]).then(
        () => 'ok',
        (error: { code: string }) => error.code,
      );
      codes[code] = (codes[code] ?? 0) + 1;
    }
    expect(codes).toEqual({ ok: 20, quota: 9_980 });
    for (let i = 0; i < 20; i++) await client.ask('drop', { name: `n${i}` });
    await waitUntil('descriptors to be closed', () => countFds(child) === before);
    client.close();
  }, 120_000);
  it('serves on the socket of a service manager, and leaves its file alone', async () => {
    const listener = listenUnix(native, socket, { type: UNIX_SEQPACKET });
    const line = `LISTEN_PID=$$ LISTEN_FDS=1 exec ${process.execPath} ${BROKER} serve`;
    const child = spawn('sh', ['-c', line], { stdio: ['ignore', 'ignore', 'pipe', listener] });
    running.push(child);
    native.close(listener);
    const client = connectBroker(native, socket);
    expect((await client.ask('list', {})).result).toMatchObject({ total: 0 });
    client.close();
    expect(await stopChild(child)).toBe(0);
    expect(existsSync(socket)).toBe(true);
  });
  it.each([
    ['a stream socket', 'LISTEN_FDS=1', 'SOCK_SEQPACKET'],
    ['two sockets', 'LISTEN_FDS=2', 'LISTEN_FDS > 1'],
  ])('refuses %s of a service manager', async (_what, count, reason) => {
    const listener = listenUnix(native, socket, { type: UNIX_STREAM });
    const line = `LISTEN_PID=$$ ${count} exec ${process.execPath} ${BROKER} serve`;
    const child = spawn('sh', ['-c', line], { stdio: ['ignore', 'ignore', 'pipe', listener] });
    native.close(listener);
    let stderr = '';
    child.stderr!.on('data', (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    expect(await waitForExit(child)).toBe(1);
    expect(stderr).toContain(reason);
  });

  it('says what is wrong with a command line', () => {
    const policy = join(folder, 'policy');
    const write = (text: string, mode = 0o600): string => {
      writeFileSync(policy, text);
      chmodSync(policy, mode);
      return policy;
    };
    expect(fail('nonsense').stderr).toContain("unknown command 'nonsense': expected one of serve");
    expect(fail('serve', 'x').stderr).toContain("unexpected argument 'x'");
    expect(fail('serve', '--socket-mode', '999').stderr).toContain("--socket-mode: '999' is not valid");
    expect(fail('serve', '--socket', join(folder, 'no/such')).stderr).toContain('ENOENT');
    expect(fail('serve', '--policy', join(folder, 'gone')).stderr).toContain('ENOENT');
    expect(fail('serve', '--policy', write('{')).stderr).toContain(`--policy: '${policy}' is not a policy`);
    expect(fail('serve', '--policy', write('{"version":1,"rules":[{"user":1}]}')).stderr).toContain('rules.0');
    expect(fail('serve', '--policy', write('{"version":1,"rules":[]}', 0o666)).stderr).toContain(
      'everybody can write it',
    );
    expect(fail('serve', '--help')).toMatchObject({ status: 0, stderr: '' });
    expect(fail('--help').stdout).toContain('serve');
    for (const args of [['nonsense'], ['serve', 'x'], ['serve', '--policy', policy]])
      expect(fail(...args).status).toBe(1);
    expect(existsSync(socket)).toBe(false);
  });
});

const withUsers = await requireOrSkip(needRoot, needCommand('setpriv', 'util-linux'));

withUsers('passel-fd-broker for several users', () => {
  it('the client of the manual page works as it stands there', async () => {
    const page = readFileSync(join(PROJECT_ROOT, 'man/passel-fd-broker.8'), 'utf8');
    const [, code] = /\.SS A client in Python\n\.nf\n([\s\S]*?)\.fi/.exec(page) ?? [];
    writeFileSync(join(folder, 'disk'), 'the disk');
    const script = code!
      .replaceAll('\\-', '-')
      .replace('/run/passel/fd-broker.sock', socket)
      .replace('/srv/images/disk', join(folder, 'disk'));
    expect(script).toContain(socket);
    await serve();
    const { stdout } = await runProcess('/usr/bin/python3', ['-c', `${script}\nprint(os.read(disk, 100), result)`]);
    expect(stdout.trim()).toBe("b'the disk' {'name': 'disk'}");
  });

  it('the program of the manual page does what it says', async () => {
    const page = readFileSync(join(PROJECT_ROOT, 'man/passel-fd-broker.8'), 'utf8');
    const [, code] = /\.SH EXAMPLES\n[\s\S]*?\.nf\n([\s\S]*?)\.fi/.exec(page) ?? [];
    writeFileSync(join(folder, 'disk'), 'the disk');
    const script = code!
      .replaceAll('\\-', '-')
      .replace('/run/user/1000/passel/fd-broker.sock', socket)
      .replace('/srv/images/disk', join(folder, 'disk'));
    expect(script).toContain(socket);
    await serve();
    const { stdout } = await runProcess(process.execPath, ['--input-type=module', '--eval', script], {
      cwd: PROJECT_ROOT,
    });
    expect(stdout).toBe('disk the disk\n');
  });

  it('two users have names of their own, and neither can drop what the other shares', async () => {
    const policy = join(folder, 'policy');
    writeFileSync(policy, '{"version":1,"rules":[{"users":[1000,1001],"verbs":"all"}]}', { mode: 0o600 });
    const { log } = await serve('--policy', policy);
    const act = async (uid: number, actions: string): Promise<string> => {
      const script = `
import json, os, socket
broker = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); broker.connect(${JSON.stringify(socket)})
def ask(verb, fds=(), **members):
    socket.send_fds(broker, [json.dumps({"version": 1, "id": 1, "verb": verb, "fds": len(fds), **members}).encode()], list(fds))
    data, got, _, _ = socket.recv_fds(broker, 65536, 253)
    answer = json.loads(data)
    print(answer["error"]["code"] if "error" in answer else "ok", *(os.read(fd, 9).decode() for fd in got))
def pipe(text):
    r, w = os.pipe(); os.write(w, text.encode()); os.close(w); return r
${actions}`;
      const ids = [`--reuid=${uid}`, `--regid=${uid}`, '--clear-groups'];
      const { stdout } = await runProcess('setpriv', [...ids, '/usr/bin/python3', '-c', script]);
      return stdout.trim().replaceAll('\n', ', ');
    };
    expect(await act(1000, 'ask("put", [pipe("a")], name="n"); ask("put", [pipe("s")], name="s", share=[1001])')).toBe(
      'ok, ok',
    );
    expect(
      await act(
        1001,
        'ask("take", name="n"); ask("take", name="n", owner=1000); ask("put", [pipe("b")], name="n"); ask("drop", name="s", owner=1000); ask("copy", name="s", owner=1000); ask("take", name="n")',
      ),
    ).toBe('no-such-name, no-such-name, ok, denied, ok s, ok b');
    expect(await act(1000, 'ask("take", name="n")')).toBe('ok a');
    expect(await act(1002, 'ask("list"); ask("put", [pipe("")], name="x")')).toBe('denied, denied');
    expect(log()).toContain('user 1002');
  }, 60_000);
});
