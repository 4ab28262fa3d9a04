/** Where the messages of a stack go: standard error, the system's logger, a log file. */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { needNamespaces, needVeth, requireOrSkip } from '../../support/netns/capabilities.ts';
import { createHost, type Host } from '../../support/netns/host.ts';
import { type RunResult, waitUntil } from '../../support/netns/namespace.ts';
import { itExceptOnDebian } from '../../support/rig-suite.ts';
import { ScriptedGuest } from '../../support/scripted-guest.ts';
import { describeProcess } from '../../support/stack-process.ts';
import { isDebianStack, stackCommand } from '../../support/stack-under-test.ts';
import { openSystemLogger, type SystemLogger } from '../../support/system-logger.ts';

/** In the mount namespace of the host: a /dev whose log is the socket at $1/syslog. */
const SET_UP_DEV = `
  mkdir $1/dev
  for node in null zero full random urandom tty; do touch $1/dev/$node; mount --bind /dev/$node $1/dev/$node; done
  ln -s $1/syslog $1/dev/log
  mount --rbind $1/dev /dev`;

const describeSuite = await requireOrSkip(needNamespaces, needVeth);

describeSuite('the messages of a stack', () => {
  let host: Host;
  let systemLogger: SystemLogger;
  let serial = 0;
  let path = '';
  let pid = 0;
  beforeAll(async () => {
    host = await createHost();
    await host.run('sh', ['-e', '-c', SET_UP_DEV, 'sh', host.directory]);
    systemLogger = openSystemLogger(`${host.directory}/syslog`);
  });
  beforeEach(() => {
    path = `${host.directory}/stack-${serial++}`;
    pid = 0;
    systemLogger.messages.length = 0;
  });
  afterEach(() => end());
  afterAll(async () => {
    systemLogger?.close();
    await host?.close();
  });

  /** Starts a stack in the background. */
  async function start(...options: string[]): Promise<RunResult> {
    const { command, args } = stackCommand();
    // As nobody, Debian's could not write its PID file.
    const started = await host.run(command, [
      ...args,
      '--socket',
      path,
      '--pid',
      `${path}.pid`,
      '--runas',
      '0',
      ...options,
    ]);
    pid = Number(readFileSync(`${path}.pid`, 'utf8'));
    return started;
  }

  async function end(): Promise<void> {
    if (pid === 0) return;
    process.kill(pid, 'SIGTERM');
    await waitUntil('the stack to end', () => !existsSync(`/proc/${pid}`));
    pid = 0;
    await systemLogger.settle();
  }

  async function talk(times: number): Promise<void> {
    const guest = await ScriptedGuest.connect(path);
    for (let i = 0; i < times; i++) await guest.checkAlive();
    await guest.close();
  }

  it('go to standard error until it is ready, and to the system logger before and after that', async () => {
    const { stderr } = await start();
    expect(stderr).toContain(path);
    await talk(1);
    await end();
    const texts = systemLogger.messages.join('\n');
    expect(texts).toContain(path);
    if (isDebianStack()) return;
    expect(texts).toMatch(/guest connected/);
    expect(texts).toMatch(/SIGTERM: stopping$/);
    for (const message of systemLogger.messages) {
      expect(message).toMatch(/^<(28|30)>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d passel-passt\[\d+\]: [^\n]+$/);
    }
    // Every line that the starter saw is there too.
    for (const line of stderr.trimEnd().split('\n')) expect(texts).toContain(`]: ${line}`);
    expect(stderr).not.toContain('guest connected');
  });

  itExceptOnDebian(
    'hears of the start all the same',
    'are for the system logger warnings and errors only, with --quiet',
    async () => {
      const { stderr } = await start('--quiet');
      expect(stderr).toBe('');
      await talk(1);
      await end();
      expect(systemLogger.messages).toEqual([]);
    },
  );

  itExceptOnDebian('logs there until its guest comes', 'are kept from the system logger with --debug', async () => {
    await start('--debug');
    await talk(1);
    await end();
    expect(systemLogger.messages).toEqual([]);
  });

  itExceptOnDebian('has no such option', 'are JSON there too, with --log-format json', async () => {
    await start('--log-format', 'json');
    await end();
    const objects = systemLogger.messages.map((message) => JSON.parse(message.replace(/^.*?\]: /, '')) as object);
    expect(objects.at(-1)).toMatchObject({ level: 'info', name: 'passel-passt', msg: 'SIGTERM: stopping' });
  });

  it('go to the log file and not to the system logger', async () => {
    await start('--log-file', `${path}.log`);
    await talk(1);
    await end();
    const [first, ...rest] = readFileSync(`${path}.log`, 'utf8').trimEnd().split('\n');
    expect(first).toMatch(/^(passel-)?passt .*: \/.*passt.* \(\d+\)$/);
    expect(rest.join('\n')).toContain(path);
    expect(statSync(`${path}.log`).mode & 0o777).toBe(0o600);
    expect(systemLogger.messages).toEqual([]);
  });

  itExceptOnDebian(
    'does not write frames there',
    'stay below --log-size, first line kept, oldest lines gone',
    async () => {
      await start('--trace', '--log-file', `${path}.log`, '--log-size', '40960');
      await talk(300);
      const text = readFileSync(`${path}.log`, 'utf8');
      expect(text.length).toBeLessThanOrEqual(40_960);
      expect(text.length).toBeGreaterThan(10_000);
      const lines = text.trimEnd().split('\n');
      expect(lines[0]).toMatch(new RegExp(`^passel-passt \\d+\\.\\d+\\.\\d+: /.* \\(${pid}\\)$`));
      expect(text).not.toContain('listening on');
      for (const line of lines.slice(1)) expect(line).toMatch(/^\d+\.\d{4}: /);
    },
  );

  itExceptOnDebian('not tried', 'that the disk has no room for are lost, and the guest is served on', async () => {
    await host.sh(`mkdir ${path}.disk; mount -t tmpfs -o size=16k,mode=0777 tmpfs ${path}.disk`);
    await start('--trace', '--log-file', `${path}.disk/log`);
    await talk(300);
    expect(describeProcess(pid).fdCount()).toBeGreaterThan(5);
    await talk(1);
  });

  it('are on standard error for a start that fails, log file or not', async () => {
    const { command, args } = stackCommand();
    const failed = await host.run(
      command,
      [...args, '--socket', path, '--log-file', `${path}.log`, '--runas', '0', '-t', '70000'],
      { check: false },
    );
    expect(failed.status).toBe(1);
    expect(failed.stderr).toContain('70000');
  });
});
