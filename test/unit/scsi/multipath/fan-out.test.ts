import { beforeEach, describe, expect, it } from 'vitest';
import {
  catchUp,
  createMultipathState,
  type MultipathState,
  type Outcome,
  reserveOut,
} from '../../../../src/scsi/multipath/fan-out.ts';
import { createParameterList, type ParameterList } from '../../../../src/scsi/parameter-data.ts';
import { createFakeTarget, type FakeTarget } from './fake-target.ts';

const REGISTER = 0;
const RESERVE = 1;
const RELEASE = 2;
const CLEAR = 3;
const PREEMPT = 4;
const IGNORE = 6;
const CONFLICT = 0x18;
const OURS = 0xaaan;
const THEIRS = 0xbbbn;

let target: FakeTarget;
let state: MultipathState;
const names = ['sda', 'sdb', 'sdc'];

beforeEach(() => {
  target = createFakeTarget();
  state = createMultipathState();
});

const paths = (which = names) => which.map((name) => target.path(name));
const out = (action: number, list: Partial<ParameterList>, type = 0): Promise<Outcome> => {
  const parameters = createParameterList(list);
  const command = { isOut: true, serviceAction: action, scope: 0, type, lengthBytes: parameters.length };
  return reserveOut(paths(), state, command, parameters);
};
const register = (actionKey = OURS, reservationKey = 0n) => out(REGISTER, { reservationKey, actionKey });
const keysOf = (): Record<string, bigint> => Object.fromEntries([...target.keys].sort());
const all = (key: bigint) => ({ sda: key, sdb: key, sdc: key });

describe('a registration', () => {
  it('is made on every path, changed on every path, and taken back on every path', async () => {
    expect((await register()).status).toBe(0);
    expect(keysOf()).toEqual(all(OURS));
    expect((await register(0xcccn, OURS)).status).toBe(0);
    expect(keysOf()).toEqual(all(0xcccn));
    expect((await register(0n, 0xcccn)).status).toBe(0);
    expect(keysOf()).toEqual({});
  });
  it('with the wrong key is a conflict and changes nothing', async () => {
    await register();
    expect((await register(0xcccn, 0x123n)).status).toBe(CONFLICT);
    expect(keysOf()).toEqual(all(OURS));
  });
  it('finds a path that was registered in another way before', async () => {
    target.keys.set('sdb', 0x777n);
    expect((await register()).status).toBe(0);
    expect(keysOf()).toEqual(all(OURS));
  });
  it('passes a unit attention of the other paths, and gives that of the first to the guest', async () => {
    target.attention.add('sdb');
    expect((await register()).status).toBe(0);
    expect(keysOf()).toEqual(all(OURS));
    target.attention.add('sda');
    const { status, sense } = await register(0xcccn, OURS);
    expect(status).toBe(2);
    expect((sense as Uint8Array)[2]).toBe(6);
    expect(keysOf()).toEqual(all(OURS));
  });
  it('is taken back everywhere when one path refuses it', async () => {
    target.full.add('sdc');
    const { status, sense } = await register();
    expect(status).toBe(2);
    expect([...(sense as Uint8Array).subarray(12, 14)]).toEqual([0x55, 4]);
    expect(keysOf()).toEqual({});
    target.full.clear();
    await register();
    target.full.add('sdc');
    expect((await register(0xcccn, OURS)).status).toBe(2);
    expect(keysOf()).toEqual(all(OURS));
  });
  it('is made where the device is reached, and nowhere when it is not', async () => {
    target.dead.add('sda');
    expect((await register()).status).toBe(0);
    expect(keysOf()).toEqual({ sdb: OURS, sdc: OURS });
    for (const name of names) target.dead.add(name);
    expect((await register(0n, OURS)).status).toBe(2);
    expect(keysOf()).toEqual({ sdb: OURS, sdc: OURS });
  });
  it('keeps the wish to outlive a loss of power on every path', async () => {
    const lists: Buffer[] = [];
    const recorded = paths().map((path) => ({
      ...path,
      send: (cdb: Uint8Array, parameters: Uint8Array) => {
        lists.push(Buffer.from(parameters));
        return path.send(cdb, parameters);
      },
    }));
    const parameters = createParameterList({ actionKey: OURS, persistThroughPowerLoss: true });
    const command = { isOut: true, serviceAction: IGNORE, scope: 0, type: 0, lengthBytes: 24 };
    await reserveOut(recorded, state, command, parameters);
    expect(lists.map((list) => list[20])).toEqual([1, 1, 1]);
  });
});

