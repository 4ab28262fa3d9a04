/**
 * Domain names in DNS wire form (RFC 1035 §3.1): labels of 1 … 63 bytes, each behind its length, and a zero at the end; 255 bytes
 * in all. DHCP, DHCPv6 and router advertisements carry search lists and host names in this form.
 *
 * Writers append as described in room.ts. Names are text with dots, with or without one at the end. This is control path: strings
 * and arrays are fine here.
 *
 * Not done: DNS messages; internationalised names (the caller converts, for example with `domainToASCII` of node:url); dots
 * inside labels.
 */
import { checkRoom } from './room.ts';
import { WIRE_BAD_OPTION } from './status.ts';

const MAX_LABEL_BYTES = 63;
const MAX_NAME_BYTES = 255;
/** Two high bits of a length: a pointer of 14 bits instead of a label (RFC 1035 §4.1.4). */
const POINTER = 0xc0;
const MAX_POINTER = 0x3fff;

/** Splits into labels; undefined if the name has no wire form. The root alone is refused: no list has a use for it. */
function splitLabels(name: string): string[] | undefined {
  const labels = (name.endsWith('.') ? name.slice(0, -1) : name).split('.');
  let bytes = 1;
  for (const label of labels) {
    if (label.length === 0 || label.length > MAX_LABEL_BYTES) return undefined;
    for (let i = 0; i < label.length; i++) {
      const code = label.charCodeAt(i);
      if (code <= 0x20 || code >= 0x7f) return undefined;
    }
    bytes += 1 + label.length;
  }
  return bytes > MAX_NAME_BYTES ? undefined : labels;
}

/** Whether `name` can be written: printable ASCII, labels of 1 … 63 bytes, 255 in all. */
export function isDnsName(name: string): boolean {
  return splitLabels(name) !== undefined;
}

function writeLabel(view: DataView, at: number, end: number, label: string): number {
  const start = checkRoom(at, end, 1 + label.length);
  if (start < 0) return start;
  view.setUint8(start, label.length);
  for (let i = 0; i < label.length; i++) view.setUint8(start + 1 + i, label.charCodeAt(i));
  return start + 1 + label.length;
}

function writeZero(view: DataView, at: number, end: number): number {
  const start = checkRoom(at, end, 1);
  if (start < 0) return start;
  view.setUint8(start, 0);
  return start + 1;
}

/** Appends one name. @returns the offset behind it, WIRE_BAD_OPTION for an impossible name, WIRE_BAD_LENGTH without room */
export function writeDnsName(view: DataView, at: number, end: number, name: string): number {
  if (at < 0) return at;
  const labels = splitLabels(name);
  if (labels === undefined) return WIRE_BAD_OPTION;
  let next = at;
  for (const label of labels) next = writeLabel(view, next, end, label);
  return writeZero(view, next, end);
}

/** Appends names one behind the other, without compression (RFC 3646 §4, RFC 8106 §5.2). @returns as `writeDnsName` */
export function writeDnsNameList(view: DataView, at: number, end: number, names: readonly string[]): number {
  let next = at;
  for (const name of names) next = writeDnsName(view, next, end, name);
  return next;
}

/**
 * Appends names one behind the other; a tail that has been written before becomes a pointer, counted from `at`
 * (RFC 3397 §2). @returns as `writeDnsName`
 */
export function writeCompressedDnsNameList(view: DataView, at: number, end: number, names: readonly string[]): number {
  const seen = new Map<string, number>();
  let next = at;
  for (const name of names) {
    if (next < 0) return next;
    const labels = splitLabels(name);
    if (labels === undefined) return WIRE_BAD_OPTION;
    let pointer: number | undefined;
    for (let i = 0; i < labels.length; i++) {
      const tail = labels.slice(i).join('.');
      pointer = seen.get(tail);
      if (pointer !== undefined) break;
      if (next >= 0 && next - at <= MAX_POINTER) seen.set(tail, next - at);
      next = writeLabel(view, next, end, labels[i]!);
    }
    if (pointer === undefined) {
      next = writeZero(view, next, end);
    } else {
      next = checkRoom(next, end, 2);
      if (next < 0) return next;
      view.setUint16(next, (POINTER << 8) | pointer);
      next += 2;
    }
  }
  return next;
}

function readLabel(view: DataView, at: number, length: number): string {
  let label = '';
  for (let i = 0; i < length; i++) label += String.fromCharCode(view.getUint8(at + i));
  return label;
}

/**
 * Reads one uncompressed name from [at, end). One that ends there without its zero is a partial name, as a DHCP client
 * may send it (RFC 4702 §3.1, RFC 4704 §4.2).
 * @returns the name without a dot at the end ('' for the root), undefined if it is malformed
 */
export function readDnsName(view: DataView, at: number, end: number): string | undefined {
  let name = '';
  let next = at;
  while (next < end) {
    const length = view.getUint8(next);
    if (length === 0) return name;
    if (length > MAX_LABEL_BYTES || next + 1 + length > end) return undefined;
    name += (name === '' ? '' : '.') + readLabel(view, next + 1, length);
    next += 1 + length;
    if (next - at >= MAX_NAME_BYTES) return undefined;
  }
  return name;
}

/**
 * Reads the names that fill [at, end), with or without compression. Pointers count from `at` and may only point backwards, so
 * they cannot form a loop.
 * @returns names without a dot at the end; undefined if anything is malformed. Empty names, which NDP uses as padding, are left out.
 */
export function readDnsNameList(view: DataView, at: number, end: number): string[] | undefined {
  const names: string[] = [];
  let next = at;
  while (next < end) {
    let name = '';
    let cursor = next;
    let afterName = -1;
    let limit = next;
    for (;;) {
      if (cursor >= end) return undefined;
      const length = view.getUint8(cursor);
      if (length === 0) {
        if (afterName < 0) afterName = cursor + 1;
        break;
      }
      if (length >= POINTER) {
        if (cursor + 2 > end) return undefined;
        if (afterName < 0) afterName = cursor + 2;
        cursor = at + (view.getUint16(cursor) & MAX_POINTER);
        if (cursor >= limit) return undefined;
        limit = cursor;
        continue;
      }
      if (length > MAX_LABEL_BYTES || cursor + 1 + length > end) return undefined;
      name += (name === '' ? '' : '.') + readLabel(view, cursor + 1, length);
      // As text a name lacks the first length and the zero at its end.
      if (name.length + 2 > MAX_NAME_BYTES) return undefined;
      cursor += 1 + length;
    }
    if (name !== '') names.push(name);
    next = afterName;
  }
  return names;
}
