/**
 * Endpoint records (see ports.ts): how addresses and ports lie in the arena for the addon, written from and read into the four
 * words that the stack computes with.
 */
import { IPV4_MAPPED_WORD, isIpv4Mapped } from '../wire/ipv4.ts';
import { loadIpv6, storeIpv6 } from '../wire/ipv6.ts';
import { ENDPOINT_ADDRESS, ENDPOINT_PORT, ENDPOINT_SCOPE } from './ports.ts';

/**
 * Writes a whole record.
 * @param words 4 words at `at`; a v4-mapped address makes a record of family 4
 * @param scopeId interface index of an IPv6 link-local address, 0 otherwise
 */
export function writeEndpoint(
  view: DataView,
  offset: number,
  words: Uint32Array,
  at: number,
  port: number,
  scopeId: number,
): void {
  if (isIpv4Mapped(words, at)) {
    view.setUint16(offset, 4 << 8);
    view.setUint32(offset + ENDPOINT_SCOPE, 0, true);
    view.setUint32(offset + ENDPOINT_ADDRESS, words[at + 3]!);
    view.setUint32(offset + ENDPOINT_ADDRESS + 4, 0);
    view.setUint32(offset + ENDPOINT_ADDRESS + 8, 0);
    view.setUint32(offset + ENDPOINT_ADDRESS + 12, 0);
  } else {
    view.setUint16(offset, 6 << 8);
    view.setUint32(offset + ENDPOINT_SCOPE, scopeId, true);
    storeIpv6(view, offset + ENDPOINT_ADDRESS, words, at);
  }
  view.setUint16(offset + ENDPOINT_PORT, port);
}

/** Writes the record of every address of a family, with a port: what a socket that is to have only its port fixed binds to. */
export function writeWildcardEndpoint(view: DataView, offset: number, family: number, port: number): void {
  view.setUint16(offset, family << 8);
  view.setUint16(offset + ENDPOINT_PORT, port);
  for (let i = ENDPOINT_SCOPE; i < ENDPOINT_ADDRESS + 16; i += 4) view.setUint32(offset + i, 0);
}

/** Writes the record that stands for no endpoint. */
export function clearEndpoint(view: DataView, offset: number): void {
  writeWildcardEndpoint(view, offset, 0, 0);
}

/** Reads a record's address into words[at … at + 3]. @returns its family: 4, 6, or 0 for none (the words are then left alone) */
export function loadEndpointAddress(view: DataView, offset: number, words: Uint32Array, at: number): number {
  const family = view.getUint8(offset);
  if (family === 4) {
    words[at] = 0;
    words[at + 1] = 0;
    words[at + 2] = IPV4_MAPPED_WORD;
    words[at + 3] = view.getUint32(offset + ENDPOINT_ADDRESS);
  } else if (family === 6) {
    loadIpv6(view, offset + ENDPOINT_ADDRESS, words, at);
  }
  return family;
}

/** Port of a record. */
export function getEndpointPort(view: DataView, offset: number): number {
  return view.getUint16(offset + ENDPOINT_PORT);
}

/** Scope (interface index) of a record. */
export function getEndpointScope(view: DataView, offset: number): number {
  return view.getUint32(offset + ENDPOINT_SCOPE, true);
}

/** Whether two records name the same family, port, scope and address. */
export function isSameEndpoint(view: DataView, a: number, b: number): boolean {
  for (let i = 0; i < ENDPOINT_ADDRESS + 16; i += 4) {
    if (view.getUint32(a + i) !== view.getUint32(b + i)) return false;
  }
  return true;
}
