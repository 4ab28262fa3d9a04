/** From a descriptor to the paths of its device: which commands are taken, how paths are opened, order, and what comes back. */
import { mkdirSync, mkdtempSync, openSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { silentLogger } from '../../../../src/base/logger.ts';
import type { ReplyWith } from '../../../../src/scsi/executor.ts';
import {
  createMultipathRoute,
  type ManagedMultipathRoute,
  type MultipathPolicy,
  type MultipathRouteOptions,
} from '../../../../src/scsi/multipath/route.ts';
import type { PathDevice } from '../../../../src/scsi/multipath/topology.ts';
import { createParameterList } from '../../../../src/scsi/parameter-data.ts';
import { createReserveIn, createReserveOut } from '../../../../src/scsi/persistent-reserve.ts';
import type { OpenFile, SgQueue, SgRequest, SgResult } from '../../../../src/sys/sg.ts';
import { native } from '../support.ts';
import { createFakeTarget, type FakeTarget } from './fake-target.ts';

const REGISTER = 0;
const RESERVE = 1;
const REGISTER_AND_IGNORE = 6;
const KEY = 0xaan;
const ENODEV = 19;
const EREMOTEIO = 121;
const DID_NO_CONNECT = 1;
const DID_TARGET_FAILURE = 16;

type Reply = Parameters<ReplyWith>[0];

let sysfs: string;
let target: FakeTarget;
let messages: string[];
let routes: ManagedMultipathRoute[];
/** Descriptors of paths, by number, and paths that cannot be opened. */
let opened: Map<number, string>;
let closedWays: Map<string, 'gone' | Error>;
/** What the kernel says of a path in the place of its target. */
let faults: Map<string, Partial<SgResult>>;
/** Commands that are held back; undefined: none is. */
let held: (() => void)[] | undefined;

beforeEach(() => {
  sysfs = mkdtempSync(join(tmpdir(), 'passel-sysfs-'));
  mkdirSync(join(sysfs, 'dev/block'), { recursive: true });
  addDevice('sda', '8:0');
  addDevice('sdb', '8:16');
  addDevice('dm-0', '253:0', 'mpath-1', ['sda', 'sdb']);
  target = createFakeTarget();
  messages = [];
  routes = [];
  opened = new Map();
  closedWays = new Map();
  faults = new Map();
  held = undefined;
});
afterEach(async () => {
  for (const route of routes) await route.close();
  rmSync(sysfs, { recursive: true });
});

function addDevice(name: string, number: string, uuid?: string, slaves: readonly string[] = []): void {
  const folder = join(sysfs, 'block', name);
  mkdirSync(join(folder, 'slaves'), { recursive: true });
  writeFileSync(join(folder, 'dev'), `${number}\n`);
  if (uuid !== undefined) {
    mkdirSync(join(folder, 'dm'));
    writeFileSync(join(folder, 'dm/uuid'), `${uuid}\n`);
  }
  for (const slave of slaves) symlinkSync(join(sysfs, 'block', slave), join(folder, 'slaves', slave));
  symlinkSync(folder, join(sysfs, 'dev/block', number));
}

/** A queue whose devices are the fake target's paths. */
function createFakeQueue(): SgQueue {
  const buffer = new Uint8Array(8192 + 104);
  const answer = async ({ fd, bytes, cdbBytes }: SgRequest, done: (result: SgResult) => void): Promise<void> => {
    const name = opened.get(fd)!;
    const good = {
      errno: 0,
      status: 0,
      hostStatus: 0,
      driverStatus: 0,
      senseBytes: 0,
      transferredBytes: 0,
      durationUs: 1,
    };
    const fault = faults.get(name);
    if (fault !== undefined) {
      target.log.push(`${name} fault`);
      done({ ...good, ...fault });
      return;
    }
    const reply = await target.path(name).send(bytes.slice(0, cdbBytes), bytes.slice(cdbBytes));
    buffer.fill(0);
    buffer.set(reply.sense, 8);
    buffer.set(reply.data, 104);
    done({ ...good, status: reply.status, senseBytes: 18, transferredBytes: reply.data.length });
  };
  return {
    buffer,
    pending: 0,
    submit(request, done) {
      const copy = { ...request, bytes: request.bytes.slice() };
      const go = (): void => void answer(copy, done);
      if (held === undefined) setImmediate(go);
      else held.push(go);
    },
    close() {},
  };
}

function openFake({ name }: PathDevice): number | undefined {
  const state = closedWays.get(name);
  if (state instanceof Error) throw state;
  if (state === 'gone') return undefined;
  const fd = openSync('/dev/null', 'r');
  opened.set(fd, name);
  return fd;
}

function createRoute(options: Partial<MultipathRouteOptions> = {}): ManagedMultipathRoute {
  const note = (text: string): void => void messages.push(text);
  const route = createMultipathRoute({
    native,
    log: { ...silentLogger, warn: note, error: note },
    queue: createFakeQueue(),
    requestTimeoutMs: 1000,
    policy: 'fan-out' satisfies MultipathPolicy,
    sysfs,
    openPath: openFake,
    ...options,
  });
  routes.push(route);
  return route;
}

const disk = (major: number, minor: number, kind: OpenFile['kind'] = 'block'): OpenFile => ({
  ...{ kind, major, minor, isWritable: true },
});
const MAPPED = disk(253, 0);

function out(action: number, keys: { reservationKey?: bigint; actionKey?: bigint }, type = 0): Uint8Array {
  const bytes = new Uint8Array(16 + 24);
  bytes.set(createReserveOut(action, type, 24));
  bytes.set(createParameterList(keys), 16);
  return bytes;
}

function ask(route: ManagedMultipathRoute, request: Uint8Array, file = MAPPED): Promise<Reply> {
  return new Promise((resolve, reject) => {
    if (!route.take(-1, file, request, resolve)) reject(new Error('not taken'));
  });
}

const until = async (condition: () => boolean): Promise<void> => {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 1));
};
const openFds = (): number => readdirSync('/proc/self/fd').length;
const keysOf = (): Record<string, bigint> => Object.fromEntries([...target.keys].sort());
const REFUSED = { status: 2, sense: { key: 5, asc: 0x20, ascq: 0 } };

