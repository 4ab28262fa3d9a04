/**
 * The recipes of passel(1), each run as the page has it, in an isolated host. What stands in for a user's own is the image, the accelerator, and
 * libvirt's daemon.
 */
import { copyFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { startLibvirt } from '../support/libvirt/daemon.ts';
import { writeDomain } from '../support/libvirt/domain.ts';
import { needLibvirt } from '../support/libvirt/packages.ts';
import { readExamples } from '../support/manual.ts';
import { type Agent, startAgent } from '../support/netns/agent.ts';
import { needCommand, needNamespaces, needTun, needVeth, requireOrSkip } from '../support/netns/capabilities.ts';
import { createHost, HOST_NET, type Host } from '../support/netns/host.ts';
import { waitUntil } from '../support/netns/namespace.ts';
import { needGuest } from '../support/qemu-guest/guest.ts';
import {
  createRecipePlace,
  type RecipeGuest,
  type RecipePlace,
  talkTo,
  writeProgram,
} from '../support/recipe-place.ts';
import { isDebianStack } from '../support/stack-under-test.ts';
import { GET_DHCPV4_LEASE } from './guest-commands.ts';

const RECIPES = readExamples('passel.1', 'RECIPES');
const TIMEOUT_MS = 180_000;
/** Of a machine whose firmware looks for its kernel on the network. */
const BOOT_TIMEOUT_MS = 150_000;

/** Recipes that have a test. */
const tried: string[] = [];

/** A recipe's examples. */
function recipe(title: string): readonly string[] {
  tried.push(title);
  return RECIPES.get(title) ?? [];
}

const serve = (port: number, text: string): string => `
  (socat TCP4-LISTEN:${port},reuseaddr,fork SYSTEM:'echo ${text}' &) > /dev/null 2>&1
  until netstat -ltn | grep -q ":${port} "; do sleep 0.1; done`;

const needs = [needNamespaces, needVeth, needCommand('socat', 'socat'), ...needGuest('cloud')];
const suite = isDebianStack() ? describe.skip : await requireOrSkip(...needs);
const libvirtSuite = isDebianStack() ? describe.skip : await requireOrSkip(...needs, needLibvirt);
const pastaSuite = isDebianStack() ? describe.skip : await requireOrSkip(needNamespaces, needVeth, needTun);

let host: Host;
let onHost: Agent;
let place: RecipePlace;

/** For each recipe a host of its own, so that nothing of the one before is there. */
function useHost(): void {
  beforeAll(async () => {
    host = await createHost();
    onHost = await startAgent(host);
    place = await createRecipePlace(host);
  });
  afterAll(() => host?.close());
}

/** Starts a recipe; what it says is shown when the test fails. */
function start(script: string): void {
  const { output } = place.start(script);
  said = output;
}
let said: () => string = () => '';
afterEach(({ task }) => {
  if (task.result?.state === 'fail') process.stderr.write(`the recipe said:\n${said()}\n`);
});

const lease = (guest: RecipeGuest): Promise<string> =>
  guest.check(`${GET_DHCPV4_LEASE} > /tmp/udhcpc.log 2>&1 && ip -4 -o addr show dev eth0 | sed 's/.*inet //;s/ .*//'`);

const connect = async (address: string, port: number): Promise<string> =>
  (await onHost.exchangeTcp({ host: address, port })).text;

suite('passel(1), One machine', () => {
  useHost();
  const [script] = recipe('One machine');

  it(
    'has a network, and its port 22 is reached',
    async () => {
      const guest = await place.makeImage('disk');
      const onWan = await startAgent(host.wan);
      await onWan.serveHttp({ host: HOST_NET.remoteV4, port: 8080 });
      start(script!);
      expect(await lease(guest)).toBe(`${HOST_NET.hostV4}/${HOST_NET.prefixV4}`);
      expect(await guest.check(`wget -q -O - http://${HOST_NET.remoteV4}:8080/from`)).toBe(HOST_NET.hostV4);
      await guest.check(serve(22, 'secure shell'));
      expect(await connect('127.0.0.1', 2222)).toBe('secure shell\n');
      await expect(onWan.exchangeTcp({ host: HOST_NET.hostV4, port: 2222 })).rejects.toThrow();
    },
    TIMEOUT_MS,
  );
});

suite('passel(1), Two machines on one network', () => {
  useHost();
  const [script] = recipe('Two machines on one network');

  it(
    'find each other by their names, and port 80 of the first is reached',
    async () => {
      const [web, db] = [await place.makeImage('web'), await place.makeImage('db')];
      const before = new Set(host.processes());
      start(script!);
      expect(await Promise.all([web, db].map(lease))).toEqual(['10.0.2.15/24', '10.0.2.16/24']);
      await db.check(serve(5432, 'the data'));
      expect(await web.check('socat -u TCP4:db:5432 -')).toBe('the data');
      expect(await db.check('ping -c 1 -W 10 web')).toContain('(10.0.2.15)');
      await web.check(serve(80, 'the page'));
      expect(await connect('127.0.0.1', 8080)).toBe('the page\n');
      // The network ends with its machines.
      for (const guest of [web, db]) guest.exec('poweroff -f').catch(() => {});
      await waitUntil('nothing to be left', () => host.processes().every((pid) => before.has(pid)), 30_000);
    },
    TIMEOUT_MS,
  );
});

libvirtSuite('passel(1), libvirt', () => {
  useHost();
  const [interfaceXml, script] = recipe('libvirt');

  it(
    'starts a domain with our passt, whose port 22 is reached',
    async () => {
      const [install, ...rest] = script!.split('\n');
      await waitForEnd(place.start(install!));
      // The one that virsh would start; it has to be there before, since it is no part of this machine.
      const libvirt = await startLibvirt(host, { mode: 'session', programs: join(place.home, 'drop-ins') });
      try {
        const domain = await writeDomain(host.directory, 'vm', interfaceXml!);
        await libvirt.virsh(['define', domain.path]);
        writeProgram(join(place.programs, 'virsh'), libvirt.virshScript);
        const { ready } = await domain.expectGuest();
        start(rest.join('\n'));
        const guest = talkTo(ready);
        expect(await lease(guest)).toBe(`${HOST_NET.hostV4}/${HOST_NET.prefixV4}`);
        await guest.check(serve(22, 'secure shell'));
        expect(await connect('127.0.0.1', 2222)).toBe('secure shell\n');
      } finally {
        await libvirt.virsh(['destroy', 'vm'], { check: false });
        await libvirt.stop();
      }
    },
    TIMEOUT_MS,
  );
});

async function waitForEnd({ child, output }: ReturnType<RecipePlace['start']>): Promise<void> {
  await waitUntil('the recipe to end', () => child.exitCode !== null, 30_000);
  if (child.exitCode !== 0) throw new Error(`status ${child.exitCode}:\n${output()}`);
}

suite('passel(1), A sandbox without outside access', () => {
  useHost();
  const [script] = recipe('A sandbox without outside access');

  it(
    'has addresses and its port 22, and reaches nobody',
    async () => {
      const guest = await place.makeImage('disk');
      const onWan = await startAgent(host.wan);
      await onWan.serveHttp({ host: HOST_NET.remoteV4, port: 8080 });
      await onHost.serveHttp({ host: '127.0.0.1', port: 8081 });
      start(script!);
      expect(await lease(guest)).toBe('10.0.2.15/24');
      await guest.check(serve(22, 'secure shell'));
      expect(await connect('127.0.0.1', 2222)).toBe('secure shell\n');
      for (const target of [`${HOST_NET.remoteV4}:8080`, '10.0.2.2:8081', `${HOST_NET.hostV4}:8081`]) {
        const { status, stdout } = await guest.exec(`socat -u TCP4:${target},connect-timeout=5 -`);
        expect([target, status, stdout]).toEqual([target, 1, expect.stringMatching(/refused|timed out|unreachable/i)]);
      }
    },
    TIMEOUT_MS,
  );
});

suite('passel(1), Booting from the network', () => {
  useHost();
  const [script] = recipe('Booting from the network');

  it(
    'boots a kernel that iPXE fetches by TFTP',
    async () => {
      // /srv of the isolated host, which has mounts of its own.
      const files = join(host.directory, 'srv');
      mkdirSync(join(files, 'tftp'), { recursive: true });
      await host.sh(`mount --bind ${files} /srv`);
      copyFileSync(place.kernel, join(files, 'tftp/vmlinuz'));
      copyFileSync(place.initramfs, join(files, 'tftp/initrd.img'));
      start(script!);
      const read = (): string => {
        try {
          return place.readConsole();
        } catch {
          return '';
        }
      };
      await waitUntil(
        'a kernel that has its initrd',
        () => /Run \/init as init process/.test(read()),
        BOOT_TIMEOUT_MS,
        200,
      );
      expect(read()).toMatch(/Kernel command line: console=ttyS0\r?\n/);
    },
    TIMEOUT_MS,
  );
});

pastaSuite('passel(1), A command instead of a machine', () => {
  useHost();
  const [script] = recipe('A command instead of a machine');

  it(
    'has its port 80 on port 8080 of this host',
    async () => {
      writeProgram(
        join(place.directory, 'server'),
        `#!/bin/sh\nexec socat TCP4-LISTEN:80,reuseaddr,fork SYSTEM:'echo the page'\n`,
      );
      start(script!);
      let page = '';
      await waitUntil(
        'the page',
        async () => {
          page = await connect('127.0.0.1', 8080).catch(() => '');
          return page !== '';
        },
        30_000,
      );
      expect(page).toBe('the page\n');
    },
    TIMEOUT_MS,
  );
});

describe.skipIf(isDebianStack())('passel(1)', () => {
  it('has no recipe that is not tried here', () => {
    expect(tried.sort()).toEqual([...RECIPES.keys()].sort());
  });
});
