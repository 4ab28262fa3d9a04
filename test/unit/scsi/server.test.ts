import { readdirSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import type { MultipathRoute } from '../../../src/scsi/executor.ts';
import { createParameterList } from '../../../src/scsi/parameter-data.ts';
import { createReserveIn, createReserveOut } from '../../../src/scsi/persistent-reserve.ts';
import { parseSense } from '../../../src/scsi/sense.ts';
import type { PrHelperServerOptions } from '../../../src/scsi/server.ts';
import { native, type Rig, receive, receiveExactly, send, startServer, withFile } from './support.ts';

const rigs: Rig[] = [];
const sockets: number[] = [];

afterEach(async () => {
  for (const fd of sockets.splice(0)) native.close(fd);
  for (const rig of rigs.splice(0)) await rig.server.stop();
});

function start(options?: Partial<PrHelperServerOptions>): Rig {
  const rig = startServer(options);
  rigs.push(rig);
  return rig;
}

/** A raw client behind the features. */
async function greet(rig: Rig): Promise<number> {
  const fd = rig.attach();
  sockets.push(fd);
  expect(await receiveExactly(fd, 4)).toEqual(Buffer.alloc(4));
  send(fd, new Uint8Array(4));
  return fd;
}

const pad = (cdb: Uint8Array): Uint8Array => Uint8Array.from({ length: 16 }, (_, i) => cdb[i] ?? 0);
const READ_KEYS = pad(createReserveIn(0, 8192));
const REGISTER = pad(createReserveOut(0, 0, 24));
const LIST = createParameterList({ actionKey: 0xabcdn });

const senseOf = (answer: Uint8Array): string => {
  const { key, asc, ascq } = parseSense(answer.subarray(8))!;
  return `${key}/${asc}/${ascq}`;
};
const openFds = (): number => readdirSync('/proc/self/fd').length;

/** Answers in the executor's place, when told to. */
function holdingRoute(data = new Uint8Array(0)): { route: MultipathRoute; release: () => void; waiting: () => number } {
  const held: (() => void)[] = [];
  return {
    route: {
      take(_fd, _file, _request, reply) {
        held.push(() => reply({ status: 0, sense: undefined, data, durationUs: 1, note: 'held' }));
        return true;
      },
    },
    release: () => held.shift()?.(),
    waiting: () => held.length,
  };
}

const until = async (condition: () => boolean): Promise<void> => {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 1));
};