describe('a route', () => {
  it.each([
    ['a device with one path', disk(8, 0), out(REGISTER, {})],
    ['a device that is not there', disk(253, 7), out(REGISTER, {})],
    ['a character device of the number of a multipath one', disk(253, 0, 'character'), out(REGISTER, {})],
    ['a question to a multipath device', MAPPED, Uint8Array.from([...createReserveIn(0, 8192), 0, 0, 0, 0, 0, 0])],
  ])('leaves %s to others', (_what, file, request) => {
    const route = createRoute();
    expect(route.take(-1, file, request, () => expect.unreachable())).toBe(false);
    expect(target.log).toEqual([]);
  });

  it('refuses changes when it was told to, and says so', async () => {
    const reply = await ask(createRoute({ policy: 'refuse' }), out(REGISTER, { actionKey: KEY }));
    expect(reply).toMatchObject({ ...REFUSED, note: 'multipath: refused' });
    expect(target.log).toEqual([]);
    expect(messages).toEqual(['device 253:0 has several paths: multipath: refused']);
  });

  it('refuses changes to a device on several multipath ones', async () => {
    addDevice('sdc', '8:32');
    addDevice('dm-1', '253:1', 'mpath-2', ['sdc']);
    addDevice('dm-2', '253:2', 'LVM-x', ['dm-0', 'dm-1']);
    const reply = await ask(createRoute(), out(REGISTER, { actionKey: KEY }), disk(253, 2));
    expect(reply).toMatchObject({ ...REFUSED, note: 'multipath: refused, several devices lie below' });
    expect(target.log).toEqual([]);
  });

  it('registers on every path, and holds none of them open afterwards', async () => {
    const before = openFds();
    const reply = await ask(createRoute(), out(REGISTER, { actionKey: KEY }));
    expect(reply).toMatchObject({ status: 0, sense: undefined, note: 'multipath: on 2 of 2 paths' });
    expect(reply.durationUs).toBeGreaterThan(0);
    expect(keysOf()).toEqual({ sda: KEY, sdb: KEY });
    await until(() => openFds() === before);
  });

  it('reaches the same paths from a volume on the device', async () => {
    addDevice('dm-3', '253:3', 'LVM-x', ['dm-0']);
    const route = createRoute();
    await ask(route, out(REGISTER, { actionKey: KEY }), disk(253, 3));
    expect(keysOf()).toEqual({ sda: KEY, sdb: KEY });
    // What was learned of it counts for the device below, too.
    expect(await ask(route, out(RESERVE, { reservationKey: KEY }, 5))).toMatchObject({ status: 0 });
    expect(target.reservation).toEqual({ holder: 'sda', type: 5 });
  });

  it('registers none when a path may not be opened, and says so', async () => {
    const before = openFds();
    closedWays.set('sdb', new Error('EACCES: permission denied'));
    const reply = await ask(createRoute(), out(REGISTER, { actionKey: KEY }));
    expect(reply).toMatchObject({ ...REFUSED, note: 'multipath: refused, the paths cannot be opened' });
    expect(target.log).toEqual([]);
    expect(messages).toEqual(['multipath device mpath-1: its paths cannot be reached: EACCES: permission denied']);
    await until(() => openFds() === before);
  });

  it('does not take a file of another kind or number in /dev for a path', async () => {
    addDevice('null', '8:48');
    addDevice('no-such-device', '8:64');
    addDevice('dm-4', '253:4', 'mpath-4', ['null', 'no-such-device']);
    const queue = createFakeQueue();
    queue.submit = () => expect.unreachable('a command was sent');
    const log = { ...silentLogger, error: (text: string) => void messages.push(text) };
    const route = createMultipathRoute({ native, log, queue, requestTimeoutMs: 1000, policy: 'fan-out', sysfs });
    routes.push(route);
    const before = openFds();
    const reply = await ask(route, out(REGISTER, { actionKey: KEY }), disk(253, 4));
    expect(reply).toMatchObject({ status: 2, note: 'no path answers' });
    expect(messages).toEqual([]);
    await until(() => openFds() === before);
  });

  it.each([
    ['errno', { errno: ENODEV }],
    ['host status', { hostStatus: DID_NO_CONNECT }],
  ])('takes a path that is not reached (%s) for one that comes later', async (_how, fault) => {
    faults.set('sdb', fault);
    const reply = await ask(createRoute(), out(REGISTER, { actionKey: KEY }));
    expect(reply).toMatchObject({ status: 0, note: 'multipath: on 1 of 2 paths, others when they answer' });
    expect(keysOf()).toEqual({ sda: KEY });
  });

  it.each([
    ['errno', { errno: EREMOTEIO }],
    ['host status', { hostStatus: DID_TARGET_FAILURE }],
  ])('takes what a target says by %s as its answer, and gives back what the others took', async (_how, fault) => {
    faults.set('sdb', fault);
    const reply = await ask(createRoute(), out(REGISTER, { actionKey: KEY }));
    expect(reply).toMatchObject({ status: 2, note: 'multipath: sdb refused; taken back' });
    expect(reply.sense).toBeInstanceOf(Uint8Array);
    // LOGICAL UNIT COMMUNICATION or the like: key 4 (hardware error), as for a device with one path.
    expect((reply.sense as Uint8Array)[2]).toBe(4);
    expect(keysOf()).toEqual({});
  });

  it('refuses when no command can be started', async () => {
    const queue = createFakeQueue();
    queue.submit = () => {
      throw new Error('no thread');
    };
    const reply = await ask(createRoute({ queue }), out(REGISTER, { actionKey: KEY }));
    expect(reply).toMatchObject({ ...REFUSED, note: 'multipath: refused, the paths cannot be opened' });
    expect(messages[0]).toContain('no thread');
  });
});

