/** A request and its answer for people and logs. */
import type { OpenFile } from '../sys/sg.ts';
import { REQUEST_BYTES } from './helper-protocol.ts';
import { type ParameterList, parseParameterList } from './parameter-data.ts';
import { hasType, nameAction, nameType, parseCommand } from './persistent-reserve.ts';
import { describeSense, parseSense, type Sense } from './sense.ts';
import { nameStatus, STATUS_CHECK_CONDITION } from './status.ts';

/** One request, as it stands in the access log. Keys are hexadecimal, since JSON has no numbers of 64 bits. */
export interface AccessEntry {
  readonly peerPid: number;
  readonly peerUid: number;
  readonly device: string;
  readonly path: string | undefined;
  readonly command: 'in' | 'out';
  readonly action: string;
  readonly type?: string;
  readonly key?: string;
  readonly actionKey?: string;
  readonly aptpl?: boolean;
  readonly status: string;
  readonly sense?: string;
  readonly bytes: number;
  readonly durationMs: number;
  /** Why the device was not asked, or how. */
  readonly note?: string;
}

/** `0x000000000000abcd` */
export function formatKey(key: bigint): string {
  return `0x${key.toString(16).padStart(16, '0')}`;
}

/** `8:0`, or what it is when it is no device. */
export function formatDevice(file: OpenFile | undefined): string {
  if (file === undefined) return 'unknown';
  return file.kind === 'other' ? 'not a device' : `${file.major}:${file.minor}`;
}

export interface AccessFacts {
  readonly peerPid: number;
  readonly peerUid: number;
  readonly file: OpenFile | undefined;
  readonly path: string | undefined;
  /** The CDB with its padding, and the parameters of PERSISTENT RESERVE OUT. */
  readonly request: Uint8Array;
  readonly status: number;
  readonly sense: Uint8Array;
  readonly sizeBytes: number;
  readonly durationUs: number;
  readonly note: string | undefined;
}

export function describeAccess(facts: AccessFacts): AccessEntry {
  const command = parseCommand(facts.request)!;
  const list = command.isOut ? parseParameterList(facts.request.subarray(REQUEST_BYTES)) : undefined;
  const sense = facts.status === STATUS_CHECK_CONDITION ? parseSense(facts.sense) : undefined;
  return {
    peerPid: facts.peerPid,
    peerUid: facts.peerUid,
    device: formatDevice(facts.file),
    path: facts.path,
    command: command.isOut ? 'out' : 'in',
    action: nameAction(command.isOut, command.serviceAction),
    ...(command.isOut && hasType(command.serviceAction) ? { type: nameType(command.type) } : {}),
    ...(list === undefined ? {} : describeList(list)),
    status: nameStatus(facts.status),
    ...(sense === undefined ? {} : { sense: describeSense(sense satisfies Sense) }),
    bytes: facts.sizeBytes,
    durationMs: facts.durationUs / 1000,
    ...(facts.note === undefined ? {} : { note: facts.note }),
  };
}

function describeList(list: ParameterList): { key: string; actionKey: string; aptpl: boolean } {
  return {
    key: formatKey(list.reservationKey),
    actionKey: formatKey(list.actionKey),
    aptpl: list.persistThroughPowerLoss,
  };
}

/** The same in one line. */
export function formatAccess(entry: AccessEntry): string {
  const where = entry.path ?? entry.device;
  const parts = [`pid ${entry.peerPid} uid ${entry.peerUid}: ${where}: ${entry.action}`];
  if (entry.type !== undefined) parts.push(`(${entry.type})`);
  if (entry.key !== undefined) parts.push(`key ${entry.key} action key ${entry.actionKey}`);
  parts.push(`-> ${entry.status}`);
  if (entry.sense !== undefined) parts.push(entry.sense);
  if (entry.note !== undefined) parts.push(`[${entry.note}]`);
  return parts.join(' ');
}