describe('a helper', () => {
  it('answers what the kernel says to a device that takes no commands, and goes on', async () => {
    const client = await start().connect();
    await withFile('/dev/null', 'r+', async (fd) => {
      for (const answer of [await client.reserveIn(fd, 0), await client.reserveOut(fd, 0, 0, LIST)]) {
        expect(answer.status).toBe(2);
        expect(parseSense(answer.sense)).toEqual({ key: 0xb, asc: 0, ascq: 6 });
        expect(answer.data.length).toBe(0);
        expect(answer.sense.subarray(18).every((byte) => byte === 0)).toBe(true);
      }
    });
    client.close();
  });

  it.each([
    ['/dev/null', 'r', '5/32/0'],
    ['/etc/passwd', 'r', '5/32/0'],
    ['/dev/null', 'w', '11/0/6'],
  ])('answers OUT on %s, opened with %s, with sense %s', async (path, flags, sense) => {
    const rig = start();
    const fd = await greet(rig);
    await withFile(path, flags, async (device) => {
      send(fd, Buffer.concat([REGISTER, LIST]), [device]);
      const answer = await receiveExactly(fd, 104);
      expect([...answer.subarray(0, 8)]).toEqual([0, 0, 0, 2, 0, 0, 0, 0]);
      expect(senseOf(answer)).toBe(sense);
    });
  });

  it('takes a request in any pieces, its descriptor with any of them', async () => {
    const rig = start();
    const whole = Buffer.concat([REGISTER, LIST]);
    await withFile('/dev/null', 'r+', async (device) => {
      for (let at = 0; at < 16; at++) {
        const fd = await greet(rig);
        for (let i = 0; i < whole.length; i++) {
          send(fd, whole.subarray(i, i + 1), i === at ? [device] : []);
          await new Promise((resolve) => setImmediate(resolve));
        }
        expect(senseOf(await receiveExactly(fd, 104))).toBe('11/0/6');
      }
    });
  });

  it('answers requests that were sent ahead in order, and drops descriptors of parameters', async () => {
    const rig = start();
    const fd = await greet(rig);
    await withFile('/dev/null', 'r+', async (device) => {
      await withFile('/dev/null', 'r', async (readOnly) => {
        const before = openFds();
        for (let i = 0; i < 100; i++) {
          send(fd, REGISTER, [i % 2 === 0 ? device : readOnly]);
          send(fd, LIST, [device, device]);
        }
        for (let i = 0; i < 100; i++) {
          expect(senseOf(await receiveExactly(fd, 104))).toBe(i % 2 === 0 ? '11/0/6' : '5/32/0');
        }
        expect(openFds()).toBe(before);
      });
    });
    expect(rig.server.status()).toMatchObject({ requests: 100, failures: 100, good: 0, inFlight: 0 });
  });

  it('sends a payload no longer than what was asked for, and none with OUT', async () => {
    const { route, release, waiting } = holdingRoute(new Uint8Array(100).fill(7));
    const rig = start({ multipath: route });
    const client = await rig.connect();
    await withFile('/dev/null', 'r+', async (device) => {
      for (const [allocation, expected] of [
        [8192, 100],
        [10, 10],
        [0, 0],
      ] as const) {
        const asked = client.reserveIn(device, 0, allocation);
        await until(() => waiting() === 1);
        release();
        expect((await asked).data).toEqual(new Uint8Array(expected).fill(7));
      }
      const changed = client.reserveOut(device, 0, 0, LIST);
      await until(() => waiting() === 1);
      release();
      expect((await changed).data.length).toBe(0);
    });
    client.close();
  });
});

describe('a client that breaks the rules is cut off, and nothing of it stays open:', () => {
  it.each<[string, (fd: number, device: number) => void]>([
    ['no descriptor', (fd) => send(fd, READ_KEYS)],
    ['two descriptors', (fd, device) => send(fd, READ_KEYS, [device, device])],
    ['two hundred descriptors', (fd, device) => send(fd, READ_KEYS, Array(200).fill(device))],
    [
      'a descriptor with either half',
      (fd, device) => {
        send(fd, READ_KEYS.subarray(0, 8), [device]);
        send(fd, READ_KEYS.subarray(8), [device]);
      },
    ],
    ['another command', (fd, device) => send(fd, pad(Uint8Array.of(0x12)), [device])],
    ['IN of 8193 bytes', (fd, device) => send(fd, pad(createReserveIn(0, 8193)), [device])],
    ['OUT of 8193 bytes', (fd, device) => send(fd, pad(createReserveOut(0, 0, 8193)), [device])],
    [
      'an end inside a command',
      (fd, device) => {
        send(fd, READ_KEYS.subarray(0, 9), [device]);
        native.shutdown(fd, 1);
      },
    ],
    [
      'an end inside parameters',
      (fd, device) => {
        send(fd, Buffer.concat([REGISTER, LIST.subarray(0, 23)]), [device]);
        native.shutdown(fd, 1);
      },
    ],
  ])('%s', async (_name, act) => {
    const rig = start();
    const fd = await greet(rig);
    await withFile('/dev/null', 'r+', async (device) => {
      const before = openFds();
      act(fd, device);
      expect(await receive(fd)).toEqual(new Uint8Array(0));
      // The server's end is closed as well.
      expect(openFds()).toBe(before - 1);
    });
    await until(() => rig.server.status().connections === 0);
    expect(rig.server.status()).toMatchObject({ connections: 0, refused: 1, requests: 0 });
  });

  it('features', async () => {
    const rig = start();
    const fd = rig.attach();
    sockets.push(fd);
    await receiveExactly(fd, 4);
    send(fd, Uint8Array.of(0, 0, 0, 1));
    expect(await receive(fd)).toEqual(new Uint8Array(0));
    await until(() => rig.server.status().connections === 0);
    expect(rig.server.status().refused).toBe(1);
  });

  it('a descriptor that went with the features is not one of the command behind them', async () => {
    const rig = start();
    const fd = rig.attach();
    sockets.push(fd);
    await receiveExactly(fd, 4);
    await withFile('/dev/null', 'r+', async (device) => {
      send(fd, Buffer.concat([new Uint8Array(4), READ_KEYS]), [device]);
      expect(await receive(fd)).toEqual(new Uint8Array(0));
    });
  });
});

