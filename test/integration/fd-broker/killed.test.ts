/** kill -9 of either side at every step: nothing that was confirmed is lost, and nothing is kept that nobody can have. */
import { closeSync, mkdtempSync, openSync, readdirSync, readlinkSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { connectBroker } from '../../../src/broker/client.ts';
import { loadNative } from '../../../src/sys/native.ts';
import { buildTool, PROJECT_ROOT } from '../../support/native-tools.ts';
import { needCommand, requireOrSkip } from '../../support/netns/capabilities.ts';
import { runProcess, waitForExit, waitUntil } from '../../support/netns/process.ts';
import { type Service, StandInManager } from '../../support/service-manager.ts';

const BROKER = join(PROJECT_ROOT, 'dist/helpers/passel-fd-broker.cjs');
const native = loadNative();

let folder: string;
let socket: string;
let manager: StandInManager;
let counter = 0;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'passel-killed-'));
  socket = join(folder, 'socket');
  manager = new StandInManager(join(folder, 'notify'));
});
afterEach(async () => {
  await manager.close();
  rmSync(folder, { recursive: true });
});

const command = (): string[] => [process.execPath, BROKER, 'serve', '--socket', socket];

function openText(text: string): number {
  const path = join(folder, `text-${counter++}`);
  writeFileSync(path, text);
  return openSync(path, 'r+');
}
function textOf(fd: number): string {
  const bytes = Buffer.alloc(100);
  return bytes.toString('utf8', 0, readSync(fd, bytes, 0, 100, 0));
}
/** Descriptors of the tests' files in the broker. */
function countKept({ child }: Service): number {
  const links = readdirSync(`/proc/${child.pid}/fd`).map((name) => {
    try {
      return readlinkSync(`/proc/${child.pid}/fd/${name}`);
    } catch {
      return '';
    }
  });
  return links.filter((link) => link.startsWith(join(folder, 'text-'))).length;
}
async function kill({ child }: Service): Promise<void> {
  child.kill('SIGKILL');
  await waitForExit(child);
}

/** By name: what it holds, with | between what it may hold. */
interface Expected {
  /** There for sure. */
  readonly kept: Map<string, string>;
  /** There or not. All other names are gone for sure. */
  readonly perhaps: Map<string, string>;
}

/** Does all that changes what is kept, until the broker is killed. */
async function useAll({ kept, perhaps }: Expected): Promise<void> {
  const client = connectBroker(native, socket);
  const doubt = (name: string, text: string): void => {
    kept.delete(name);
    perhaps.set(name, text);
  };
  const put = async (name: string, text: string, more: { uses?: number; replace?: boolean } = {}): Promise<void> => {
    const fd = openText(text);
    const old = kept.get(name);
    if (old === undefined) doubt(name, text);
    else kept.set(name, `${old}|${text}`);
    try {
      await client.ask('put', { name, ...more }, [fd]);
    } finally {
      closeSync(fd);
    }
    perhaps.delete(name);
    kept.set(name, text);
  };
  const get = async (verb: 'take' | 'copy', name: string): Promise<void> => {
    for (const fd of (await client.ask(verb, { name })).fds) fd.close();
    // It has arrived; that this is written down is sure when the next answer has come.
    await client.ask('list', {});
  };
  try {
    await put('new', 'new', { uses: 2 });
    await get('copy', 'new');
    doubt('new', 'new');
    await get('copy', 'new');
    perhaps.delete('new');
    await put('old', 'young', { replace: true });
    doubt('old', 'young');
    await get('take', 'old');
    perhaps.delete('old');
    await put('dropped', 'dropped');
    doubt('dropped', 'dropped');
    await client.ask('drop', { name: 'dropped' });
    perhaps.delete('dropped');
  } finally {
    client.close();
  }
}

/** The broker has what was confirmed to clients of the last one, and the manager holds nothing else. */
async function check(service: Service, { kept, perhaps }: Expected, at: string): Promise<void> {
  const client = connectBroker(native, socket);
  const names = ((await client.ask('list', {})).result['names'] as { name: string }[]).map(({ name }) => name);
  for (const name of kept.keys()) expect(names, `${at}: ${service.log()}`).toContain(name);
  for (const name of names) {
    const texts = kept.get(name) ?? perhaps.get(name) ?? 'gone';
    const { fds } = await client.ask('take', { name });
    expect(texts.split('|'), `${at}: ${name}`).toContain(textOf(fds[0]!.fd));
    fds[0]!.close();
  }
  // The journal.
  await waitUntil(`the manager to let all go, ${at}`, () => manager.stored.length === 1, 10_000);
  await waitUntil(`the broker to close all, ${at}`, () => countKept(service) === 0, 10_000);
  const fd = openText('old');
  await client.ask('put', { name: 'old' }, [fd]);
  closeSync(fd);
  client.close();
}

