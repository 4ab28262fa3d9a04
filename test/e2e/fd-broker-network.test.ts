/**
 * Networks of the broker for an ordinary user: a guest that is started on one by `passel-fd-broker run`, cards on others plugged into it by `qmp`,
 * and what is left of them afterwards, which is nothing.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { PROJECT_ROOT } from '../support/native-tools.ts';
import { type Agent, startAgent } from '../support/netns/agent.ts';
import { needCommand, needNamespaces, needRoot, needVeth, requireOrSkip } from '../support/netns/capabilities.ts';
import { createHost, HOST_NET, type Host } from '../support/netns/host.ts';
import type { RunResult } from '../support/netns/namespace.ts';
import { stopChild, waitForExit, waitUntil } from '../support/netns/process.ts';
import { bootGuest, type Guest, needGuest } from '../support/qemu-guest/guest.ts';
import { fetchAndHash, GET_DHCPV4_LEASE, parseEnvironment } from './guest-commands.ts';
import { type ListeningStack, startListeningStack } from './listening-stack.ts';

const BROKER = join(PROJECT_ROOT, 'dist/helpers/passel-fd-broker');
const USER = ['--reuid=1000', '--regid=1000', '--clear-groups', '--inh-caps=-all', '--bounding-set=-all'];
const BYTES = 256 * 1024;

/** Two stacks at a time, as different users, one that says what is wrong with it, and one that somebody else has started. */
const policyOf = (shared: string): object => ({
  version: 1,
  networks: {
    lan: { passt: ['--no-map-gw'], runAs: 'client' },
    plain: { passt: ['--dns', HOST_NET.remoteV4] },
    broken: { passt: ['-i', 'no-such0'] },
    shared: { socket: shared },
  },
  rules: [
    {
      users: [1000],
      verbs: ['netdev'],
      networks: ['lan', 'plain', 'broken', 'shared'],
      quota: { names: 1, fds: 1, networks: 2 },
    },
  ],
});

const suite = await requireOrSkip(
  needNamespaces,
  needVeth,
  needRoot,
  needCommand('setpriv', 'util-linux'),
  ...needGuest('cloud'),
);