describe('order', () => {
  it('one command of a device goes after the other, those of two devices side by side', async () => {
    addDevice('sdc', '8:32');
    addDevice('dm-1', '253:1', 'mpath-2', ['sdc']);
    held = [];
    const route = createRoute();
    const done: string[] = [];
    const first = ask(route, out(REGISTER, { actionKey: KEY })).then(() => done.push('first'));
    const second = ask(route, out(REGISTER, { reservationKey: KEY, actionKey: 0xbbn })).then(() => done.push('second'));
    const other = ask(route, out(REGISTER, { actionKey: KEY }), disk(253, 1)).then(() => done.push('other'));
    await until(() => held!.length === 2);
    held.pop()!();
    await other;
    expect(done).toEqual(['other']);
    // The first one's two paths, and only then the second one's.
    for (let command = 0; command < 2; command++) {
      await until(() => held!.length === 1);
      held.pop()!();
    }
    await first;
    expect(keysOf()).toEqual({ sda: KEY, sdb: KEY, sdc: KEY });
    for (let command = 0; command < 2; command++) {
      await until(() => held!.length === 1);
      held.pop()!();
    }
    await second;
    expect(keysOf()).toEqual({ sda: 0xbbn, sdb: 0xbbn, sdc: KEY });
  });

  it('a command that waited does not reach a device that has taken the number meanwhile', async () => {
    held = [];
    const route = createRoute();
    const first = ask(route, out(REGISTER, { actionKey: KEY }));
    const second = ask(route, out(REGISTER_AND_IGNORE, { actionKey: 0xbbn }));
    await until(() => held!.length === 1);
    writeFileSync(join(sysfs, 'block/dm-0/dm/uuid'), 'mpath-other\n');
    for (const go of held.splice(0)) go();
    await until(() => held!.length === 1);
    for (const go of held.splice(0)) go();
    expect(await first).toMatchObject({ status: 0 });
    expect(await second).toMatchObject(REFUSED);
    expect(keysOf()).toEqual({ sda: KEY, sdb: KEY });
  });

  it('closing waits for a command that is under way', async () => {
    held = [];
    const route = createRoute();
    let ended = false;
    const reply = ask(route, out(REGISTER, { actionKey: KEY }));
    await until(() => held!.length === 1);
    const closed = route.close().then(() => (ended = true));
    await new Promise((resolve) => setImmediate(resolve));
    expect(ended).toBe(false);
    const waiting = held.splice(0);
    held = undefined;
    for (const go of waiting) go();
    expect(await reply).toMatchObject({ status: 0 });
    await closed;
  });
});

