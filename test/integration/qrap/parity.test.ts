/** Command lines that qrap makes, against Debian's C qrap: the same words where C's start QEMU, ours where they cannot. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { planQrap } from '../../../src/qemu/qrap/plan.ts';
import { requireOrSkip } from '../../support/netns/capabilities.ts';
import { seededRandom } from '../../support/seeded-random.ts';
import { DIFFERENT, SAME } from './cases.ts';
import { needDebianQrap, needMounts, Place, type Which } from './place.ts';

const describeParity = await requireOrSkip(needMounts, needDebianQrap);

describeParity("beside Debian's qrap", () => {
  let place: Place;
  beforeAll(async () => {
    place = new Place();
    await place.addPasst();
  });
  afterAll(() => place?.close());

  /** Everything that QEMU is given, but for what differs from run to run. */
  const outcomeOf = async (which: Which, words: readonly string[]) => {
    const { status, report, stderr } = await place.runFromInside(which, words);
    if (report === undefined) throw new Error(`${which} qrap ended with ${status}: ${stderr}`);
    const { pid: _pid, ...given } = report;
    return { status, ...given };
  };

  it.each(SAME)('$name: the same', async ({ words }) => {
    const [ours, theirs] = await Promise.all([outcomeOf('ours', words), outcomeOf('c', words)]);
    expect(ours).toEqual(theirs);
  });

  it.each(DIFFERENT)('$name: not the same, since $why', async ({ words, ours: expected }) => {
    const [ours, theirs] = await Promise.all([outcomeOf('ours', words), place.runFromInside('c', words)]);
    expect(ours.argv.slice(1)).toEqual(expected);
    expect(theirs.report?.argv.slice(1)).not.toEqual(expected);
  });

  it('of random lines in the way of libvirt: the same words', async () => {
    const random = seededRandom(3);
    const below = (limit: number): number => Math.floor(random() * limit);
    for (let round = 0; round < 30; round++) {
      const words = makeRandomLine(below);
      const ours = planQrap(words, { isProgram: () => false, architecture: 'x86_64' });
      expect(ours.args).toEqual((await outcomeOf('c', words)).argv.slice(1));
    }
  });
});

/** A valid line: ports for every device, or slots of their own. */
function makeRandomLine(below: (limit: number) => number): string[] {
  const machine = ['pc-q35-6.2', 'pc-i440fx-6.2'][below(2)]!;
  const words = ['-machine', machine, '-nodefaults', '-m', '64'];
  const isQ35 = machine.startsWith('pc-q35');
  if (isQ35) for (let n = 1; n <= 30; n++) words.push('-device', `pcie-root-port,id=pci.${n},chassis=${n}`);
  for (let n = 2; n <= 30; n++) {
    if (below(3) === 0) continue;
    const driver = ['virtio-rng-pci', 'e1000', 'qemu-xhci', 'virtio-net-pci'][below(4)]!;
    const place: Record<string, string> = isQ35
      ? { bus: `pci.${n}`, addr: '0x0' }
      : { bus: 'pci.0', addr: `0x${n.toString(16)}` };
    const list = Object.entries(place).map(([key, value]) => `${key}=${value}`);
    words.push('-device', below(2) === 0 ? JSON.stringify({ driver, ...place }) : `${driver},${list.join(',')}`);
    if (below(6) === 0) words.push('-netdev', `user,id=n${n}`);
  }
  return words;
}
