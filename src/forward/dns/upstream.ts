/**
 * Sockets to resolvers: a datagram socket for each question and resolver, so that answers come to a port that nobody can guess, or a
 * connection for one question, where that came by TCP.
 *
 * Sockets are connected: the kernel lets through what comes from the resolver, and says when it refuses.
 */
import { EAGAIN, EINPROGRESS } from '../../base/errno.ts';
import { isLinkLocalIpv6, isLoopbackIp, isMappedIpv4, mapIpv4 } from '../../base/ip-text.ts';
import {
  ENDPOINT_ADDRESS,
  ENDPOINT_BYTES,
  ENDPOINT_PORT,
  ENDPOINT_SCOPE,
  EVENT_EDGE,
  EVENT_IN,
  EVENT_OUT,
  type HostSockets,
  KIND_NAMES,
  SOCKET_DGRAM,
  SOCKET_STREAM,
} from '../../stack/ports.ts';
import type { EventSlots } from './event-slots.ts';
import type { DnsServer } from './routes.ts';

const SOL_SOCKET = 1;
const SO_BINDTODEVICE = 25;
const STREAM_EVENTS = (EVENT_IN | EVENT_OUT | EVENT_EDGE) >>> 0;
const DATAGRAM_EVENTS = (EVENT_IN | EVENT_EDGE) >>> 0;
/** The length of a message is in front of it (RFC 1035 §4.2.2). */
export const LENGTH_BYTES = 2;
const MESSAGE_MAX_BYTES = 65_535;

/** Where sockets of the host leave from. */
export interface Outbound {
  /** uint32; 0: the kernel's choice. */
  readonly ipv4: number;
  /** 4 words; undefined: the kernel's choice. */
  readonly ipv6: Uint32Array | undefined;
  /** Names of interfaces; empty: none. */
  readonly interface4: string;
  readonly interface6: string;
  /** Of link-local resolvers. */
  readonly linkLocalScopeId: number;
}

export interface UpstreamParts {
  readonly sockets: HostSockets;
  readonly view: DataView;
  readonly bytes: Uint8Array;
  /** {@link SCRATCH_BYTES} of the arena. */
  readonly scratch: number;
  readonly slots: EventSlots;
  readonly outbound: Outbound;
}

/** Room for an endpoint record and a message. */
export const SCRATCH_BYTES = 64 + LENGTH_BYTES + MESSAGE_MAX_BYTES;
const MESSAGE_AT = 64;

export interface UpstreamHandlers {
  /** A message has come; valid during the call. */
  onMessage(message: Uint8Array): void;
  /** There will be no answer. Not called from inside `openUpstream` or `send`. */
  onFailure(): void;
}

export interface Upstream {
  /** Sends the query, the first time or again. @returns false when it cannot be sent */
  send(query: Uint8Array): boolean;
  close(): void;
}

/** @returns undefined when there is no way to this resolver */
export function openUpstream(
  parts: UpstreamParts,
  server: DnsServer,
  isStream: boolean,
  handlers: UpstreamHandlers,
): Upstream | undefined {
  const fd = openConnected(parts, server, isStream ? SOCKET_STREAM : SOCKET_DGRAM);
  if (fd < 0) return undefined;
  return isStream ? openStream(parts, fd, handlers) : openDatagrams(parts, fd, handlers);
}

function openConnected(parts: UpstreamParts, { address, port }: DnsServer, type: number): number {
  const { sockets, outbound, scratch } = parts;
  const isIpv4 = isMappedIpv4(address);
  const fd = sockets.open(isIpv4 ? 4 : 6, type, 0);
  if (fd < 0) return fd;
  let status = 0;
  // As for the guest's own traffic: what lies on this host is not reached from an outbound address.
  if (!isLoopbackIp(address)) {
    const device = isIpv4 ? outbound.interface4 : outbound.interface6;
    const from = isIpv4 ? (outbound.ipv4 === 0 ? undefined : mapIpv4(outbound.ipv4)) : outbound.ipv6;
    if (device !== '') status = sockets.setOptionString(fd, SOL_SOCKET, SO_BINDTODEVICE, device);
    if (status >= 0 && from !== undefined) {
      writeEndpoint(parts, from, 0);
      status = sockets.bind(fd, scratch);
    }
  }
  if (status >= 0) {
    writeEndpoint(parts, address, port);
    status = sockets.connect(fd, scratch);
  }
  if (status >= 0 || status === EINPROGRESS) return fd;
  sockets.close(fd);
  return status;
}

