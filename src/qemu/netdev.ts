/**
 * Network backends as QEMU's `-netdev` describes them, read from the same text: `stream`, `dgram` and the older `socket`, in all forms that
 * carry Ethernet frames over sockets (qemu(1), "Network options").
 *
 * A text describes one *end* of a link: `server=on` means that whoever was given it listens. The other end has another text, which
 * netdev-mirror.ts makes.
 *
 * Keys, their implied forms, `on` and `off`, doubled commas and the JSON form are QEMU's. So are the rules about which keys go
 * together. Refused, each with its reason: what could not work at the other end (a range of ports, abstract names of datagram sockets),
 * and vsock.
 */
import { isMappedIpv4, isMulticastIp, parseIp, parseIpv4 } from '../base/ip-text.ts';
import { getProperty, type Property, readProperties } from './option-string.ts';

/** `addr.type=inet`, and what `listen=`, `connect=` and `udp=` say. */
export interface InetAddress {
  readonly type: 'inet';
  /** A name or an address; empty: all addresses of the host. */
  readonly host: string;
  readonly port: number;
  /** Families that a name may be resolved to. */
  readonly ipv4: boolean;
  readonly ipv6: boolean;
  readonly keepAlive: boolean;
}

/** `addr.type=unix`. */
export interface UnixAddress {
  readonly type: 'unix';
  readonly path: string;
  /** The name is not one of a file. */
  readonly isAbstract: boolean;
}

/** `addr.type=fd`: a descriptor that was inherited. */
export interface FdAddress {
  readonly type: 'fd';
  readonly fd: number;
}

/** The word that a text began with; a mirror is written with the same. */
export type NetdevType = 'stream' | 'dgram' | 'socket';

interface Common {
  readonly type: NetdevType;
  /** `id=`, which is QEMU's name for the backend. */
  readonly id: string | undefined;
}

/** Frames behind their lengths on a connection. */
export interface StreamNetdev extends Common {
  readonly form: 'stream';
  readonly server: boolean;
  readonly address: InetAddress | UnixAddress | FdAddress;
  /** Milliseconds between two tries of a client; undefined: it connects once. */
  readonly reconnectMs: number | undefined;
}

/** One frame in each datagram, between two addresses. */
export interface DatagramNetdev extends Common {
  readonly form: 'datagram';
  readonly local: InetAddress | UnixAddress;
  readonly remote: InetAddress | UnixAddress;
}

/** One frame in each datagram, to all members of a group. */
export interface MulticastNetdev extends Common {
  readonly form: 'multicast';
  /** IPv4 address and port of the group. */
  readonly group: string;
  readonly port: number;
  /** Address of the interface that is used; undefined: the host's choice. */
  readonly local: string | undefined;
}

/** A socket that was inherited, connected or joined by whoever made it. */
export interface InheritedNetdev extends Common {
  readonly form: 'inherited';
  readonly fd: number;
  /** What the text says about it; `socket` says nothing, and looks. */
  readonly kind: 'datagram' | 'any';
}

export type Netdev = StreamNetdev | DatagramNetdev | MulticastNetdev | InheritedNetdev;

/** What is wrong: the key (empty: the text as a whole), the value found (undefined: none) and what was expected. */
export type NetdevFailure = (key: string, value: string | undefined, expected: string) => never;

/** QEMU's own names: keys of all forms. */
const STREAM_KEYS = ['server', 'reconnect', 'reconnect-ms'];
const INET_KEYS = ['host', 'port', 'numeric', 'keep-alive', 'mptcp', 'to', 'ipv4', 'ipv6'];
const UNIX_KEYS = ['path', 'abstract', 'tight'];
const SOCKET_KEYS = ['fd', 'listen', 'connect', 'mcast', 'udp', 'localaddr'];

const PORT_MAX = 65_535;
const RECONNECT_MAX_MS = 3_600_000;

/**
 * Reads the text of a `-netdev` option.
 * @param fail - is told what is wrong; does not return
 */
