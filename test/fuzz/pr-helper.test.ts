/**
 * Seeded clients of the reservation helper, right and wrong in every way that a stream with descriptors can be, against a model of their
 * own: how many answers come, in which order, how long each is, and when the connection ends. A wrong length would end a virtual
 * machine, a lost descriptor would add up.
 *
 * PASSEL_FUZZ_INPUTS sets the number of requests; the acceptance run is 1 000 000 (npm run fuzz:pr-helper).
 */
import { closeSync, openSync, readdirSync } from 'node:fs';
import { afterAll, expect, it } from 'vitest';
import type { MultipathRoute, ReplyWith } from '../../src/scsi/executor.ts';
import { seededRandom } from '../support/seeded-random.ts';
import { native, startServer } from '../unit/scsi/support.ts';

const INPUTS = Number(process.env['PASSEL_FUZZ_INPUTS'] ?? 20_000);
const SEED = Number(process.env['PASSEL_FUZZ_SEED'] ?? 20261128);
const AT_A_TIME = 64;
const HEADER = 104;
const LIMIT = 8192;

const device = openSync('/dev/null', 'r+');
const readOnly = openSync('/dev/null', 'r');
afterAll(() => {
  closeSync(device);
  closeSync(readOnly);
});

const random = seededRandom(SEED);
const below = (limit: number): number => Math.floor(random() * limit);
const oneIn = (chance: number): boolean => random() * chance < 1;
const bytesOf = (length: number): Uint8Array => Uint8Array.from({ length }, () => below(256));

/** A device that does what the draw says: now or later, with any status, sense and more data than was asked for. */
const late: (() => void)[] = [];
const route: MultipathRoute = {
  take(_fd, _file, request, reply) {
    // One command in eight goes to the kernel, which has no SCSI behind /dev/null.
    if ((request[15]! & 7) === 0) return false;
    const answer = drawAnswer(request[15]!);
    const run = (): void => reply(answer);
    if ((request[14]! & 3) === 0) late.push(run);
    else run();
    return true;
  },
};

function drawAnswer(draw: number): Parameters<ReplyWith>[0] {
  const status = [0, 0, 0, 2, 0x18, 8, 0x28][draw % 7]!;
  const length = [0, 8, 24, 96, 8192, 8193, 20_000][(draw >> 3) % 7]!;
  const sense = status === 2 ? new Uint8Array([96, 18, 0, 200][draw & 3]!).fill(0x70) : undefined;
  const data = (draw & 64) === 0 ? { data: new Uint8Array(length).fill(draw) } : {};
  return { status, sense, durationUs: 1, note: '', ...data };
}

/** What a client sends in one sendmsg(2). */
interface Piece {
  readonly bytes: Uint8Array;
  readonly fds: readonly number[];
}

interface Expected {
  readonly isIn: boolean;
  readonly allocation: number;
}

interface Script {
  readonly pieces: Piece[];
  /** Answers that must come, in order. */
  readonly answers: Expected[];
  readonly requests: number;
}

/** One client's life; stops at the first mistake, since nothing behind it is read. */
function drawScript(): Script {
  const pieces: Piece[] = [];
  const answers: Expected[] = [];
  const done = (requests: number): Script => ({ pieces, answers, requests });
  if (oneIn(40)) {
    const features = bytesOf(4);
    features[below(4)] = 1 + below(255);
    pieces.push({ bytes: features, fds: [] });
    return done(1);
  }
  pieces.push({ bytes: new Uint8Array(4), fds: oneIn(10) ? [device] : [] });
  const count = 1 + below(12);
  for (let i = 1; i <= count; i++) {
    const mistake = oneIn(24) ? 1 + below(6) : 0;
    const isIn = oneIn(2);
    const cdb = bytesOf(16);
    cdb[0] = isIn ? 0x5e : 0x5f;
    const length =
      mistake === 1
        ? LIMIT + 1 + (oneIn(2) ? 0 : below(65_536 - LIMIT - 1))
        : [0, 8, 24, below(64), below(LIMIT + 1), LIMIT][below(6)]!;
    cdb[7] = length >> 8;
    cdb[8] = length & 0xff;
    if (mistake === 2) cdb[0] = [0x00, 0x12, 0x5d, 0x60, 0xff][below(5)]!;
    const good = oneIn(10) ? readOnly : device;
    const fds = mistake === 3 ? [] : mistake === 4 ? Array.from({ length: 2 + below(8) }, () => good) : [good];
    if (mistake === 5) {
      // The end comes inside the request.
      pieces.push({ bytes: cdb.subarray(0, 1 + below(15)), fds });
      return done(i);
    }
    if (mistake === 6) {
      // A descriptor with either half.
      const at = 1 + below(15);
      pieces.push({ bytes: cdb.subarray(0, at), fds }, { bytes: cdb.subarray(at), fds });
      return done(i);
    }
    if (oneIn(3)) {
      const at = 1 + below(15);
      const first = oneIn(2);
      pieces.push(
        { bytes: cdb.subarray(0, at), fds: first ? fds : [] },
        { bytes: cdb.subarray(at), fds: first ? [] : fds },
      );
    } else pieces.push({ bytes: cdb, fds });
    if (mistake !== 0) return done(i);
    if (!isIn) {
      const parameters = bytesOf(length);
      for (let at = 0; at < length; ) {
        const size = oneIn(2) ? length - at : 1 + below(length - at);
        pieces.push({ bytes: parameters.subarray(at, at + size), fds: oneIn(20) ? [device, readOnly] : [] });
        at += size;
      }
    }
    answers.push({ isIn, allocation: length });
  }
  return done(count);
}

