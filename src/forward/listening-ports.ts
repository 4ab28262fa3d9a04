/**
 * Which ports somebody listens on, from /proc/net/{tcp,tcp6,udp,udp6}: what `auto` rules follow. One line a socket:
 * `sl local_address rem_address st …`, addresses as hexadecimal ADDRESS:PORT (proc_pid_net(5)).
 *
 * A table belongs to the network namespace of whoever opened it and is read again from its start through the same descriptor. This runs
 * each second, so lines are read as bytes and nothing is made of them. Linux lists the TCP sockets that listen before all
 * others: reading ends with the first that does not, however many connections a machine has.
 */
import { readSync } from 'node:fs';
import type { ForwardProto } from './port-spec.ts';

/** Kernel's TCP_LISTEN, tcp_states.h. */
const TCP_LISTEN = 0x0a;
/** UDP has no listening state; a bound, unconnected socket shows as TCP_CLOSE. */
const UDP_UNCONNECTED = 0x07;
const NEWLINE = 0x0a;
const COLON = 0x3a;
/** More than the kernel gives with one read. */
const READ_BYTES = 65_536;

/** A set of ports. */
export class PortBits {
  private readonly words = new Uint32Array(65_536 / 32);

  has(port: number): boolean {
    return ((this.words[port >> 5]! >>> (port & 31)) & 1) !== 0;
  }

  add(port: number): void {
    this.words[port >> 5]! |= 1 << (port & 31);
  }

  delete(port: number): void {
    this.words[port >> 5]! &= ~(1 << (port & 31));
  }

  clear(): void {
    this.words.fill(0);
  }

  equals(other: PortBits): boolean {
    const { words } = this;
    for (let i = 0; i < words.length; i++) if (words[i] !== other.words[i]) return false;
    return true;
  }

  set(other: PortBits): void {
    this.words.set(other.words);
  }

  /** Calls `each` with every port of the set, in ascending order. */
  forEach(each: (port: number) => void): void {
    const { words } = this;
    for (let i = 0; i < words.length; i++) {
      if (words[i] === 0) continue;
      for (let bit = 0; bit < 32; bit++) if (this.has(i * 32 + bit)) each(i * 32 + bit);
    }
  }
}

/**
 * Adds the listening ports of whole lines to `ports`.
 * @param end - behind the last newline
 * @returns false when the rest of the table has none
 */
export function parseListeningPorts(proto: ForwardProto, bytes: Buffer, end: number, ports: PortBits): boolean {
  const wanted = proto === 'tcp' ? TCP_LISTEN : UDP_UNCONNECTED;
  for (let line = 0; line < end; ) {
    const next = bytes.indexOf(NEWLINE, line) + 1;
    if (next === 0) break;
    const number = bytes.indexOf(COLON, line);
    // The heading has no colon.
    if (number >= 0 && number < next) {
      const address = number + 2;
      const colon = bytes.indexOf(COLON, address);
      const port = readHex(bytes, colon + 1, 4);
      // The remote address is as long as the local one.
      const state = readHex(bytes, colon + 12 + (colon - address), 2);
      if (state === wanted && port > 0) ports.add(port);
      else if (proto === 'tcp' && state > 0) return false;
    }
    line = next;
  }
  return true;
}

/** @returns -1 where there are no digits */
function readHex(bytes: Buffer, at: number, digits: number): number {
  let value = 0;
  for (let i = at; i < at + digits; i++) {
    const code = bytes[i] ?? 0;
    if (code >= 0x30 && code <= 0x39) value = value * 16 + code - 0x30;
    else if (code >= 0x41 && code <= 0x46) value = value * 16 + code - 0x37;
    else return -1;
  }
  return value;
}

const buffer = Buffer.alloc(READ_BYTES);

/**
 * Adds the listening ports of a table to `ports`.
 * @param fd - of /proc/net/tcp and its like; -1: a kernel without this family has no table
 * @throws Error of read(2)
 */
export function readListeningPorts(proto: ForwardProto, fd: number, ports: PortBits): void {
  if (fd < 0) return;
  let position = 0;
  let held = 0;
  for (;;) {
    const count = readSync(fd, buffer, held, READ_BYTES - held, position);
    if (count === 0) return;
    position += count;
    const filled = held + count;
    const end = buffer.lastIndexOf(NEWLINE, filled - 1) + 1;
    if (!parseListeningPorts(proto, buffer, end, ports)) return;
    buffer.copyWithin(0, end, filled);
    held = filled - end;
  }
}