const suite = await requireOrSkip(needCommand('cc', 'gcc'), needCommand('python3', 'python3'));

suite('kill -9', () => {
  it('of the broker before each of its steps: the next one has what was confirmed', async () => {
    const counter = join(folder, 'kill-at');
    const arm = (steps: number): void => writeFileSync(counter, Int32Array.of(steps), { flag: 'r+' });
    writeFileSync(counter, Int32Array.of(0));
    const env = { LD_PRELOAD: buildTool('kill-at', ['-shared', '-fPIC']), KILL_AT: counter };
    const launch = (): Service => manager.launch(command(), { env });

    let expected: Expected = { kept: new Map(), perhaps: new Map() };
    let at = 'at the start';
    let service = launch();
    // Of the start: the journal, which is given to the manager. Of the requests: all that is told or written.
    for (let steps = 1; at !== 'at the end'; steps++) {
      await manager.waitFor('READY=1', service);
      await check(service, expected, at);
      expected = { kept: new Map([['old', 'old']]), perhaps: new Map() };
      arm(steps);
      const finished = await useAll(expected).then(
        () => true,
        () => false,
      );
      at = finished ? 'at the end' : `step ${steps}`;
      if (finished) {
        arm(0);
        await kill(service);
        // Otherwise it was not killed where it matters.
        expect(steps).toBeGreaterThan(24);
      }
      expect(await waitForExit(service.child), `${at}: ${service.log()}`).toBe(137);
      arm(finished ? 1 : 0);
      service = launch();
    }
    for (let steps = 1; steps <= 3; steps++) {
      arm(steps);
      if (steps > 1) service = launch();
      expect(await waitForExit(service.child), `start, step ${steps}: ${service.log()}`).toBe(137);
    }
    arm(0);
    service = launch();
    await manager.waitFor('READY=1', service);
    await check(service, expected, 'killed while it started');
  });

  it('of a client before each of its steps: the broker is as before', async () => {
    const service = await manager.start(command());
    const client = connectBroker(native, socket);
    const count = async (): Promise<number> => {
      await client.ask('list', {});
      return readdirSync(`/proc/${service.child.pid}/fd`).length;
    };
    const script = `
import json, os, signal, socket, sys
left = int(sys.argv[1])
def step():
    global left
    left -= 1
    if left == 0: os.kill(os.getpid(), signal.SIGKILL)
broker = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
step()
broker.connect(${JSON.stringify(socket)})
def ask(verb, fds=(), **members):
    step()
    socket.send_fds(broker, [json.dumps({"version": 1, "id": 1, "verb": verb, "fds": len(fds), **members}).encode()], list(fds))
    step()
    data, got, _, _ = socket.recv_fds(broker, 65536, 253)
    assert "result" in json.loads(data), data
    return got
pipes = [fd for _ in range(40) for fd in os.pipe()]
ask("put", pipes, name="pipes", dropOnExit=True)
ask("put", pipes[:1], name="pipe", dropOnExit=True)
ask("copy", name="pipes")
ask("socketpair")
ask("take", name="pipes")
ask("drop", name="pipe")
step()
`;
    const base = await count();
    let steps = 0;
    for (let status = 137; status === 137; ) {
      steps++;
      const result = await runProcess('/usr/bin/python3', ['-c', script, String(steps)], { check: false });
      status = result.status;
      expect([0, 137], result.stderr).toContain(status);
      // What it gave ends with it, too.
      await waitUntil(`the broker to have closed all (step ${steps})`, async () => (await count()) === base, 10_000);
      expect((await client.ask('list', {})).result['total']).toBe(0);
      await waitUntil('the manager to let all go', () => manager.stored.length === 1, 10_000);
    }
    // connect, six requests, their answers, and the end.
    expect(steps).toBe(1 + 6 + 6 + 1 + 1);
    client.close();
  });
});