export function parseNetdev(text: string, fail: NetdevFailure): Netdev {
  let properties: Property[];
  try {
    properties = readProperties(text, 'type');
  } catch (error) {
    return fail('', text, `a list of keys and values, or JSON (${(error as Error).message})`);
  }
  const reader = new Reader(properties, fail);
  const type = reader.word('type', ['stream', 'dgram', 'socket']);
  const id = reader.optional('id');
  if (type === 'stream') return readStream(reader, id);
  return type === 'dgram' ? readDgram(reader, id) : readSocket(reader, id);
}

function readStream(reader: Reader, id: string | undefined): StreamNetdev {
  const address = reader.address('addr', ['inet', 'unix', 'fd']);
  reader.allow(['type', 'id', ...STREAM_KEYS, ...reader.addressKeys('addr')]);
  const server = reader.flag('server', false);
  const reconnectMs = readReconnect(reader);
  if (reconnectMs !== undefined && (server || address.type === 'fd')) {
    const key = reader.has('reconnect') ? 'reconnect' : 'reconnect-ms';
    reader.fail(
      key,
      reader.optional(key),
      'it only for a client that knows an address: one that is connected to comes back itself',
    );
  }
  if (server && address.type === 'fd') {
    reader.fail('server', 'on', "'off' with addr.type=fd: give a connected socket, or let this program listen");
  }
  return { type: 'stream', form: 'stream', id, server, address, reconnectMs };
}

/** Seconds, or milliseconds as newer versions of QEMU have it. 0 means never. */
function readReconnect(reader: Reader): number | undefined {
  if (reader.has('reconnect') && reader.has('reconnect-ms')) {
    reader.fail('reconnect', reader.optional('reconnect'), 'one of reconnect and reconnect-ms');
  }
  const ms = reader.has('reconnect-ms')
    ? reader.number('reconnect-ms', 0, RECONNECT_MAX_MS)
    : 1000 * (reader.has('reconnect') ? reader.number('reconnect', 0, RECONNECT_MAX_MS / 1000) : 0);
  return ms === 0 ? undefined : ms;
}

function readDgram(reader: Reader, id: string | undefined): Netdev {
  if (reader.optional('local.type') === 'fd') {
    reader.allow(['type', 'id', 'local.type', 'local.str']);
    const local = reader.address('local', ['fd']) as FdAddress;
    return { type: 'dgram', form: 'inherited', id, fd: local.fd, kind: 'datagram' };
  }
  if (isGroup(reader.optional('remote.host'))) return readGroup(reader, id);
  const remote = reader.address('remote', ['inet', 'unix']) as InetAddress | UnixAddress;
  const local = reader.address('local', ['inet', 'unix', 'fd']) as InetAddress | UnixAddress;
  reader.allow(['type', 'id', ...reader.addressKeys('local'), ...reader.addressKeys('remote')]);
  if (local.type !== remote.type) reader.fail('local.type', local.type, `'${remote.type}', as remote.type`);
  for (const [name, address] of [
    ['local', local],
    ['remote', remote],
  ] as const) {
    if (address.type === 'unix' && address.isAbstract) {
      reader.fail(`${name}.abstract`, 'on', "'off': QEMU has no abstract names for datagram sockets");
    }
  }
  if (local.type === 'unix' && remote.type === 'unix' && local.path === remote.path) {
    reader.fail('remote.path', remote.path, 'another path than local.path');
  }
  if (remote.type === 'inet' && remote.host === '') reader.fail('remote.host', '', 'an address or a name');
  return { type: 'dgram', form: 'datagram', id, local, remote };
}

function readGroup(reader: Reader, id: string | undefined): MulticastNetdev {
  reader.word('remote.type', ['inet']);
  const group = reader.group('remote.host', reader.text('remote.host'));
  const port = reader.port('remote.port');
  const keys = ['type', 'id', 'remote.type', 'remote.host', 'remote.port'];
  if (!reader.has('local.type')) {
    reader.allow(keys);
    return { type: 'dgram', form: 'multicast', id, group, port, local: undefined };
  }
  reader.word('local.type', ['inet']);
  // QEMU wants a port here, and makes nothing of it.
  reader.allow([...keys, 'local.type', 'local.host', 'local.port']);
  const local = reader.ipv4('local.host', reader.text('local.host'));
  return { type: 'dgram', form: 'multicast', id, group, port, local };
}