describe('a reservation', () => {
  it('is made once, and released by whatever path holds it', async () => {
    await register();
    expect((await out(RESERVE, { reservationKey: OURS }, 5)).status).toBe(0);
    expect(target.log.filter((line) => line.endsWith('out 1'))).toHaveLength(1);
    target.reservation = { holder: 'sdc', type: 5 };
    expect((await out(RELEASE, { reservationKey: OURS }, 5)).status).toBe(0);
    expect(target.reservation).toBeUndefined();
  });
  it('is released without the guest being told what it did itself', async () => {
    await register();
    await out(RESERVE, { reservationKey: OURS }, 5);
    expect((await out(RELEASE, { reservationKey: OURS }, 5)).status).toBe(0);
    target.attention.add('sda');
    expect((await out(RELEASE, { reservationKey: OURS }, 5)).status).toBe(2);
  });
  it('that a dead path holds is not said to be released', async () => {
    await register();
    target.reservation = { holder: 'sdb', type: 5 };
    target.dead.add('sdb');
    expect((await out(RELEASE, { reservationKey: OURS }, 5)).status).toBe(2);
    expect(target.reservation).toBeDefined();
  });
  it('of others is a conflict, and stays', async () => {
    await register();
    target.keys.set('other', THEIRS);
    target.reservation = { holder: 'other', type: 5 };
    expect((await out(RESERVE, { reservationKey: OURS }, 5)).status).toBe(CONFLICT);
    expect((await out(RELEASE, { reservationKey: OURS }, 5)).status).toBe(0);
    expect(target.reservation.holder).toBe('other');
  });
  it('can be made by a guest whose helper was started again, whichever path is registered', async () => {
    target.keys.set('sdc', OURS);
    expect((await out(RESERVE, { reservationKey: OURS }, 5)).status).toBe(0);
    expect(target.reservation).toEqual({ holder: 'sdc', type: 5 });
    expect(state.key).toBe(OURS);
  });
});

describe('fencing', () => {
  it('removes the other node, and leaves all of our paths', async () => {
    await register();
    target.keys.set('other', THEIRS);
    target.reservation = { holder: 'other', type: 5 };
    expect((await out(PREEMPT, { reservationKey: OURS, actionKey: THEIRS }, 5)).status).toBe(0);
    expect(keysOf()).toEqual(all(OURS));
    expect(names).toContain(target.reservation?.holder);
  });
  it('with our own key does not lose our other paths', async () => {
    await register();
    target.reservation = { holder: 'sdb', type: 5 };
    expect((await out(PREEMPT, { reservationKey: OURS, actionKey: OURS }, 5)).status).toBe(0);
    expect(keysOf()).toEqual(all(OURS));
  });
  it('CLEAR removes everything, and nothing comes back', async () => {
    await register();
    expect((await out(CLEAR, { reservationKey: OURS })).status).toBe(0);
    expect(keysOf()).toEqual({});
    expect(await catchUp(paths(), state)).toEqual({ added: [], lost: false });
    expect(keysOf()).toEqual({});
  });
});

describe('what cannot be done on several paths', () => {
  it('is refused without a word to the device', async () => {
    for (const action of [7, 8, 31]) expect((await out(action, { reservationKey: OURS })).status).toBe(2);
    expect((await out(REGISTER, { actionKey: OURS, specifyInitiators: true })).status).toBe(2);
    const command = { isOut: true, serviceAction: 0, scope: 0, type: 0, lengthBytes: 23 };
    expect((await reserveOut(paths(), state, command, new Uint8Array(23))).status).toBe(2);
    expect(target.log).toEqual([]);
  });
});

describe('a path that comes back', () => {
  it('is registered with the key that the others have', async () => {
    target.dead.add('sdc');
    await register();
    target.dead.clear();
    target.attention.add('sdc');
    expect(await catchUp(paths(), state)).toEqual({ added: ['sdc'], lost: false });
    expect(keysOf()).toEqual(all(OURS));
    expect(await catchUp(paths(), state)).toEqual({ added: [], lost: false });
  });
  it('is registered as a new one, under the same name too', async () => {
    await register();
    expect(await catchUp(paths(['sda', 'sdb']), state)).toEqual({ added: [], lost: false });
    target.keys.delete('sdc');
    expect((await catchUp(paths(), state)).added).toEqual(['sdc']);
    expect(keysOf()).toEqual(all(OURS));
  });
  it('stays out when we were fenced meanwhile', async () => {
    target.dead.add('sdc');
    await register();
    target.keys.clear();
    target.keys.set('other', THEIRS);
    target.dead.clear();
    expect(await catchUp(paths(), state)).toEqual({ added: [], lost: true });
    expect(keysOf()).toEqual({ other: THEIRS });
    expect(state.key).toBeUndefined();
  });
  it('stays out when we are fenced between the question and the registration', async () => {
    target.dead.add('sdc');
    await register();
    target.dead.clear();
    target.before = (nexus) => {
      if (nexus !== 'sdc') return;
      target.keys.delete('sda');
      target.keys.delete('sdb');
      target.before = undefined;
    };
    expect(await catchUp(paths(), state)).toEqual({ added: [], lost: true });
    expect(keysOf()).toEqual({});
  });
  it('waits when no path can say how things are', async () => {
    target.dead.add('sdc');
    await register();
    for (const name of names) target.dead.add(name);
    expect(await catchUp(paths(), state)).toEqual({ added: [], lost: false });
    expect(state.key).toBe(OURS);
  });
});
