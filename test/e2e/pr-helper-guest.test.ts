/**
 * Reservations on a real SCSI target: the kernel's own (LIO) in a guest, a disk seen through three nexuses. QEMU's helper
 * and ours get the same requests there, from one client; what comes back is compared with what is written down in the client's
 * sections, and, byte by byte, with each other.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { requireOrSkip } from '../support/netns/capabilities.ts';
import { bootPrGuest, HELPERS, type HelperName, needPrGuest, type PrGuest } from '../support/pr-guest/guest.ts';
import type { ProcessReport, ThreadStatus } from '../support/pr-guest/in-guest/processes.ts';
import type { TranscriptLine } from '../support/pr-guest/in-guest/transcript.ts';

/** Requests of which the answer is in the transcript; many more are only counted there. */
const ANSWERS_MIN = 180;

/** For the whole transcript: 15 s where nothing else runs. */
const CLIENT_TIMEOUT_MS = 300_000;

const PROGRAMS: [HelperName, string][] = [
  ['c', "QEMU's helper"],
  ['ours', 'passel-pr-helper'],
];

/** As text, so that a difference shows with the steps around it. */
function toText(lines: readonly TranscriptLine[], pick: (line: TranscriptLine) => string | undefined): string {
  return lines
    .map((line) => ({ name: `${line.section}: ${line.step}`, text: pick(line) }))
    .filter(({ text }) => text !== undefined)
    .map(({ name, text }) => `${name}: ${text}\n`)
    .join('');
}

/** What `program` shall give in this step; of several texts that are allowed, the one that it gave. */
function expectedOf(line: TranscriptLine, program: HelperName): string {
  const allowed = typeof line.expected === 'string' ? [line.expected] : line.expected[program];
  return allowed.find((text) => text === line.result || (program === 'c' && isButStale(line.result, text))) ===
    undefined
    ? allowed.join(' or ')
    : line.result;
}

/**
 * The target writes into READ FULL STATUS who holds the reservation only for those who do. QEMU's helper answers from a buffer in which
 * an earlier answer stands, perhaps one to another client, so that there somebody may seem to hold what he does not.
 */
function isButStale(result: string, expected: string): boolean {
  return result.includes('@') && result.replace(/ holds \w/g, '') === expected.replace(/ holds \w/g, '');
}

/** The payload without what may be stale in it: bytes 8 to 17 of each descriptor of READ FULL STATUS (SPC-4 6.15.5). */
function steadyData(line: TranscriptLine): string | undefined {
  if (line.data === undefined || typeof line.expected !== 'string') return undefined;
  if (!line.result.includes('@')) return line.data;
  const data = Buffer.from(line.data, 'hex');
  for (let at = 8; at + 24 <= data.length; at += 24 + data.readUInt32BE(at + 20)) data.fill(0, at + 8, at + 18);
  return data.toString('hex');
}

/** A thread that can do raw I/O and nothing else, and never get more. */
function confinedThread(user: number): ThreadStatus {
  const rawIo = '0000000000020000';
  const none = '0000000000000000';
  const ids = Array(4).fill(user).join(' ');
  return {
    ...{ Uid: ids, Gid: ids, Groups: '' },
    ...{ CapInh: none, CapPrm: rawIo, CapEff: rawIo, CapBnd: none, CapAmb: none },
    ...{ NoNewPrivs: '1', Seccomp: '2' },
  };
}

const describeSuite = await requireOrSkip(...needPrGuest());

describeSuite('reservation helpers on a real target', () => {
  let guest: PrGuest;

  beforeAll(async () => {
    guest = await bootPrGuest();
  });

  afterAll(async () => {
    await guest?.stop();
  });

  describe('every request', () => {
    const transcripts = new Map<HelperName, TranscriptLine[]>();

    for (const [program, name] of PROGRAMS) {
      it(`is answered by ${name} as it is written`, { timeout: CLIENT_TIMEOUT_MS + 10_000 }, async () => {
        const lines = (await guest.runClient('transcript', [program, HELPERS[program]], {
          timeoutMs: CLIENT_TIMEOUT_MS,
        })) as TranscriptLine[];
        transcripts.set(program, lines);
        expect(toText(lines, (line) => line.result)).toBe(toText(lines, (line) => expectedOf(line, program)));
        expect(lines.filter((line) => line.sense !== undefined).length).toBeGreaterThanOrEqual(ANSWERS_MIN);
      });
    }

    it('has the same bytes for an answer from both', () => {
      // Over several paths, ours goes on where C is wrong already.
      const compared = (program: HelperName): TranscriptLine[] =>
        (transcripts.get(program) ?? []).filter((line) => line.section !== 'multipath');
      const [c, ours] = [compared('c'), compared('ours')];
      expect(ours.length).toBeGreaterThan(0);
      expect(toText(ours, steadyData)).toBe(toText(c, steadyData));
      expect(toText(ours, (line) => line.sense)).toBe(toText(c, (line) => line.sense));
    });
  });

  describe('passel-pr-helper as a process', () => {
    let report: ProcessReport;

    beforeAll(async () => {
      [report] = (await guest.runClient('processes', [HELPERS.ours])) as [ProcessReport];
    });

    for (const [user, id] of [
      ['root', 0],
      ['nobody', 65534],
    ] as const) {
      it(`has no thread with more than CAP_SYS_RAWIO as ${user}, and executes commands with it`, () => {
        const { threads, results, end } = report.privileges[user];
        expect(threads.length).toBeGreaterThan(1);
        for (const thread of threads) expect(thread).toEqual(confinedThread(id));
        expect(results).toEqual(['GOOD', expect.stringMatching(/^GOOD gen \d+ keys 1$/), 'GOOD']);
        expect(end).toBe('status 0');
      });
    }

    it('serves a socket that it inherits as from systemd, and leaves it there', () => {
      const { result, end, socketLeft } = report.activation;
      expect(result).toMatch(/^GOOD, GOOD gen \d+ keys 1, GOOD$/);
      expect({ end, socketLeft }).toEqual({ end: 'status 0', socketLeft: true });
    });

    it('serves the disks that its rules let through, and no others', () => {
      const keys = expect.stringMatching(/^GOOD gen \d+ keys none$/);
      const refusal = 'CHECK 5/20/00';
      expect(report.rules).toEqual({
        allowed: [keys, refusal, 'GOOD'],
        denied: [refusal, keys, refusal],
        both: [keys, refusal, 'GOOD'],
        none: [keys, keys, 'GOOD'],
      });
    });

    it('locks its PID file against another', () => {
      const { content, pid, mode, second, after } = report.pidFile;
      expect({ content, mode, after }).toEqual({ content: `${pid}\n`, mode: '600', after: 'left' });
      expect(second.status).toBe(1);
      expect(second.words).toContain('/run/helper.pid');
    });
  });
});