function readSocket(reader: Reader, id: string | undefined): Netdev {
  reader.allow(['type', 'id', ...SOCKET_KEYS]);
  const ways = SOCKET_KEYS.filter((key) => key !== 'localaddr' && reader.has(key));
  const [way] = ways;
  if (way === undefined || ways.length > 1) {
    return reader.fail('', ways.join(','), "exactly one of 'fd', 'listen', 'connect', 'mcast' and 'udp'");
  }
  const local = reader.optional('localaddr');
  if (local !== undefined && way !== 'mcast' && way !== 'udp') {
    reader.fail('localaddr', local, "it only with 'mcast' or 'udp'");
  }
  switch (way) {
    case 'fd':
      return { type: 'socket', form: 'inherited', id, fd: reader.descriptor('fd'), kind: 'any' };
    case 'mcast': {
      const { host, port } = reader.hostAndPort('mcast');
      const group = reader.group('mcast', host);
      return {
        type: 'socket',
        form: 'multicast',
        id,
        group,
        port,
        local: local === undefined ? undefined : reader.ipv4('localaddr', local),
      };
    }
    case 'udp':
      return {
        type: 'socket',
        form: 'datagram',
        id,
        local: reader.hostAndPort('localaddr'),
        remote: reader.hostAndPort('udp'),
      };
    default: {
      const server = way === 'listen';
      const address = reader.hostAndPort(way);
      return { type: 'socket', form: 'stream', id, server, address, reconnectMs: undefined };
    }
  }
}

function isGroup(host: string | undefined): boolean {
  const address = parseIp(host ?? '');
  return address !== undefined && isMulticastIp(address);
}

/** Values by key, each checked as it is asked for. */
class Reader {
  readonly fail: NetdevFailure;
  private readonly properties: readonly Property[];

  constructor(properties: readonly Property[], fail: NetdevFailure) {
    this.properties = properties;
    this.fail = fail;
    const bare = properties.find(({ value }) => value === undefined);
    if (bare !== undefined) fail(bare.key, undefined, "'=' and a value behind the key");
  }

  has(key: string): boolean {
    return getProperty(this.properties, key) !== undefined;
  }

  optional(key: string): string | undefined {
    return getProperty(this.properties, key);
  }

  text(key: string): string {
    return this.optional(key) ?? this.fail(key, undefined, 'a value: it is missing');
  }

  word<const Word extends string>(key: string, words: readonly Word[]): Word {
    const list = words.map((word) => `'${word}'`).join(' or ');
    const text = this.optional(key);
    return words.find((word) => word === text) ?? this.fail(key, text, list);
  }

  flag(key: string, otherwise: boolean): boolean {
    const text = this.optional(key);
    if (text === undefined) return otherwise;
    return text === 'on' || text === 'true' || text === 'yes' || text === 'y'
      ? true
      : text === 'off' || text === 'false' || text === 'no' || text === 'n'
        ? false
        : this.fail(key, text, "'on' or 'off'");
  }

  number(key: string, min: number, max: number): number {
    const text = this.text(key);
    const number = /^\d{1,9}$/.test(text) ? Number(text) : -1;
    return number >= min && number <= max ? number : this.fail(key, text, `a number from ${min} to ${max}`);
  }

  port(key: string): number {
    const text = this.text(key);
    const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
    return port >= 1 && port <= PORT_MAX ? port : this.fail(key, text, `a port from 1 to ${PORT_MAX}`);
  }

  descriptor(key: string): number {
    const text = this.text(key);
    const fd = /^\d{1,7}$/.test(text) ? Number(text) : -1;
    return fd < 0 || fd === 1 || fd === 2
      ? this.fail(key, text, 'the number of an open socket: 0, or 3 and above')
      : fd;
  }

