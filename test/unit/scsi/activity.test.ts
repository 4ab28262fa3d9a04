import { describe, expect, it } from 'vitest';
import { Activity } from '../../../src/scsi/activity.ts';
import { NOTE_DENIED, type Outcome } from '../../../src/scsi/executor.ts';
import { createParameterList } from '../../../src/scsi/parameter-data.ts';
import { createReserveIn, createReserveOut } from '../../../src/scsi/persistent-reserve.ts';
import type { OpenFile } from '../../../src/sys/sg.ts';

const GOOD = 0;
const CHECK = 2;
const CONFLICT = 0x18;

const disk = (minor: number, kind: OpenFile['kind'] = 'block'): OpenFile => ({
  kind,
  major: 8,
  minor,
  isWritable: true,
});

function answer(status: number, file: OpenFile | undefined, note?: string): Omit<Outcome, 'sense'> {
  return { status, sizeBytes: 0, durationUs: 1, file, note };
}

function request(cdb: Uint8Array, parameters: Uint8Array = new Uint8Array(0)): Uint8Array {
  const bytes = new Uint8Array(16 + parameters.length);
  bytes.set(cdb);
  bytes.set(parameters, 16);
  return bytes;
}

const READ_KEYS = request(createReserveIn(0, 8192));
const REGISTER = request(createReserveOut(6, 0, 24), createParameterList({ actionKey: 0xabcn }));

function open(): { activity: Activity; at: (ms: number) => void } {
  let now = 0;
  return { activity: new Activity(() => now), at: (ms) => (now = ms) };
}

describe('what a helper has done', () => {
  it('is counted by result for all, for each client and for each device', () => {
    const { activity } = open();
    const [a, b] = [activity.connect({ pid: 1, uid: 0 }), activity.connect({ pid: 2, uid: 5 })];
    for (const [client, bytes, status, minor] of [
      [a, READ_KEYS, GOOD, 0],
      [a, REGISTER, GOOD, 0],
      [b, REGISTER, CONFLICT, 0],
      [b, READ_KEYS, CHECK, 1],
    ] as const) {
      activity.begin(client, undefined, bytes);
      activity.finish(client, bytes, answer(status, disk(minor)));
    }
    expect(activity.total).toMatchObject({ requests: 4, good: 2, conflicts: 1, failures: 1 });
    expect(a).toMatchObject({ id: 1, requests: 2, good: 2, conflicts: 0, failures: 0 });
    expect(b).toMatchObject({ id: 2, requests: 2, good: 0, conflicts: 1, failures: 1 });
    const [first, second] = activity.devices.values();
    expect(first).toMatchObject({ requests: 3, good: 2, conflicts: 1, failures: 0 });
    expect([first!.in[0], first!.out[6], first!.out[0]]).toEqual([1, 2, 0]);
    expect(second).toMatchObject({ requests: 1, failures: 1 });
  });

  it('keeps the last change and the last conflict of a device, not what merely asked or failed', () => {
    const { activity, at } = open();
    const client = activity.connect({ pid: 1, uid: 0 });
    const other = activity.connect({ pid: 2, uid: 0 });
    at(100);
    activity.finish(client, REGISTER, answer(GOOD, disk(0)));
    at(200);
    activity.finish(other, READ_KEYS, answer(GOOD, disk(0)));
    activity.finish(other, request(createReserveOut(1, 5, 24)), answer(CHECK, disk(0)));
    const [device] = activity.devices.values();
    expect(device!.lastConflict.peer).toBe(undefined);
    activity.finish(other, request(createReserveOut(1, 5, 24)), answer(CONFLICT, disk(0)));
    expect(device!.lastChange).toMatchObject({ atMs: 100, peer: { pid: 1 } });
    expect(device!.lastChange.bytes.subarray(0, 40)).toEqual(REGISTER);
    expect(device!.lastConflict).toMatchObject({ atMs: 200, peer: { pid: 2 }, lengthBytes: 16 });
  });

  it('keeps no more of a long parameter list than its keys', () => {
    const { activity } = open();
    const client = activity.connect({ pid: 1, uid: 0 });
    const long = request(createReserveOut(0, 0, 8000), new Uint8Array(8000).fill(7));
    activity.finish(client, long, answer(GOOD, disk(0)));
    const [{ lastChange }] = activity.devices.values() as unknown as [{ lastChange: { bytes: Uint8Array } }];
    expect(lastChange.bytes).toEqual(long.subarray(0, 40));
  });

  it('tells a refusal by a rule from one of the device, and a request without device from both', () => {
    const { activity } = open();
    const client = activity.connect({ pid: 1, uid: 0 });
    activity.finish(client, READ_KEYS, answer(CHECK, disk(0), NOTE_DENIED));
    activity.finish(client, READ_KEYS, answer(CHECK, disk(0)));
    activity.finish(client, READ_KEYS, answer(CHECK, { kind: 'other', major: 0, minor: 0, isWritable: true }));
    activity.finish(client, READ_KEYS, answer(CHECK, undefined));
    expect([...activity.devices.values()]).toMatchObject([{ requests: 2, denied: 1, failures: 2 }]);
    expect(activity).toMatchObject({ withoutDevice: 2, total: { requests: 4, failures: 4 } });
  });

  it('knows a block device from a character device of the same number', () => {
    const { activity } = open();
    const client = activity.connect({ pid: 1, uid: 0 });
    activity.finish(client, READ_KEYS, answer(GOOD, disk(0)));
    activity.finish(client, READ_KEYS, answer(GOOD, disk(0, 'character')));
    expect([...activity.devices.values()].map(({ file }) => file.kind)).toEqual(['block', 'character']);
  });

  it('forgets a client with its connection, and knows what of it is not answered', () => {
    const { activity, at } = open();
    const [idle, busy] = [activity.connect({ pid: 1, uid: 0 }), activity.connect({ pid: 2, uid: 0 })];
    at(100);
    activity.begin(busy, disk(0), READ_KEYS, 40);
    activity.disconnect(idle, true);
    expect([...activity.clients]).toEqual([busy]);
    expect(busy).toMatchObject({ request: READ_KEYS, requestSinceMs: 60 });
    activity.finish(busy, READ_KEYS, answer(GOOD, disk(0)));
    expect(busy.request).toBeUndefined();
    activity.disconnect(busy, false);
    expect(activity.clients.size).toBe(0);
    expect(activity).toMatchObject({ refused: 1, clientsTotal: 2 });
  });

  it('remembers the 1024 devices that were used last', () => {
    const { activity, at } = open();
    const client = activity.connect({ pid: 1, uid: 0 });
    for (let minor = 0; minor <= 1024; minor++) {
      at(minor);
      activity.finish(client, READ_KEYS, answer(GOOD, disk(minor)));
      if (minor === 1023) activity.finish(client, READ_KEYS, answer(GOOD, disk(0)));
    }
    const minors = new Set([...activity.devices.values()].map(({ file }) => file.minor));
    expect(minors.size).toBe(1024);
    expect([minors.has(0), minors.has(1), minors.has(1024)]).toEqual([true, false, true]);
  });
});
