/** Sections on what reservations are for: every service action and type, two initiators in each other's way. */
import { existsSync, readFileSync } from 'node:fs';
import {
  ALL_TG_PT,
  APTPL,
  CLEAR,
  PREEMPT,
  PREEMPT_AND_ABORT,
  READ_FULL_STATUS,
  READ_KEYS,
  READ_RESERVATION,
  REGISTER,
  REGISTER_AND_IGNORE,
  RELEASE,
  REPORT_CAPABILITIES,
  RESERVE,
  registerAndMove,
  reserveIn,
  reserveOut,
  SPEC_I_PT,
  sasTransportId,
  transportIdList,
} from './commands.ts';
import type { Scene, Section } from './scenario.ts';

const KEY_A = 0xa1;
const KEY_B = 0xb2;

/** Reservation types of SPC-4 table 209, and whether every registrant, or only the holder, is notified of a release. */
const TYPES = [1, 3, 5, 6, 7, 8];

const registration: Section = {
  name: 'registration',
  async run({ transcript, first, a, b }) {
    const send = transcript.send.bind(transcript);
    await send('nobody is registered', 'GOOD gen 0 keys none', first, a, reserveIn(READ_KEYS));
    await send('nobody holds a reservation', 'GOOD gen 0 not reserved', first, a, reserveIn(READ_RESERVATION));
    await send('the capabilities', 'GOOD 00081d90ea010000', first, a, reserveIn(REPORT_CAPABILITIES));
    await send('the full status of nobody', 'GOOD gen 0 nobody', first, a, reserveIn(READ_FULL_STATUS));
    await send(
      'reserving without a registration',
      'CHECK 2/08/00',
      first,
      a,
      reserveOut(RESERVE, { key: KEY_A, type: 1 }),
    );
    await send('A registers', 'GOOD', first, a, reserveOut(REGISTER, { actionKey: KEY_A }));
    await send('A is listed', 'GOOD gen 1 keys a1', first, b, reserveIn(READ_KEYS));
    await send('A registers again as if it were new', 'CONFLICT', first, a, reserveOut(REGISTER, { actionKey: 0xa2 }));
    await send('A changes its key', 'GOOD', first, a, reserveOut(REGISTER, { key: KEY_A, actionKey: 0xa2 }));
    await send(
      'A ignores its key and sets another',
      'GOOD',
      first,
      a,
      reserveOut(REGISTER_AND_IGNORE, { actionKey: KEY_A }),
    );
    await send('B ignores that it has no key', 'GOOD', first, b, reserveOut(REGISTER_AND_IGNORE, { actionKey: KEY_B }));
    await send('both are listed', 'GOOD gen 4 keys a1,b2', first, a, reserveIn(READ_KEYS));
    await send(
      'both are in the full status',
      'GOOD gen 4 a1@6001405100000001/1, b2@6001405100000002/2',
      first,
      a,
      reserveIn(READ_FULL_STATUS),
    );
    await send('B leaves with a wrong key', 'CONFLICT', first, b, reserveOut(REGISTER, { key: KEY_A }));
    await send('B leaves', 'GOOD', first, b, reserveOut(REGISTER, { key: KEY_B }));
    await send('A releases what nobody holds', 'GOOD', first, a, reserveOut(RELEASE, { key: KEY_A, type: 1 }));
    await send('A clears', 'GOOD', first, a, reserveOut(CLEAR, { key: KEY_A }));
    await send('nobody is left', 'GOOD gen 5 keys none', first, a, reserveIn(READ_KEYS));
  },
};

/** Each type once: reserved, seen, in the other's way, released with the wrong and the right type. */
const types: Section = {
  name: 'types',
  async run({ transcript, first, second, a, b }) {
    const send = transcript.send.bind(transcript);
    await send('A registers', 'GOOD', first, a, reserveOut(REGISTER, { actionKey: KEY_A }));
    await send('B registers', 'GOOD', second, b, reserveOut(REGISTER, { actionKey: KEY_B }));
    for (const type of TYPES) {
      // All registrants hold types 7 and 8; of types 5 and 6, they are told of the release.
      const shared = type >= 7;
      const told = type === 5 || type === 6;
      const holderKey = shared ? '0' : 'a1';
      const status = `GOOD gen 2 a1@6001405100000001/1 holds ${type}, b2@6001405100000002/2${shared ? ` holds ${type}` : ''}`;
      await send(`A reserves type ${type}`, 'GOOD', first, a, reserveOut(RESERVE, { key: KEY_A, type }));
      await send(`A reserves type ${type} again`, 'GOOD', first, a, reserveOut(RESERVE, { key: KEY_A, type }));
      await send(
        `type ${type} is seen`,
        `GOOD gen 2 key ${holderKey} type ${type}`,
        second,
        b,
        reserveIn(READ_RESERVATION),
      );
      await send(`the holder of type ${type} is seen`, status, second, b, reserveIn(READ_FULL_STATUS));
      const conflict = shared ? 'GOOD' : 'CONFLICT';
      await send(`B reserves type ${type} too`, conflict, second, b, reserveOut(RESERVE, { key: KEY_B, type }));
      // A release by somebody who does not hold is no error. One who shares it ends it for all, and A is told.
      await send(`B releases type ${type}`, 'GOOD', second, b, reserveOut(RELEASE, { key: KEY_B, type }));
      const wrong = type === 1 ? 3 : 1;
      const refusal = shared ? 'CHECK 6/2a/04' : 'CONFLICT';
      await send(
        `A releases type ${type} as ${wrong}`,
        refusal,
        first,
        a,
        reserveOut(RELEASE, { key: KEY_A, type: wrong }),
      );
      await send(`A releases type ${type}`, 'GOOD', first, a, reserveOut(RELEASE, { key: KEY_A, type }));
      const news = told ? 'CHECK 6/2a/04' : 'GOOD gen 2 not reserved';
      await send(`B after the release of type ${type}`, news, second, b, reserveIn(READ_RESERVATION));
    }
    await send('type 9 does not exist', 'CHECK 5/24/00', first, a, reserveOut(RESERVE, { key: KEY_A, type: 9 }));
    await send('scope 1 does not exist', 'CHECK 5/26/00', first, a, reserveOut(RESERVE, { key: KEY_A, type: 0x11 }));
  },
};

