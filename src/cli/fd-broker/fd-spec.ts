/** What stands behind `--fd` of `passel-fd-broker run`: a name, and how to get the descriptor that it stands for. */
import { isIP } from 'node:net';
import type { Reject } from '../options/definition.ts';

/** A numeric address and a port. */
export interface Endpoint {
  readonly address: string;
  readonly port: number;
}

export type FileMode = 'ro' | 'rw' | 'append' | 'create';

export type FdSpec =
  | { readonly kind: 'file'; readonly path: string; readonly mode: FileMode }
  | { readonly kind: 'unix-listen'; readonly path: string }
  | { readonly kind: 'unix-connect'; readonly path: string }
  | { readonly kind: 'tcp-listen' | 'tcp-connect'; readonly place: Endpoint }
  | { readonly kind: 'udp'; readonly place: Endpoint; readonly peer: Endpoint | undefined }
  | { readonly kind: 'tap'; readonly bridge: string; readonly vnetHeader: boolean }
  | { readonly kind: 'broker'; readonly name: string; readonly copy: boolean };

export interface NamedFdSpec {
  /** Letters, digits, `_` and `-`, a letter or `_` first. */
  readonly name: string;
  /** As it was typed, for messages. */
  readonly text: string;
  readonly spec: FdSpec;
}

const NAME = '[A-Za-z_][A-Za-z0-9_-]*';
const EXPECTED = 'NAME=KIND:…, NAME of letters, digits, _ and -';

const PARSERS: Readonly<Record<string, (rest: string, reject: Reject) => FdSpec>> = {
  file: parseFile,
  'unix-listen': (path, reject) => ({ kind: 'unix-listen', path: checkUnixPath(path, reject) }),
  'unix-connect': (path, reject) => ({ kind: 'unix-connect', path: checkUnixPath(path, reject) }),
  passt: (path, reject) => ({ kind: 'unix-connect', path: checkUnixPath(path, reject) }),
  'tcp-listen': (rest, reject) => ({ kind: 'tcp-listen', place: parseEndpoint(rest, reject, 0) }),
  'tcp-connect': (rest, reject) => ({ kind: 'tcp-connect', place: parseEndpoint(rest, reject, 1) }),
  udp: parseUdp,
  tap: parseTap,
  broker: parseBroker,
};

/** `NAME=KIND:REST`. */
export function parseNamedFd(text: string, reject: Reject): NamedFdSpec {
  const match = new RegExp(`^(${NAME})=([a-z-]+):(.*)$`, 's').exec(text);
  if (match === null) return reject(EXPECTED);
  const [, name, kind, rest] = match as unknown as [string, string, string, string];
  const parse = Object.hasOwn(PARSERS, kind) ? PARSERS[kind] : undefined;
  if (parse === undefined) return reject(`one of ${Object.keys(PARSERS).join(', ')} as the kind`);
  return { name, text, spec: parse(rest, reject) };
}

/** A path, after which one of some words may stand behind a comma. Other commas are the path's. */
function parseFile(rest: string, reject: Reject): FdSpec {
  const [, path = '', mode = 'ro'] = /^(.*?)(?:,(ro|rw|append|create))?$/s.exec(rest) ?? [];
  if (path === '' || path.includes('\0')) reject('file:PATH[,ro|rw|append|create]');
  return { kind: 'file', path, mode: mode as FileMode };
}

function checkUnixPath(path: string, reject: Reject): string {
  return path === '' || path === '@' || path.includes('\0')
    ? reject("the path of a unix socket, or '@' and a name")
    : path;
}

/** `ADDRESS:PORT`, IPv6 in brackets. */
function parseEndpoint(text: string, reject: Reject, leastPort: number): Endpoint {
  const expected = `ADDRESS:PORT, a numeric address (IPv6 in brackets) and a port from ${leastPort} to 65535`;
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  if (match === null) return reject(expected);
  const address = match[1] ?? match[2]!;
  const port = Number(match[3]);
  const family = match[1] === undefined ? 4 : 6;
  if (isIP(address) !== family || address.includes('%') || port < leastPort || port > 65_535) reject(expected);
  return { address, port };
}

function parseUdp(rest: string, reject: Reject): FdSpec {
  const [own = '', peer, more] = rest.split(',to=');
  if (more !== undefined) reject('udp:ADDRESS:PORT[,to=ADDRESS:PORT]');
  const place = parseEndpoint(own, reject, 0);
  if (peer === undefined) return { kind: 'udp', place, peer: undefined };
  const to = parseEndpoint(peer, reject, 1);
  if (isIP(to.address) !== isIP(place.address)) reject('both addresses of one family');
  return { kind: 'udp', place, peer: to };
}

function parseTap(rest: string, reject: Reject): FdSpec {
  const [, bridge, vnet] = /^([^\s/,:]{1,15})(,vnet)?$/.exec(rest) ?? [];
  if (bridge === undefined) return reject('tap:BRIDGE[,vnet], BRIDGE of 1 to 15 characters');
  return { kind: 'tap', bridge, vnetHeader: vnet !== undefined };
}

function parseBroker(rest: string, reject: Reject): FdSpec {
  const [, name, copy] = /^([!-+\--.0-~]{1,128})(,copy)?$/.exec(rest) ?? [];
  if (name === undefined) return reject('broker:NAME[,copy], a name that the broker keeps, without commas');
  return { kind: 'broker', name, copy: copy !== undefined };
}

/** `@NAME@` or `{fd:NAME}` in an argument. */
const PLACE = new RegExp(`@(${NAME})@|\\{fd:([^{}]*)\\}`, 'g');

/** The names that arguments refer to. */
export function listReferences(args: readonly string[]): Set<string> {
  const names = new Set<string>();
  for (const arg of args) for (const match of arg.matchAll(PLACE)) names.add(match[1] ?? match[2]!);
  return names;
}

/** Arguments with each reference replaced by the number of its name, which `numbers` has. */
export function replaceReferences(args: readonly string[], numbers: ReadonlyMap<string, number>): string[] {
  return args.map((arg) =>
    arg.replace(PLACE, (_place, at: string | undefined, braced: string) => String(numbers.get(at ?? braced))),
  );
}
