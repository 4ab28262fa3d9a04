/**
 * `passel run -- COMMAND`: with a stand-in for QEMU, what the command gets and how it ends; with a real guest, that the
 * network is there. Always that nothing is left behind.
 */
import { chmod, mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Agent, startAgent } from '../support/netns/agent.ts';
import { needNamespaces, needVeth, requireOrSkip } from '../support/netns/capabilities.ts';
import { createHost, HOST_NET, type Host } from '../support/netns/host.ts';
import { type RunResult, stopChild, waitForExit, waitUntil } from '../support/netns/namespace.ts';
import { bootGuest, needGuest } from '../support/qemu-guest/guest.ts';
import { fetchAndHash, GET_DHCPV4_LEASE, GET_SLAAC_ADDRESS, parseEnvironment } from './guest-commands.ts';

const PASSEL = fileURLToPath(new URL('../../dist/helpers/passel.cjs', import.meta.url));

/** A host in which temporary and run-time files of a command can be seen. */
interface Workplace {
  readonly host: Host;
  /** Runs `passel run` with these arguments to its end. */
  run(args: readonly string[], input?: string): Promise<RunResult>;
  /** Command line of `passel run` inside the host. */
  line(args: readonly string[]): [string, string[]];
  /** Makes an executable shell script. */
  writeScript(name: string, body: string): Promise<string>;
  /** Processes in the host and files in its folders that were not there at first. */
  listLeftovers(): Promise<string[]>;
}

async function createWorkplace(): Promise<Workplace> {
  const host = await createHost();
  const temporary = join(host.directory, 'tmp');
  await mkdir(temporary);
  await chmod(temporary, 0o777);
  const arguments_ = (args: readonly string[]): string[] => [
    `TMPDIR=${temporary}`,
    `XDG_RUNTIME_DIR=${temporary}`,
    process.execPath,
    PASSEL,
    'run',
    ...args,
  ];
  return {
    host,
    run: (args, input = '') => host.run('env', arguments_(args), { check: false, input }),
    line: (args) => host.enter('env', arguments_(args)),
    async writeScript(name, body) {
      const path = join(host.directory, name);
      await writeFile(path, `#!/bin/sh\n${body}\n`);
      await chmod(path, 0o755);
      return path;
    },
    async listLeftovers() {
      const { stdout } = await host.run('cat', ['/proc/net/unix']);
      const sockets = stdout.split('\n').filter((line) => /\/|@/.test(line));
      const processes = host.processes().map((pid) => `process ${pid}`);
      return [...processes, ...(await readdir(temporary)), ...sockets];
    },
  };
}

const describeRun = await requireOrSkip(needNamespaces, needVeth);

describeRun('passel run with a stand-in for QEMU', () => {
  let place: Workplace;
  let fakeQemu: string;

  beforeAll(async () => {
    place = await createWorkplace();
    fakeQemu = await place.writeScript('qemu-system-x86_64', 'echo "$@"');
  });

  afterAll(async () => {
    await place?.host.close();
  });

  it("ends with the command's exit status", async () => {
    const script = await place.writeScript('seven', 'exit 7');
    expect((await place.run(['--', script])).status).toBe(7);
  });

  it("ends with 128 and the signal's number when a signal ended the command", async () => {
    const script = await place.writeScript('killed', 'kill -KILL $$');
    expect((await place.run(['--', script])).status).toBe(137);
  });

  it('adds a netdev on an inherited socket and a card to a QEMU command without network', async () => {
    const { stdout, status } = await place.run(['--', fakeQemu, '-m', '64']);
    expect(status).toBe(0);
    expect(stdout).toMatch(
      /^-m 64 -netdev stream,id=(\S+),server=off,addr\.type=fd,addr\.str=3 -device virtio-net-pci,netdev=\1/,
    );
  });

  it('leaves a QEMU command with a network of its own as it is', async () => {
    for (const args of [
      ['-nic', 'none'],
      ['-netdev', 'user,id=u0', '-device', 'e1000,netdev=u0'],
    ]) {
      const { stdout } = await place.run(['--', fakeQemu, ...args]);
      expect(stdout.trim()).toBe(args.join(' '));
    }
  });

  it('gives the command its standard input, output and error', async () => {
    const script = await place.writeScript('streams', 'echo oops >&2; exec cat');
    expect(await place.run(['--', script], 'text')).toMatchObject({ stdout: 'text', stderr: 'oops\n', status: 0 });
  });

  it('passes signals on and lets the command decide', async () => {
    const script = await place.writeScript(
      'trap',
      `trap 'echo bye; exit 9' TERM; echo up; while :; do sleep 0.05; done`,
    );
    const child = place.host.spawn('env', [process.execPath, PASSEL, 'run', '--', script]);
    let output = '';
    child.stdout?.on('data', (chunk: Buffer) => {
      output += chunk.toString();
    });
    await waitUntil('the command to run', () => output.includes('up'));
    child.kill('SIGTERM');
    expect(await waitForExit(child)).toBe(9);
    await waitUntil('its last words', () => output.includes('bye'));
  });

  it('says which command it could not run', async () => {
    const { status, stderr } = await place.run(['--', '/nowhere/qemu-system-x86_64']);
    expect(status).toBe(127);
    expect(stderr).toContain('/nowhere/qemu-system-x86_64');
  });

  it('refuses to start without a command', async () => {
    expect((await place.run([])).status).toBe(1);
  });

  it('leaves no process, file or socket behind', async () => {
    expect(await place.listLeftovers()).toEqual([]);
  });
});