/**
 * PREEMPT AND ABORT is only seen refused: the target of Linux 6.1 waits, inside the command, for the work item that executes
 * the command, and neither ends any more.
 */
const preemption: Section = {
  name: 'preemption',
  async run({ transcript, first, second, a, b }) {
    const send = transcript.send.bind(transcript);
    const register = async (): Promise<void> => {
      await send('A registers', 'GOOD', first, a, reserveOut(REGISTER_AND_IGNORE, { actionKey: KEY_A }));
      await send('B registers', 'GOOD', second, b, reserveOut(REGISTER_AND_IGNORE, { actionKey: KEY_B }));
      await send('A reserves', 'GOOD', first, a, reserveOut(RESERVE, { key: KEY_A, type: 5 }));
    };
    await register();
    await send(
      'B preempts a key that nobody has',
      'CONFLICT',
      second,
      b,
      reserveOut(PREEMPT, { key: KEY_B, actionKey: 0xdead, type: 5 }),
    );
    await send(
      'B preempts with a wrong key',
      'CONFLICT',
      second,
      b,
      reserveOut(PREEMPT, { key: KEY_A, actionKey: KEY_A, type: 5 }),
    );
    await send('B preempts A', 'GOOD', second, b, reserveOut(PREEMPT, { key: KEY_B, actionKey: KEY_A, type: 5 }));
    await send('A learns it by a unit attention', 'CHECK 6/2a/05', first, a, reserveIn(READ_KEYS));
    await send('A learns it once', 'GOOD gen 3 keys b2', first, a, reserveIn(READ_KEYS));
    await send('B holds the reservation', 'GOOD gen 3 key b2 type 5', first, a, reserveIn(READ_RESERVATION));
    await send('A has no key any more', 'CONFLICT', first, a, reserveOut(RELEASE, { key: KEY_A, type: 5 }));
    await send('B clears', 'GOOD', second, b, reserveOut(CLEAR, { key: KEY_B }));
    await register();
    const abort = { key: KEY_B, actionKey: 0xdead, type: 5 };
    await send('B aborts for a key that nobody has', 'CONFLICT', second, b, reserveOut(PREEMPT_AND_ABORT, abort));
    const wrong = { key: 0xdead, actionKey: KEY_A, type: 5 };
    await send('B aborts with a wrong key', 'CONFLICT', second, b, reserveOut(PREEMPT_AND_ABORT, wrong));
    await send(
      'A still holds',
      'GOOD gen 6 a1@6001405100000001/1 holds 5, b2@6001405100000002/2',
      second,
      b,
      reserveIn(READ_FULL_STATUS),
    );
    await send('B clears with A there', 'GOOD', second, b, reserveOut(CLEAR, { key: KEY_B }));
    await send('A learns of the clearing', 'CHECK 6/2a/03', first, a, reserveIn(READ_KEYS));
    await send('nothing is left', 'GOOD gen 7 nobody', first, a, reserveIn(READ_FULL_STATUS));
    await register();
    await send(
      'B removes A as no holder',
      'GOOD',
      first,
      a,
      reserveOut(PREEMPT, { key: KEY_A, actionKey: KEY_B, type: 5 }),
    );
    await send('B learns that it was removed', 'CHECK 6/2a/05', second, b, reserveIn(READ_KEYS));
    await send(
      'B may not register with its old key',
      'CONFLICT',
      second,
      b,
      reserveOut(REGISTER, { key: KEY_B, actionKey: 0xb3 }),
    );
    await send('A still holds', 'GOOD gen 10 key a1 type 5', second, b, reserveIn(READ_RESERVATION));
  },
};