describe('clients', () => {
  it('do not wait for each other', async () => {
    const { route, release, waiting } = holdingRoute();
    const rig = start({
      multipath: {
        // Only what is opened for writing is held.
        take: (fd, file, request, reply) => file.isWritable && route.take(fd, file, request, reply),
      },
    });
    const stuck = await rig.connect();
    const other = await rig.connect();
    await withFile('/dev/null', 'r+', async (slow) => {
      await withFile('/dev/null', 'r', async (fast) => {
        const held = stuck.reserveIn(slow, 0);
        await until(() => waiting() === 1);
        for (let i = 0; i < 10; i++) expect((await other.reserveIn(fast, 0)).status).toBe(2);
        release();
        expect((await held).status).toBe(0);
      });
    });
    stuck.close();
    other.close();
  });

  it('that leave while a device has their request harm nobody; it is over when the device answers', async () => {
    const { route, release, waiting } = holdingRoute();
    const rig = start({ multipath: route });
    const fd = await greet(rig);
    await withFile('/dev/null', 'r+', async (device) => {
      const before = openFds();
      send(fd, READ_KEYS, [device]);
      await until(() => waiting() === 1);
      native.shutdown(fd, 2);
      send(await greet(rig), READ_KEYS, [device]);
      await until(() => waiting() === 2);
      release();
      release();
      await until(() => rig.server.status().connections === 1);
      expect(openFds()).toBe(before + 1);
    });
  });

  it('that do not read wait for themselves', async () => {
    let answered = 0;
    const route: MultipathRoute = {
      take(_fd, _file, _request, reply) {
        const data = new Uint8Array(8192).fill(answered++);
        reply({ status: 0, sense: undefined, data, durationUs: 1, note: 'big' });
        return true;
      },
    };
    const rig = start({ multipath: route });
    const fd = await greet(rig);
    const other = await rig.connect();
    const requests = 200;
    await withFile('/dev/null', 'r+', async (device) => {
      for (let i = 0; i < requests; i++) send(fd, READ_KEYS, [device]);
      expect((await other.reserveIn(device, 0)).data.length).toBe(8192);
      // The socket is full by now, and what waits behind it is not carried out.
      await new Promise((resolve) => setTimeout(resolve, 50));
      expect(rig.server.status().requests).toBeLessThan(requests);
      const [others] = (await other.reserveIn(device, 0)).data;
      const all = Buffer.from(await receiveExactly(fd, requests * (104 + 8192)));
      for (let i = 0; i < requests; i++) {
        const at = i * 8296;
        expect(all.readUInt32BE(at + 4)).toBe(8192);
        // What waited is not what others were answered meanwhile.
        expect([i, all[at + 104]]).toEqual([i, all[at + 8295]]);
        expect(all[at + 104]).not.toBe(others);
      }
    });
    other.close();
  });

  it('are all served: 300 of them', async () => {
    const rig = start();
    const clients = await Promise.all(Array.from({ length: 300 }, () => rig.connect()));
    await withFile('/dev/null', 'r+', async (device) => {
      const answers = await Promise.all(clients.map((client) => client.reserveIn(device, 0)));
      expect(answers.every(({ status }) => status === 2)).toBe(true);
    });
    expect(rig.server.status()).toMatchObject({ connections: 300, requests: 300 });
    for (const client of clients) client.close();
  });
});

