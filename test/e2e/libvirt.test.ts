/**
 * libvirt itself, QEMU driver and TCG, with `passt` on its PATH being the stack under test: domains with
 * `<interface type='user'><backend type='passt'/>` start, are reached, and leave nothing behind.
 */
import { cpSync, existsSync, mkdirSync, readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { type Libvirt, type LibvirtMode, startLibvirt } from '../support/libvirt/daemon.ts';
import { type DomainFile, type ExpectedGuest, writeDomain } from '../support/libvirt/domain.ts';
import { needLibvirt } from '../support/libvirt/packages.ts';
import { PROJECT_ROOT } from '../support/native-tools.ts';
import { type Agent, startAgent } from '../support/netns/agent.ts';
import { findCommand, needNamespaces, needRoot, needVeth, requireOrSkip } from '../support/netns/capabilities.ts';
import { createHost, HOST_NET, type Host } from '../support/netns/host.ts';
import { waitUntil } from '../support/netns/namespace.ts';
import { runProcess } from '../support/netns/process.ts';
import type { CommandChannel } from '../support/qemu-guest/control.ts';
import { needGuest } from '../support/qemu-guest/guest.ts';
import { itExceptOnDebian } from '../support/rig-suite.ts';
import { isDebianStack, stackCommand } from '../support/stack-under-test.ts';
import { GET_DHCPV4_LEASE, parseEnvironment } from './guest-commands.ts';

const GUEST_MAC = '52:54:00:70:61:73';
const TRANSFER_BYTES = 4 * 1024 * 1024;

const NEEDS = [needNamespaces, needVeth, ...needGuest('cloud'), needLibvirt];
const SUITES = {
  // It sets groups, which no ordinary user may, not even in a user namespace.
  system: await requireOrSkip(...NEEDS, needRoot),
  session: await requireOrSkip(...NEEDS),
} satisfies Record<LibvirtMode, unknown>;

/** Makes a folder in which `passt` is the stack under test, for users who may not look into this tree. */
async function makePrograms(directory: string): Promise<string> {
  const programs = join(directory, 'programs');
  if (isDebianStack()) {
    mkdirSync(programs);
    symlinkSync(findCommand(stackCommand().command), join(programs, 'passt'));
    return programs;
  }
  cpSync(join(PROJECT_ROOT, 'dist'), join(directory, 'dist'), { recursive: true });
  await runProcess(process.execPath, [join(directory, 'dist/helpers/passel.cjs'), 'install-links', programs]);
  return programs;
}

function describeInterface(backend: string, more: string): string {
  return `<interface type='user'>
      <backend type='passt'${backend}/>
      <mac address='${GUEST_MAC}'/>
      <model type='virtio'/>
      ${more}
    </interface>`;
}

const FORWARDS = `
      <portForward proto='tcp'><range start='2022' to='22'/></portForward>
      <portForward proto='udp' address='127.0.0.1'><range start='5000' end='5003'/></portForward>`;

for (const mode of ['system', 'session'] as const) {
  SUITES[mode](`libvirt, qemu:///${mode}, with the passt of ${stackCommand().name}`, () => {
    let host: Host;
    let onHost: Agent;
    let libvirt: Libvirt;
    let expected: ExpectedGuest | undefined;
    let running: DomainFile | undefined;

    beforeAll(async () => {
      host = await createHost();
      onHost = await startAgent(host);
      libvirt = await startLibvirt(host, { mode, programs: await makePrograms(host.directory) });
    });
    afterEach(async () => {
      if (running !== undefined) await libvirt.virsh(['destroy', running.name], { check: false });
      running = undefined;
      expected?.close();
    });
    afterAll(async () => {
      await libvirt?.stop();
      await host?.close();
    });

    async function define(name: string, interfaceXml: string): Promise<DomainFile> {
      const domain = await writeDomain(host.directory, name, interfaceXml);
      await libvirt.virsh(['define', domain.path]);
      return domain;
    }

    async function start(domain: DomainFile): Promise<CommandChannel> {
      expected = await domain.expectGuest();
      await libvirt.virsh(['start', domain.name]);
      running = domain;
      return expected.ready;
    }

    async function check(guest: CommandChannel, script: string): Promise<string> {
      const { status, stdout } = await guest.exec(script, 30_000);
      expect(status, stdout).toBe(0);
      return stdout.trim();
    }

    const listPasstFiles = async (): Promise<string[]> =>
      (await host.run('ls', [libvirt.passtFolder])).stdout.split('\n').filter((name) => name !== '');

    /** PID of the stack that libvirt knows. */
    async function readPid(): Promise<number> {
      const { stdout } = await host.sh(`cat ${libvirt.passtFolder}/*-passt.pid`);
      return Number(stdout);
    }

    async function expectNothingLeft(pid: number): Promise<void> {
      await waitUntil('the stack to be gone', () => !existsSync(`/proc/${pid}`));
      await waitUntil('its files to be gone', async () => (await listPasstFiles()).length === 0);
      expect(await host.sh('grep passt /proc/net/unix || true')).toMatchObject({ stdout: '' });
    }

    it('starts a domain that gets its lease, is reached by its forwards, and is destroyed', async () => {
      const domain = await define('plain', describeInterface('', FORWARDS));
      const guest = await start(domain);
      const pid = await readPid();
      const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
      expect(line).toEqual(
        expect.arrayContaining(['--one-off', '--socket', '--pid', '--tcp-ports', '2022:22', '127.0.0.1/5000-5003']),
      );
      expect((await listPasstFiles()).map((name) => name.replace(/^\d+-/, '')).sort()).toEqual([
        'plain-net0-passt.pid',
        'plain-net0.socket',
      ]);

      await check(guest, GET_DHCPV4_LEASE);
      expect(parseEnvironment(await check(guest, 'cat /tmp/dhcp4.env'))).toMatchObject({
        ip: HOST_NET.hostV4,
        router: HOST_NET.gatewayV4,
        dns: HOST_NET.remoteV4,
        mtu: '65520',
      });

      await check(
        guest,
        `(socat TCP4-LISTEN:22,reuseaddr,fork EXEC:cat &
          socat -b 65536 UDP4-RECVFROM:5003,fork EXEC:cat &) > /dev/null 2>&1
         until netstat -ltun | grep -q ":22 " && netstat -lun | grep -q ":5003 "; do sleep 0.1; done`,
      );
      const echoed = await onHost.exchangeTcp({ host: '127.0.0.1', port: 2022, lengthBytes: TRANSFER_BYTES, seed: 7 });
      expect(echoed).toMatchObject({ receivedBytes: TRANSFER_BYTES, receivedHash: echoed.sentHash });
      const answer = await onHost.exchangeUdp({ host: '127.0.0.1', port: 5003, lengthBytes: 1000 });
      expect(answer).toMatchObject({ same: true, from: '127.0.0.1' });

      await libvirt.virsh(['destroy', domain.name]);
      await expectNothingLeft(pid);
    });

    if (mode === 'system') {
      it('ends the stack with a domain that powers itself off', async () => {
        const domain = await define('brief', describeInterface('', ''));
        const guest = await start(domain);
        const pid = await readPid();
        guest.exec('poweroff -f', 5_000).catch(() => {});
        const state = async (): Promise<string> => (await libvirt.virsh(['domstate', domain.name])).stdout.trim();
        await waitUntil('the domain to be off', async () => (await state()) === 'shut off', 30_000, 100);
        await expectNothingLeft(pid);
      });

      it('passes on addresses, host interface and log file', async () => {
        const logFile = join(host.directory, 'libvirt-state/run/passt.log');
        await host.sh('chmod 0777 libvirt-state/run', { cwd: host.directory });
        const domain = await define(
          'detailed',
          describeInterface(
            ` logFile='${logFile}'`,
            `<source dev='${HOST_NET.interfaceName}'/>
           <ip family='ipv4' address='192.0.2.77' prefix='25'/><ip family='ipv6' address='2001:db8:1::77'/>`,
          ),
        );
        const guest = await start(domain);
        const pid = await readPid();
        await check(guest, GET_DHCPV4_LEASE);
        expect(parseEnvironment(await check(guest, 'cat /tmp/dhcp4.env'))).toMatchObject({
          ip: '192.0.2.77',
          mask: '25',
        });
        expect(readFileSync(logFile, 'utf8').split('\n')[0]).toMatch(
          new RegExp(`^(passel-)?passt .*: /.* \\(${isDebianStack() ? '\\d+' : pid}\\)$`),
        );
        await libvirt.virsh(['destroy', domain.name]);
        await expectNothingLeft(pid);
      });
    }

    const refusal = 'says why a domain cannot start when a port is taken, starts no QEMU and leaves nothing';
    itExceptOnDebian('goes on without the port', refusal, async () => {
      const domain = await define('refused', describeInterface('', FORWARDS));
      const { port } = await onHost.serveHttp({ host: '0.0.0.0', port: 2022 });
      expect(port).toBe(2022);
      expected = await domain.expectGuest();
      const { status, stderr } = await libvirt.virsh(['start', domain.name], { check: false });
      expect(status).toBe(1);
      expect(stderr).toContain('unexpected exit status 1');
      expect(stderr).toContain('passel-passt: --tcp-ports: cannot listen on *:2022/tcp: EADDRINUSE');
      expect(await listPasstFiles()).toEqual([]);
      expect((await libvirt.virsh(['list', '--state-running', '--name'])).stdout.trim()).toBe('');
    });
  });
}
