import { describe, expect, it } from 'vitest';
import { FLOW_TCP, FLOW_UDP, FlowTable } from '../../../../src/stack/flow/table.ts';
import { seededRandom } from '../../../support/seeded-random.ts';

const words = (last: number) => new Uint32Array([0, 0, 0xffff, last]);

describe('flow table', () => {
  it('finds exactly what is open, through thousands of openings and endings in random order', () => {
    const random = seededRandom(7);
    const table = new FlowTable(512, [0x12345678, 0x9abcdef0]);
    const open = new Map<string, number>();
    const released: number[] = [];
    for (let round = 0; round < 20_000; round++) {
      const guestPort = Math.floor(random() * 40);
      const peer = Math.floor(random() * 20);
      const kind = random() < 0.5 ? FLOW_TCP : FLOW_UDP;
      const key = `${kind}/${guestPort}/${peer}`;
      const found = table.find(kind, words(1), 0, guestPort, words(peer), 0, 80);
      expect(found).toBe(open.get(key) ?? -1);
      if (found < 0) {
        const index = table.open(kind, 4, words(1), 0, guestPort, words(peer), 0, 80);
        if (index >= 0) open.set(key, index);
        else expect(table.count).toBe(512);
      } else if (random() < 0.6) {
        table.retire(found);
        open.delete(key);
      }
      if (random() < 0.2) table.sweep((index) => released.push(index));
    }
    table.sweep((index) => released.push(index));
    expect(table.count).toBe(open.size);
    expect(released.length).toBeGreaterThan(1000);
  });

  it('does not hand out a retired entry before the sweep', () => {
    const table = new FlowTable(4, [1, 2]);
    const first = table.open(FLOW_TCP, 4, words(1), 0, 1, words(2), 0, 80);
    table.retire(first);
    const second = table.open(FLOW_TCP, 4, words(1), 0, 1, words(2), 0, 80);
    expect(second).not.toBe(first);
    table.sweep(() => {});
    expect(table.open(FLOW_TCP, 4, words(1), 0, 2, words(2), 0, 80)).toBe(first);
    expect(table.generation[first]).toBe(2);
  });

  it('keeps a retired entry while it waits for room on the link', () => {
    const table = new FlowTable(4, [1, 2]);
    const index = table.open(FLOW_TCP, 4, words(1), 0, 1, words(2), 0, 80);
    table.roomQueued[index] = 1;
    table.retire(index);
    const released: number[] = [];
    table.sweep((i) => released.push(i));
    expect(released).toEqual([]);
    table.roomQueued[index] = 0;
    table.sweep((i) => released.push(i));
    expect(released).toEqual([index]);
  });

  it('says when it is full', () => {
    const table = new FlowTable(2, [1, 2]);
    table.open(FLOW_TCP, 4, words(1), 0, 1, words(2), 0, 80);
    table.open(FLOW_TCP, 4, words(1), 0, 2, words(2), 0, 80);
    expect(table.open(FLOW_TCP, 4, words(1), 0, 3, words(2), 0, 80)).toBe(-1);
  });
});
