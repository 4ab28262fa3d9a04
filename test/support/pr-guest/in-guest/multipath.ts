/**
 * A node with two paths to the disk, joined by device-mapper; another node with one. QEMU's helper, as Debian builds it, registers the path
 * that the kernel happens to use, so that the guest loses the disk as soon as it uses the other; ours registers both.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  CLEAR,
  READ_KEYS,
  REGISTER,
  RELEASE,
  RESERVE,
  registerAndMove,
  reserveIn,
  reserveOut,
  sasTransportId,
} from './commands.ts';
import { waitFor } from './lio.ts';
import { persist, tryAccess } from './node-access.ts';
import type { Section } from './scenario.ts';
import type { Expected } from './transcript.ts';

const KEY_A = 0xa1;

const REASON = 'C, built without libmpathpersist, sends the command down one path';

function differs(c: string[], ours: string): Expected {
  return { c, ours: [ours], reason: REASON };
}

/** Maps the two disks as multipathd would. @returns the node of the mapping */
function mapPaths(disks: readonly string[]): string {
  const sectors = readFileSync(join('/sys/block', disks[0]!.slice(5), 'size'), 'utf8').trim();
  const numbers = disks.map((disk) => readFileSync(join('/sys/block', disk.slice(5), 'dev'), 'utf8').trim());
  const name = `multi-${disks.map((disk) => disk.slice(5)).join('-')}`;
  const paths = numbers.map((number) => `${number} 1000`).join(' ');
  const table = `0 ${sectors} multipath 0 0 1 1 round-robin 0 ${numbers.length} 1 ${paths}`;
  execFileSync('dmsetup', ['create', name, '--uuid', `mpath-${name}`, '--table', table]);
  const minor = execFileSync('dmsetup', ['info', '-c', '--noheadings', '-o', 'minor', name], { encoding: 'utf8' });
  return `/dev/dm-${minor.trim()}`;
}

const multipath: Section = {
  name: 'multipath',
  async run({ program, transcript, disk, first, open }) {
    const send = transcript.send.bind(transcript);
    const note = transcript.note.bind(transcript);
    const [diskA, diskB, diskC] = disk.nexuses.map((nexus) => nexus.disk) as [string, string, string];
    const mapped = open(mapPaths([diskA, diskB]));
    const writers = (): string =>
      `${[diskA, diskB].filter((path) => tryAccess(path).startsWith('writes')).length} of 2 paths write`;
    await send('nobody is registered', 'GOOD gen 0 keys none', first, mapped, reserveIn(READ_KEYS));
    await send('the node registers', 'GOOD', first, mapped, reserveOut(REGISTER, { actionKey: KEY_A }));
    note('keys, seen by another', differs(['status 0 0xa1'], 'status 0 0xa1 0xa1'), readKeys(diskC));
    const reserve = reserveOut(RESERVE, { key: KEY_A, type: 5 });
    await send('the node reserves', differs(['GOOD', 'CHECK 2/08/00'], 'GOOD'), first, mapped, reserve);
    note('the node', differs(['1 of 2 paths write', '2 of 2 paths write'], '2 of 2 paths write'), writers());
    if (program === 'c') return;

    const move = {
      key: KEY_A,
      actionKey: 0xb2,
      targetPort: 3,
      transportId: sasTransportId(disk.nexuses[2]!.initiator),
    };
    await send('it cannot say which path it moves', 'CHECK 5/24/00', first, mapped, registerAndMove(move));
    await send('it changes its key', 'GOOD', first, mapped, reserveOut(REGISTER, { key: KEY_A, actionKey: 0xa2 }));
    note('keys, changed', 'status 0 0xa2 0xa2', readKeys(diskC));
    await send('it releases', 'GOOD', first, mapped, reserveOut(RELEASE, { key: 0xa2, type: 5 }));
    note('no reservation is left', 'status 0', persist(diskC, '--in', '--read-reservation'));
    await send('it reserves again', 'GOOD', first, mapped, reserveOut(RESERVE, { key: 0xa2, type: 5 }));

    note('another node registers', 'status 0', persist(diskC, '--out', '--register', '--param-sark=c3'));
    const takeover = ['--param-rk=c3', '--param-sark=a2', '--prout-type=5'];
    note('and takes over', 'status 0', persist(diskC, '--out', '--preempt', ...takeover));
    note('the fenced node', '0 of 2 paths write', writers());
    await send('it cannot release', 'CONFLICT', first, mapped, reserveOut(RELEASE, { key: 0xa2, type: 5 }));
    // Longer than the time in which missing paths are looked for: what others removed must not come back by itself.
    await new Promise((resolve) => setTimeout(resolve, 6_000));
    note('keys, later', 'status 0 0xc3', readKeys(diskC));

    note('the other clears', 'status 0', persist(diskC, '--out', '--clear', '--param-rk=c3'));
    const state = join(disk.nexuses[1]!.sysfs, 'state');
    writeFileSync(state, 'offline\n');
    await send(
      'it registers on the path that is left',
      'GOOD',
      first,
      mapped,
      reserveOut(REGISTER, { actionKey: KEY_A }),
    );
    note('keys, with one path', 'status 0 0xa1', readKeys(diskC));
    writeFileSync(state, 'running\n');
    await waitFor('the other path to be registered', () => readKeys(diskC) === 'status 0 0xa1 0xa1');
    await send('it reserves with both', 'GOOD', first, mapped, reserve);
    note('it', '2 of 2 paths write', writers());
    await send('it clears', 'GOOD', first, mapped, reserveOut(CLEAR, { key: KEY_A }));
    note('keys, at the end', 'status 0', readKeys(diskC));
  },
};

function readKeys(disk: string): string {
  return persist(disk, '--in', '--read-keys');
}

export const MULTIPATH_SECTIONS: readonly Section[] = [multipath];
