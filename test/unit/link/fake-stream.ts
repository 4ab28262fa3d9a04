/**
 * A stream socket in memory, as far as a link uses one: what the test puts into `inbound` is received, what the link sends lands in
 * `outbound` as far as `capacity` goes.
 */
import type { Arena } from '../../../src/base/arena.ts';
import type { HostSockets } from '../../../src/stack/ports.ts';

const EAGAIN = -11;
const EBADF = -9;

export interface FakeStream {
  readonly sockets: HostSockets;
  inbound: number[];
  outbound: number[];
  /** Bytes that the socket still takes. */
  capacity: number;
  /** Receive says "end of stream" once `inbound` is empty. */
  ended: boolean;
  /** When not 0, the next receive or send gives this -errno. */
  failure: number;
  /** What watch gives back; `watched` has what it and rewatch were asked for. */
  watchResult: number;
  sends: number;
  receives: number;
  closed: number[];
  watched: { fd: number; events: number; kind: number; index: number }[];
  options: { level: number; name: number; value: number }[];
  /** Clients that accept gives out, then -EAGAIN. */
  clients: number[];
}

export function createFakeStream(arena: Arena): FakeStream {
  const fake: FakeStream = {
    inbound: [],
    outbound: [],
    capacity: Number.POSITIVE_INFINITY,
    ended: false,
    failure: 0,
    watchResult: 0,
    sends: 0,
    receives: 0,
    closed: [],
    watched: [],
    options: [],
    clients: [],
    sockets: new Proxy({} as HostSockets, {
      get(_target, name) {
        const found = calls[name as keyof typeof calls];
        if (found === undefined) throw new Error(`the link called ${String(name)}`);
        return found;
      },
    }),
  };
  const takeFailure = (): number => {
    const { failure } = fake;
    fake.failure = 0;
    return failure;
  };
  const calls = {
    receive(fd: number, offset: number, lengthBytes: number): number {
      fake.receives++;
      if (fake.closed.includes(fd)) return EBADF;
      if (fake.failure !== 0) return takeFailure();
      if (fake.inbound.length === 0) return fake.ended ? 0 : EAGAIN;
      const bytes = fake.inbound.splice(0, lengthBytes);
      arena.bytes.set(bytes, offset);
      return bytes.length;
    },
    send(fd: number, offset: number, lengthBytes: number): number {
      fake.sends++;
      if (fake.closed.includes(fd)) return EBADF;
      if (fake.failure !== 0) return takeFailure();
      const taken = Math.min(lengthBytes, fake.capacity);
      if (taken === 0) return EAGAIN;
      fake.capacity -= taken;
      for (let i = 0; i < taken; i++) fake.outbound.push(arena.bytes[offset + i]!);
      return taken;
    },
    setOption(_fd: number, level: number, name: number, value: number): number {
      fake.options.push({ level, name, value });
      return 0;
    },
    getOption: () => 425_984,
    watch(fd: number, events: number, kind: number, index: number): number {
      if (fake.watchResult === 0) fake.watched.push({ fd, events, kind, index });
      return fake.watchResult;
    },
    rewatch(fd: number, events: number, kind: number, index: number): number {
      fake.watched.push({ fd, events, kind, index });
      return 0;
    },
    unwatch: () => 0,
    accept: () => fake.clients.shift() ?? EAGAIN,
    close(fd: number): number {
      fake.closed.push(fd);
      return 0;
    },
  };
  return fake;
}
