/**
 * A logical unit as SPC-4, 5.13 describes it, with a nexus for each path: what the fan-out is tested against. Written from the standard
 * and not from the code under test.
 */
import type { Path, PathReply } from '../../../../src/scsi/multipath/fan-out.ts';

const GOOD = 0;
const CHECK = 2;
const CONFLICT = 0x18;
const ALL_REGISTRANTS = [7, 8];
/** Types whose release is told to the other registrants. */
const REGISTRANTS_ONLY = [5, 6, 7, 8];

export interface FakeTarget {
  /** Nexus → key. */
  readonly keys: Map<string, bigint>;
  reservation: { holder: string; type: number } | undefined;
  /** Nexuses that are not reached. */
  readonly dead: Set<string>;
  /** Nexuses that give a unit attention to their next command. */
  readonly attention: Set<string>;
  /** Nexuses whose registration is refused for want of resources. */
  readonly full: Set<string>;
  /** What was sent, as `nexus opcode action`. */
  readonly log: string[];
  /** Called before each command. */
  before: ((nexus: string) => void) | undefined;
  path(nexus: string): Path;
}

const reply = (status: number, sense: readonly number[] = [], data = new Uint8Array(0)): PathReply => {
  const bytes = new Uint8Array(96);
  const [key = 0, asc = 0, ascq = 0] = sense;
  if (sense.length > 0) bytes.set([0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq]);
  return { status, sense: bytes, data, isDead: false };
};

export function createFakeTarget(): FakeTarget {
  const target: FakeTarget = {
    keys: new Map(),
    reservation: undefined,
    dead: new Set(),
    attention: new Set(),
    full: new Set(),
    log: [],
    before: undefined,
    path: (nexus) => ({ name: nexus, send: async (cdb, parameters) => send(nexus, cdb, parameters) }),
  };

  function send(nexus: string, cdb: Uint8Array, parameters: Uint8Array): PathReply {
    target.before?.(nexus);
    target.log.push(`${nexus} ${cdb[0] === 0x5f ? 'out' : 'in'} ${cdb[1]}`);
    if (target.dead.has(nexus)) return { ...reply(CHECK, [0xb, 5, 0]), isDead: true };
    if (target.attention.delete(nexus)) return reply(CHECK, [6, 0x29, 0]);
    return cdb[0] === 0x5e ? ask(cdb[1]!) : change(nexus, cdb[1]!, cdb[2]! & 0xf, Buffer.from(parameters));
  }

  function ask(action: number): PathReply {
    if (action === 0) {
      const data = Buffer.alloc(8 + 8 * target.keys.size);
      data.writeUInt32BE(8 * target.keys.size, 4);
      [...target.keys.values()].forEach((key, i) => {
        data.writeBigUInt64BE(key, 8 + 8 * i);
      });
      return reply(GOOD, [], new Uint8Array(data));
    }
    const { reservation } = target;
    const data = Buffer.alloc(reservation === undefined ? 8 : 24);
    if (reservation !== undefined) {
      data.writeUInt32BE(16, 4);
      const all = ALL_REGISTRANTS.includes(reservation.type);
      data.writeBigUInt64BE(all ? 0n : target.keys.get(reservation.holder)!, 8);
      data.writeUInt8(reservation.type, 21);
    }
    return reply(GOOD, [], new Uint8Array(data));
  }

  function change(nexus: string, action: number, type: number, list: Buffer): PathReply {
    const key = list.readBigUInt64BE(0);
    const actionKey = list.readBigUInt64BE(8);
    const own = target.keys.get(nexus);
    if (action === 0 || action === 6) {
      if (action === 0 && key !== (own ?? 0n)) return reply(CONFLICT);
      if (target.full.has(nexus)) return reply(CHECK, [5, 0x55, 4]);
      if (actionKey === 0n) unregister(nexus);
      else target.keys.set(nexus, actionKey);
      return reply(GOOD);
    }
    if (own === undefined || own !== key) return reply(CONFLICT);
    if (action === 1) {
      const { reservation } = target;
      if (reservation === undefined) target.reservation = { holder: nexus, type };
      else if (reservation.holder !== nexus || reservation.type !== type) return reply(CONFLICT);
    } else if (action === 2) {
      const { reservation } = target;
      const holds = reservation?.holder === nexus || ALL_REGISTRANTS.includes(reservation?.type ?? 0);
      if (holds && REGISTRANTS_ONLY.includes(reservation?.type ?? 0)) {
        for (const other of target.keys.keys()) if (other !== nexus) target.attention.add(other);
      }
      if (holds) target.reservation = undefined;
    } else if (action === 3) {
      target.keys.clear();
      target.reservation = undefined;
    } else {
      const holderKey = target.reservation === undefined ? undefined : target.keys.get(target.reservation.holder);
      const all = ALL_REGISTRANTS.includes(target.reservation?.type ?? 0) && actionKey === 0n;
      for (const [other, otherKey] of [...target.keys]) {
        if (other !== nexus && (all || otherKey === actionKey)) target.keys.delete(other);
      }
      if (all || holderKey === actionKey) target.reservation = { holder: nexus, type };
    }
    return reply(GOOD);
  }

  function unregister(nexus: string): void {
    target.keys.delete(nexus);
    if (target.reservation?.holder === nexus) target.reservation = undefined;
  }

  return target;
}
