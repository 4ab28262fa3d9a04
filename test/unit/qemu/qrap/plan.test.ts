/** What needs no C program to compare with; test/integration/qrap has the rest. */
import { describe, expect, it } from 'vitest';
import { readDescriptor } from '../../../../src/qemu/qrap/invocation.ts';
import { listQemuNames, planQrap } from '../../../../src/qemu/qrap/plan.ts';
import { pickTable, searchSlots } from '../../../../src/qemu/qrap/slot-search.ts';
import { DIFFERENT, SAME } from '../../../integration/qrap/cases.ts';

const surroundings = { isProgram: (name: string) => /kvm$|^qemu-system/.test(name), architecture: 'x86_64' };

describe('a number as strtol(3) reads it', () => {
  it.each<[string, number | undefined]>([
    ['5', 5],
    ['0x1f', 31],
    ['017', 15],
    ['08', undefined],
    ['0', undefined],
    ['2', undefined],
    ['3', 3],
    ['-5', undefined],
    ['+5', 5],
    [' \t\n5x', 5],
    ['0x', undefined],
    ['', undefined],
    ['x5', undefined],
    ['2147483646', 2147483646],
    ['2147483647', undefined],
    ['99999999999999999999', undefined],
  ])('%j', (text, expected) => {
    expect(readDescriptor(text)).toBe(expected);
  });
});

describe('the plan', () => {
  it('leaves the words of a given command alone', () => {
    const plan = planQrap(['7', 'qemu-system-arm', '-net', 'none'], surroundings);
    expect(plan).toMatchObject({ command: 'qemu-system-arm', args: ['-net', 'none'], fd: 7 });
  });

  it('accounts for every word: what is not kept was removed, what is new was added', () => {
    for (const { words } of [...SAME, ...DIFFERENT]) {
      const plan = planQrap(words, surroundings);
      if (plan.command !== undefined) continue;
      const rest = [...plan.args];
      const takeAll = (gone: readonly string[]): void => {
        for (const word of gone) expect(rest.splice(rest.lastIndexOf(word), 1)).toEqual([word]);
      };
      for (const change of plan.changes) {
        expect(change.reason).not.toBe('');
        if (change.kind === 'added') takeAll(change.words);
        if (change.kind === 'removed') rest.push(...change.words);
      }
      expect(rest.sort()).toEqual([...words].sort());
    }
  });

  it('is the same again when it is made of its own result, but for the network', () => {
    for (const { words } of SAME) {
      const once = planQrap(words, surroundings);
      if (once.command !== undefined) continue;
      const twice = planQrap(once.args, surroundings);
      expect(twice.args).toEqual(once.args);
    }
  });

  it('takes the virtio card of the machine', () => {
    const added = (words: string[], architecture: string) => planQrap(words, { ...surroundings, architecture }).args[1];
    expect(added([], 's390x')).toMatch(/^virtio-net-ccw,netdev=/);
    expect(added([], 'aarch64')).toMatch(/^virtio-net-pci,netdev=/);
  });

  it('names QEMU for the processor', () => {
    expect(listQemuNames('aarch64')).toEqual(['kvm', 'qemu-kvm', 'qemu-system-aarch64', '/usr/libexec/qemu-kvm']);
  });

  it('refuses JSON that is none, and takes what QEMU takes', () => {
    expect(() => planQrap(['-device', '{"driver":'], surroundings)).toThrow(/^-device: '\{"driver":' is not JSON/);
    expect(planQrap(['-device', "{'driver':'virtio-rng-pci'}"], surroundings).args).toHaveLength(6);
  });

  it('is quick with many words', () => {
    const words = Array.from({ length: 20_000 }, (_, n) => ['-device', `virtio-rng-pci,bus=pci.${n},id=d${n}`]).flat();
    const startMs = performance.now();
    planQrap(words, surroundings);
    expect(performance.now() - startMs).toBeLessThan(3000);
  });
});

describe('the search for slots', () => {
  it.each([
    ['bus=pci.3', [3]],
    ['bus=pci. 3', [3]],
    ['bus=pci.+3', [3]],
    ['bus=pci.35', [3]],
    ['bus=pci.4294967299', [3]],
    ['bus=pci.x,bus=pci.3', []],
    ['bus=pci.-1', []],
    ['bus=pci.99999999999999999999', []],
    ['"bus":"pci.3"', [3]],
  ])('sees in %s what C sees', (device, used) => {
    const { candidates } = searchSlots(pickTable(undefined), [device]);
    const all = Array.from({ length: 28 }, (_, index) => index + 3);
    expect(all.filter((number) => !candidates.includes(number))).toEqual(used);
  });
});