describe('a path that comes back', () => {
  it('is registered, and the log says so', async () => {
    closedWays.set('sdb', 'gone');
    await ask(createRoute({ catchUpMs: 1 }), out(REGISTER, { actionKey: KEY }));
    expect(keysOf()).toEqual({ sda: KEY });
    closedWays.clear();
    await until(() => target.keys.size === 2);
    expect(keysOf()).toEqual({ sda: KEY, sdb: KEY });
    await until(() => messages.length > 0);
    expect(messages).toEqual(['multipath device mpath-1: registered on sdb, which came back']);
  });

  it('is registered when it is new', async () => {
    await ask(createRoute({ catchUpMs: 1 }), out(REGISTER, { actionKey: KEY }));
    addDevice('sdc', '8:32');
    symlinkSync(join(sysfs, 'block/sdc'), join(sysfs, 'block/dm-0/slaves/sdc'));
    await until(() => target.keys.size === 3);
    expect(keysOf()).toEqual({ sda: KEY, sdb: KEY, sdc: KEY });
  });

  it('stays as it is when the registration was removed by others meanwhile', async () => {
    closedWays.set('sdb', 'gone');
    await ask(createRoute({ catchUpMs: 1 }), out(REGISTER, { actionKey: KEY }));
    target.keys.clear();
    closedWays.clear();
    await until(() => messages.length > 0);
    expect(messages[0]).toMatch(/our registration was removed by others; paths stay unregistered/);
    const asked = target.log.length;
    // It is given up, not merely put off.
    for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setTimeout(resolve, 1));
    expect(target.log.length).toBe(asked);
    expect(keysOf()).toEqual({});
  });

  it('is not looked for once the route is closed', async () => {
    closedWays.set('sdb', 'gone');
    const route = createRoute({ catchUpMs: 1 });
    await ask(route, out(REGISTER, { actionKey: KEY }));
    await route.close();
    const asked = target.log.length;
    closedWays.clear();
    for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setTimeout(resolve, 1));
    expect(target.log.length).toBe(asked);
    expect(keysOf()).toEqual({ sda: KEY });
  });

  it('is not waited for when nothing is registered', async () => {
    const route = createRoute({ catchUpMs: 1 });
    await ask(route, out(REGISTER, { actionKey: KEY }));
    await ask(route, out(REGISTER, { reservationKey: KEY, actionKey: 0n }));
    const asked = target.log.length;
    addDevice('sdc', '8:32');
    symlinkSync(join(sysfs, 'block/sdc'), join(sysfs, 'block/dm-0/slaves/sdc'));
    for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setTimeout(resolve, 1));
    expect(target.log.length).toBe(asked);
    expect(keysOf()).toEqual({});
  });
});
