/** Namespaces that are there before pasta is: joined by process, path and name; what it does when they go away. */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { exchangeTcp, goodTcp } from '../../support/exchange.ts';
import { HOST_NET } from '../../support/netns/host.ts';
import { createPastaHost, type OwnGuest, type PastaHost } from '../../support/pasta-host.ts';
import { type JoinedPasta, joinPasta } from '../../support/pasta-rig.ts';
import { itIsOursOnly, PASTA_FAMILIES, pastaSuite } from '../../support/pasta-suite.ts';
import { pastaCommand } from '../../support/pasta-under-test.ts';
import { sleep } from '../../support/scripted-guest.ts';

pastaSuite('a namespace that is there', () => {
  let host: PastaHost;
  let guest: OwnGuest;
  let pasta: JoinedPasta | undefined;
  beforeAll(async () => {
    host = await createPastaHost();
    // Names of namespaces are for this host alone.
    await host.sh('mount -t tmpfs tmpfs /run; mkdir -m 755 /run/netns');
  });
  beforeEach(async () => {
    guest = await host.createGuest();
  });
  afterEach(async () => {
    await pasta?.stop();
    pasta = undefined;
    await guest?.close();
  });
  afterAll(() => host?.close());

  let serial = 0;
  /** Binds the guest's network namespace to a path of its own. */
  const bindPath = async (): Promise<string> => {
    const path = `${host.directory}/netns-${serial++}`;
    await host.sh(`touch ${path}; mount --bind /proc/${guest.pid}/ns/net ${path}`);
    return path;
  };
  const userns = (): string[] => ['--userns', `/proc/${guest.pid}/ns/user`];
  const addresses = async (): Promise<string> => (await guest.sh('ip -br addr show dev eth0')).stdout;

  it('is configured and served when the launcher ends, joined by the number of a process', async () => {
    pasta = await joinPasta(host, ['--config-net', '-t', '6001', String(guest.pid)]);
    expect(await addresses()).toContain(`${HOST_NET.hostV4}/24`);
    expect(await addresses()).toContain(`${HOST_NET.hostV6}/64`);
    for (const { own, remote } of PASTA_FAMILIES.slice(0, 1)) {
      const out = { in: guest, addr: remote, port: 5001 };
      expect(await exchangeTcp({ in: host.wan, addr: remote, port: 5001 }, out)).toMatchObject(goodTcp());
      const inward = { in: host.wan, addr: own, port: 6001, bind: remote };
      expect(await exchangeTcp({ in: guest, port: 6001 }, inward)).toMatchObject(goodTcp());
    }
  });

  it('is joined by paths', async () => {
    pasta = await joinPasta(host, ['--config-net', ...userns(), '--netns', `/proc/${guest.pid}/ns/net`]);
    expect(await addresses()).toContain(`${HOST_NET.hostV4}/24`);
  });

  it('is joined by name', async () => {
    await host.sh(`ip netns attach known ${guest.pid}`);
    pasta = await joinPasta(host, ['--config-net', ...userns(), '--netns', 'known']);
    expect(await addresses()).toContain(`${HOST_NET.hostV4}/24`);
    await host.sh('ip netns delete known');
    await pasta.ended();
  });

  it('is joined without a user namespace by one who is root in that already', async () => {
    const path = await bindPath();
    const inUserNamespace = {
      run: ((command, args, options) =>
        host.user.run(
          'nsenter',
          ['--preserve-credentials', '-t', String(guest.pid), '-U', '--', command, ...args],
          options,
        )) as OwnGuest['run'],
    };
    pasta = await joinPasta(host, ['--config-net', '--netns-only', '--netns', path], inUserNamespace);
    expect(await addresses()).toContain(`${HOST_NET.hostV4}/24`);
  });

  it('has its PID file, for its owner alone, with the number of the process that serves it', async () => {
    pasta = await joinPasta(host, ['--config-net', String(guest.pid)]);
    const { pid, pidFile } = pasta;
    expect(readFileSync(pidFile, 'utf8')).toBe(`${pid}\n`);
    expect(statSync(pidFile).mode & 0o777).toBe(0o600);
    expect(readFileSync(`/proc/${pid}/cmdline`, 'latin1')).toContain(pidFile);
  });

  it('is served by a pasta that says what it gave, unless it is to be quiet', async () => {
    pasta = await joinPasta(host, ['--config-net', String(guest.pid)]);
    expect(pasta.output).toContain(HOST_NET.hostV4);
    expect(pasta.output).toContain(HOST_NET.hostV6);
    expect(pasta.output).toContain(HOST_NET.gatewayLinkLocal);
    for (const option of ['--quiet', '-q']) {
      await pasta.stop();
      pasta = await joinPasta(host, ['--config-net', option, String(guest.pid)]);
      expect(pasta.output).toBe('');
    }
  });

  it('ends pasta when its path is removed', async () => {
    const path = await bindPath();
    pasta = await joinPasta(host, ['--config-net', ...userns(), '--netns', path]);
    await sleep(300);
    expect(pasta.running()).toBe(true);
    await host.sh(`umount -l ${path}; rm ${path}`);
    await pasta.ended();
  });

  it('does not end pasta when its path is removed, with --no-netns-quit', async () => {
    const path = await bindPath();
    pasta = await joinPasta(host, ['--config-net', ...userns(), '--netns', path, '--no-netns-quit']);
    await host.sh(`umount -l ${path}; rm ${path}`);
    await sleep(2_000);
    expect(pasta.running()).toBe(true);
    const { remoteV4 } = HOST_NET;
    const client = { in: guest, addr: remoteV4, port: 5001 };
    expect(await exchangeTcp({ in: host.wan, addr: remoteV4, port: 5001 }, client)).toMatchObject(goodTcp());
  });

  itIsOursOnly('pidGone', 'ends pasta when its processes are gone', async () => {
    pasta = await joinPasta(host, ['--config-net', String(guest.pid)]);
    await guest.close();
    await pasta.ended();
  });

  it('keeps what pasta gave it no longer than pasta: the interface goes with it', async () => {
    pasta = await joinPasta(host, ['--config-net', String(guest.pid)]);
    await pasta.stop();
    const { stdout } = await guest.sh('ip -br link');
    expect(stdout).not.toContain('eth0');
  });

  for (const [what, args, message] of [
    ['a path that is not there', ['--netns', '/no/such/path'], '/no/such/path'],
    ['a name that is not there', ['--netns', 'no-such-name'], 'no-such-name'],
    ['a process that is not there', ['4194303'], '4194303'],
    [
      'a user namespace that is not there',
      ['--userns', '/no/such/user', '--netns', '/proc/self/ns/net'],
      '/no/such/user',
    ],
    ['both a path and a process', ['--netns', '/proc/self/ns/net', '1'], ''],
    ['both a path and a command', ['--netns', '/proc/self/ns/net', '--', 'true'], ''],
  ] as const) {
    it(`that is ${what}: one message, status 1, nothing left`, async () => {
      const { command, args: own } = pastaCommand();
      const pidFile = `${host.directory}/failed.pid`;
      const before = host.processes().length;
      const result = await host.user.run(command, [...own, '-P', pidFile, ...args], { check: false });
      expect(result.status).toBe(1);
      expect(result.stderr).toContain(message);
      expect(result.stderr).not.toBe('');
      expect(existsSync(pidFile)).toBe(false);
      expect(host.processes()).toHaveLength(before);
    });
  }
});
