/** What the helpers do with clients, right and wrong: the same cases on ours and on QEMU's. No SCSI device is needed. */
import { closeSync, constants, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { loadNative } from '../../../src/sys/native.ts';
import { createSocketPair } from '../../../src/sys/unix-socket.ts';
import { needCommand, needRoot, requireOrSkip } from '../../support/netns/capabilities.ts';
import { waitUntil } from '../../support/netns/process.ts';
import type { HelperProcess, ProgramName } from '../../support/pr-helper/programs.ts';
import { startHelper } from '../../support/pr-helper/start.ts';
import { command, type Message, O_PATH, reserveIn, reserveOut, Wire } from '../../support/pr-helper/wire.ts';
import { needRawIo } from './need-raw-io.ts';

const describeSuite = await requireOrSkip(needRoot, needRawIo, needCommand('qemu-pr-helper', 'qemu-system-common'));

const IO_ERROR = '2 b/0/6 0';
const NOT_WRITABLE = '2 5/20/0 0';
const NONE = Buffer.alloc(0);
const LIST = Buffer.alloc(24);
const PATIENCE_MS = 20_000;

interface Case {
  readonly name: string;
  readonly send: readonly Message[];
  /** In order; the last one may be that the helper has closed (undefined), otherwise it serves on. */
  readonly get: readonly (string | undefined)[];
}

const request = (bytes: Uint8Array, fds = 1): Message => ({ bytes, fds });
const part = (bytes: Buffer, from: number, to: number, fds: number): Message => ({
  bytes: bytes.subarray(from, to),
  fds,
});
const all = (...parts: Uint8Array[]): Buffer => Buffer.concat(parts);

/** One device, /dev/null open for both, and one client that has agreed on features. */
const CASES: readonly Case[] = [
  { name: 'a read', send: [request(reserveIn())], get: [IO_ERROR] },
  { name: 'a change with its parameters in one message', send: [request(all(reserveOut(), LIST))], get: [IO_ERROR] },
  { name: 'a change in two messages', send: [request(reserveOut()), { bytes: LIST }], get: [IO_ERROR] },
  { name: 'a change without parameters', send: [request(reserveOut(0, 0))], get: [IO_ERROR] },
  { name: '8192 bytes to read', send: [request(reserveIn(0, 8192))], get: [IO_ERROR] },
  { name: '8192 bytes of parameters', send: [request(all(reserveOut(0, 8192), Buffer.alloc(8192)))], get: [IO_ERROR] },
  { name: 'no room for an answer', send: [request(reserveIn(0, 0))], get: [IO_ERROR] },
  {
    name: 'service actions that there are none of',
    send: [request(reserveIn(0xff)), request(reserveIn(31))],
    get: [IO_ERROR, IO_ERROR],
  },
  {
    name: 'two requests, one behind the other',
    send: [request(reserveIn()), request(all(reserveOut(), LIST))],
    get: [IO_ERROR, IO_ERROR],
  },
  {
    name: 'the descriptor with the first half',
    send: [part(reserveIn(), 0, 8, 1), part(reserveIn(), 8, 16, 0)],
    get: [IO_ERROR],
  },
  {
    name: 'the descriptor with the second half',
    send: [part(reserveIn(), 0, 8, 0), part(reserveIn(), 8, 16, 1)],
    get: [IO_ERROR],
  },
  {
    name: 'one byte at a time',
    send: Array.from({ length: 16 }, (_, i) => part(reserveIn(), i, i + 1, i === 15 ? 1 : 0)),
    get: [IO_ERROR],
  },
  {
    name: 'a descriptor with the parameters, which is dropped',
    send: [request(reserveOut()), request(LIST)],
    get: [IO_ERROR],
  },
  {
    name: 'a length whose upper half is not read',
    send: [request(all(command(0x5f, 0, 0x10018), LIST)), request(reserveIn())],
    get: [IO_ERROR, IO_ERROR],
  },
  {
    name: 'a descriptor with each half',
    send: [part(reserveIn(), 0, 8, 1), part(reserveIn(), 8, 16, 1)],
    get: [undefined],
  },
  ...[2, 3, 64, 200].map((fds) => ({
    name: `${fds} descriptors`,
    send: [request(reserveIn(), fds)],
    get: [undefined],
  })),
  {
    name: 'no descriptor',
    send: [request(reserveIn(), 0)],
    get: [undefined],
  },
  ...[0x00, 0x12, 0x5d, 0x60, 0xff].map((opcode) => ({
    name: `command ${opcode.toString(16)}h`,
    send: [request(command(opcode, 0, 24))],
    get: [undefined],
  })),
  { name: '8193 bytes to read', send: [request(reserveIn(0, 8193))], get: [undefined] },
  { name: '65535 bytes to read', send: [request(reserveIn(0, 65535))], get: [undefined] },
  { name: '8193 bytes of parameters', send: [request(reserveOut(0, 8193))], get: [undefined] },
  {
    name: 'the same with all of them there',
    send: [request(all(reserveOut(0, 8193), Buffer.alloc(8193)))],
    get: [undefined],
  },
  {
    name: 'more parameters than announced: they are the next command',
    send: [request(all(reserveOut(), LIST, Buffer.alloc(16, 0xee)))],
    get: [IO_ERROR, undefined],
  },
];

describeSuite('clients', () => {
  describe.each<ProgramName>(['ours', 'c'])('of %s', (name) => {
    let folder: string;
    let helper: HelperProcess;
    let baseFds: number;
    const wires: Wire[] = [];
    const fds: number[] = [];

    const open = async (): Promise<Wire> => {
      const wire = await Wire.open(helper.socket);
      wires.push(wire);
      return wire;
    };
    const connect = async (): Promise<Wire> => {
      const wire = await Wire.connect(helper.socket);
      wires.push(wire);
      return wire;
    };
    const device = (path = '/dev/null', flags: string | number = 'r+'): number => {
      const fd = openSync(path, flags);
      fds.push(fd);
      return fd;
    };
    const expectServed = async (wire: Wire): Promise<void> => {
      wire.send(request(reserveIn()), device());
      expect(await wire.answer()).toBe(IO_ERROR);
    };

    beforeAll(async () => {
      folder = mkdtempSync(join(tmpdir(), 'passel-pr-'));
      helper = await startHelper(name, join(folder, 'pr.sock'));
      // The client that saw it start has to be gone, and what is opened once has to be.
      await expectServed(await open());
      for (const wire of wires.splice(0)) wire.close();
      // The same for half a second: a closed client may not have been noticed yet.
      let same = 0;
      const settled = (): boolean => {
        const count = helper.fdCount();
        same = count === baseFds ? same + 1 : 0;
        baseFds = count;
        return same >= 5;
      };
      await waitUntil('the number of descriptors to settle', settled, PATIENCE_MS, 100);
    });
    afterEach(async () => {
      for (const wire of wires.splice(0)) wire.close();
      for (const fd of fds.splice(0)) closeSync(fd);
      expect(helper.child.exitCode).toBe(null);
      await waitUntil(
        `descriptors: ${helper.fdCount()}, at first ${baseFds}`,
        () => helper.fdCount() === baseFds,
        PATIENCE_MS,
      );
    });
    afterAll(async () => {
      expect(await helper?.end()).toBe(0);
      rmSync(folder, { recursive: true, force: true });
    });

    it.each(CASES)('$name', async ({ send, get }) => {
      const wire = await open();
      const fd = device();
      // Closed already: what is left does not matter.
      for (const message of send) if (!wire.send(message, fd)) break;
      for (const expected of get) expect(await wire.answer()).toBe(expected);
      if (get.at(-1) !== undefined) await expectServed(wire);
    });

    // A helper of their own, since ours does not say everything about every client of a series.
    it.each([
      [
        'no descriptor',
        request(reserveIn(), 0),
        { ours: /no descriptor in a request/, c: /No file descriptor in request/ },
      ],
      [
        'another command',
        request(command(0x12, 0, 24)),
        { ours: /not a PERSISTENT RESERVE command/, c: /Invalid CDB, closing socket/ },
      ],
    ])('is told apart in messages: %s; and nothing is said with --quiet', async (_what, message, says) => {
      for (const args of [[], ['--quiet']]) {
        const fresh = await startHelper(name, join(folder, 'fresh.sock'), args);
        const wire = await Wire.open(fresh.socket);
        wires.push(wire);
        wire.send(message, device());
        expect(await wire.answer()).toBe(undefined);
        if (args.length === 0) await waitUntil('what it says', () => says[name].test(fresh.stderr()), PATIENCE_MS);
        expect(await fresh.end()).toBe(0);
        if (args.length > 0) expect(fresh.stderr()).toBe('');
      }
    });

    it('says hello first, and waits for the features for ever', async () => {
      const wire = await connect();
      expect(await wire.receive(4)).toEqual(Buffer.alloc(4));
      wire.send({ bytes: Buffer.alloc(3) });
      await expectServed(await open());
      expect(wire.isSilent()).toBe(true);
      wire.send({ bytes: Buffer.alloc(1) });
      await expectServed(wire);
    });

    it.each([[1], [0x80000000], [0xffffffff]])('cuts off who wants the features %d', async (features) => {
      const wire = await connect();
      await wire.receive(4);
      const bytes = Buffer.alloc(4);
      bytes.writeUInt32BE(features);
      wire.send({ bytes });
      expect(await wire.receive(1)).toBe(undefined);
    });

    it('drops a descriptor that comes with the features', async () => {
      const wire = await connect();
      await wire.receive(4);
      wire.send({ bytes: Buffer.alloc(4), fds: 1 }, device());
      await expectServed(wire);
      const early = await connect();
      await early.receive(4);
      early.send({ bytes: all(Buffer.alloc(4), reserveIn()), fds: 1 }, device());
      expect(await early.answer()).toBe(undefined);
    });

    it.each([
      ['a regular file', 'file', constants.O_RDWR, IO_ERROR, IO_ERROR],
      ['a device that is open for reading', '/dev/null', constants.O_RDONLY, IO_ERROR, NOT_WRITABLE],
      ['a device that is open for writing', '/dev/null', constants.O_WRONLY, IO_ERROR, IO_ERROR],
      ['a path', '/dev/null', O_PATH, IO_ERROR, NOT_WRITABLE],
      ['a folder', '/tmp', constants.O_RDONLY, IO_ERROR, NOT_WRITABLE],
    ])('answers about %s, and goes on', async (_name, path, flags, toRead, toWrite) => {
      const file = path === 'file' ? join(folder, path) : path;
      if (path === 'file') writeFileSync(file, '');
      const wire = await open();
      const fd = device(file, flags);
      wire.send(request(reserveIn()), fd);
      expect(await wire.answer()).toBe(toRead);
      wire.send(request(all(reserveOut(), LIST)), fd);
      expect(await wire.answer()).toBe(toWrite);
      await expectServed(wire);
    });

    it('answers about a socket, and goes on', async () => {
      fds.push(...createSocketPair(loadNative()));
      const wire = await open();
      wire.send(request(reserveIn()), fds[0]);
      expect(await wire.answer()).toBe(IO_ERROR);
      await expectServed(wire);
    });

    it.each([
      ['before the features', NONE, 0],
      ['in a command', reserveIn().subarray(0, 7), 1],
      ['before the parameters', reserveOut(), 1],
      ['in the parameters', all(reserveOut(), LIST.subarray(0, 5)), 1],
      ['before the answer', reserveIn(), 1],
    ])('lets a client go that ends %s', async (_name, bytes, count) => {
      const wire = bytes.length === 0 ? await connect() : await open();
      if (bytes.length > 0) wire.send({ bytes, fds: count }, device());
      wire.close();
      await expectServed(await open());
    });

    it('is not kept from others by clients that have sent half of something', async () => {
      const halves = [reserveIn().subarray(0, 15), reserveOut(), all(reserveOut(), LIST.subarray(0, 23))];
      const stalled: Wire[] = [];
      for (const bytes of halves) {
        const wire = await open();
        wire.send({ bytes, fds: 1 }, device());
        stalled.push(wire);
      }
      await expectServed(await open());
      for (const wire of stalled) expect(wire.isSilent()).toBe(true);
      stalled[2]!.send({ bytes: LIST.subarray(0, 1) });
      expect(await stalled[2]!.answer()).toBe(IO_ERROR);
    });

    it('has room for 300 clients that are silent, and serves each of them after', async () => {
      const many: Wire[] = [];
      for (let i = 0; i < 300; i++) many.push(await open());
      await expectServed(await open());
      expect(many.every((wire) => wire.isSilent())).toBe(true);
      for (const wire of [many[0]!, many[150]!, many[299]!]) await expectServed(wire);
    });

    it('answers eight clients that ask at once, each as often as it asks', async () => {
      const clients = await Promise.all(Array.from({ length: 8 }, open));
      const fd = device();
      const counts = await Promise.all(
        clients.map(async (wire) => {
          let answered = 0;
          for (let i = 0; i < 100; i++) {
            wire.send(i % 2 === 0 ? request(reserveIn()) : request(all(reserveOut(), LIST)), fd);
            if ((await wire.answer()) === IO_ERROR) answered++;
          }
          return answered;
        }),
      );
      expect(counts).toEqual(Array.from({ length: 8 }, () => 100));
    });

    it('answers 100 requests that were sent ahead', async () => {
      const wire = await open();
      const fd = device();
      for (let i = 0; i < 100; i++) expect(wire.send(request(reserveIn()), fd)).toBe(true);
      for (let i = 0; i < 100; i++) expect(await wire.answer()).toBe(IO_ERROR);
    });
  });
});
