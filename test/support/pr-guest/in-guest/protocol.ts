/** Sections on the helper's side of things: what breaks a connection, clients beside each other, the end. */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { APTPL, READ_KEYS, REGISTER, REGISTER_AND_IGNORE, reserveIn, reserveOut } from './commands.ts';
import { Connection } from './connection.ts';
import { waitFor } from './lio.ts';
import type { Section } from './scenario.ts';
import { findDisk } from './sysfs.ts';
import { describeReply } from './transcript.ts';

const KEY_A = 0xa1;
const KEY_B = 0xb2;

/** Registering so that it outlives a loss of power: the target writes a file, and waits as long as that takes. */
const REGISTER_FOR_GOOD = reserveOut(REGISTER_AND_IGNORE, { actionKey: KEY_A, flags: APTPL });

/** Stops and starts the file system to which the target writes registrations (see guest.ts). */
function suspendPersistence(): void {
  execFileSync('dmsetup', ['suspend', 'scratch']);
}

function resumePersistence(): void {
  execFileSync('dmsetup', ['resume', 'scratch']);
}

const connections: Section = {
  name: 'connections',
  async run({ transcript, helper, first, second, a, b }) {
    const keys = reserveIn(READ_KEYS);
    const breaking = async (step: string, expected: string, act: (connection: Connection) => void): Promise<void> => {
      const connection = await helper.connect();
      act(connection);
      // A later complaint about what was still unread is no other way to close.
      transcript.note(step, expected, describeReply(keys, await connection.readReply()).replace(/ \(.*/, ''));
      connection.close();
    };
    const fdsBefore = helper.countFds();
    await breaking('a request without an fd', 'closed', (it) => it.send(keys.cdb));
    await breaking('a request with two fds', 'closed', (it) => it.send(keys.cdb, a, b));
    await breaking('another command', 'closed', (it) =>
      it.send(Buffer.from('12000000240000000000000000000000', 'hex'), a),
    );
    await breaking('an allocation length above the limit', 'closed', (it) =>
      it.send(reserveIn(READ_KEYS, 8193).cdb, a),
    );
    await breaking('a list above the limit', 'closed', (it) =>
      it.send(reserveOut(REGISTER, { listLength: 8193 }).cdb, a),
    );
    const eager = await Connection.connect(helper.socketPath);
    await eager.readBytes(4);
    eager.send(Buffer.from([0, 0, 0, 1]));
    transcript.note('features that were not offered', 'closed (eof)', describeReply(keys, await eager.readReply()));

    first.send(keys.cdb.subarray(0, 7));
    first.send(keys.cdb.subarray(7), a);
    transcript.noteReply(
      'a command in two halves, the fd with the second',
      'GOOD gen 0 keys none',
      keys,
      await first.readReply(),
    );
    first.send(keys.cdb.subarray(0, 7), a);
    first.send(keys.cdb.subarray(7));
    transcript.noteReply(
      'a command in two halves, the fd with the first',
      'GOOD gen 0 keys none',
      keys,
      await first.readReply(),
    );
    const register = reserveOut(REGISTER, { actionKey: KEY_A });
    first.send(Buffer.concat([register.cdb, register.data]), a);
    transcript.noteReply('command and data in one message', 'GOOD', register, await first.readReply());
    first.send(keys.cdb, a);
    first.send(reserveIn(READ_KEYS, 16).cdb, b);
    transcript.noteReply('the first of two requests', 'GOOD gen 1 keys a1', keys, await first.readReply());
    transcript.noteReply('the second of two requests', 'GOOD gen 1 keys a1', keys, await first.readReply());
    first.sendCommand(reserveOut(REGISTER, { key: KEY_A, actionKey: KEY_A }), a);
    first.send(keys.cdb, b);
    transcript.noteReply('a change', 'GOOD', register, await first.readReply());
    transcript.noteReply(
      'and a look at it, asked for before it was done',
      'GOOD gen 2 keys a1',
      keys,
      await first.readReply(),
    );

    for (const bytes of [
      keys.cdb.subarray(0, 5),
      register.cdb,
      Buffer.concat([register.cdb, register.data.subarray(0, 9)]),
    ]) {
      const dying = await helper.connect();
      dying.send(bytes, a);
      dying.close();
    }
    await transcript.send('after clients that died', 'GOOD gen 2 keys a1', second, b, keys);
    await waitFor('all fds to be closed', () => helper.countFds() <= fdsBefore);
    transcript.note(
      'open fds afterwards',
      'as before',
      helper.countFds() === fdsBefore ? 'as before' : 'other than before',
    );
  },
};

const crowd: Section = {
  name: 'crowd',
  async run({ transcript, helper, first, second, a, b }) {
    const count = new Map<string, number>();
    const add = (what: string): void => {
      count.set(what, (count.get(what) ?? 0) + 1);
    };
    const summary = (): string => {
      const text = [...count]
        .map(([what, times]) => `${times} ${what}`)
        .sort()
        .join(', ');
      count.clear();
      return text;
    };
    const work = async (connection: Connection, fd: number, key: number): Promise<void> => {
      for (let turn = 0; turn < 40; turn++) {
        const change = reserveOut(REGISTER_AND_IGNORE, { actionKey: key });
        add(describeReply(change, await connection.request(change, fd)));
        const reply = await connection.request(reserveIn(READ_KEYS), fd);
        const own = describeReply(reserveIn(READ_KEYS), reply).includes(key.toString(16));
        add(own ? 'with its key' : 'without its key');
      }
    };
    await Promise.all([work(first, a, KEY_A), work(second, b, KEY_B)]);
    transcript.note('two clients at the same time', '80 GOOD, 80 with its key', summary());

    const before = helper.countFds();
    const many = await Promise.all(Array.from({ length: 300 }, () => helper.connect()));
    transcript.note(
      'fds with 300 clients more',
      '300 or more',
      helper.countFds() - before >= 300 ? '300 or more' : 'fewer',
    );
    const answers = await Promise.all(many.map((connection) => connection.request(reserveIn(READ_KEYS), a)));
    for (const reply of answers) add(describeReply(reserveIn(READ_KEYS), reply));
    transcript.note('300 clients at the same time', '300 GOOD gen 80 keys a1,b2', summary());
    for (const connection of many) connection.close();
    await waitFor('all fds to be closed', () => helper.countFds() <= before);
    transcript.note('fds afterwards', 'as before', helper.countFds() === before ? 'as before' : 'other than before');
    await transcript.send('those who were there before', 'GOOD gen 80 keys a1,b2', first, a, reserveIn(READ_KEYS));
  },
};

const slowDevice: Section = {
  name: 'slow device',
  async run({ transcript, helper, first, second, a, open }) {
    const other = open(findDisk('scsi_debug'));
    await transcript.send('A registers for good', 'GOOD', first, a, REGISTER_FOR_GOOD);
    const before = helper.countFds();
    suspendPersistence();
    const dying = await helper.connect();
    dying.sendCommand(REGISTER_FOR_GOOD, a);
    await waitFor('the command to be with the device', () => helper.isInDevice());
    await transcript.send(
      'a client of another disk is served meanwhile',
      'CHECK 5/20/00',
      second,
      other,
      reserveIn(READ_KEYS),
    );
    dying.close();
    await transcript.send('also after the other has died', 'CHECK 5/20/00', second, other, reserveIn(READ_KEYS));
    resumePersistence();
    await waitFor('its fds to be closed', () => helper.countFds() <= before);
    await transcript.send('the slow disk afterwards', 'GOOD gen 2 keys a1', first, a, reserveIn(READ_KEYS));
  },
};

/** Whether connections come to be refused, soon: a signal takes its time. */
async function isRefused(path: string): Promise<boolean> {
  for (let attempt = 0; attempt < 100; attempt++) {
    try {
      (await Connection.connect(path)).close();
    } catch {
      return true;
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return false;
}

/** Ends the helper: the last section. */
const shutdown: Section = {
  name: 'shutdown',
  async run({ transcript, helper, first, second, a }) {
    await transcript.send('A registers for good', 'GOOD', first, a, REGISTER_FOR_GOOD);
    const half = await helper.connect();
    half.send(REGISTER_FOR_GOOD.cdb, a);
    suspendPersistence();
    first.sendCommand(REGISTER_FOR_GOOD, a);
    await waitFor('the command to be with the device', () => helper.isInDevice());
    helper.child.kill('SIGTERM');
    transcript.note('a new client', 'is refused', (await isRefused(helper.socketPath)) ? 'is refused' : 'is connected');
    transcript.note(
      'the helper',
      'waits for the device',
      helper.child.exitCode === null ? 'waits for the device' : 'has ended',
    );
    resumePersistence();
    transcript.noteReply('the request in flight', 'GOOD', REGISTER_FOR_GOOD, await first.readReply());
    transcript.noteReply('a client that asks nothing', 'closed (eof)', reserveIn(READ_KEYS), await second.readReply());
    transcript.noteReply(
      'a client in the middle of a request',
      'closed (eof)',
      REGISTER_FOR_GOOD,
      await half.readReply(),
    );
    transcript.noteReply('its connection afterwards', 'closed (eof)', REGISTER_FOR_GOOD, await first.readReply());
    transcript.note('the helper ends with', 'status 0', await helper.waitEnd());
    transcript.note('its socket', 'is gone', existsSync(helper.socketPath) ? 'is left' : 'is gone');
  },
};

export const PROTOCOL_SECTIONS: readonly Section[] = [connections, crowd, slowDevice, shutdown];
