/**
 * The bridge helper of an ordinary user, through the broker, beside the C program as setuid root: the same cases, and what a user who
 * is denied may try.
 */
import type { ChildProcess } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  type BridgeOutcome,
  type BridgePlace,
  C_HELPER,
  createBridgePlace,
  needBridgeHelper,
} from '../../support/bridge/caller.ts';
import { needCommand, needNamespaces, needRoot, needTun, requireOrSkip } from '../../support/netns/capabilities.ts';
import { stopChild, waitUntil } from '../../support/netns/process.ts';
import { CASES } from './cases.ts';
import { endingOf } from './ending.ts';

const SOCKET = '/mnt/broker.sock';
const ALICE = { uid: 1000, gid: 1000 };

const suite = await requireOrSkip(
  needNamespaces,
  needRoot,
  needTun,
  needBridgeHelper,
  needCommand('python3', 'python3'),
  needCommand('setpriv', 'util-linux'),
);

/** Where asking a broker must differ from doing it oneself. */
const OTHERWISE: Readonly<Record<string, { readonly ending: string; readonly why: string }>> = {
  'an include from the working directory': {
    ending: 'no',
    why: 'the broker does not know the working directory of who asks',
  },
};

suite('passel-bridge-helper through the broker', () => {
  let place: BridgePlace;
  let serving: ChildProcess;
  let log = '';
  const outcomes = new Map<string, { c: BridgeOutcome; ours: BridgeOutcome }>();
  const cases = CASES.map((each) => ({ ...each, user: each.user ?? ALICE }));

  beforeAll(async () => {
    place = await createBridgePlace(C_HELPER);
    const [command, ...args] = [...place.broker, 'serve', '--socket', SOCKET, '--log-format=json'];
    serving = place.namespace.spawn(command!, args, {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    serving.stderr!.on('data', (chunk: Buffer) => {
      log += chunk.toString();
    });
    await waitUntil('the broker', () => log.includes('serving on'), 20_000);
    const programs = {
      c: { command: [place.setuidCopy] },
      ours: { command: place.helper, env: { PASSEL_BROKER: SOCKET } },
    };
    const results = await place.run(cases, programs);
    for (const [index, result] of results.entries()) {
      outcomes.set(cases[index]!.name, { c: result['c']!, ours: result['ours']! });
    }
  }, 150_000);
  afterAll(async () => {
    if (serving !== undefined) expect(await stopChild(serving)).toBe(0);
    await place?.close();
  });

  it.each(cases)('$name', ({ name, both, differ }) => {
    const { c, ours } = outcomes.get(name)!;
    const ending = OTHERWISE[name]?.ending ?? differ?.ours ?? both;
    expect(endingOf(ours), ours.stderr).toBe(ending);
    expect(ours.left).toEqual([]);
    if (ending === 'tap' && both === 'tap') expect(ours.taps).toEqual(c.taps);
  });

  it('leaves no descriptor in the broker', async () => {
    const { stdout } = await place.namespace.sh(`ls -l /proc/${serving.pid}/fd | grep -c tun || true`);
    expect(stdout.trim()).toBe('0');
  });

  it('logs who got what, as JSON', () => {
    const lines = log
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>)
      .filter(({ verb }) => verb === 'tap');
    expect(lines.length).toBeGreaterThan(40);
    expect(lines.find(({ code }) => code === 'ok')).toMatchObject({ uid: 1000, subject: 'br0', sent: 1 });
    expect(lines.find(({ code }) => code === 'denied')).toMatchObject({ uid: 1000, sent: 0 });
  });

  it('names the broker that does not answer, and what to do', async () => {
    const env = { PASSEL_BROKER: '/mnt/nobody.sock' };
    const [result] = await place.run(
      [{ name: 'x', files: { 'bridge.conf': { text: 'allow all\n' } }, args: ['--br=br0', '--fd={fd}'], user: ALICE }],
      { ours: { command: place.helper, env } },
    );
    expect(endingOf(result!['ours']!)).toBe('no');
    expect(result!['ours']!.stderr).toContain("the fd broker at '/mnt/nobody.sock': ENOENT");
    expect(result!['ours']!.stderr).toContain('passel-fd-broker serve');
  });

  /** What a user who is denied may send to the broker by a client of their own. */
  describe('a denied user gets no tap', () => {
    const attempt = async (requests: readonly (object | string)[], conf = 'allow all\ndeny br0\n') => {
      await place.namespace.sh(`rm -rf /etc/qemu/* && printf '%s' '${conf}' > /etc/qemu/bridge.conf`);
      const { stdout } = await place.namespace.run(
        'setpriv',
        ['--reuid=1000', '--regid=1000', '--clear-groups', ...place.client, SOCKET],
        { input: JSON.stringify(requests) },
      );
      return JSON.parse(stdout) as { answer: { error?: { code: string } }; taps: string[] }[];
    };
    const tap = (members: object): object => ({ version: 1, id: 1, verb: 'tap', bridge: 'br0', fds: 0, ...members });

    it.each([
      ['by asking', tap({}), 'denied'],
      ['by forging a user', tap({ uid: 0 }), 'bad-request'],
      ['by forging a peer', tap({ peer: { uid: 0 } }), 'bad-request'],
      ['by naming another list', tap({ acl: '/mnt/mine.conf' }), 'bad-request'],
      ['by a name too long, which cut is another', tap({ bridge: 'br-jumboXXXXXXXXX' }), 'bad-request'],
      ['by a name with a separator', tap({ bridge: '../br0' }), 'bad-request'],
      ['by a name with a NUL', tap({ bridge: 'br0\0x' }), 'bad-request'],
      ['by a name with a blank', tap({ bridge: 'br0 ' }), 'bad-request'],
      ['by the name of an existing device', tap({ bridge: 'br-jumbo', tapName: 'veth0' }), 'system'],
      ['by a name of a device with a separator', tap({ bridge: 'br-jumbo', tapName: 'a/b' }), 'bad-request'],
      ['by keeping it under a name', tap({ name: 'x' }), 'denied'],
      [
        'by another verb',
        { version: 1, id: 1, verb: 'open', path: '/dev/net/tun', access: 'read-write', fds: 0 },
        'denied',
      ],
    ])('%s', async (_what, request, code) => {
      const [result] = await attempt([request]);
      expect(result!.answer.error?.code).toBe(code);
      expect(result!.taps).toEqual([]);
    });

    it('by a second request on a connection that was granted the first', async () => {
      const results = await attempt([tap({ bridge: 'br-jumbo' }), tap({})]);
      expect(results.map(({ taps }) => taps.length)).toEqual([1, 0]);
      expect(results[1]!.answer.error?.code).toBe('denied');
    });
    it('by a list of their own in place of an include', async () => {
      const conf = 'include /mnt/shared/alice.conf\ndeny br0\n';
      await place.namespace.sh(
        'rm -rf /mnt/shared && mkdir -m 777 /mnt/shared && ' +
          "setpriv --reuid=1000 --regid=1000 --clear-groups sh -c 'echo allow br0 > /mnt/shared/alice.conf'",
      );
      const [own] = await attempt([tap({})], conf);
      expect(own!.answer.error?.code).toBe('denied');
      await place.namespace.sh('ln -sf /mnt/shared/alice.conf /mnt/shared/link');
      const [link] = await attempt([tap({})], 'include /mnt/shared/link\n');
      expect(link!.answer.error?.code).toBe('denied');
      expect(link!.taps).toEqual([]);
    });
    it('by racing the list, which is decided for each request by one open file', async () => {
      const racing = place.namespace.spawn('sh', [
        '-c',
        "while :; do printf 'deny br0\\n' > /etc/qemu/n; mv /etc/qemu/n /etc/qemu/bridge.conf; " +
          "printf 'allow br-jumbo\\ndeny all\\n' > /etc/qemu/n; mv /etc/qemu/n /etc/qemu/bridge.conf; done",
      ]);
      try {
        const results = await attempt(Array.from({ length: 200 }, () => tap({})));
        expect(results.flatMap(({ taps }) => taps)).toEqual([]);
      } finally {
        await stopChild(racing);
      }
    });
  });
});
