/**
 * Reservations on a real SCSI target: the kernel's own (LIO) in a guest, a disk seen through three nexuses. QEMU's helper
 * gets requests there from a client; what comes back is compared with what is written down in the client's sections.
 */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { requireOrSkip } from '../support/netns/capabilities.ts';
import { bootPrGuest, HELPERS, type HelperName, needPrGuest, type PrGuest } from '../support/pr-guest/guest.ts';
import type { TranscriptLine } from '../support/pr-guest/in-guest/transcript.ts';

const describeSuite = await requireOrSkip(...needPrGuest());

/** As text, so that a difference shows with the steps around it. */
function toText(lines: readonly TranscriptLine[], pick: (line: TranscriptLine) => string | undefined): string {
  return lines
    .map((line) => ({ name: `${line.section}: ${line.step}`, text: pick(line) }))
    .filter(({ text }) => text !== undefined)
    .map(({ name, text }) => `${name}: ${text}\n`)
    .join('');
}

/** What `program` shall give in this step; of several texts, the one that it gave. */
function expectedOf(line: TranscriptLine, program: HelperName): string {
  if (typeof line.expected === 'string') return line.expected;
  if (program === 'ours') return line.expected.ours;
  return line.expected.c.includes(line.result) ? line.result : line.expected.c.join(' or ');
}

describeSuite('reservation helpers on a real target', () => {
  let guest: PrGuest;

  beforeAll(async () => {
    guest = await bootPrGuest();
  });

  afterAll(async () => {
    await guest?.stop();
  });

  const programs: [HelperName, string][] = [['c', "QEMU's helper"]];
  for (const [program, name] of programs) {
    it(`${name} answers as it is written`, async () => {
      const lines = (await guest.runClient('transcript', [program, HELPERS[program]])) as TranscriptLine[];
      expect(lines.filter((line) => line.sense !== undefined).length).toBeGreaterThan(150);
      expect(toText(lines, (line) => line.result)).toBe(toText(lines, (line) => expectedOf(line, program)));
    });
  }
});
