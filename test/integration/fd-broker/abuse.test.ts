/** Clients that mean harm, or do not care: nothing leaks, nobody gets what the policy denies, others are served, and refusals have stable codes. */
import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { connectBroker } from '../../../src/broker/client.ts';
import { loadNative } from '../../../src/sys/native.ts';
import { PROJECT_ROOT } from '../../support/native-tools.ts';
import { needCommand, needRoot, requireOrSkip } from '../../support/netns/capabilities.ts';
import { runProcess, stopChild, waitUntil } from '../../support/netns/process.ts';

const BROKER = join(PROJECT_ROOT, 'dist/helpers/passel-fd-broker.cjs');
const native = loadNative();

/** In front of every client: `ask` gives 'ok' or the code of the refusal, and the descriptors. */
const PRELUDE = `
import array, errno, json, os, select, socket, struct, sys, threading, time
def connect():
    broker = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); broker.connect(os.environ["BROKER"])
    return broker
broker = connect()
def request(verb, fds=(), **members):
    return json.dumps({"version": 1, "id": 1, "verb": verb, "fds": len(fds), **members}).encode()
def answer(by=broker):
    data, got, flags, _ = socket.recv_fds(by, 65536, 253)
    message = json.loads(data)
    return message["error"]["code"] if "error" in message else "ok", got
def ask(verb, fds=(), by=broker, **members):
    socket.send_fds(by, [request(verb, fds, **members)], list(fds))
    return answer(by)
def pipe(text):
    r, w = os.pipe(); os.write(w, text.encode()); os.close(w); return r
def code(*args, **members):
    result, got = ask(*args, **members)
    for fd in got: os.close(fd)
    return result
`;

let folder: string;
let socket: string;
let child: ChildProcess;
let log: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'passel-abuse-'));
  chmodSync(folder, 0o755);
  socket = join(folder, 'socket');
});
afterEach(async () => {
  await stopChild(child);
  rmSync(folder, { recursive: true });
});

