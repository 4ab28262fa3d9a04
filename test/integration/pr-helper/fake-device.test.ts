/** The helper with devices that do what a test says, by a library in the place of the kernel: every outcome, and devices that are stuck. */
import { closeSync, constants, mkdtempSync, openSync, readdirSync, readSync, rmSync, writeSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { connectPrManager, type PrAnswer, type PrManagerClient } from '../../../src/scsi/client.ts';
import { tabulateOutcome } from '../../../src/scsi/executor.ts';
import { COMMANDS_PER_DEVICE } from '../../../src/scsi/server.ts';
import { loadNative } from '../../../src/sys/native.ts';
import type { SgStatuses } from '../../../src/sys/pr-threads.ts';
import { buildTool } from '../../support/native-tools.ts';
import { needCommand, needRoot, requireOrSkip } from '../../support/netns/capabilities.ts';
import { runProcess, waitForExit, waitUntil } from '../../support/netns/process.ts';
import type { HelperProcess } from '../../support/pr-helper/programs.ts';
import { startHelper } from '../../support/pr-helper/start.ts';
import { seededRandom } from '../../support/seeded-random.ts';
import { needRawIo } from './need-raw-io.ts';

const describeSuite = await requireOrSkip(needRoot, needRawIo, needCommand('mkfifo', 'coreutils'));
const PATIENCE_MS = 60_000;

const EINTR = 4;
const IN = 0x5e;
const OUT = 0x5f;
const ALLOCATION = 64;
/** What the library writes with CHECK CONDITION. */
const DEVICE_SENSE = [0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x2a, 3];
const NOTHING: SgStatuses = { errno: 0, status: 0, hostStatus: 0, driverStatus: 0 };

interface Act extends Partial<SgStatuses> {
  readonly opcode?: number;
  readonly allocation?: number;
  /** Bytes that the device writes, their value, and how many more it says that it wrote. 65535: a count that cannot be. */
  readonly written?: number;
  readonly value?: number;
  readonly claimed?: number;
  readonly waits?: boolean;
}

/** The CDB that makes a device do it. */
function cdbOf(act: Act): Uint8Array {
  const { errno, status, hostStatus, driverStatus } = { ...NOTHING, ...act };
  const { opcode = IN, written = 0, value = 0, claimed = 0, waits = false } = act;
  const allocation = opcode === OUT ? 0 : (act.allocation ?? ALLOCATION);
  const counts = [claimed, written >> 8, written & 0xff, 0, hostStatus >> 8, allocation >> 8, allocation & 0xff, 0];
  return Uint8Array.of(opcode, 0, ...counts, errno, status, hostStatus & 0xff, driverStatus, value, waits ? 3 : 1);
}

let library: string;
let folder: string;
let helper: HelperProcess;
let control: string;
let release: number;
let entered: number;
const clients: PrManagerClient[] = [];
const fds: number[] = [];

function openDevice(path: string): number {
  const fd = openSync(path, 'r+');
  fds.push(fd);
  return fd;
}

async function connect(): Promise<PrManagerClient> {
  const client = await connectPrManager(loadNative(), helper.socket);
  clients.push(client);
  return client;
}

/** Requests that are not answered, as the control socket shows them. */
function countInFlight(): Promise<number> {
  return new Promise((resolve, reject) => {
    request({ socketPath: control, path: '/v1/status', agent: false }, (response) => {
      let text = '';
      response.on('data', (bytes) => {
        text += bytes;
      });
      response.on('end', () => resolve((JSON.parse(text) as { inFlight: number }).inFlight));
    })
      .on('error', reject)
      .end();
  });
}

/** Commands that have come to a device and waited there since this was last asked. */
function countEntered(): number {
  try {
    return readSync(entered, Buffer.alloc(4096));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return 0;
    throw error;
  }
}

describeSuite('a helper of devices that do what they are told', () => {
  beforeAll(() => {
    library = buildTool('fake-sg', ['-shared', '-fPIC']);
  });
  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'passel-pr-'));
    control = join(folder, 'pr.ctl');
    const fifos = ['release', 'entered'].map((name) => join(folder, name));
    await runProcess('mkfifo', fifos);
    [release, entered] = fifos.map((path) => openSync(path, constants.O_RDWR | constants.O_NONBLOCK)) as [
      number,
      number,
    ];
    const environment = [`FAKE_SG_RELEASE=${fifos[0]}`, `FAKE_SG_ENTERED=${fifos[1]}`, `LD_PRELOAD=${library}`];
    helper = await startHelper('ours', join(folder, 'pr.sock'), ['--conf-path', control], ['env', ...environment]);
  });
  afterEach(async () => {
    for (const client of clients.splice(0)) client.close();
    for (const fd of [...fds.splice(0), release, entered]) closeSync(fd);
    await helper.end('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  });
  afterAll(() => {
    for (const client of clients.splice(0)) client.close();
  });

  describe('answers', () => {
    const expectAnswer = (act: Act, answer: PrAnswer): void => {
      const outcome = { ...NOTHING, ...act };
      const { status, sense } = tabulateOutcome(outcome);
      const own = outcome.errno === 0 && outcome.status === 2 ? DEVICE_SENSE : [];
      const expected = new Uint8Array(96);
      expected.set(sense ?? own);
      expect({ act, status: answer.status, sense: [...answer.sense] }).toEqual({ act, status, sense: [...expected] });
      const isRead = (act.opcode ?? IN) === IN && status === 0;
      expect([act, answer.data.length]).toEqual([act, isRead ? Math.min(act.written ?? 0, ALLOCATION) : 0]);
    };

    it('what is decided for each errno, host status, driver status and status, and for many of them at once', async () => {
      const [client, device] = [await connect(), openDevice('/dev/null')];
      const upTo = (last: number): number[] => Array.from({ length: last + 1 }, (_, i) => i);
      const draw = seededRandom(8);
      const below = (limit: number): number => Math.floor(draw() * limit);
      const acts: Act[] = [
        // Interrupted, it is asked again.
        ...upTo(255)
          .filter((errno) => errno !== EINTR)
          .map((errno) => ({ errno, written: 8 })),
        ...[...upTo(255), 256, 258, 0x1000, 0xffff].map((hostStatus) => ({ hostStatus, written: 8 })),
        ...upTo(255).map((driverStatus) => ({ driverStatus, written: 8 })),
        ...upTo(255).map((status) => ({ status, written: 8 })),
        ...Array.from({ length: 500 }, () => ({
          ...{ opcode: below(2) === 0 ? IN : OUT, written: below(100), status: [0, 0, 2, 0x18, 8][below(5)]! },
          ...{ errno: below(3) === 0 ? EINTR + 1 + below(251) : 0, hostStatus: below(3) === 0 ? below(32) : 0 },
          driverStatus: below(3) === 0 ? below(16) : 0,
        })),
      ];
      for (const act of acts) expectAnswer(act, await client.command(device, cdbOf(act)));
    });

    it('no more than was asked for, nothing of what another device wrote, and nothing that a device cannot have written', async () => {
      const [client, device] = [await connect(), openDevice('/dev/null')];
      const ask = (act: Act): Promise<PrAnswer> => client.command(device, cdbOf(act));
      for (const [allocation, written, length] of [
        [0, 8, 0],
        [8, 8, 8],
        [8, 9, 8],
        [8192, 8192, 8192],
        [8192, 0, 0],
        [8192, 0xffff, 0],
      ] as const) {
        const { data } = await ask({ allocation, written, value: 0xee });
        expect([allocation, written, data.length]).toEqual([allocation, written, length]);
        expect(data.every((byte) => byte === 0xee)).toBe(true);
      }
      const { data } = await ask({ allocation: 8192, written: 4, value: 0x11, claimed: 200 });
      expect([...data]).toEqual([...Array(4).fill(0x11), ...Array(200).fill(0)]);
    });
  });

  describe('with one that is stuck', () => {
    const STUCK = cdbOf({ waits: true });
    const CROWD = COMMANDS_PER_DEVICE + 8;

    /** So many clients that each have a command for it, of which it has as many as it may. */
    const crowd = async (device: number): Promise<{ clients: PrManagerClient[]; answers: Promise<PrAnswer>[] }> => {
      const crowded: PrManagerClient[] = [];
      const answers: Promise<PrAnswer>[] = [];
      for (let i = 0; i < CROWD; i++) {
        const client = await connect();
        crowded.push(client);
        answers.push(client.command(device, STUCK));
        // In this order.
        if (i === COMMANDS_PER_DEVICE - 1) await untilEntered(COMMANDS_PER_DEVICE);
      }
      for (const answer of answers) answer.catch(() => {});
      await waitUntil('all to wait', async () => (await countInFlight()) === CROWD, PATIENCE_MS);
      await waitUntil('it to be said', () => helper.stderr().includes('others wait for them'), PATIENCE_MS);
      return { clients: crowded, answers };
    };
    const untilEntered = async (count: number): Promise<void> => {
      let seen = 0;
      await waitUntil(
        `${count} commands to be there`,
        () => {
          seen += countEntered();
          return seen >= count;
        },
        PATIENCE_MS,
      );
      expect(seen).toBe(count);
    };
    const letGo = (count: number): void => {
      writeSync(release, Buffer.alloc(count));
    };

    it('serves others, gives it no more than its share, and each of its own in turn', async () => {
      const { answers } = await crowd(openDevice('/dev/zero'));
      expect(helper.stderr()).toContain(`device 1:5 has ${COMMANDS_PER_DEVICE} commands that it has not answered`);
      const [other, fast] = [await connect(), openDevice('/dev/null')];
      for (let i = 0; i < 200; i++) expect((await other.command(fast, cdbOf({ status: 0x18 }))).status).toBe(0x18);
      expect(countEntered()).toBe(0);
      const threads = readdirSync(`/proc/${helper.pid}/task`).length;
      letGo(1);
      await untilEntered(1);
      // Any of them, as the kernel wakes them.
      expect((await Promise.race(answers)).status).toBe(0);
      letGo(CROWD - 1);
      for (const answer of answers) expect((await answer).status).toBe(0);
      expect(countEntered()).toBe(CROWD - COMMANDS_PER_DEVICE - 1);
      // Waiting takes no threads.
      expect(readdirSync(`/proc/${helper.pid}/task`).length).toBeLessThanOrEqual(threads);
    });

    it('does not do late what a client has given up', async () => {
      const { clients: crowded, answers } = await crowd(openDevice('/dev/zero'));
      for (const client of crowded.slice(COMMANDS_PER_DEVICE + 1)) client.close();
      letGo(CROWD);
      for (const answer of answers.slice(0, COMMANDS_PER_DEVICE + 1)) expect((await answer).status).toBe(0);
      const [other, fast] = [await connect(), openDevice('/dev/zero')];
      expect((await other.command(fast, cdbOf({ status: 0x18 }))).status).toBe(0x18);
      expect(countEntered()).toBe(1);
    });

    it('ends when it has answered, and takes nobody new meanwhile', async () => {
      const [client, idle] = [await connect(), await connect()];
      const answer = client.command(openDevice('/dev/zero'), STUCK);
      await untilEntered(1);
      const ended = waitForExit(helper.child);
      helper.child.kill('SIGTERM');
      const refuses = async (): Promise<boolean> => {
        try {
          (await connectPrManager(loadNative(), helper.socket)).close();
          return false;
        } catch {
          return true;
        }
      };
      await waitUntil('it to have heard', refuses, PATIENCE_MS);
      await expect(idle.command(openDevice('/dev/null'), cdbOf({ waits: true }))).rejects.toThrow();
      expect(helper.child.exitCode).toBeNull();
      letGo(1);
      expect((await answer).status).toBe(0);
      expect(await ended).toBe(0);
    });
  });
});
