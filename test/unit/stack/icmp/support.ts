import type { FakeSocketError } from '../../../support/fake-socket.ts';
import { endpoint } from '../udp/support.ts';

export const ORIGIN_LOCAL = 1;
export const ORIGIN_ICMP = 2;
export const ORIGIN_ICMPV6 = 3;

export interface ErrorEntry {
  readonly errno?: number;
  readonly origin: number;
  readonly type?: number;
  readonly code?: number;
  readonly info?: number;
  /** Who sent the ICMP error; left out: nobody known. */
  readonly offender?: string;
  /** Where the datagram went: [address, port]. */
  readonly destination?: readonly [string, number];
}

/** An entry of a socket's error queue, as ports.ts lays it out. */
export function errorEntry(entry: ErrorEntry, data: Uint8Array): FakeSocketError {
  const record = new Uint8Array(64);
  const view = new DataView(record.buffer);
  view.setUint32(0, entry.errno ?? 111, true);
  record[4] = entry.origin;
  record[5] = entry.type ?? 0;
  record[6] = entry.code ?? 0;
  view.setUint32(8, entry.info ?? 0, true);
  if (entry.offender !== undefined) record.set(endpoint(entry.offender, 0), 12);
  if (entry.destination !== undefined) record.set(endpoint(...entry.destination), 36);
  return { record, data };
}