  group(key: string, host: string): string {
    const address = parseIp(host);
    if (address === undefined || !isMappedIpv4(address) || !isMulticastIp(address)) {
      this.fail(key, host, 'an IPv4 multicast address, 224.0.0.0 to 239.255.255.255');
    }
    return host;
  }

  ipv4(key: string, host: string): string {
    return parseIpv4(host) === undefined ? this.fail(key, host, 'the IPv4 address of an interface') : host;
  }

  /** `HOST:PORT` of the older form, IPv4 only. */
  hostAndPort(key: string): InetAddress {
    const text = this.text(key);
    const colon = text.lastIndexOf(':');
    const host = text.slice(0, Math.max(colon, 0));
    const port = /^\d{1,5}$/.test(text.slice(colon + 1)) ? Number(text.slice(colon + 1)) : 0;
    if (colon < 0 || host.includes(':') || port < 1 || port > PORT_MAX) {
      this.fail(key, text, `HOST:PORT with an IPv4 address or a name, and a port from 1 to ${PORT_MAX}`);
    }
    return { type: 'inet', host, port, ipv4: true, ipv6: false, keepAlive: false };
  }

  /** The keys that belong to an address of the type it has. */
  addressKeys(prefix: string): string[] {
    const keys = { inet: INET_KEYS, unix: UNIX_KEYS, fd: ['str'] }[this.optional(`${prefix}.type`) ?? ''] ?? [];
    return ['type', ...keys].map((key) => `${prefix}.${key}`);
  }

  address(prefix: string, types: readonly ('inet' | 'unix' | 'fd')[]): InetAddress | UnixAddress | FdAddress {
    const type = this.word(`${prefix}.type`, types);
    if (type === 'fd') return { type, fd: this.descriptor(`${prefix}.str`) };
    return type === 'unix' ? this.unixAddress(prefix) : this.inetAddress(prefix);
  }

  private unixAddress(prefix: string): UnixAddress {
    const path = this.text(`${prefix}.path`);
    if (path === '' || path.includes('\0')) this.fail(`${prefix}.path`, path, 'a path');
    const isAbstract = this.flag(`${prefix}.abstract`, false);
    if (!this.flag(`${prefix}.tight`, true)) this.fail(`${prefix}.tight`, 'off', "'on'");
    return { type: 'unix', path, isAbstract };
  }

  private inetAddress(prefix: string): InetAddress {
    const host = this.text(`${prefix}.host`);
    const port = this.port(`${prefix}.port`);
    const address = parseIp(host);
    if (this.has(`${prefix}.to`)) {
      this.fail(
        `${prefix}.to`,
        this.optional(`${prefix}.to`),
        'one port: the other end could not know which was taken',
      );
    }
    if (this.flag(`${prefix}.mptcp`, false)) this.fail(`${prefix}.mptcp`, 'on', "'off'");
    if (this.flag(`${prefix}.numeric`, false) && address === undefined && host !== '') {
      this.fail(`${prefix}.host`, host, 'an IP address, since numeric=on');
    }
    // As in QEMU: naming one family with 'on' excludes the other, unless that is named too.
    const [v4, v6] = (['ipv4', 'ipv6'] as const).map((name) =>
      this.has(`${prefix}.${name}`) ? this.flag(`${prefix}.${name}`, true) : undefined,
    );
    const ipv4 = v4 ?? v6 !== true;
    const ipv6 = v6 ?? v4 !== true;
    if (!ipv4 && !ipv6) this.fail(`${prefix}.ipv6`, 'off', "'on' for one of ipv4 and ipv6");
    if (address !== undefined && !(isMappedIpv4(address) ? ipv4 : ipv6)) {
      this.fail(`${prefix}.host`, host, `an address of the family that is on`);
    }
    return { type: 'inet', host, port, ipv4, ipv6, keepAlive: this.flag(`${prefix}.keep-alive`, false) };
  }

  /** Refuses what is in the text and not in the list. */
  allow(keys: readonly string[]): void {
    const unknown = this.properties.find(({ key }) => !keys.includes(key));
    if (unknown !== undefined)
      this.fail(unknown.key, unknown.value, `one of ${keys.filter((k) => k !== 'type').join(', ')}`);
  }
}
