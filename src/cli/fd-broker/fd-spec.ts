/** A SPEC: how to get a descriptor, as `--fd` of `passel-fd-broker run` and `qmp` have it. One row a kind, in {@link KINDS}. */
import { NETWORK_NAME } from '../../broker/names.ts';
import type { Reject } from '../options/definition.ts';
import { NAME_PATTERN } from './references.ts';

/** A numeric address and a port. */
export interface Endpoint {
  readonly address: string;
  readonly port: number;
}

export type FileMode = 'ro' | 'rw' | 'append' | 'create';

export type FdSpec =
  /** Open already, by who started this program. */
  | { readonly kind: 'inherited'; readonly fd: number }
  | { readonly kind: 'file'; readonly path: string; readonly mode: FileMode }
  | { readonly kind: 'unix-listen'; readonly path: string }
  | { readonly kind: 'unix-connect'; readonly path: string }
  | { readonly kind: 'tcp-listen' | 'tcp-connect'; readonly place: Endpoint }
  | { readonly kind: 'udp'; readonly place: Endpoint; readonly peer: Endpoint | undefined }
  | { readonly kind: 'tap'; readonly bridge: string; readonly vnetHeader: boolean; readonly queues: number }
  | { readonly kind: 'netdev'; readonly network: string }
  | { readonly kind: 'broker'; readonly name: string; readonly copy: boolean };

/** A SPEC, and how it was asked for. */
export interface AskedFd {
  /** The option as messages name it. */
  readonly option: string;
  /** The SPEC as it was typed. */
  readonly text: string;
  readonly spec: FdSpec;
}

export interface NamedFdSpec {
  /** See {@link NAME_PATTERN}. */
  readonly name: string;
  readonly text: string;
  readonly spec: FdSpec;
}

interface Kind {
  /** What stands behind the colon. */
  readonly form: string;
  /** @param fail - `expected` for the whole form, with what is special about it behind */
  parse(rest: string, fail: (detail?: string) => never): FdSpec;
}

const UNIX_FORM = 'PATH';
const parseUnixPath = (path: string, fail: (detail: string) => never): string =>
  path === '' || path === '@' || path.includes('\0') ? fail("the path of a unix socket, or '@' and a name") : path;

const connectKind: Kind = {
  form: UNIX_FORM,
  parse: (path, fail) => ({ kind: 'unix-connect', path: parseUnixPath(path, fail) }),
};

const KINDS: Readonly<Record<string, Kind>> = {
  file: { form: 'PATH[,ro|rw|append|create]', parse: parseFile },
  'unix-listen': {
    form: UNIX_FORM,
    parse: (path, fail) => ({ kind: 'unix-listen', path: parseUnixPath(path, fail) }),
  },
  'unix-connect': connectKind,
  passt: connectKind,
  'tcp-listen': {
    form: 'ADDRESS:PORT',
    parse: (rest, fail) => ({ kind: 'tcp-listen', place: parseEndpoint(rest, fail, 0) }),
  },
  'tcp-connect': {
    form: 'ADDRESS:PORT',
    parse: (rest, fail) => ({ kind: 'tcp-connect', place: parseEndpoint(rest, fail, 1) }),
  },
  udp: { form: 'ADDRESS:PORT[,to=ADDRESS:PORT]', parse: parseUdp },
  tap: { form: 'BRIDGE[,vnet][,queues=N]', parse: parseTap },
  netdev: {
    form: 'NETWORK',
    parse: (network, fail) =>
      NETWORK_NAME.test(network) ? { kind: 'netdev', network } : fail("a name of the broker's policy"),
  },
  broker: { form: 'NAME[,copy]', parse: parseBroker },
};

/** All forms of a SPEC, for help texts. */
export const SPEC_FORMS = [...Object.entries(KINDS).map(([kind, { form }]) => `${kind}:${form}`), 'N'].join(', ');