const describeGuest = await requireOrSkip(needNamespaces, needVeth, ...needGuest('cloud'));

describeGuest('passel run with a real guest', () => {
  let place: Workplace;
  let onWan: Agent;

  beforeAll(async () => {
    place = await createWorkplace();
    onWan = await startAgent(place.host.wan);
    await onWan.serveHttp({ host: HOST_NET.remoteV4, port: 8080 });
    await onWan.serveHttp({ host: HOST_NET.remoteV6, port: 8080 });
  });

  afterAll(async () => {
    await place?.host.close();
  });

  const boot = (args: readonly string[]) => {
    const [command, rest] = place.line([...args, '--']);
    return bootGuest({ launcher: [command, ...rest] });
  };

  it('connects a QEMU command that says nothing about networks, and forwards to it', async () => {
    const guest = await boot(['-t', '10001']);
    try {
      await guest.check(GET_DHCPV4_LEASE);
      await guest.check(GET_SLAAC_ADDRESS);
      const expected = await onWan.hashPattern({ lengthBytes: 1_000_000, seed: 1 });
      for (const address of [HOST_NET.remoteV4, `[${HOST_NET.remoteV6}]`]) {
        expect(await guest.check(fetchAndHash(`http://${address}:8080/bytes/1000000/1`))).toBe(expected);
      }
      await guest.start(`socat TCP4-LISTEN:10001,reuseaddr,fork SYSTEM:'echo hello'`);
      await guest.check('until netstat -ltn | grep -q ":10001 "; do sleep 0.1; done');
      const answer = await onWan.exchangeTcp({ host: HOST_NET.hostV4, port: 10001 });
      expect(answer.text).toBe('hello\n');
    } finally {
      await guest.stop();
    }
    expect(guest.child.exitCode).toBe(0);
    expect(await place.listLeftovers()).toEqual([]);
  });

  it('takes over the network of -nic user, with its options', async () => {
    const server = place.host.spawn('socat', [
      'TCP4-LISTEN:8081,bind=127.0.0.1,reuseaddr,fork',
      'SYSTEM:echo loopback',
    ]);
    const [command, rest] = place.line(['--replace-user-net', '--']);
    const nic = 'user,model=virtio-net-pci,mac=52:54:00:70:61:73,net=192.168.76.0/24,hostname=vm,hostfwd=tcp::5555-:23';
    const guest = await bootGuest({ launcher: [command, ...rest], extraArgs: ['-nic', nic] });
    try {
      await guest.check(`${GET_DHCPV4_LEASE} -O hostname`);
      const lease = parseEnvironment(await guest.check('cat /tmp/dhcp4.env'));
      expect(lease).toMatchObject({ ip: '192.168.76.15', router: '192.168.76.2', dns: '192.168.76.3', hostname: 'vm' });
      expect(await guest.check('cat /sys/class/net/eth0/address')).toBe('52:54:00:70:61:73');
      expect(await guest.check('until socat -u TCP4:192.168.76.2:8081 -; do sleep 0.1; done')).toBe('loopback');
      await guest.start(`socat TCP4-LISTEN:23,reuseaddr,fork SYSTEM:'echo hello'`);
      await guest.check('until netstat -ltn | grep -q ":23 "; do sleep 0.1; done');
      expect((await onWan.exchangeTcp({ host: HOST_NET.hostV4, port: 5555 })).text).toBe('hello\n');
    } finally {
      await guest.stop();
      await stopChild(server);
    }
    expect(guest.child.exitCode).toBe(0);
  });

  it('ends QEMU and itself on SIGTERM', async () => {
    const guest = await boot([]);
    try {
      guest.child.kill('SIGTERM');
      // QEMU's own status for a request to end.
      expect(await waitForExit(guest.child)).toBe(0);
    } finally {
      await guest.stop();
    }
    expect(await place.listLeftovers()).toEqual([]);
  });
});