suite("a user without rights on the broker's networks", () => {
  let host: Host;
  let onWan: Agent;
  let broker: ChildProcess;
  let log = '';
  let socket: string;
  let monitor: string;
  let guest: Guest;
  let stack: ListeningStack;

  const asUser = (...args: string[]): Promise<RunResult> =>
    host.run('setpriv', [...USER, 'env', `PASSEL_BROKER=${socket}`, BROKER, ...args], {
      check: false,
      timeoutMs: 90_000,
    });
  /** User ids of the stacks that the broker has started, in order. */
  const listStacks = (): number[] =>
    host
      .processes()
      .filter((pid) => readProc(pid, 'cmdline').includes('passel-network-'))
      .map((pid) => Number(/^Uid:\t(\d+)/m.exec(readProc(pid, 'status'))?.[1]))
      .sort((a, b) => a - b);
  const readProc = (pid: number, file: string): string => {
    try {
      return readFileSync(`/proc/${pid}/${file}`, 'latin1');
    } catch {
      return '';
    }
  };

  beforeAll(async () => {
    host = await createHost();
    onWan = await startAgent(host.wan);
    await onWan.serveHttp({ host: '0.0.0.0', port: 8080 });
    stack = await startListeningStack(host, []);
    socket = join(host.directory, 'broker');
    monitor = join(host.directory, 'monitor');
    const policy = join(host.directory, 'policy');
    writeFileSync(policy, JSON.stringify(policyOf(stack.socketPath)), { mode: 0o600 });
    broker = host.spawn(BROKER, ['serve', '--socket', socket, '--policy', policy], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    broker.stderr!.on('data', (chunk: Buffer) => {
      log += chunk.toString();
    });
    await waitUntil('the broker', () => log.includes('serving on'), 20_000);
    const run = ['run', '--broker-socket', socket, '--fd', 'net=netdev:lan', '--'];
    const [command, args] = host.enter('setpriv', [...USER, BROKER, ...run]);
    guest = await bootGuest({
      launcher: [command, ...args],
      netdev: 'stream,id=n0,addr.type=fd,addr.str=@net@',
      forEverybody: true,
      extraArgs: ['-qmp', `unix:${monitor},server=on,wait=off`],
    });
  }, 180_000);
  afterAll(async () => {
    await guest?.stop();
    await stack?.stop();
    if (broker !== undefined) await stopChild(broker);
    await host?.close();
  });

  it('has a guest with a lease that moves data, on a stack of the same user', async () => {
    expect(listStacks()).toEqual([1000]);
    await guest.check('ip link set eth0 up');
    await guest.check(GET_DHCPV4_LEASE);
    expect(parseEnvironment(await guest.check('cat /tmp/dhcp4.env'))).toMatchObject({ ip: HOST_NET.hostV4 });
    const expected = await onWan.hashPattern({ lengthBytes: BYTES, seed: 4 });
    expect(await guest.check(fetchAndHash(`http://${HOST_NET.remoteV4}:8080/bytes/${BYTES}/4`))).toBe(expected);
    expect(log).toMatch(/user 1000, process \d+ .*: netdev 'lan': 0 in, 1 out/);
  });

  it.each([
    ['that is started for it, as nobody', 'plain', [1000, 65_534]],
    ['that is there', 'shared', [1000]],
  ])(
    'plugs in a card on a network %s, and out',
    async (_what, network, users) => {
      const plugged = await asUser('qmp', monitor, 'hotplug-nic', 'hot0', '--fd', `netdev:${network}`);
      expect(plugged).toEqual({ status: 0, stdout: '', stderr: '' });
      expect(listStacks()).toEqual(users);
      await guest.check('until [ -e /sys/class/net/eth1 ]; do sleep 0.1; done; ip link set eth1 up');
      await guest.check(GET_DHCPV4_LEASE.replace('eth0', 'eth1'));
      expect(parseEnvironment(await guest.check('cat /tmp/dhcp4.env'))).toMatchObject({ ip: HOST_NET.hostV4 });
      if (network === 'plain') {
        const more = await asUser('run', '--fd', 'n=netdev:plain', '--', 'echo', '@n@');
        expect(more).toMatchObject({ status: 1, stdout: '' });
      }
      expect(await asUser('qmp', monitor, 'hot-unplug', 'hot0', '--timeout', '60')).toMatchObject({ status: 0 });
      await waitUntil('the stack to end', () => listStacks().length === 1, 20_000);
      await guest.check('while [ -e /sys/class/net/eth1 ]; do sleep 0.1; done');
      expect(stack.running()).toBe(true);
    },
    120_000,
  );

  it('is told why a network cannot be had', async () => {
    const refuse = async (network: string): Promise<string> => {
      const { status, stderr } = await asUser('run', '--fd', `n=netdev:${network}`, '--', 'echo', '@n@');
      expect(status).toBe(1);
      return stderr;
    };
    expect(await refuse('broken')).toContain(
      "--fd n: cannot open 'netdev:broken': network 'broken': passel-passt: -i: no network interface is called 'no-such0'",
    );
    expect(await refuse('other')).toContain("user 1000 has no network 'other'");
    expect(listStacks()).toEqual([1000]);
  });

  it('may have only so many at a time, and leaves none behind when its programs are killed', async () => {
    // A second one is held until it is killed; a third one is asked for by somebody who does not wait for the answer.
    const [command, args] = host.enter('setpriv', [
      ...[...USER, BROKER, 'run', '--broker-socket', socket, '--fd', 'n=netdev:plain', '--'],
      ...['sh', '-c', 'echo ready; exec sleep 600', '@n@'],
    ]);
    const holder = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    await new Promise((resolve) => holder.stdout!.once('data', resolve));
    expect(listStacks()).toEqual([1000, 65_534]);
    const third = await asUser('run', '--fd', 'n=netdev:plain', '--', 'echo', '@n@');
    expect(third.stderr).toContain("cannot open 'netdev:plain': user 1000 may have 2 networks at a time");
    for (const pid of host.processes())
      if (readProc(pid, 'cmdline').split('\0')[1] === '600') process.kill(pid, 'SIGKILL');
    await waitForExit(holder);
    await waitUntil('its stack to end', () => listStacks().length === 1, 20_000);
    const hasty = `
import json, os, signal, socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect(${JSON.stringify(socket)})
s.send(json.dumps({"version": 1, "id": 1, "verb": "netdev", "fds": 0, "network": "plain"}).encode())
os.kill(os.getpid(), signal.SIGKILL)`;
    for (let i = 0; i < 3; i++) {
      expect(await host.run('setpriv', [...USER, '/usr/bin/python3', '-c', hasty], { check: false })).toMatchObject({
        status: 137,
      });
    }
    // Were one left, or counted for ever, this one would be refused.
    await waitUntil(
      'room for another',
      async () => (await asUser('run', '--fd', 'n=netdev:plain', '--', 'echo', '@n@')).status === 0,
      30_000,
    );
    await waitUntil('all but the first to end', () => listStacks().length === 1, 20_000);
  }, 120_000);

  it('keeps its network when the broker is killed, and the network ends with the guest', async () => {
    const [pid] = host.processes().filter((each) => readProc(each, 'cmdline').includes('\0serve\0'));
    process.kill(pid!, 'SIGKILL');
    await waitForExit(broker);
    // The other cards have taken the default route with them.
    await guest.check(GET_DHCPV4_LEASE);
    const expected = await onWan.hashPattern({ lengthBytes: BYTES, seed: 5 });
    expect(await guest.check(fetchAndHash(`http://${HOST_NET.remoteV4}:8080/bytes/${BYTES}/5`))).toBe(expected);
    await guest.stop();
    await waitUntil('the stack to end', () => listStacks().length === 0, 20_000);
  }, 60_000);
});