/** `KIND:REST`, or the number of a descriptor that is open already. */
export function parseFdSpec(text: string, reject: Reject): FdSpec {
  if (/^\d{1,7}$/.test(text)) return { kind: 'inherited', fd: Number(text) };
  const [, word = '', rest = ''] = /^([a-z-]+):(.*)$/s.exec(text) ?? [];
  const kind = Object.hasOwn(KINDS, word) ? KINDS[word] : undefined;
  if (kind === undefined) {
    return reject(`${Object.keys(KINDS).join(':…, ')}:…, or the number of an open descriptor`);
  }
  return kind.parse(rest, (detail) => reject(`${word}:${kind.form}${detail === undefined ? '' : `, ${detail}`}`));
}

/** `NAME=SPEC`. */
export function parseNamedFd(text: string, reject: Reject): NamedFdSpec {
  const [, name, spec] = new RegExp(`^(${NAME_PATTERN})=(.*)$`, 's').exec(text) ?? [];
  if (name === undefined || spec === undefined) {
    return reject('NAME=SPEC, NAME of letters, digits, _ and -, no digit or - first');
  }
  return { name, text: spec, spec: parseFdSpec(spec, reject) };
}

/** A path, after which one of some words may stand behind a comma. Other commas are the path's. */
function parseFile(rest: string, fail: () => never): FdSpec {
  const [, path = '', mode = 'ro'] = /^(.*?)(?:,(ro|rw|append|create))?$/s.exec(rest) ?? [];
  if (path === '' || path.includes('\0')) fail();
  return { kind: 'file', path, mode: mode as FileMode };
}

/** 4, 6, or 0 for what is no address. Node's network modules take longer to load than all else of a start, so only those who need them do. */
function isIP(text: string): number {
  return process.getBuiltinModule('node:net').isIP(text);
}

/** `ADDRESS:PORT`, IPv6 in brackets. */
function parseEndpoint(text: string, fail: (detail: string) => never, leastPort: number): Endpoint {
  const detail = `a numeric address (IPv6 in brackets) and a port from ${leastPort} to 65535`;
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  if (match === null) return fail(detail);
  const address = match[1] ?? match[2]!;
  const port = Number(match[3]);
  const family = match[1] === undefined ? 4 : 6;
  if (isIP(address) !== family || address.includes('%') || port < leastPort || port > 65_535) fail(detail);
  return { address, port };
}

function parseUdp(rest: string, fail: (detail?: string) => never): FdSpec {
  const [own = '', peer, more] = rest.split(',to=');
  if (more !== undefined) fail();
  const place = parseEndpoint(own, fail, 0);
  if (peer === undefined) return { kind: 'udp', place, peer: undefined };
  const to = parseEndpoint(peer, fail, 1);
  if (isIP(to.address) !== isIP(place.address)) fail('both addresses of one family');
  return { kind: 'udp', place, peer: to };
}

/** As many queues as one message of the broker carries. */
const MAX_QUEUES = 253;

function parseTap(rest: string, fail: (detail: string) => never): FdSpec {
  const [, bridge, vnet, queues = '1'] = /^([^\s/,:]{1,15})(,vnet)?(?:,queues=(\d{1,3}))?$/.exec(rest) ?? [];
  const count = Number(queues);
  if (bridge === undefined) return fail('BRIDGE of 1 to 15 characters');
  if (count < 1 || count > MAX_QUEUES) return fail(`N from 1 to ${MAX_QUEUES}`);
  return { kind: 'tap', bridge, vnetHeader: vnet !== undefined, queues: count };
}

function parseBroker(rest: string, fail: (detail: string) => never): FdSpec {
  const [, name, copy] = /^([!-+\--.0-~]{1,128})(,copy)?$/.exec(rest) ?? [];
  if (name === undefined) return fail('a name that the broker keeps, without commas');
  return { kind: 'broker', name, copy: copy !== undefined };
}
