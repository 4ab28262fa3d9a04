/** Endpoint records (stack/ports.ts) as the splice reads and writes them. */
import { isMappedIpv4 } from '../../base/ip-text.ts';
import { ENDPOINT_ADDRESS, ENDPOINT_BYTES, ENDPOINT_PORT } from '../../stack/ports.ts';

const LOOPBACK_V4 = Uint32Array.of(0, 0, 0xffff, 0x7f000001);
const LOOPBACK_V6 = Uint32Array.of(0, 0, 0, 1);

/** 127.0.0.1 or ::1 as 4 words. */
export function loopbackOf(family: number): Uint32Array {
  return family === 4 ? LOOPBACK_V4 : LOOPBACK_V6;
}

/** Whether a record holds an address of 127.0.0.0/8 or ::1. */
export function isLoopbackEndpoint(view: DataView, record: number): boolean {
  const family = view.getUint8(record);
  const address = record + ENDPOINT_ADDRESS;
  if (family === 4) return view.getUint8(address) === 127;
  return (
    family === 6 &&
    view.getUint32(address) === 0 &&
    view.getUint32(address + 4) === 0 &&
    view.getUint32(address + 8) === 0 &&
    view.getUint32(address + 12) === 1
  );
}

/** Writes a record without a scope. @param address - 4 words, IPv4 in its mapped form */
export function writeEndpoint(view: DataView, record: number, address: Uint32Array, port: number): void {
  const isIpv4 = isMappedIpv4(address);
  for (let i = 0; i < ENDPOINT_BYTES; i += 4) view.setUint32(record + i, 0);
  view.setUint8(record, isIpv4 ? 4 : 6);
  view.setUint16(record + ENDPOINT_PORT, port);
  if (isIpv4) view.setUint32(record + ENDPOINT_ADDRESS, address[3]!);
  else for (let i = 0; i < 4; i++) view.setUint32(record + ENDPOINT_ADDRESS + 4 * i, address[i]!);
}

/** Whether two records are the same in every byte. */
export function isSameRecord(view: DataView, a: number, b: number): boolean {
  for (let i = 0; i < ENDPOINT_BYTES; i += 4) if (view.getInt32(a + i) !== view.getInt32(b + i)) return false;
  return true;
}

export function copyRecord(view: DataView, from: number, to: number): void {
  for (let i = 0; i < ENDPOINT_BYTES; i += 4) view.setInt32(to + i, view.getInt32(from + i));
}

/** The address of a record as 4 words, and its port. For the control path. */
export function readEndpoint(view: DataView, record: number): { address: Uint32Array; port: number } {
  const address = new Uint32Array(4);
  const family = view.getUint8(record);
  if (family === 4) address.set([0, 0, 0xffff, view.getUint32(record + ENDPOINT_ADDRESS)]);
  else if (family === 6) for (let i = 0; i < 4; i++) address[i] = view.getUint32(record + ENDPOINT_ADDRESS + 4 * i);
  return { address, port: view.getUint16(record + ENDPOINT_PORT) };
}
