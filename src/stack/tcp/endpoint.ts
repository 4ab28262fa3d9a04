/** Endpoint records (ports.ts) for TCP's sockets: from and to the four words of an address. */
import { IPV4_MAPPED_WORD, isIpv4Mapped } from '../../wire/ipv4.ts';
import { ENDPOINT_ADDRESS, ENDPOINT_PORT, ENDPOINT_SCOPE } from '../ports.ts';

/** Writes a record at `offset`. @param scope interface index for a link-local address, else 0 */
export function writeEndpoint(view: DataView, offset: number, address: Uint32Array, port: number, scope: number): void {
  const isIpv4 = isIpv4Mapped(address, 0);
  view.setUint16(offset, (isIpv4 ? 4 : 6) << 8);
  view.setUint16(offset + ENDPOINT_PORT, port);
  view.setUint32(offset + ENDPOINT_SCOPE, scope, true);
  const at = offset + ENDPOINT_ADDRESS;
  if (isIpv4) {
    view.setUint32(at, address[3]!);
    return;
  }
  for (let i = 0; i < 4; i++) view.setUint32(at + 4 * i, address[i]!);
}

/** Reads the address of the record at `offset` as 4 words. @returns 4 or 6, or 0 when there is none */
export function readEndpoint(view: DataView, offset: number, address: Uint32Array): number {
  const family = view.getUint8(offset);
  const at = offset + ENDPOINT_ADDRESS;
  if (family === 4) {
    address[0] = 0;
    address[1] = 0;
    address[2] = IPV4_MAPPED_WORD;
    address[3] = view.getUint32(at);
    return 4;
  }
  if (family !== 6) return 0;
  for (let i = 0; i < 4; i++) address[i] = view.getUint32(at + 4 * i);
  return isIpv4Mapped(address, 0) ? 4 : 6;
}

export function readEndpointPort(view: DataView, offset: number): number {
  return view.getUint16(offset + ENDPOINT_PORT);
}
