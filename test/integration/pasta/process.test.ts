/** Pasta as a program: its command's status, its messages, its files. */
import { readFileSync, statSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { HOST_NET } from '../../support/netns/host.ts';
import { createPastaHost, type PastaHost } from '../../support/pasta-host.ts';
import { listeningPorts, type Pasta, runInPasta, startPasta } from '../../support/pasta-rig.ts';
import { eitherWay, itIsOursOnly, pastaSuite } from '../../support/pasta-suite.ts';
import { pastaCommand } from '../../support/pasta-under-test.ts';

/** Options which a command line is refused with, and what the message says of them. */
const BAD_OPTIONS: [what: string, args: string[], message: RegExp][] = [
  ['an unknown option', ['--no-such-option'], /no-such-option/],
  ['a port that is none', ['-t', '70000'], /70000/],
  ['a range that runs backwards', ['-t', '20-10'], /20-10/],
  ['an address that is none', ['-a', '192.0.2.300'], /192\.0\.2\.300/],
  ['a netmask that is none', ['-n', '33'], /33/],
  ['a gateway that is none', ['-g', '192.0.2'], /192\.0\.2/],
  ['an MTU that is too small', ['-m', '67'], /67/],
  ['an MTU that is too large', ['-m', '70000'], /70000/],
  ['both families alone', ['-4', '-6'], /-4|ipv4-only/],
  ['an interface that is not there', ['-i', 'nosuch0'], /nosuch0/],
  ['a name that is too long for an interface', ['-I', 'abcdefghijklmnop'], /abcdefghijklmnop/],
  ['both quiet and debug', ['-q', '-d'], /-q|quiet/],
  ['a log file in a folder that is not there', ['-l', '/no/such/log'], /\/no\/such\/log/],
  ['a log size that is too small', ['--log-size', '0', '-l', '/tmp/passel-never-written'], /log-size.*0/],
  ['a resolver that is none', ['-D', '192.0.2.400'], /192\.0\.2\.400/],
  ['a forwarded resolver that is none', ['--dns-forward', 'x'], /x/],
  ['an address to listen on that the host does not have', ['-t', '192.0.2.99/5000'], /5000/],
];

pastaSuite('pasta as a program', () => {
  let host: PastaHost;
  let pasta: Pasta | undefined;
  beforeAll(async () => {
    host = await createPastaHost();
  });
  afterEach(async () => {
    await pasta?.close();
    pasta = undefined;
  });
  afterAll(() => host?.close());

  const run = (args: readonly string[], command: readonly string[], input = '') =>
    runInPasta(host, args, command, { check: false, input });

  it('ends with the status of its command', async () => {
    for (const status of [0, 1, 7, 255]) {
      expect(await run([], ['sh', '-c', `exit ${status}`])).toMatchObject({ status });
    }
  });

  it('ends as a shell would when a signal ended its command', async () => {
    for (const [signal, number] of [
      ['TERM', 15],
      ['KILL', 9],
    ] as const) {
      const { status } = await run([], ['sh', '-c', `kill -${signal} $$`]);
      expect(status).toBe(eitherWay('signalStatus', { ours: 128 + number, debian: 0 }));
    }
  });

  it('hands its command its arguments, its input and its output as they are', async () => {
    const result = await run(
      [],
      ['sh', '-c', 'cat; echo "$1|$2|$3"; echo problem >&2', 'sh', 'a b', '', '--help'],
      'input\n',
    );
    expect(result).toMatchObject({ status: 0, stdout: 'input\na b||--help\n' });
    expect(result.stderr).toContain('problem\n');
  });

  it('runs a shell without a command, and ends with its status', async () => {
    const { command, args } = pastaCommand();
    const result = await host.user.run(command, [...args, '--config-net'], {
      check: false,
      env: { SHELL: '/bin/sh', HOME: host.directory },
      input: 'id -u; exit 3\n',
    });
    expect(result).toMatchObject({ status: 3, stdout: '0\n' });
  });

  it('has a PID file while it runs: the number of a process, for its owner alone', async () => {
    const path = `${host.directory}/running.pid`;
    pasta = await startPasta(host, ['--config-net', '-P', path]);
    expect(readFileSync(path, 'utf8')).toMatch(/^\d+\n$/);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    const name = readFileSync(`/proc/${readFileSync(path, 'utf8').trim()}/cmdline`, 'latin1');
    expect(name).toContain(path);
  });

  it('says more with --debug and still more with --trace', async () => {
    const lines = async (...args: string[]): Promise<number> => {
      pasta = await startPasta(host, ['--config-net', '-f', ...args]);
      await pasta.guest.run('ping', ['-c', '3', '-i', '0.1', HOST_NET.remoteV4]);
      await pasta.close();
      return pasta.output().split('\n').length;
    };
    const plain = await lines();
    const debug = await lines('--debug');
    const trace = await lines('--trace');
    expect(debug).toBeGreaterThan(plain);
    expect(trace).toBeGreaterThan(debug + 2);
  });

  it('writes its log file and nothing else, from a first line that names it', async () => {
    const path = `${host.directory}/first.log`;
    pasta = await startPasta(host, ['--config-net', '-l', path]);
    await pasta.guest.run('ping', ['-c', '1', HOST_NET.remoteV4]);
    await pasta.close();
    expect(pasta.output()).toBe('');
    const log = readFileSync(path, 'utf8');
    expect(log).toMatch(/^(passel-)?pasta \S+.*: \/.* \(\d+\)\n/);
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  it('keeps its log file below --log-size: the first line stays, the oldest after it go', async () => {
    const path = `${host.directory}/small.log`;
    const limit = 65536;
    pasta = await startPasta(host, ['--config-net', '--trace', '-l', path, '--log-size', String(limit)]);
    const sizes: number[] = [];
    let written = 0;
    for (let i = 0; i < 12; i++) {
      await pasta.guest.run('ping', ['-q', '-c', '100', '-i', '0.002', HOST_NET.remoteV4]);
      const { size } = statSync(path);
      if (size < (sizes.at(-1) ?? 0)) written++;
      sizes.push(size);
    }
    await pasta.close();
    expect(Math.max(...sizes)).toBeLessThanOrEqual(limit);
    expect(Math.max(...sizes)).toBeGreaterThan(limit / 4);
    expect(written, `no size fell: ${sizes}`).toBeGreaterThan(0);
    const log = readFileSync(path, 'utf8');
    // Debian's adds here when it last cut the file.
    expect(log.slice(0, 200)).toMatch(/^(passel-)?pasta \S+.*: \/.* \(\d+\)( - log truncated at .*)?\n/);
    expect(log.slice(0, 2000)).not.toContain('Template interface');
  });

  for (const [what, args, message] of BAD_OPTIONS) {
    it(`refuses ${what}: a message, status 1`, async () => {
      const result = await run(args, ['echo', 'ran']);
      expect(result).toMatchObject({ status: 1, stdout: '' });
      expect(result.stderr).toMatch(message);
    });
  }

  itIsOursOnly(
    'leftBehind',
    'refuses, with its namespace made already: a message, status 1, nothing left',
    async () => {
      for (const args of [
        ['-T', '70000'],
        ['-P', '/no/such/pid'],
      ]) {
        const before = host.processes();
        const result = await run(args, ['echo', 'ran']);
        expect(result).toMatchObject({ status: 1, stdout: '' });
        expect(result.stderr).toContain(args[1]);
        expect(host.processes()).toEqual(before);
      }
    },
  );

  itIsOursOnly('noneAndPorts', 'takes none beside ports for no others', async () => {
    for (const args of [
      ['-t', 'none', '-t', '5000'],
      ['-t', '5000', '-t', 'none'],
    ]) {
      pasta = await startPasta(host, args);
      const ports = [...listeningPorts(host, 'tcp')];
      expect(ports).toEqual([5000]);
      await pasta.close();
    }
  });

  itIsOursOnly('strictMac', 'refuses a MAC address that is none: a message, status 1', async () => {
    for (const args of [
      ['-M', 'zz'],
      ['--ns-mac-addr', '1:2'],
    ]) {
      const result = await run(args, ['echo', 'ran']);
      expect(result).toMatchObject({ status: 1, stdout: '' });
      expect(result.stderr).toContain(args[1]);
    }
  });

  it('takes options in every form', async () => {
    const show = ['sh', '-c', 'ip -br addr show dev t0'];
    for (const args of [
      ['--config-net', '--ns-ifname=t0', '--address=10.1.2.3', '--netmask=16', '--ipv4-only', '--quiet'],
      ['--config-net', '--ns-ifname', 't0', '--address', '10.1.2.3', '--netmask', '16', '--ipv4-only', '--quiet'],
      ['--config-net', '-It0', '-a10.1.2.3', '-n16', '-4q'],
      ['--config-net', '-q4It0', '-a', '10.1.2.3', '-n', '16'],
    ]) {
      expect((await run(args, show)).stdout, args.join(' ')).toMatch(/^t0 .* 10\.1\.2\.3\/16 /);
    }
  });

  it('tells its version and its options', async () => {
    expect(await run(['--version'], [])).toMatchObject({ status: 0, stdout: expect.stringContaining('pasta') });
    const { stdout, stderr, status } = await run(['--help'], []);
    expect(status).toBe(eitherWay('helpStatus', { ours: 0, debian: 1 }));
    for (const option of ['--config-net', '--ns-ifname', '--tcp-ns', '--no-netns-quit', '--userns']) {
      expect(stdout + stderr).toContain(option);
    }
  });
});
