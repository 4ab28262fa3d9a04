/** The parts that a scenario is made of, and what each of them is given. */
import { closeSync, constants, openSync } from 'node:fs';
import type { Connection } from './connection.ts';
import type { HelperProcess } from './helper-process.ts';
import { createLioDisk, type LioDisk } from './lio.ts';
import type { ProgramName, Transcript } from './transcript.ts';

/** What a section has to work with. */
export interface Scene {
  program: ProgramName;
  transcript: Transcript;
  helper: HelperProcess;
  /** A fresh unit, seen through three nexuses: A, B, and C. */
  disk: LioDisk;
  /** A connection to the helper, and one for a second client. */
  first: Connection;
  second: Connection;
  /** fds of the disk through each nexus, read and write. */
  a: number;
  b: number;
  c: number;
  /** Opens a file; it is closed at the end of the section. */
  open(path: string, flags?: number): number;
}

/** One theme with a unit of its own. */
export interface Section {
  name: string;
  run(scene: Scene): Promise<void>;
}

/** Runs the sections, each with a fresh unit and fresh connections. */
export async function runSections(
  sections: readonly Section[],
  helper: HelperProcess,
  transcript: Transcript,
  program: ProgramName,
): Promise<void> {
  for (const section of sections) {
    transcript.startSection(section.name);
    const disk = await createLioDisk(3);
    const fds: number[] = [];
    const open = (path: string, flags: number = constants.O_RDWR): number => {
      const fd = openSync(path, flags);
      fds.push(fd);
      return fd;
    };
    const [first, second] = [await helper.connect(), await helper.connect()];
    const [a, b, c] = disk.nexuses.map((nexus) => open(nexus.disk)) as [number, number, number];
    await section.run({ program, transcript, helper, disk, first, second, a, b, c, open });
    first.close();
    second.close();
    for (const fd of fds) closeSync(fd);
  }
}