function writeEndpoint({ view, scratch, outbound }: UpstreamParts, address: Uint32Array, port: number): void {
  const isIpv4 = isMappedIpv4(address);
  for (let i = 0; i < ENDPOINT_BYTES; i += 4) view.setUint32(scratch + i, 0);
  view.setUint8(scratch, isIpv4 ? 4 : 6);
  view.setUint16(scratch + ENDPOINT_PORT, port);
  if (isLinkLocalIpv6(address)) view.setUint32(scratch + ENDPOINT_SCOPE, outbound.linkLocalScopeId, true);
  if (isIpv4) view.setUint32(scratch + ENDPOINT_ADDRESS, address[3]!);
  else for (let i = 0; i < 4; i++) view.setUint32(scratch + ENDPOINT_ADDRESS + 4 * i, address[i]!);
}

function openDatagrams(parts: UpstreamParts, fd: number, { onMessage, onFailure }: UpstreamHandlers): Upstream {
  const { sockets, slots, bytes } = parts;
  const at = parts.scratch + MESSAGE_AT;
  let open = true;
  const slot = slots.add(() => {
    while (open) {
      const length = sockets.receive(fd, at, MESSAGE_MAX_BYTES, 0);
      if (length === EAGAIN) return;
      if (length >= 0) onMessage(bytes.subarray(at, at + length));
      else if (open) return onFailure();
    }
  });
  sockets.watch(fd, DATAGRAM_EVENTS, KIND_NAMES, slot);
  return {
    send(query) {
      // The first failure may be the news of an earlier datagram (ip(7)).
      const length = query.length;
      return sockets.sendBuffer(fd, query, 0, length, 0) >= 0 || sockets.sendBuffer(fd, query, 0, length, 0) >= 0;
    },
    close() {
      if (!open) return;
      open = false;
      slots.remove(slot);
      sockets.close(fd);
    },
  };
}

function openStream(parts: UpstreamParts, fd: number, { onMessage, onFailure }: UpstreamHandlers): Upstream {
  const { sockets, slots, bytes } = parts;
  const at = parts.scratch + MESSAGE_AT;
  let open = true;
  let unsent: Uint8Array = new Uint8Array(0);
  let isConnected = false;
  let received: Buffer = Buffer.alloc(0);
  const write = (): number => {
    while (unsent.length > 0) {
      const sent = sockets.sendBuffer(fd, unsent, 0, unsent.length, 0);
      if (sent < 0) return sent === EAGAIN ? 0 : sent;
      unsent = unsent.subarray(sent);
    }
    return 0;
  };
  const slot = slots.add((events) => {
    if (!isConnected) {
      if ((events & EVENT_OUT) !== 0 && sockets.takeError(fd) === 0) isConnected = true;
      else return onFailure();
    }
    if (write() < 0) return onFailure();
    while (open) {
      const length = sockets.receive(fd, at, LENGTH_BYTES + MESSAGE_MAX_BYTES, 0);
      if (length === EAGAIN) return;
      if (length <= 0) return onFailure();
      received = Buffer.concat([received, bytes.subarray(at, at + length)]);
      const message = firstMessage(received);
      if (message === undefined) continue;
      received = received.subarray(LENGTH_BYTES + message.length);
      onMessage(message);
    }
  });
  sockets.watch(fd, STREAM_EVENTS, KIND_NAMES, slot);
  let isAsked = false;
  return {
    send(query) {
      // What was said once arrives.
      if (isAsked) return true;
      isAsked = true;
      unsent = frameMessage(query);
      return !isConnected || write() >= 0;
    },
    close() {
      if (!open) return;
      open = false;
      slots.remove(slot);
      sockets.close(fd);
    },
  };
}

/** A message with its length in front, for a stream. */
export function frameMessage(message: Uint8Array): Buffer {
  const framed = Buffer.alloc(LENGTH_BYTES + message.length);
  framed.writeUInt16BE(message.length, 0);
  framed.set(message, LENGTH_BYTES);
  return framed;
}

/** The first message in what a stream has brought; undefined: it is not complete. */
export function firstMessage(received: Buffer): Buffer | undefined {
  if (received.length < LENGTH_BYTES) return undefined;
  const end = LENGTH_BYTES + received.readUInt16BE(0);
  return received.length < end ? undefined : received.subarray(LENGTH_BYTES, end);
}
