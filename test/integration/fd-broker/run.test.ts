/** `passel-fd-broker run` with ordinary commands: what they inherit, and what is left when they cannot be had. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { connectBroker, type FdBroker } from '../../../src/broker/client.ts';
import { loadNative } from '../../../src/sys/native.ts';
import { PROJECT_ROOT } from '../../support/native-tools.ts';
import { stopChild, waitUntil } from '../../support/netns/process.ts';

const PROGRAM = join(PROJECT_ROOT, 'dist/helpers/passel-fd-broker');

let folder: string;
const running: ChildProcess[] = [];
const servers: Server[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'passel-run-'));
});
afterEach(async () => {
  await Promise.all(running.splice(0).map((child) => stopChild(child)));
  for (const server of servers.splice(0)) server.close();
  rmSync(folder, { recursive: true });
});

interface Settings {
  readonly env?: NodeJS.ProcessEnv;
  /** Of the shell that starts it. */
  readonly before?: string;
  readonly redirections?: string;
}

/** Runs `passel-fd-broker run` from a shell that it replaces. */
function run(args: readonly string[], { env = {}, before = '', redirections = '' }: Settings = {}) {
  const line = `${before} exec ${PROGRAM} run "$@" ${redirections}`;
  const { pid, status, stdout, stderr } = spawnSync('sh', ['-c', line, 'sh', ...args], {
    encoding: 'utf8',
    env: { ...process.env, ...env },
    timeout: 60_000,
  });
  return { pid, status, stdout, stderr };
}

/** A broker, and a client of it: between bind(2) and listen(2) its socket is there and refuses connections. */
async function startBroker(socket: string): Promise<FdBroker> {
  running.push(spawn(PROGRAM, ['serve', '--socket', socket, '--quiet'], { stdio: 'ignore' }));
  let client: FdBroker | undefined;
  const connect = (): boolean => {
    try {
      client = connectBroker(loadNative(), socket);
    } catch {
      // Not yet.
    }
    return client !== undefined;
  };
  await waitUntil('the broker', connect, 20_000);
  return client!;
}

/** Prints the numbers of its descriptors, its own for the folder left out. */
const LIST_FDS =
  'import os; d = os.listdir("/proc/self/fd"); print(*sorted(int(f) for f in d if os.path.exists(f"/proc/self/fd/{f}")))';
/** What the socket of that number is. */
const describeSocket = (reference: string): string =>
  `import socket, os; s = socket.socket(fileno=int("${reference}")); print(s.family.name, s.type.name, s.getsockopt(1, 30), os.get_blocking(s.fileno()), s.getsockname())`;
const python = (script: string): string[] => ['--', '/usr/bin/python3', '-c', script];

