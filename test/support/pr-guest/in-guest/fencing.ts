/**
 * The users' story: two nodes share a disk, one stops answering, the other takes the disk from it. A goes through the
 * helper, as a guest does; B is a machine with the disk attached and sg_persist. C never registers.
 */
import { PREEMPT, READ_KEYS, READ_RESERVATION, REGISTER, RESERVE, reserveIn, reserveOut } from './commands.ts';
import { persist, tryAccess } from './node-access.ts';
import type { Section } from './scenario.ts';

const KEY_A = 0xa1;

const fencing: Section = {
  name: 'fencing',
  async run({ transcript, disk, first, a }) {
    const [diskA, diskB, diskC] = disk.nexuses.map((nexus) => nexus.disk) as [string, string, string];
    const send = transcript.send.bind(transcript);
    const note = transcript.note.bind(transcript);
    note('everybody', 'writes, reads', tryAccess(diskC));
    await send('A registers', 'GOOD', first, a, reserveOut(REGISTER, { actionKey: KEY_A }));
    note('B registers', 'status 0', persist(diskB, '--out', '--register', '--param-sark=b2'));
    await send('A reserves for registrants', 'GOOD', first, a, reserveOut(RESERVE, { key: KEY_A, type: 5 }));
    note('B sees the reservation of A', 'status 0 0xa1', persist(diskB, '--in', '--read-reservation'));
    note('A', 'writes, reads', tryAccess(diskA));
    note('B', 'writes, reads', tryAccess(diskB));
    note('C, not registered', 'does not write, reads', tryAccess(diskC));
    const takeover = ['--param-rk=b2', '--param-sark=a1', '--prout-type=5'];
    note('C takes over', 'status 24', persist(diskC, '--out', '--preempt', ...takeover));
    note('B takes over', 'status 0', persist(diskB, '--out', '--preempt', ...takeover));
    await send('A is told', 'CHECK 6/2a/05', first, a, reserveIn(READ_KEYS));
    note('A, fenced', 'does not write, reads', tryAccess(diskA));
    note('B, now holding', 'writes, reads', tryAccess(diskB));
    await send(
      'A cannot take it back',
      'CONFLICT',
      first,
      a,
      reserveOut(PREEMPT, { key: KEY_A, actionKey: 0xb2, type: 5 }),
    );
    await send('A sees who holds', 'GOOD gen 3 key b2 type 5', first, a, reserveIn(READ_RESERVATION));
    await send('A, back in order, registers anew', 'GOOD', first, a, reserveOut(REGISTER, { actionKey: 0xa3 }));
    note('A, back', 'writes, reads', tryAccess(diskA));
    await send('B is still the holder', 'GOOD gen 4 key b2 type 5', first, a, reserveIn(READ_RESERVATION));
    await send('A takes over from B', 'GOOD', first, a, reserveOut(PREEMPT, { key: 0xa3, actionKey: 0xb2, type: 1 }));
    note('B, fenced', 'does not write, reads', tryAccess(diskB));
    note('C', 'does not write, reads', tryAccess(diskC));
    note('A, alone', 'writes, reads', tryAccess(diskA));
  },
};

export const FENCING_SECTIONS: readonly Section[] = [fencing];