const transports: Section = {
  name: 'registration of others',
  async run({ transcript, disk, first, second, a, b, c }) {
    const send = transcript.send.bind(transcript);
    const [, nexusB, nexusC] = disk.nexuses;
    const idB = sasTransportId(nexusB!.initiator);
    const move = { key: KEY_A, actionKey: KEY_B, targetPort: 2, transportId: idB };
    await send('A registers', 'GOOD', first, a, reserveOut(REGISTER, { actionKey: KEY_A }));
    await send('A moves what it does not hold', 'CHECK 5/24/00', first, a, registerAndMove(move));
    await send('A reserves', 'GOOD', first, a, reserveOut(RESERVE, { key: KEY_A, type: 5 }));
    await send('A moves it with a wrong key', 'CONFLICT', first, a, registerAndMove({ ...move, key: 0xa2 }));
    await send(
      'A moves it to a port that is not there',
      'CHECK 5/26/00',
      first,
      a,
      registerAndMove({ ...move, targetPort: 9 }),
    );
    await send('A moves it to B', 'GOOD', first, a, registerAndMove(move));
    await send(
      'B holds it',
      'GOOD gen 2 a1@6001405100000001/1, b2@6001405100000002/2 holds 5',
      second,
      b,
      reserveIn(READ_FULL_STATUS),
    );
    await send(
      'B moves it back and leaves',
      'GOOD',
      second,
      b,
      registerAndMove({
        key: KEY_B,
        actionKey: KEY_A,
        targetPort: 1,
        transportId: sasTransportId(disk.nexuses[0]!.initiator),
        unregister: true,
      }),
    );
    await send('A is alone again', 'GOOD gen 3 a1@6001405100000001/1 holds 5', first, a, reserveIn(READ_FULL_STATUS));
    await send('A clears', 'GOOD', first, a, reserveOut(CLEAR, { key: KEY_A }));
    const others = transportIdList(idB, sasTransportId(nexusC!.initiator));
    const specific = reserveOut(REGISTER, { actionKey: KEY_A, flags: SPEC_I_PT, tail: others });
    await send('A registers with B and C', 'GOOD', first, a, specific);
    await send(
      'they are listed',
      'GOOD gen 7 a1@6001405100000001/1, a1@6001405100000002/2, a1@6001405100000003/3',
      second,
      b,
      reserveIn(READ_FULL_STATUS),
    );
    await send('C uses the registration', 'GOOD', second, c, reserveOut(RESERVE, { key: KEY_A, type: 8 }));
    await send('A clears', 'GOOD', first, a, reserveOut(CLEAR, { key: KEY_A }));
    const unknown = transportIdList(sasTransportId('6001405100000009'));
    await send(
      'A registers with a stranger',
      'CHECK 5/26/00',
      first,
      a,
      reserveOut(REGISTER, { actionKey: KEY_A, flags: SPEC_I_PT, tail: unknown }),
    );
    await send(
      'A registers with a short list',
      'CHECK 5/26/00',
      first,
      a,
      reserveOut(REGISTER, { actionKey: KEY_A, flags: SPEC_I_PT, tail: others, listLength: 40 }),
    );
    await send(
      'A registers for all target ports',
      'GOOD',
      first,
      a,
      reserveOut(REGISTER, { actionKey: KEY_A, flags: ALL_TG_PT }),
    );
    await send('the flag is seen', 'GOOD gen 9 a1@6001405100000001/0 all ports', first, a, reserveIn(READ_FULL_STATUS));
    await send('A leaves', 'GOOD', first, a, reserveOut(REGISTER, { key: KEY_A, flags: ALL_TG_PT }));
  },
};

const persistence: Section = {
  name: 'persistence',
  async run({ transcript, disk, first, a }: Scene) {
    const send = transcript.send.bind(transcript);
    await send('A registers for good', 'GOOD', first, a, reserveOut(REGISTER, { actionKey: KEY_A, flags: APTPL }));
    await send('the capabilities say so', 'GOOD 00081d91ea010000', first, a, reserveIn(REPORT_CAPABILITIES));
    const kept = readFileSync(disk.persistence, 'utf8');
    transcript.note('the key was written to disk', '161', /res_key=(\S+)/.exec(kept)?.[1] ?? 'no key');
    await send('A reserves', 'GOOD', first, a, reserveOut(RESERVE, { key: KEY_A, type: 3 }));
    transcript.note(
      'so was the reservation',
      '03',
      /res_type=(\S+)/.exec(readFileSync(disk.persistence, 'utf8'))?.[1] ?? 'none',
    );
    await send(
      'A goes back to registrations that power loss ends',
      'GOOD',
      first,
      a,
      reserveOut(REGISTER, { key: KEY_A, actionKey: KEY_A }),
    );
    await send('the capabilities say that', 'GOOD 00081d90ea010000', first, a, reserveIn(REPORT_CAPABILITIES));
    await send('A clears', 'GOOD', first, a, reserveOut(CLEAR, { key: KEY_A }));
    transcript.note(
      'the file',
      'No Registrations or Reservations',
      existsSync(disk.persistence) ? readFileSync(disk.persistence, 'utf8').replace(/[^ -~]+/g, '') : 'is gone',
    );
  },
};

export const RESERVATION_SECTIONS: readonly Section[] = [registration, types, preemption, transports, persistence];