describe('passel-fd-broker run', () => {
  it('replaces both forms of a name by the number, as often as they occur', () => {
    const path = join(folder, 'text');
    writeFileSync(path, 'the text');
    const { status, stdout, stderr } = run([
      ...['--fd', `in=file:${path}`, '--fd', `out_2=file:${folder}/new,create`, '--'],
      ...[
        'sh',
        '-c',
        'cat <&@in@; echo " $*" >&{fd:out_2}; echo " $*"',
        'sh',
        '@in@:{fd:in}',
        'a@b',
        '{fd}',
        '@out_2@',
      ],
    ]);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toBe('the text 3:3 a@b {fd} 4\n');
    expect(readFileSync(join(folder, 'new'), 'utf8')).toBe(' 3:3 a@b {fd} 4\n');
  });

  it('hands on what it opened and what its caller gave, and nothing of its own', () => {
    const redirections = '3</dev/null 5</dev/null 9</dev/null';
    const given = spawnSync('sh', ['-c', `exec /usr/bin/python3 -c '${LIST_FDS}' ${redirections}`], {
      encoding: 'utf8',
    });
    const numbers = given.stdout.trim().split(' ').map(Number);
    expect(numbers).toEqual(expect.arrayContaining([0, 1, 2, 3, 5, 9]));
    const own: number[] = [];
    for (let fd = 3; own.length < 2; fd++) if (!numbers.includes(fd)) own.push(fd);
    const script = `${LIST_FDS}; print("@a@ @b@")`;
    const { stdout } = run(['--fd', 'a=file:/dev/null', '--fd', 'b=file:/dev/null,rw', ...python(script)], {
      redirections,
    });
    const [all, mine] = stdout.trim().split('\n');
    expect(mine).toBe(own.join(' '));
    expect(all).toBe([...numbers, ...own].sort((a, b) => a - b).join(' '));
  });

  it('keeps pid, exit status, signals, limit and environment', () => {
    const script = `import os, resource, signal, sys
print(os.getpid(), resource.getrlimit(resource.RLIMIT_NOFILE)[0], "PASSEL_INHERITED" in os.environ)
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("SigIgn")])
sys.exit(7 + 0 * @a@)`;
    const { pid, status, stdout } = run(['--fd', 'a=file:/dev/null', '--', '/usr/bin/python3', '-S', '-c', script], {
      before: 'trap "" HUP; ulimit -Sn 99;',
    });
    expect(status).toBe(7);
    const [first, second] = stdout.trim().split('\n');
    expect(first).toBe(`${pid} 99 False`);
    expect(BigInt(`0x${/[0-9a-f]{16}/.exec(second!)![0]}`) & 1n).toBe(1n);
  });

  it.each([
    ['read', 'ro', 'r'],
    ['read and written', 'rw', 'rw'],
    ['appended to', 'append', 'a'],
    ['made', 'create', 'rw'],
  ])('opens a file to be %s', (_what, mode, can) => {
    const path = join(folder, mode);
    if (mode === 'ro' || mode === 'rw') writeFileSync(path, '');
    const { stdout, status } = run([
      '--fd',
      `a=file:${path},${mode}`,
      ...python('import fcntl; print(fcntl.fcntl(@a@, 3) & 0o2003)'),
    ]);
    expect({ status, flags: Number(stdout) }).toEqual({ status: 0, flags: { r: 0, rw: 2, a: 0o2001 }[can] });
  });

  it('listens and connects, by sockets that block', async () => {
    const path = join(folder, 'listener');
    const listening = await new Promise<string>((resolve) => {
      const server = createServer();
      servers.push(server);
      server.listen(join(folder, 'server'), () => resolve(join(folder, 'server')));
    });
    const show = (spec: string): string => run(['--fd', `s=${spec}`, ...python(describeSocket('@s@'))]).stdout.trim();
    // Bound to another name: it got its own when it listened already, so that nobody can be refused in between.
    expect(show(`unix-listen:${path}`)).toMatch(/^AF_UNIX SOCK_STREAM 1 True \/.*\/\.\d+$/);
    expect(existsSync(path)).toBe(true);
    expect(readdirSync(folder).sort()).toEqual(['listener', 'server']);
    expect(show(`unix-listen:${path}`)).toMatch(/^AF_UNIX SOCK_STREAM 1 True \/.*\/\.\d+$/);
    expect(show(`unix-listen:@passel-run-${process.pid}`)).toBe(
      `AF_UNIX SOCK_STREAM 1 True b'\\x00passel-run-${process.pid}'`,
    );
    expect(show(`unix-connect:${listening}`)).toBe('AF_UNIX SOCK_STREAM 0 True');
    expect(show(`passt:${listening}`)).toBe('AF_UNIX SOCK_STREAM 0 True');
    expect(show('tcp-listen:127.0.0.1:0')).toMatch(/^AF_INET SOCK_STREAM 1 True \('127\.0\.0\.1', \d+\)$/);
    expect(show('tcp-listen:[::1]:0')).toMatch(/^AF_INET6 SOCK_STREAM 1 True \('::1', \d+, 0, 0\)$/);
    expect(show('udp:127.0.0.1:0')).toMatch(/^AF_INET SOCK_DGRAM 0 True \('127\.0\.0\.1', \d+\)$/);
  }, 60_000);

  it('connects by TCP and UDP to where it is told', () => {
    const script = `import socket, subprocess, sys
tcp = socket.create_server(("127.0.0.1", 0)); udp = socket.socket(type=socket.SOCK_DGRAM); udp.bind(("127.0.0.1", 0))
inner = 'import socket; a = socket.socket(fileno=@t@); b = socket.socket(fileno=@u@); print(a.getpeername()[1], b.getpeername()[1])'
out = subprocess.run([sys.argv[1], "run", "--fd", "t=tcp-connect:127.0.0.1:%d" % tcp.getsockname()[1],
  "--fd", "u=udp:127.0.0.1:0,to=127.0.0.1:%d" % udp.getsockname()[1], "--", sys.executable, "-c", inner], capture_output=True, text=True)
print(out.stdout == "%d %d\\n" % (tcp.getsockname()[1], udp.getsockname()[1]), out.stderr)`;
    expect(spawnSync('/usr/bin/python3', ['-c', script, PROGRAM], { encoding: 'utf8' }).stdout).toBe('True \n');
  });

  it('takes or copies what the broker keeps', async () => {
    const socket = join(folder, 'broker');
    const client = await startBroker(socket);
    const path = join(folder, 'kept');
    writeFileSync(path, 'what was kept');
    const { openSync, closeSync } = await import('node:fs');
    const fd = openSync(path, 'r');
    await client.ask('put', { name: 'kept' }, [fd]);
    closeSync(fd);
    const read = (spec: string) =>
      run(['--fd', `k=${spec}`, ...python('import os; print(os.pread(@k@, 99, 0).decode())')], {
        env: { PASSEL_BROKER: socket },
      });
    expect(read('broker:kept,copy').stdout).toBe('what was kept\n');
    expect(read('broker:kept').stdout).toBe('what was kept\n');
    const gone = read('broker:kept');
    expect(gone.status).toBe(1);
    expect(gone.stderr).toContain("--fd k: cannot open 'broker:kept'");
    client.close();
  }, 60_000);

  it('hands on what its caller opened under the number that it has, and refuses what was not open', () => {
    const path = join(folder, 'given');
    writeFileSync(path, 'given');
    const redirections = `7<${path}`;
    const read = python('import os; print(@g@, os.read(@g@, 99).decode())');
    expect(run(['--fd', 'g=7', '--fd', 'n=file:/dev/null', ...read], { redirections }).stdout).toBe('7 given\n');
    // Node's own descriptors have numbers such as these.
    for (const fd of [10, 12, 14]) {
      const { status, stderr } = run(['--fd', `g=${fd}`, ...read], { redirections });
      expect({ status, stderr }).toEqual({
        status: 1,
        stderr: `passel-fd-broker: --fd g: cannot open '${fd}': it was not open when this program started\n`,
      });
    }
  });

  it('gives all descriptors of one name, with colons between', async () => {
    const socket = join(folder, 'broker');
    const client = await startBroker(socket);
    await client.ask('put', { name: 'two' }, [0, 1]);
    const { stdout } = run([
      '--broker-socket',
      socket,
      '--fd',
      'k=broker:two',
      '--fd',
      'f=file:/dev/null',
      '--',
      'echo',
      '@k@',
      '@f@',
    ]);
    // What is taken comes last, and needs a number that nobody had counted on.
    expect(stdout).toMatch(/^(\d+):(?!\1)(\d+) (?!\1|\2)\d+\n$/);
    client.close();
  }, 60_000);

  it('does what the examples of the manual page say', () => {
    const page = readFileSync(join(PROJECT_ROOT, 'man/passel-fd-broker.8'), 'utf8');
    const section = page.slice(page.indexOf('.SH EXAMPLES'), page.indexOf('.SH EXIT STATUS'));
    const lines = [...section.matchAll(/^\.nf\n(.*)\n\.fi$/gm)].map((match) =>
      match[1]!
        .replaceAll('\\-', '-')
        .replace('/tmp/example', `${folder}/example`)
        .replace('passel-fd-broker', PROGRAM),
    );
    expect(lines).toHaveLength(2);
    const [first, second] = lines.map((line) => spawnSync('sh', ['-c', line], { encoding: 'utf8', timeout: 60_000 }));
    expect(first).toMatchObject({ status: 0, stderr: '' });
    expect(readFileSync(join(folder, 'example.log'), 'utf8')).toBe('started\n');
    expect(second).toMatchObject({ status: 0, stdout: '1\n', stderr: '' });
  }, 60_000);

  it('warns of a name that nothing refers to, and does not open it', () => {
    const { status, stdout, stderr } = run(['--fd', `a=unix-listen:${folder}/socket`, '--', 'echo', 'x']);
    expect({ status, stdout }).toEqual({ status: 0, stdout: 'x\n' });
    expect(stderr).toBe('passel-fd-broker: no argument has @a@: --fd a is not opened\n');
    expect(readdirSync(folder)).toEqual([]);
  });

  it('removes the sockets that it made when something later fails, and says what', () => {
    const broken = join(folder, 'broken');
    writeFileSync(broken, '#!/no/such/interpreter\n');
    chmodSync(broken, 0o755);
    const listen = ['--fd', `a=unix-listen:${folder}/socket`];
    const cases: [args: string[], status: number, message: string][] = [
      [[...listen, '--', broken, '@a@'], 127, `cannot run '${broken}'`],
      [
        [...listen, '--fd', 'b=file:/no/such', '--', 'echo', '@a@@b@'],
        1,
        "--fd b: cannot open 'file:/no/such': ENOENT",
      ],
      [[...listen, '--fd', 'b=tcp-connect:127.0.0.1:1', '--', 'echo', '@a@', '@b@'], 1, 'ECONNREFUSED'],
      [
        [...listen, '--monitor', '/no/such/qmp', '--', 'echo', '@a@'],
        1,
        "--monitor: cannot listen on '/no/such/qmp': ENOENT",
      ],
    ];
    for (const [args, status, message] of cases) {
      const result = run(args);
      expect(result.stderr).toContain(message);
      expect(result.status).toBe(status);
      expect(readdirSync(folder)).toEqual(['broken']);
    }
  }, 60_000);

  it('says what is wrong with a command line', () => {
    const cases: [args: string[], status: number, message: string][] = [
      [[], 1, 'COMMAND is missing'],
      [['--', 'no-such-command-x'], 127, "cannot run 'no-such-command-x': ENOENT"],
      [['--', folder], 127, `cannot run '${folder}'`],
      [['--', 'echo', '@a@'], 1, "unexpected argument '@a@': expected --fd a="],
      [['--fd', 'b=file:x', '--', 'echo', '{fd:a}'], 1, "unexpected argument '@a@': expected one of b"],
      [
        ['--fd', 'b=file:x', '--fd', 'b=file:y', '--', 'echo', '@b@'],
        1,
        "'b=file:y' is not valid: expected a name that no other",
      ],
      [['--fd', '1=file:x', '--', 'echo'], 1, "--fd: '1=file:x' is not valid: expected NAME=SPEC"],
      [['--fd', 'a=other:x', '--', 'echo'], 1, 'expected file:…, unix-listen:…'],
      [['--fd', 'a=tcp-listen:localhost:1', '--', 'echo'], 1, 'expected tcp-listen:ADDRESS:PORT, a numeric address'],
    ];
    for (const [args, status, message] of cases) {
      const result = run(args);
      expect(result.stderr).toContain(message);
      expect(result.status).toBe(status);
    }
    expect(run(['--help'])).toMatchObject({ status: 0, stderr: '' });
  }, 60_000);

  it('gives no number beyond the limit of open files', () => {
    const names = 'abcdefghij'.split('');
    const args = [
      ...names.flatMap((name) => ['--fd', `${name}=file:/dev/null`]),
      '--',
      'echo',
      ...names.map((name) => `@${name}@`),
    ];
    expect(run(args, { before: 'ulimit -Sn 10;' })).toMatchObject({
      status: 1,
      stdout: '',
      stderr: expect.stringMatching(
        /^passel-fd-broker: descriptor 1\d cannot be had: the limit of open files is 10\n$/,
      ),
    });
  });
});
