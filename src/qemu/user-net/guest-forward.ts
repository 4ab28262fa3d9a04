/**
 * The rules of `guestfwd`: `[tcp]:SERVER:PORT-DEVICE`, where a connection of the guest to an address leads. `SERVER` may be one of IPv6, in
 * brackets, which QEMU has not.
 *
 * `DEVICE` is `cmd:COMMAND`, or one of QEMU's old names for a character device: `tcp:HOST:PORT` and `unix:PATH` here. QEMU opens such a
 * device once, when it starts, and has all connections share it; here, each has a connection of its own. A PATH that begins with `@` is a name in
 * the abstract namespace.
 */
import { isMappedIpv4, parseIp, parseIpv4 } from '../../base/ip-text.ts';
import { parsePort } from './forwards.ts';
import type { RefuseValue } from './user-net.ts';

export interface GuestForward {
  /** As the guest names it, 4 words. */
  readonly address: Uint32Array;
  readonly port: number;
  readonly to: GuestForwardTarget;
}

export type GuestForwardTarget =
  /** Address in 4 words. */
  | { readonly kind: 'tcp'; readonly address: Uint32Array; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string }
  /** A process for each connection, which is its standard input and output. */
  | { readonly kind: 'command'; readonly words: readonly string[] };

const LOOPBACK = Uint32Array.of(0, 0, 0xffff, 0x7f000001);

export function parseGuestForward(rule: string, refuse: RefuseValue): GuestForward {
  const match = /^(?:tcp)?:(\[[^\]]*\]|[^:-]+):(\d+)-([a-z]+):(.*)$/s.exec(rule);
  if (match === null) return refuse('[tcp]:SERVER:PORT-cmd:COMMAND, -tcp:HOST:PORT or -unix:PATH');
  const [, server, port, device, rest] = match as unknown as [string, string, string, string, string];
  const isIpv6 = server.startsWith('[');
  const address = parseIp(isIpv6 ? server.slice(1, -1) : server);
  const isGood = address !== undefined && (isIpv6 ? !isMappedIpv4(address) : parseIpv4(server) !== undefined);
  if (!isGood) return refuse('an IPv4 address of the server, or one of IPv6 in brackets, as numbers');
  return { address, port: parsePort(port, 'server', refuse), to: parseTarget(device, rest, refuse) };
}

function parseTarget(device: string, rest: string, refuse: RefuseValue): GuestForwardTarget {
  switch (device) {
    case 'cmd': {
      const words = splitWords(rest, refuse);
      return words.length === 0 ? refuse('a command behind cmd:') : { kind: 'command', words };
    }
    case 'unix':
      return rest === '' ? refuse('a path behind unix:') : { kind: 'unix', path: rest };
    case 'tcp': {
      const [, host = '', port = ''] = /^(.*):(\d+)$/.exec(rest) ?? [];
      const address = host === 'localhost' ? LOOPBACK : parseIp(host.replace(/^\[(.*)\]$/, '$1'));
      if (address === undefined) return refuse('tcp:HOST:PORT with the address of a host as numbers');
      return { kind: 'tcp', address, port: parsePort(port, 'host', refuse) };
    }
    default:
      return refuse('a device cmd:, tcp: or unix:; other character devices of QEMU are not there');
  }
}

/** A command's words as a shell would split them; nothing is expanded. */
export function splitWords(command: string, refuse: RefuseValue): string[] {
  const words: string[] = [];
  let word: string | undefined;
  let quote = '';
  for (let at = 0; at < command.length; at++) {
    let char = command[at]!;
    if (quote === '' && /\s/.test(char)) {
      if (word !== undefined) words.push(word);
      word = undefined;
      continue;
    }
    if (char === quote) {
      quote = '';
      continue;
    }
    if (quote === '' && (char === '"' || char === "'")) {
      quote = char;
      word ??= '';
      continue;
    }
    // Within double quotes a backslash is one, but in front of what would mean something there.
    if (char === '\\' && (quote === '' || (quote === '"' && /["\\$`]/.test(command[at + 1] ?? '')))) {
      char = command[++at] ?? refuse('something behind the last backslash');
    }
    word = (word ?? '') + char;
  }
  if (quote !== '') refuse(`a second ${quote}`);
  if (word !== undefined) words.push(word);
  return words;
}
