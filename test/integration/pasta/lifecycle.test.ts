/** How passel-pasta's processes begin and end, what they may do, and what they do on a terminal. */
import type { ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import {
  needCommand,
  needNamespaces,
  needRoot,
  needTun,
  needVeth,
  requireOrSkip,
} from '../../support/netns/capabilities.ts';
import { createHost, type Host } from '../../support/netns/host.ts';
import { stopChild, waitForExit, waitUntil } from '../../support/netns/namespace.ts';
import { findParts, isAlive, listDescendants, PASTA, statusOf } from './lifecycle-rig.ts';

const NET_BIND_SERVICE = '0000000000000400';
const suite = await requireOrSkip(needNamespaces, needVeth, needTun, needCommand('script', 'bsdutils'));
const rootSuite = await requireOrSkip(needRoot, needNamespaces, needVeth, needTun);

let host: Host;
let child: ChildProcess | undefined;
beforeAll(async () => {
  host = await createHost();
});
afterEach(async () => {
  if (child !== undefined) await stopChild(child);
  child = undefined;
});
afterAll(() => host?.close());

const [node, script] = PASTA;
const run = (args: readonly string[], input = '') => host.run(node, [script, ...args], { check: false, input });
function start(args: readonly string[]): ChildProcess {
  child = host.spawn(node, [script, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  return child;
}

suite('the processes of passel-pasta', () => {
  for (const [how, signal, status] of [
    ['is told to end', 'SIGTERM', 0],
    ['is told to quit', 'SIGQUIT', 0],
    ['is killed', 'SIGKILL', 137],
  ] as const) {
    it(`are all gone when it ${how}, the command included`, async () => {
      const pidFile = `${host.directory}/${signal}.pid`;
      const pasta = start(['--config-net', '--pid', pidFile, '--', 'sh', '-c', 'trap "" TERM; sleep 100 & wait']);
      const { command } = await findParts(pasta);
      await waitUntil('the command to start its own', () => listDescendants(command).length > 0);
      const all = listDescendants(pasta.pid!);
      expect(all.length).toBeGreaterThanOrEqual(4);
      pasta.kill(signal);
      expect(await waitForExit(pasta)).toBe(status);
      await waitUntil('its processes to end', () => !all.some(isAlive));
      expect(existsSync(pidFile)).toBe(signal === 'SIGKILL');
    });
  }

  it('end with a message when the agent is killed', async () => {
    const pasta = start(['--', 'sleep', '100']);
    const { agent, init, command } = await findParts(pasta);
    let said = '';
    pasta.stderr?.on('data', (bytes: Buffer) => {
      said += bytes.toString();
    });
    process.kill(agent, 'SIGKILL');
    expect(await waitForExit(pasta)).toBe(1);
    await waitUntil('all of them to end', () => ![init, command].some(isAlive));
    expect(said).toContain('the process in the namespace was ended');
  });

  it('have no rights that they do not need, while the command has all in its namespaces', async () => {
    const pasta = start(['--config-net', '--', 'sleep', '100']);
    const { agent, init, command } = await findParts(pasta);
    await waitUntil('the sandbox', () => statusOf(pasta.pid!, 'Seccomp') === '2');
    for (const pid of [pasta.pid!, agent]) {
      expect(statusOf(pid, 'NoNewPrivs')).toBe('1');
      expect(statusOf(pid, 'Seccomp')).toBe('2');
      expect(statusOf(pid, 'CapInh')).toMatch(/^0+$/);
    }
    expect(statusOf(agent, 'CapEff')).toBe(NET_BIND_SERVICE);
    expect(statusOf(agent, 'CapBnd')).toBe(NET_BIND_SERVICE);
    expect(statusOf(command, 'NoNewPrivs')).toBe('0');
    expect(statusOf(command, 'Seccomp')).toBe('0');
    expect(statusOf(command, 'CapEff')).toMatch(/^0*1f+$/);
    expect(statusOf(init, 'NSpid')).toMatch(/\s1$/);
  });

  it('of the command that outlive it are adopted, and ended with it', async () => {
    const result = await run(['--', 'sh', '-c', 'sh -c "sleep 0.2 & sleep 100 &"; sleep 0.6; ps -o stat=,args= -e']);
    expect(result.stdout).toContain('sleep 100');
    expect(result.stdout).not.toMatch(/^Z/m);
    expect(result.status).toBe(0);
  });

  it('wait for the network: the command finds it configured', async () => {
    const result = await run(['--config-net', '-I', 'net0', '--', 'cat', '/proc/net/route', '/proc/net/if_inet6']);
    expect(result.stdout).toMatch(/^net0\s+00000000/m);
    expect(result.stdout).toMatch(/^20010db8.*net0$/m);
    // No address is tentative (flag 40).
    expect(result.stdout).not.toMatch(/ 40 +net0$/m);
  });
});

suite('passel-pasta on a terminal', () => {
  /** Runs a shell line on a terminal of its own and types: text, each after what must have been seen. */
  async function onTerminal(line: string, typed: readonly (readonly [seen: string, text: string])[]): Promise<string> {
    child = host.spawn('script', ['-qec', line, '/dev/null'], {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, SHELL: '/bin/sh', PS1: '# ', ENV: '', PASTA: PASTA.join(' ') },
    });
    let output = '';
    child.stdout?.on('data', (bytes: Buffer) => {
      output += bytes.toString();
    });
    let from = 0;
    for (const [seen, text] of typed) {
      await waitUntil(`'${seen}'`, () => output.indexOf(seen, from) >= 0, 15_000);
      from = output.length;
      child.stdin?.write(text);
    }
    await waitForExit(child);
    return output;
  }

  it('leaves an interrupt to the command', async () => {
    const output = await onTerminal(`trap : INT; $PASTA -- sh -c 'echo on; exec sleep 100'; echo "status $?"`, [
      ['on', '\x03'],
    ]);
    expect(output).toContain('status 130');
  });

  it('gives a shell the terminal, its job control and its exit status, and gives the terminal back', async () => {
    const output = await onTerminal('$PASTA; echo "status $?"; read line; echo "got $line"', [
      ['# ', 'sh -c \'echo o""n; exec sleep 100\'\n'],
      ['\non', '\x1a'],
      ['Stopped', 'fg\n'],
      ['exec sleep', '\x03'],
      ['# ', 'exit 5\n'],
      ['status 5', 'back\n'],
    ]);
    expect(output).not.toContain('tty');
    expect(output).toContain('got back');
  });
});

suite('a namespace that cannot be had', () => {
  const refusals: [what: string, args: string[], message: RegExp, status?: number][] = [
    ['of a process that is not there', ['4194303'], /cannot find process 4194303/],
    ['of a name that is not there', ['--netns', 'no-such'], /\/run\/netns\/no-such: ENOENT/],
    ['of a path that is no namespace', ['--netns', '/etc/passwd'], /cannot join the network namespace: \/etc\/passwd/],
    ['by a user namespace that is none', ['--userns', '/etc/passwd', '--netns', '/proc/self/ns/net'], /user namespace/],
    ['named twice', ['--netns', 'a', '12'], /exclude each other/],
    ['for a command that is not there', ['no-such-command'], /cannot run 'no-such-command'/, 127],
    ['for a command that is no program', ['/etc/passwd'], /cannot run '\/etc\/passwd'/, 126],
    ['with an interface of a name that is taken', ['-I', 'lo', 'true'], /cannot make the tap device: lo/],
  ];
  it.each(refusals)('%s: one line, nothing left', async (_what, args, message, status = 1) => {
    const pidFile = `${host.directory}/refused.pid`;
    const before = host.processes();
    const result = await run(['--pid', pidFile, ...args]);
    expect(result).toMatchObject({ status, stdout: '' });
    expect(result.stderr).toMatch(message);
    expect(result.stderr).toMatch(/^[^\n]+\n$/);
    expect(existsSync(pidFile)).toBe(false);
    expect(host.processes()).toEqual(before);
  });

  it('because the system allows no user namespaces: says so', async () => {
    const line = `echo 0 > /proc/sys/user/max_user_namespaces; exec ${PASTA.join(' ')} true`;
    const result = await host.run('unshare', ['-U', '-r', 'sh', '-c', line], { check: false });
    expect(result.status).toBe(1);
    expect(result.stderr).toMatch(/cannot make a user namespace.*\n.*max_user_namespaces/);
  });

  it('because its process ends meanwhile: joined and ended, or refused in one line', async () => {
    const before = host.processes();
    for (let i = 0; i < 6; i++) {
      const line = `unshare -U -r -n sleep 0.${2 * i + 1} & exec ${PASTA.join(' ')} --quiet --config-net $!`;
      const result = await host.run('sh', ['-c', line], { check: false });
      if (result.status !== 0) expect(result).toMatchObject({ status: 1, stderr: expect.stringMatching(/^[^\n]+\n$/) });
    }
    await waitUntil('all of them to end', () => host.processes().filter((pid) => !before.includes(pid)).length === 0);
  });
});

rootSuite('root', () => {
  it('becomes nobody, the command and the agent too', async () => {
    const pasta = start(['--config-net', '--', 'sleep', '100']);
    const { agent, command } = await findParts(pasta);
    await waitUntil('the sandbox', () => statusOf(pasta.pid!, 'Seccomp') === '2');
    for (const pid of [pasta.pid!, agent, command]) expect(statusOf(pid, 'Uid')).toBe('65534\t65534\t65534\t65534');
  });

  it('joins a namespace of its own, which nobody could not', async () => {
    const holder = host.spawn('unshare', ['-n', 'sh', '-c', 'echo in; exec sleep 100'], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    await new Promise((resolve) => holder.stdout?.once('data', resolve));
    const pidFile = `${host.directory}/root.pid`;
    expect(await run(['--config-net', '--quiet', '--pid', pidFile, String(holder.pid)])).toMatchObject({
      status: 0,
      stderr: '',
    });
    const shown = await host.run('nsenter', ['-t', String(holder.pid), '-n', 'ip', '-br', 'addr', 'show', 'eth0']);
    expect(shown.stdout).toContain('192.0.2.15/24');
    await stopChild(holder);
    await waitUntil('passel-pasta to end', () => host.processes().length === 0);
  });

  it('cannot be imitated: another user is refused a namespace of root, in one line', async () => {
    const holder = host.spawn('unshare', ['-n', 'sh', '-c', 'echo in; exec sleep 100'], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    await new Promise((resolve) => holder.stdout?.once('data', resolve));
    const as = ['--reuid=65534', '--regid=65534', '--clear-groups', ...PASTA];
    const byPid = await host.run('setpriv', [...as, String(holder.pid)], { check: false });
    expect(byPid).toMatchObject({ status: 1 });
    expect(byPid.stderr).toMatch(/^passel-pasta: cannot open the user namespace: .*EACCES[^\n]*\n$/);
    await stopChild(holder);
  });
});
