/**
 * Entry of the test client inside a guest: `client.cjs PART ARGUMENTS`.
 *
 * - `transcript c|ours PROGRAM`: starts the helper, runs all sections, prints the transcript.
 * - `processes PROGRAM`: prints a report on the helper's processes.
 * - `disk COUNT`: makes a unit with this many nexuses and prints it.
 */
import { DEVICE_SECTIONS } from './devices.ts';
import { FENCING_SECTIONS } from './fencing.ts';
import { HelperProcess } from './helper-process.ts';
import { createLioDisk } from './lio.ts';
import { MULTIPATH_SECTIONS } from './multipath.ts';
import { inspectProcesses } from './processes.ts';
import { PROTOCOL_SECTIONS } from './protocol.ts';
import { RESERVATION_SECTIONS } from './reservations.ts';
import { runSections } from './scenario.ts';
import { type ProgramName, Transcript } from './transcript.ts';

const PARTS: Record<string, (args: string[]) => Promise<void>> = {
  async processes([program]) {
    console.log(JSON.stringify(await inspectProcesses(program!)));
  },
  async disk([count]) {
    console.log(JSON.stringify(await createLioDisk(Number(count))));
  },
  async transcript([name, program]) {
    const transcript = new Transcript();
    const helper = await HelperProcess.start(program!);
    const sections = [
      ...RESERVATION_SECTIONS,
      ...FENCING_SECTIONS,
      ...MULTIPATH_SECTIONS,
      ...DEVICE_SECTIONS,
      ...PROTOCOL_SECTIONS,
    ];
    await runSections(sections, helper, transcript, name as ProgramName);
  },
};

const [part, ...args] = process.argv.slice(2);
PARTS[part!]!(args).catch((error: unknown) => {
  console.error(error);
  process.exit(1);
});
