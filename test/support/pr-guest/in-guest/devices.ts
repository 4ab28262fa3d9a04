/** Sections on what the fd of a request can be, and on the edges of both commands. */
import { constants, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Command, READ_KEYS, REGISTER, RELEASE, reserveIn, reserveOut } from './commands.ts';
import { waitFor } from './lio.ts';
import type { Section } from './scenario.ts';
import { findDisk } from './sysfs.ts';

const O_PATH = 0o10000000;
const KEY_A = 0xa1;

const files: Section = {
  name: 'files',
  async run({ transcript, disk, first, a, open }) {
    const send = transcript.send.bind(transcript);
    const leave = reserveOut(REGISTER, { key: KEY_A });
    const nexus = disk.nexuses[0]!;
    await send('A registers', 'GOOD', first, a, reserveOut(REGISTER, { actionKey: KEY_A }));
    const readOnly = open(nexus.disk, constants.O_RDONLY);
    await send('an fd for reading reads', 'GOOD gen 1 keys a1', first, readOnly, reserveIn(READ_KEYS));
    await send('an fd for reading changes nothing', 'CHECK 5/20/00', first, readOnly, leave);
    const writeOnly = open(nexus.disk, constants.O_WRONLY);
    await send('an fd for writing reads', 'GOOD gen 1 keys a1', first, writeOnly, reserveIn(READ_KEYS));
    await send('an fd for writing writes', 'GOOD', first, writeOnly, reserveOut(RELEASE, { key: KEY_A, type: 1 }));
    const pathOnly = open(nexus.disk, constants.O_RDONLY | O_PATH);
    await send('an fd of a name reads nothing', 'CHECK b/00/06', first, pathOnly, reserveIn(READ_KEYS));
    await send('an fd of a name changes nothing', 'CHECK 5/20/00', first, pathOnly, leave);
    const nonBlocking = open(nexus.disk, constants.O_RDWR | constants.O_NONBLOCK);
    await send('an fd that does not block reads', 'GOOD gen 1 keys a1', first, nonBlocking, reserveIn(READ_KEYS));
    const flags = Number.parseInt(
      /flags:\s*(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${nonBlocking}`, 'utf8'))![1]!,
      8,
    );
    transcript.note(
      'its flag, which is shared with the sender, is',
      {
        c: ['cleared'],
        ours: ['kept'],
        reason: 'the flag belongs to the sender: it is in the open file, not in the fd',
      },
      (flags & constants.O_NONBLOCK) !== 0 ? 'kept' : 'cleared',
    );
    const generic = open(nexus.generic);
    await send('the generic node reads', 'GOOD gen 1 keys a1', first, generic, reserveIn(READ_KEYS));
    await send('the generic node changes', 'GOOD', first, generic, leave);
    await send('which is seen', 'GOOD gen 1 keys none', first, a, reserveIn(READ_KEYS));
    for (const [name, path] of [
      ['the null device', '/dev/null'],
      ['a file', '/tmp/unit1.img'],
      ['a disk that is not SCSI', '/dev/vdc'],
      ['a mapping of one', '/dev/dm-0'],
    ] as const) {
      const fd = open(path, path === '/dev/vdc' ? constants.O_RDONLY : constants.O_RDWR);
      await send(`${name} reads nothing`, 'CHECK b/00/06', first, fd, reserveIn(READ_KEYS));
    }
    const other = open(findDisk('scsi_debug'));
    await send('a disk without reservations refuses to read', 'CHECK 5/20/00', first, other, reserveIn(READ_KEYS));
    await send(
      'a disk without reservations refuses to change',
      'CHECK 5/20/00',
      first,
      other,
      reserveOut(REGISTER, { actionKey: KEY_A }),
    );
    await send('the connection is as good as before', 'GOOD gen 1 keys none', first, a, reserveIn(READ_KEYS));
  },
};

const edges: Section = {
  name: 'edges',
  async run({ transcript, first, a, b }) {
    const send = transcript.send.bind(transcript);
    await send('A registers', 'GOOD', first, a, reserveOut(REGISTER, { actionKey: KEY_A }));
    await send('B registers', 'GOOD', first, b, reserveOut(REGISTER, { actionKey: 0xb2 }));
    for (const [length, expected] of [
      [0, 'CHECK 5/24/00'],
      [1, 'CHECK 5/24/00'],
      [7, 'CHECK 5/24/00'],
      [8, 'GOOD gen 2 keys none (0 of 16 bytes)'],
      [12, 'GOOD gen 2 keys none (4 of 16 bytes)'],
      [16, 'GOOD gen 2 keys a1 (8 of 16 bytes)'],
      [24, 'GOOD gen 2 keys a1,b2'],
      [25, 'GOOD gen 2 keys a1,b2'],
      [255, 'GOOD gen 2 keys a1,b2'],
      [8191, 'GOOD gen 2 keys a1,b2'],
      [8192, 'GOOD gen 2 keys a1,b2'],
    ] as const) {
      await send(`keys in ${length} bytes`, expected, first, a, reserveIn(READ_KEYS, length));
    }
    // The upper three bits of the byte are reserved, and this target does not look at them.
    for (const [action, expected] of [
      [4, 'CHECK 5/24/00'],
      [0x1f, 'CHECK 5/24/00'],
      [0x20, 'GOOD 24 bytes'],
      [0xe0, 'GOOD 24 bytes'],
      [0xff, 'CHECK 5/24/00'],
    ] as const) {
      await send(`service action ${action} of IN`, expected, first, a, reserveIn(action));
    }
    for (const [action, expected] of [
      [8, 'CHECK 5/24/00'],
      [0x1f, 'CHECK 5/24/00'],
      [0x26, 'GOOD'],
      [0xff, 'CHECK 5/24/00'],
    ] as const) {
      const command = reserveOut(action, { key: KEY_A, actionKey: KEY_A });
      await send(`service action ${action} of OUT`, expected, first, a, command);
    }
    for (const listLength of [0, 1, 23, 25, 8192]) {
      const command = reserveOut(REGISTER, { key: KEY_A, actionKey: KEY_A, listLength });
      await send(`a parameter list of ${listLength} bytes`, 'CHECK 5/1a/00', first, a, command);
    }
    const long = reserveOut(REGISTER, { key: KEY_A, actionKey: KEY_A });
    long.cdb[6] = 1;
    await send('a list length above 65535, of which only the low half counts', 'CHECK 5/24/00', first, a, long);
    await send(
      'reserved bytes of IN',
      'GOOD gen 3 keys a1,b2',
      first,
      a,
      withBytes(reserveIn(READ_KEYS), { 2: 0xff, 5: 0xff, 6: 0xff }),
    );
    await send(
      'a control byte with NACA',
      'GOOD gen 3 keys a1,b2',
      first,
      a,
      withBytes(reserveIn(READ_KEYS), { 9: 4 }),
    );
    await send(
      'bytes behind the command',
      'GOOD gen 3 keys a1,b2',
      first,
      a,
      withBytes(reserveIn(READ_KEYS), { 10: 0xff, 15: 0xff }),
    );
    await send('all is as it was', 'GOOD gen 3 keys a1,b2', first, a, reserveIn(READ_KEYS));
  },
};

function withBytes(command: Command, bytes: Record<number, number>): Command {
  for (const [at, value] of Object.entries(bytes)) command.cdb[Number(at)] = value;
  return command;
}

const removal: Section = {
  name: 'removal',
  async run({ transcript, disk, first, second, a, b }) {
    const send = transcript.send.bind(transcript);
    const nexus = disk.nexuses[1]!;
    await send('A registers', 'GOOD', first, a, reserveOut(REGISTER, { actionKey: KEY_A }));
    await send('B registers', 'GOOD', second, b, reserveOut(REGISTER, { actionKey: 0xb2 }));
    writeFileSync(join(nexus.sysfs, 'delete'), '1\n');
    await waitFor('the disk to go', () => findDisk('', nexus.sysfs) === '');
    await send('B reads from a disk that is gone', 'CHECK b/00/06', second, b, reserveIn(READ_KEYS));
    await send(
      'B changes a disk that is gone',
      'CHECK b/00/06',
      second,
      b,
      reserveOut(RELEASE, { key: 0xb2, type: 1 }),
    );
    await send('A is not concerned', 'GOOD gen 2 keys a1,b2', first, a, reserveIn(READ_KEYS));
    await send('B, on another path, neither', 'GOOD gen 2 keys a1,b2', second, a, reserveIn(READ_KEYS));
  },
};

export const DEVICE_SECTIONS: readonly Section[] = [files, edges, removal];
