/** Debian's qemu-bridge-helper and ours, asked the same: verdict, exit status, message to QEMU, tap and what is left compared. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import {
  type BridgeOutcome,
  type BridgePlace,
  C_HELPER,
  createBridgePlace,
  needBridgeHelper,
} from '../../support/bridge/caller.ts';
import { needCommand, needNamespaces, needRoot, needTun, requireOrSkip } from '../../support/netns/capabilities.ts';
import { CASES } from './cases.ts';
import { endingOf } from './ending.ts';

const suite = await requireOrSkip(
  needNamespaces,
  needRoot,
  needTun,
  needBridgeHelper,
  needCommand('python3', 'python3'),
  needCommand('setpriv', 'util-linux'),
);

suite('passel-bridge-helper beside qemu-bridge-helper', () => {
  let place: BridgePlace;
  const outcomes = new Map<string, { c: BridgeOutcome; ours: BridgeOutcome }>();

  beforeAll(async () => {
    place = await createBridgePlace(C_HELPER);
    const as = async (cases: typeof CASES, command: string): Promise<void> => {
      const programs = { c: { command: [command] }, ours: { command: place.helper, ambient: true } };
      const results = await place.run(cases, programs);
      for (const [index, result] of results.entries()) {
        outcomes.set(cases[index]!.name, { c: result['c']!, ours: result['ours']! });
      }
    };
    await as(
      CASES.filter(({ user }) => user === undefined),
      C_HELPER,
    );
    await as(
      CASES.filter(({ user }) => user !== undefined),
      place.setuidCopy,
    );
  }, 150_000);
  afterAll(() => place?.close());

  it('has at least 60 cases, each with a name of its own', () => {
    expect(CASES.length).toBeGreaterThanOrEqual(60);
    expect(new Set(CASES.map(({ name }) => name)).size).toBe(CASES.length);
  });

  it.each(CASES)('$name', ({ name, both, differ, says }) => {
    const { c, ours } = outcomes.get(name)!;
    expect({ c: endingOf(c), ours: endingOf(ours) }, `${c.stderr}${ours.stderr}`).toEqual({
      c: differ?.c ?? both,
      ours: differ?.ours ?? both,
    });
    expect(ours.left, 'devices left').toEqual([]);
    if (both === 'tap') expect(ours.taps).toEqual(c.taps);
    if (endingOf(ours) === 'no') {
      expect(ours.stdout).toBe('');
      expect(ours.stderr).toMatch(/^passel-bridge-helper: .+\n/);
    } else {
      expect(ours.stderr).toBe('');
    }
    if (says !== undefined) expect(ours.stderr).toContain(says);
  });

  it('changes nothing with --check, and says which rule decides', async () => {
    const check = (bridge: string, text: string, ...more: string[]) => ({
      name: bridge,
      files: { 'bridge.conf': { text } },
      args: ['--check', `--br=${bridge}`, ...more],
    });
    const results = await place.run(
      [
        check('br-jumbo', 'allow all\n', '--use-vnet', '--isolated', '--queues=2'),
        check('br0', 'allow all\ndeny br0\n'),
        check('veth0', 'allow all\n'),
      ],
      { ours: { command: place.helper } },
    );
    const [jumbo, denied, veth] = results.map((result) => result['ours']!);
    expect(jumbo).toMatchObject({ status: 0, taps: [], left: [], stderr: '' });
    expect(jumbo!.stdout).toContain("bridge 'br-jumbo': allowed: /etc/qemu/bridge.conf:1: allow all");
    expect(jumbo!.stdout).toContain("would make: tap 'tap%d', 2 queues, MTU 9000, virtio-net header, isolated");
    expect(denied).toMatchObject({ status: 1, taps: [], stderr: '' });
    expect(denied!.stdout).toContain("bridge 'br0': denied: /etc/qemu/bridge.conf:2: deny br0");
    expect(veth!.stdout).toContain('would fail:');
  });

  it('names the tap, isolates its port, and gives a descriptor for each queue', async () => {
    const asked = (name: string, ...more: string[]) => ({
      name,
      files: { 'bridge.conf': { text: 'allow br0\n' } },
      args: ['--use-vnet', '--br=br0', '--fd={fd}', ...more],
    });
    const results = await place.run(
      [
        asked('name', '--tap-name=guest%d', '--isolated'),
        asked('queues', '--queues=3'),
        asked('taken', '--tap-name=veth0'),
        asked('list', '--acl=/etc/qemu/none'),
        asked('too many', '--queues=254'),
      ],
      { ours: { command: place.helper } },
    );
    const [named, queues, taken, list, tooMany] = results.map((result) => result['ours']!);
    expect(named!.taps).toMatchObject([{ name: 'guest0', isolated: true, bridge: 'br0' }]);
    expect(queues!.byte).toBe('00');
    expect(queues!.taps.map(({ name }) => name)).toEqual(['tap0', 'tap0', 'tap0']);
    // IFF_MULTI_QUEUE
    for (const tap of queues!.taps) expect(tap.flags & 0x100).toBe(0x100);
    expect(taken).toMatchObject({ status: 1, taps: [], left: [] });
    expect(taken!.stderr).toContain("create tun device 'veth0'");
    expect(list!.stderr).toContain("'/etc/qemu/none'");
    expect(tooMany!.stderr).toContain("--queues: '254' is not valid: expected a number of queues, 1 to 253");
  });

  it('needs CAP_NET_ADMIN or a broker, and says so', async () => {
    const [result] = await place.run(
      [
        {
          name: 'no capability',
          files: { 'bridge.conf': { text: 'allow br0\n' } },
          args: ['--br=br0', '--fd={fd}'],
          user: { uid: 1000, gid: 1000 },
        },
      ],
      { ours: { command: place.helper, env: { PASSEL_BROKER: '/mnt/nobody.sock' } } },
    );
    expect(result!['ours']).toMatchObject({ status: 1, byte: null, taps: [], left: [] });
    expect(result!['ours']!.stderr).toContain('CAP_NET_ADMIN');
  });
});