interface Run {
  readonly fd: number;
  readonly script: Script;
  sent: number;
  /** Bytes of the piece that the socket has taken. */
  taken: number;
  readonly received: Uint8Array[];
  over: boolean;
  shut: boolean;
}

const SHUT_WRITE = 1;
const EAGAIN = -11;
const BUFFER = new Uint8Array(65_536);
const NO_FDS = new Int32Array(1);
const NOBODY = new Int32Array(3);

function sendOn(run: Run): void {
  const { pieces } = run.script;
  while (run.sent < pieces.length) {
    const { bytes, fds } = pieces[run.sent]!;
    const rest = bytes.length - run.taken;
    if (rest > 0) {
      const list = run.taken === 0 ? fds : [];
      const sent = native.sendFds(run.fd, bytes, run.taken, rest, Int32Array.from(list), list.length);
      if (sent === EAGAIN) return;
      // The server has ended the connection already.
      if (sent < 0) break;
      run.taken += sent;
      if (run.taken < bytes.length) return;
    }
    run.sent++;
    run.taken = 0;
  }
  if (!run.shut) native.shutdown(run.fd, SHUT_WRITE);
  run.shut = true;
}

function receiveOn(run: Run): void {
  for (;;) {
    const got = native.receiveFds(run.fd, BUFFER, 0, BUFFER.length, NO_FDS, NOBODY);
    if (got === EAGAIN) return;
    if (got <= 0) {
      run.over = true;
      return;
    }
    run.received.push(BUFFER.slice(0, got));
  }
}

function judge({ script, received }: Run): void {
  const bytes = Buffer.concat(received);
  expect(bytes.subarray(0, 4)).toEqual(Buffer.alloc(4));
  let at = 4;
  for (const [index, { isIn, allocation }] of script.answers.entries()) {
    if (bytes.length - at < HEADER) throw new Error(`answer ${index} is missing: ${bytes.length - at} bytes are left`);
    const status = bytes.readUInt32BE(at);
    const size = bytes.readUInt32BE(at + 4);
    if (size > (isIn && status === 0 ? Math.min(allocation, LIMIT) : 0)) {
      throw new Error(
        `answer ${index}, status ${status}, ${isIn ? 'IN' : 'OUT'} of ${allocation}: a payload of ${size} bytes`,
      );
    }
    at += HEADER + size;
  }
  if (at !== bytes.length) throw new Error(`${bytes.length - at} bytes more than the answers`);
}

it.each([
  ['a device that may say anything', route],
  // It is granted: the threads ask nobody.
  ['the kernel', undefined],
] as const)(
  `keeps to the protocol with ${INPUTS} drawn requests to %s`,
  async (_name, multipath) => {
    const { server, attach } = startServer(multipath === undefined ? {} : { multipath });
    const before = readdirSync('/proc/self/fd').length;
    let inputs = 0;
    while (inputs < INPUTS) {
      const runs: Run[] = Array.from({ length: AT_A_TIME }, () => {
        const script = drawScript();
        inputs += script.requests;
        return { fd: attach(), script, sent: 0, taken: 0, received: [], over: false, shut: false };
      });
      for (let turn = 0; runs.some(({ over }) => !over); turn++) {
        if (turn > 100_000) throw new Error(`seed ${SEED}, input ${inputs}: a connection neither answers nor ends`);
        for (const run of runs) {
          if (run.over) continue;
          sendOn(run);
          receiveOn(run);
        }
        await new Promise((resolve) => setImmediate(resolve));
        for (const answer of late.splice(0)) answer();
      }
      for (const run of runs) {
        native.close(run.fd);
        try {
          judge(run);
        } catch (error) {
          throw new Error(`seed ${SEED}, input ${inputs}: ${(error as Error).message}`);
        }
      }
    }
    for (let turn = 0; server.status().connections > 0 && turn < 1000; turn++) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(server.status()).toMatchObject({ connections: 0, inFlight: 0 });
    expect(readdirSync('/proc/self/fd').length).toBe(before);
    await server.stop();
  },
  1_200_000,
);