describe('stopping', () => {
  it('waits for requests that devices have, answers them, and cuts off the rest', async () => {
    const { route, release, waiting } = holdingRoute();
    const rig = startServer({ multipath: route });
    const idle = await greet(rig);
    const half = await greet(rig);
    const busy = await greet(rig);
    await withFile('/dev/null', 'r+', async (device) => {
      send(half, READ_KEYS.subarray(0, 8), [device]);
      send(busy, READ_KEYS, [device]);
      await until(() => waiting() === 1);
      let over = false;
      const stopped = rig.server.stop().then(() => {
        over = true;
      });
      expect(await receive(idle)).toEqual(new Uint8Array(0));
      expect(await receive(half)).toEqual(new Uint8Array(0));
      expect(over).toBe(false);
      release();
      expect([...(await receiveExactly(busy, 104)).subarray(0, 8)]).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
      await stopped;
      expect(await receive(busy)).toEqual(new Uint8Array(0));
    });
  });
});

describe('rules and records', () => {
  it('refuse a device that is denied, or not among those allowed', async () => {
    const rule = { kind: 'any' as const, major: 1, minor: 3 };
    const zero = { kind: 'any' as const, major: 1, minor: 5 };
    for (const [rules, sense] of [
      [{ allow: [], deny: [rule] }, 5],
      [{ allow: [zero], deny: [] }, 5],
      [{ allow: [rule], deny: [zero] }, 0xb],
      [{ allow: [{ ...rule, minor: undefined }], deny: [] }, 0xb],
      [{ allow: [rule], deny: [rule] }, 5],
      [{ allow: [], deny: [{ ...rule, kind: 'block' as const }] }, 0xb],
    ] as const) {
      const client = await start({ rules }).connect();
      await withFile('/dev/null', 'r+', async (fd) => {
        expect(parseSense((await client.reserveIn(fd, 0)).sense)!.key).toBe(sense);
      });
      client.close();
    }
  });

  it('say who asked what of which device, and what came of it', async () => {
    const rig = start({ findPath: () => '/dev/null' });
    const client = await rig.connect();
    await withFile('/dev/null', 'r+', async (fd) => {
      const list = createParameterList({ reservationKey: 1n, actionKey: 0xffn, persistThroughPowerLoss: true });
      await client.reserveOut(fd, 4, 5, list);
    });
    client.close();
    expect(rig.server.status().requests).toBe(1);
    const { durationMs, ...entry } = rig.accesses[0]!;
    expect(durationMs).toBeGreaterThanOrEqual(0);
    expect(entry).toEqual({
      peerPid: process.pid,
      peerUid: process.geteuid!(),
      device: '1:3',
      path: '/dev/null',
      command: 'out',
      action: 'PREEMPT',
      type: 'write exclusive, registrants only',
      key: '0x0000000000000001',
      actionKey: '0x00000000000000ff',
      aptpl: true,
      status: 'CHECK CONDITION',
      sense: 'aborted command: I/O process terminated (b/00/06)',
      bytes: 0,
      note: 'errno 25',
    });
  });

  it('are told without being asked for, at once and after a pause', async () => {
    const rig = start();
    const client = await rig.connect();
    await withFile('/dev/null', 'r+', async (fd) => {
      for (let told = 0; told < 3; told++) {
        for (let i = 0; i < 5; i++) await client.reserveIn(fd, i);
        await until(() => rig.accesses.length === (told + 1) * 5);
        // Longer than they are collected for.
        await new Promise((resolve) => setTimeout(resolve, 30));
      }
    });
    client.close();
    expect(rig.accesses.map(({ action }) => action).slice(0, 5)).toEqual(rig.accesses.slice(10).map((e) => e.action));
  });

  it('shows what a device has until it is answered', async () => {
    const { route, release, waiting } = holdingRoute();
    const rig = start({ multipath: route });
    const client = await rig.connect();
    await withFile('/dev/null', 'r+', async (device) => {
      const asked = client.reserveOut(device, 0, 0, LIST);
      await until(() => waiting() === 1);
      const [record] = rig.server.activity.clients;
      expect(record!.peer.pid).toBe(process.pid);
      expect(Buffer.from(record!.request!).subarray(0, 16)).toEqual(Buffer.from(REGISTER));
      expect(record!.file).toMatchObject({ kind: 'character', major: 1, minor: 3 });
      release();
      expect(record!.request).toBeUndefined();
      await asked;
      client.close();
      await until(() => rig.server.activity.clients.size === 0);
      expect(rig.server.status()).toMatchObject({ requests: 1, good: 1, connections: 0 });
    });
  });
});