async function serve(policy?: object, limit?: number): Promise<void> {
  const args = ['serve', '--socket', socket, '--log-format', 'json'];
  if (policy !== undefined) {
    writeFileSync(join(folder, 'policy'), JSON.stringify(policy), { mode: 0o600 });
    args.push('--policy', join(folder, 'policy'));
  }
  const line = `${limit === undefined ? '' : `ulimit -n ${limit}; `}exec "$@"`;
  log = '';
  child = spawn('sh', ['-c', line, 'sh', process.execPath, BROKER, ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
  child.stderr!.on('data', (chunk: Buffer) => {
    log += chunk.toString();
  });
  await waitUntil('the broker', () => log.includes('serving on'), 30_000);
}

async function act(script: string, uid = 0): Promise<unknown> {
  const user = uid === 0 ? [] : ['setpriv', `--reuid=${uid}`, `--regid=${uid}`, '--clear-groups'];
  const [program, ...args] = [...user, '/usr/bin/python3', '-c', `${PRELUDE}\n${script}`];
  const { stdout } = await runProcess(program!, args, { env: { BROKER: socket }, timeoutMs: 90_000 });
  return JSON.parse(stdout) as unknown;
}

const countFds = (): number => readdirSync(`/proc/${child.pid}/fd`).length;
/** Before the first client, and after the last. */
async function leavesNothing(test: () => Promise<void>): Promise<void> {
  const base = countFds();
  await test();
  await waitUntil(`${countFds()} descriptors to become ${base}`, () => countFds() === base, 15_000);
}

const suite = await requireOrSkip(needRoot, needCommand('setpriv', 'util-linux'), needCommand('python3', 'python3'));

suite('abuse', () => {
  it('of messages: too many descriptors, wrong counts, cut ones, what cannot be kept', async () => {
    await serve();
    await leavesNothing(async () => {
      const codes = await act(`
files = [os.open("/dev/null", os.O_RDWR) for _ in range(254)]
out = []
def attempt(ancillary):
    try: broker.sendmsg([request("put", files[:253], name="x")], ancillary); return answer()[0]
    except OSError as error: return error.errno in (errno.EINVAL, errno.ETOOMANYREFS)
rights = lambda fds: (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
out.append(attempt([rights(files)]))
out.append(attempt([rights(files[:127]), rights(files[127:])]))
socket.send_fds(broker, [request("put", files, name="x")], files[:253]); out.append(answer()[0])
socket.send_fds(broker, [request("put", files[:3], name="x")], files[:2]); out.append(answer()[0])
socket.send_fds(broker, [request("put", files[:1], name="x") + b" " * 70000], files[:9]); out.append(answer()[0])
socket.send_fds(broker, [b"{"], files[:200]); out.append(answer()[0])
out.append(code("put", [os.open("/", os.O_PATH)], name="x"))
out.append(code("put", [os.open("/", os.O_RDONLY)], name="x"))
out.append(code("put", [broker.fileno()], name="x"))
out.append(code("put", files[:1], name="x", expect={"kind": "socket"}))
out.append(code("connect", place={"family": "unix", "path": os.environ["BROKER"], "type": "seqpacket"}))
out.append(code("connect", place={"family": "unix", "path": os.environ["BROKER"], "type": "seqpacket"}, name="x"))
print(json.dumps([*out, ask("list")[0]]))`);
      expect(codes).toEqual([
        ...[true, true, 'bad-request', 'fd-count', 'truncated', 'bad-request'],
        ...['fd-kind', 'fd-kind', 'fd-kind', 'fd-kind', 'denied', 'denied', 'ok'],
      ]);
    });
  });

  it('of a broker that may open few files: what does not fit is refused whole, and who comes too much', async () => {
    await serve(undefined, 128);
    await leavesNothing(async () => {
      const out = await act(`
files = [os.open("/dev/null", os.O_RDWR) for _ in range(120)]
first = code("put", files, name="x")
many = [connect() for _ in range(20)]
refused = 0
for each in many:
    try: refused += ask("list", by=each)[0] == "quota"
    except OSError: refused += 1
for each in many: each.close()
while code("list", by=broker) != "ok": pass
print(json.dumps([first, refused > 0, code("put", files[:20], name="x"), code("drop", name="x")]))`);
      expect(out).toEqual(['truncated', true, 'ok', 'ok']);
    });
  });

  it('of sockets in flight: what was left in them is gone with them', async () => {
    await serve();
    await leavesNothing(async () => {
      const out = await act(`
def count(): return open("/proc/net/unix").read().count("@passel-cycle-%d-" % os.getpid())
for i in range(50):
    a, b = socket.socketpair()
    named = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); named.bind("\\0passel-cycle-%d-%d" % (os.getpid(), i))
    # Each holds the other, and one that can be seen.
    socket.send_fds(a, [b"x"], [a.fileno(), b.fileno(), named.fileno()]); socket.send_fds(b, [b"x"], [a.fileno(), b.fileno()])
    assert code("put", [a.fileno(), b.fileno()], name="cycle%d" % i) == "ok"
    for each in (a, b, named): each.close()
kept = count()
for i in range(50): assert code("drop", name="cycle%d" % i) == "ok"
until = time.time() + 15
while count() > 0 and time.time() < until: socket.socketpair(); time.sleep(0.02)
print(json.dumps([kept, count()]))`);
      expect(out).toEqual([50, 0]);
    });
  });

  it('of a client that does not read: it gets what it asked for and nothing that came after', async () => {
    await serve();
    await leavesNothing(async () => {
      const out = await act(`
slow = connect()
slow.setblocking(False)
assert code("put", [pipe("mine")], name="n") == "ok"
mine = os.fstat(ask("copy", name="n")[1][0]).st_ino
asked = idle = 0
# Until the broker, which takes some of them between two requests of others, takes no more.
while idle < 50:
    try: slow.send(request("copy", name="n")); asked += 1; idle = 0
    except BlockingIOError: ask("list"); idle += 1
assert code("drop", name="n") == "ok"
for i in range(60): assert code("put", [pipe("secret")], name="s%d" % i) == "ok"
slow.setblocking(True)
found = {"mine": 0, "other": 0, "none": 0}
for _ in range(asked):
    result, got = answer(slow)
    if result != "ok": found["none"] += 1
    for fd in got:
        found["mine" if os.fstat(fd).st_ino == mine else "other"] += 1
        os.close(fd)
for i in range(60): assert code("drop", name="s%d" % i) == "ok"
print(json.dumps([found["mine"] > 1, found["none"] > 0, found["other"]]))`);
      // Some waited in the broker while the name was dropped, and some were asked too late.
      expect(out).toEqual([true, true, 0]);
    });
  });

  it('of descriptors that take long to close: others are served', async () => {
    await serve();
    const out = await act(`
listener = socket.create_server(("127.0.0.1", 0), backlog=16)
for i in range(8):
    s = socket.create_connection(listener.getsockname())
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 60))
    s.setblocking(False)
    try:
        while True: s.send(b"x" * 65536)
    except BlockingIOError: pass
    assert code("put", [s.fileno()], name="s%d" % i) == "ok"
    s.close()
start = time.time()
codes = [code("drop", name="s%d" % i) for i in range(8)] + [code("list")]
print(json.dumps([codes, time.time() - start < 20]))`);
    // Closed in the request, each would have taken a minute.
    expect(out).toEqual([Array(9).fill('ok'), true]);
  });

  it('of links that are changed while the broker looks: nothing outside is reached', async () => {
    const root = join(folder, 'root');
    mkdirSync(join(root, 'real'), { recursive: true });
    mkdirSync(join(folder, 'outside'));
    for (const path of [root, join(root, 'real'), join(folder, 'outside')]) chmodSync(path, 0o777);
    for (const path of [join(root, 'inside'), join(root, 'real/f')]) writeFileSync(path, 'inside');
    writeFileSync(join(folder, 'outside/f'), 'secret');
    const rules = [
      {
        users: [1000],
        verbs: 'all',
        open: [{ root, access: 'read-write', create: true }],
        listen: [{ family: 'unix', root }],
        connect: [{ family: 'unix', root }],
      },
    ];
    await serve({ version: 1, rules });
    await leavesNothing(async () => {
      const out = (await act(
        `
root = ${JSON.stringify(root)}
stop = False
def flip(name, targets):
    while not stop:
        for target in targets:
            os.symlink(target, root + "/new-" + name); os.replace(root + "/new-" + name, root + "/" + name)
threads = [threading.Thread(target=flip, args=("x", ["inside", "../outside/f"])),
           threading.Thread(target=flip, args=("d", ["real", "../outside"]))]
for each in threads: each.start()
texts = {}
for i in range(400):
    for path in ("x", "d/f"):
        result, got = ask("open", path=root + "/" + path, access="read")
        text = os.read(got[0], 9).decode() if got else result
        texts[text] = texts.get(text, 0) + 1
        for fd in got: os.close(fd)
    for verb, members in (("listen", {"place": {"family": "unix", "path": "%s/d/s%d" % (root, i)}}),
                          ("open", {"path": "%s/d/made%d" % (root, i), "access": "read-write", "create": True})):
        result, got = ask(verb, **members)
        for fd in got: os.close(fd)
stop = True
for each in threads: each.join()
print(json.dumps(texts))`,
        1000,
      )) as Record<string, number>;
      expect(Object.keys(out).sort()).toEqual(['inside', 'system']);
      expect(readdirSync(join(folder, 'outside'))).toEqual(['f']);
      expect(readdirSync(join(root, 'real')).length).toBeGreaterThan(2);
    });
  });

  it('of names: two users who compete get their own, and what is shared goes to one of them', async () => {
    await serve({ version: 1, rules: [{ users: [1000, 1001], verbs: 'all', quota: { names: 300, fds: 300 } }] });
    await leavesNothing(async () => {
      const compete = (uid: number, other: number) =>
        act(
          `
mine = str(os.getuid())
for i in range(100): assert code("put", [pipe("shared")], name="shared%d" % i, share=[${other}]) == "ok"
wrong = 0
got_shared = 0
for i in range(300):
    assert code("put", [pipe(mine)], name="n") == "ok"
    result, got = ask("take", name="n")
    wrong += result != "ok" or os.read(got[0], 9).decode() != mine
    for fd in got: os.close(fd)
    wrong += code("take", name="n", owner=${other}) != "no-such-name"
    for owner in (${uid}, ${other}):
        result, got = ask("take", name="shared%d" % (i % 100), owner=owner)
        got_shared += len(got)
        wrong += result not in ("ok", "no-such-name")
        for fd in got: os.close(fd)
print(json.dumps([wrong, got_shared]))`,
          uid,
        ) as Promise<[number, number]>;
      const [[wrongA, sharedA], [wrongB, sharedB]] = await Promise.all([compete(1000, 1001), compete(1001, 1000)]);
      expect([wrongA, wrongB]).toEqual([0, 0]);
      // Each of the 200 once; one who is done early leaves those that the other put later, for the other to take.
      const left = (await act(
        'print(json.dumps(json.loads(broker.send(request("list")) and broker.recv(65536))["result"]["total"]))',
        1000,
      )) as number;
      expect(sharedA + sharedB + left).toBe(200);
      await act('for i in range(100): code("drop", name="shared%d" % i)\nprint(1)', 1000);
      await act('for i in range(100): code("drop", name="shared%d" % i)\nprint(1)', 1001);
    });
  });

  it('is in the log, as is all that left: who, which program, what', async () => {
    await serve({ version: 1, rules: [{ users: [1000], verbs: ['put', 'take', 'copy', 'list'] }] });
    await act(
      `
assert code("put", [pipe("a"), broker.fileno() and os.open("/dev/null", os.O_RDWR)], name="n", share=[1001]) == "ok"
assert code("tap", bridge="br0") == "denied"
print(1)`,
      1000,
    );
    const pid = (await act('code("take", name="n", owner=1000); print(os.getpid())', 1001)) as number;
    expect(pid).toBeGreaterThan(0);
    await waitUntil('the log', () => log.includes('"uid":1001'));
    const lines = log
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>)
      .filter(({ verb }) => verb !== undefined);
    const kinds = ['fifo read', 'character-device read-write'];
    expect(lines).toMatchObject([
      { uid: 1000, program: 'python3', verb: 'put', subject: 'n', received: 2, sent: 0, kinds, code: 'ok' },
      { uid: 1000, verb: 'tap', subject: 'br0', code: 'denied', sent: 0 },
      { uid: 1001, pid, verb: 'take', subject: 'n', owner: 1000, code: 'denied', sent: 0 },
    ]);
    expect(lines[0]!['startTicks']).toBeGreaterThan(0);
    expect(lines[0]!['time']).toBeDefined();
  });

  it('ends with the policy: SIGHUP counts for who is connected, and a policy that is wrong does not count', async () => {
    const path = join(folder, 'policy');
    const allow = (verbs: readonly string[]) => ({ version: 1, rules: [{ users: [0], verbs }] });
    await serve(allow(['list']));
    const client = connectBroker(native, socket);
    const reload = async (text: string, said: string): Promise<void> => {
      writeFileSync(path, text);
      child.kill('SIGHUP');
      const seen = log.length;
      await waitUntil(
        `'${said}'`,
        () => log.slice(seen - said.length).includes(said) || log.slice(seen).includes(said),
      );
    };
    await client.ask('list', {});
    await reload(JSON.stringify(allow(['put'])), 'as it is now');
    await expect(client.ask('list', {})).rejects.toMatchObject({ code: 'denied' });
    await reload('{"version":1,"rules":[{"users":[0],"verbs":["lst"]}]}', 'the old policy stays');
    expect(readFileSync(path, 'utf8')).toContain('lst');
    await client.ask('put', { name: 'n' }, [0]);
    await expect(client.ask('list', {})).rejects.toMatchObject({ code: 'denied' });
    client.close();
  });
});
