import { afterEach, describe, expect, it } from 'vitest';
import { createArena } from '../../../src/base/arena.ts';
import { ENDPOINT_BYTES, ENDPOINT_SCOPE, SHUT_WRITE, SOCKET_DGRAM, SOCKET_STREAM } from '../../../src/stack/ports.ts';
import { loadNative } from '../../../src/sys/native.ts';
import {
  allocateEndpoint,
  bindLoopback,
  connectPair,
  EAFNOSUPPORT,
  EAGAIN,
  EBADF,
  ECONNREFUSED,
  EFAULT,
  EINPROGRESS,
  EINVAL,
  readPort,
  retry,
  SOL_SOCKET,
  showEndpoint,
  writeLoopback,
} from '../sys/support.ts';

const native = loadNative();
const ARENA_BYTES = 1 << 20;
const arena = createArena(ARENA_BYTES);
native.bindArena(arena.buffer);
const endpoint = allocateEndpoint(arena);
const data = arena.allocate(4096);

const IPPROTO_IPV6 = 41;
const IPV6_V6ONLY = 26;
const IPPROTO_TCP = 6;
const TCP_NODELAY = 1;
const SO_REUSEADDR = 2;
const SO_TYPE = 3;
const SO_LINGER = 13;
const SO_DOMAIN = 39;

const fds: number[] = [];
function keep(fd: number): number {
  expect(fd).toBeGreaterThanOrEqual(0);
  fds.push(fd);
  return fd;
}
afterEach(() => {
  for (const fd of fds.splice(0)) native.close(fd);
});

describe('open and options', () => {
  it('opens sockets of each family and type', () => {
    expect(native.getOption(keep(native.open(4, SOCKET_STREAM, 0)), SOL_SOCKET, SO_DOMAIN)).toBe(2);
    expect(native.getOption(keep(native.open(6, SOCKET_DGRAM, 0)), SOL_SOCKET, SO_DOMAIN)).toBe(10);
    expect(native.getOption(keep(native.open(1, SOCKET_STREAM, 0)), SOL_SOCKET, SO_DOMAIN)).toBe(1);
    expect(native.getOption(keep(native.open(4, SOCKET_DGRAM, 17)), SOL_SOCKET, SO_TYPE)).toBe(2);
    expect(native.open(5, SOCKET_STREAM, 0)).toBe(EAFNOSUPPORT);
  });

  it('sets and reads integer options', () => {
    const fd = keep(native.open(4, SOCKET_STREAM, 0));
    expect(native.getOption(fd, IPPROTO_TCP, TCP_NODELAY)).toBe(0);
    expect(native.setOption(fd, IPPROTO_TCP, TCP_NODELAY, 1)).toBe(0);
    expect(native.getOption(fd, IPPROTO_TCP, TCP_NODELAY)).toBe(1);
    expect(native.getOption(fd, SOL_SOCKET, 9999)).toBe(-92);
    expect(native.setOption(fd, SOL_SOCKET, 9999, 1)).toBe(-92);
  });

  it('binds to an interface by name, and says when there is none', () => {
    const fd = keep(native.open(4, SOCKET_DGRAM, 0));
    expect(native.setOptionString(fd, SOL_SOCKET, 25, 'lo')).toBe(0);
    expect(native.setOptionString(fd, SOL_SOCKET, 25, 'no-such-if')).toBe(-19);
    expect(native.setOptionString(fd, SOL_SOCKET, 25, 'x'.repeat(300))).toBe(-36);
    expect(native.setOptionString(fd, SOL_SOCKET, 25, 'l\0o')).toBe(EINVAL);
  });
});

describe('names', () => {
  it('gives its own endpoint and that of the peer, in both families', async () => {
    for (const family of [4, 6]) {
      const { client, server } = await connectPair(native, arena, endpoint, family);
      keep(client);
      keep(server);
      const address = family === 4 ? '127.0.0.1' : '0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1';
      expect(showEndpoint(arena, endpoint)).toBe(`${family} ${address} scope 0`);
      const acceptedPort = readPort(arena, endpoint);
      expect(native.getName(client, endpoint)).toBe(0);
      expect(readPort(arena, endpoint)).toBe(acceptedPort);
      expect(native.getPeer(server, endpoint)).toBe(0);
      expect(readPort(arena, endpoint)).toBe(acceptedPort);
      expect(native.getName(server, endpoint)).toBe(0);
      const serverPort = readPort(arena, endpoint);
      expect(native.getPeer(client, endpoint)).toBe(0);
      expect(readPort(arena, endpoint)).toBe(serverPort);
    }
  });

  it('shows an IPv4 peer of a socket for both families as IPv4', async () => {
    const listener = keep(native.open(6, SOCKET_STREAM, 0));
    expect(native.setOption(listener, IPPROTO_IPV6, IPV6_V6ONLY, 0)).toBe(0);
    arena.bytes.fill(0, endpoint, endpoint + ENDPOINT_BYTES);
    arena.bytes[endpoint] = 6;
    expect(native.bind(listener, endpoint)).toBe(0);
    expect(native.listen(listener, 1)).toBe(0);
    native.getName(listener, endpoint);
    const port = readPort(arena, endpoint);
    const client = keep(native.open(4, SOCKET_STREAM, 0));
    writeLoopback(arena, endpoint, 4, port);
    expect([0, EINPROGRESS]).toContain(native.connect(client, endpoint));
    const server = keep(await retry(() => native.accept(listener, endpoint)));
    expect(showEndpoint(arena, endpoint)).toBe('4 127.0.0.1 scope 0');
    native.getName(server, endpoint);
    expect(showEndpoint(arena, endpoint)).toBe('4 127.0.0.1 scope 0');
    expect(readPort(arena, endpoint)).toBe(port);
  });

  it('gives family 0 for a unix socket', () => {
    const fd = keep(native.open(1, SOCKET_STREAM, 0));
    arena.bytes.fill(0xff, endpoint, endpoint + ENDPOINT_BYTES);
    expect(native.getName(fd, endpoint)).toBe(0);
    expect(Array.from(arena.bytes.subarray(endpoint, endpoint + ENDPOINT_BYTES))).toEqual(
      new Array(ENDPOINT_BYTES).fill(0),
    );
  });

  it('takes the scope of a link-local address to the kernel', () => {
    const fd = keep(native.open(6, SOCKET_DGRAM, 0));
    arena.bytes.fill(0, endpoint, endpoint + ENDPOINT_BYTES);
    arena.bytes[endpoint] = 6;
    arena.bytes.set([0xfe, 0x80], endpoint + 8);
    arena.bytes[endpoint + 23] = 1;
    // Without a scope a link-local address cannot be bound (EINVAL); with that of an interface that lacks it, it is not available.
    expect(native.bind(fd, endpoint)).toBe(EINVAL);
    arena.view.setUint32(endpoint + ENDPOINT_SCOPE, 1, true);
    expect(native.bind(fd, endpoint)).toBe(-99);
  });

  it('refuses to bind to no address', () => {
    const fd = keep(native.open(4, SOCKET_DGRAM, 0));
    arena.bytes.fill(0, endpoint, endpoint + ENDPOINT_BYTES);
    expect(native.bind(fd, endpoint)).toBe(EAFNOSUPPORT);
    arena.bytes[endpoint] = 9;
    expect(native.bind(fd, endpoint)).toBe(EAFNOSUPPORT);
    expect(native.connect(fd, endpoint)).toBe(EAFNOSUPPORT);
  });
});

describe('connections', () => {
  // Packets of loopback can be handed to another thread of the kernel, under load: then, and only then, the answer comes later.
  it('within this machine are made at once', async () => {
    const listener = keep(native.open(4, SOCKET_STREAM, 0));
    const port = bindLoopback(native, arena, endpoint, listener, 4);
    expect(native.listen(listener, 100)).toBe(0);
    const connected = await retry(() => {
      const fd = keep(native.open(4, SOCKET_STREAM, 0));
      writeLoopback(arena, endpoint, 4, port);
      const status = native.connect(fd, endpoint);
      expect([0, EINPROGRESS]).toContain(status);
      return status === 0 ? 1 : EAGAIN;
    });
    expect(connected).toBe(1);
  });

  it('are refused at once within this machine', async () => {
    const probe = keep(native.open(4, SOCKET_STREAM, 0));
    const port = bindLoopback(native, arena, endpoint, probe, 4);
    const refused = await retry(() => {
      const fd = keep(native.open(4, SOCKET_STREAM, 0));
      writeLoopback(arena, endpoint, 4, port);
      const status = native.connect(fd, endpoint);
      expect([ECONNREFUSED, EINPROGRESS]).toContain(status);
      if (status === EINPROGRESS) return EAGAIN;
      expect(native.takeError(fd)).toBe(0);
      return 1;
    });
    expect(refused).toBe(1);
  });

  it('sees the end of the stream after the peer has shut its side down', async () => {
    const { client, server } = await connectPair(native, arena, endpoint, 4);
    keep(client);
    keep(server);
    expect(native.receive(server, data, 16, 0)).toBe(-11);
    expect(native.shutdown(client, SHUT_WRITE)).toBe(0);
    expect(await retry(() => native.receive(server, data, 16, 0))).toBe(0);
  });

  it('resets the connection on close when lingering is set to no time', async () => {
    const { client, server } = await connectPair(native, arena, endpoint, 4);
    keep(server);
    expect(native.setOption(client, SOL_SOCKET, SO_LINGER, 0)).toBe(0);
    expect(native.close(client)).toBe(0);
    expect(await retry(() => native.receive(server, data, 16, 0))).toBe(-104);
  });

  it('takes the peer of a datagram socket away with family 0', () => {
    const fd = keep(native.open(4, SOCKET_DGRAM, 0));
    bindLoopback(native, arena, endpoint, fd, 4);
    expect(native.connect(fd, endpoint)).toBe(0);
    expect(native.getPeer(fd, endpoint)).toBe(0);
    arena.bytes.fill(0, endpoint, endpoint + ENDPOINT_BYTES);
    expect(native.connect(fd, endpoint)).toBe(0);
    expect(native.getPeer(fd, endpoint)).toBe(-107);
  });

  it('copies as much of TCP_INFO as is asked for', async () => {
    const { client, server } = await connectPair(native, arena, endpoint, 4);
    keep(client);
    keep(server);
    arena.bytes.fill(0xa5, data, data + 300);
    expect(native.getTcpInfo(client, data, 104)).toBe(104);
    expect(arena.bytes[data]).toBe(1);
    expect(arena.bytes[data + 104]).toBe(0xa5);
    expect(native.getTcpInfo(client, data, 1000)).toBeGreaterThan(150);
  });

  it('makes descriptors that a child does not inherit and that do not block', async () => {
    const { client, server } = await connectPair(native, arena, endpoint, 6);
    const { readFileSync } = await import('node:fs');
    for (const fd of [keep(client), keep(server)]) {
      const flags = Number.parseInt(/flags:\s*([0-7]+)/.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))![1]!, 8);
      expect(flags & 0o2000000).toBe(0o2000000);
      expect(flags & 0o4000).toBe(0o4000);
    }
  });
});

describe('bad arguments', () => {
  it('answers EBADF for a descriptor that is not open', () => {
    const closed = native.open(4, SOCKET_STREAM, 0);
    expect(native.close(closed)).toBe(0);
    expect(native.close(closed)).toBe(EBADF);
    expect(native.listen(closed, 1)).toBe(EBADF);
    expect(native.shutdown(closed, SHUT_WRITE)).toBe(EBADF);
    expect(native.takeError(closed)).toBe(EBADF);
    expect(native.accept(closed, endpoint)).toBe(EBADF);
  });

  it('answers EFAULT for a record outside the arena', () => {
    const fd = keep(native.open(4, SOCKET_DGRAM, 0));
    for (const offset of [ARENA_BYTES - ENDPOINT_BYTES + 1, ARENA_BYTES, 0xffffffff, -1]) {
      expect(native.bind(fd, offset)).toBe(EFAULT);
      expect(native.connect(fd, offset)).toBe(EFAULT);
      expect(native.accept(fd, offset)).toBe(EFAULT);
      expect(native.getName(fd, offset)).toBe(EFAULT);
      expect(native.getPeer(fd, offset)).toBe(EFAULT);
      expect(native.getTcpInfo(fd, offset, ENDPOINT_BYTES)).toBe(EFAULT);
    }
    expect(native.getTcpInfo(fd, 0, 0xffffffff)).toBe(EFAULT);
    expect(native.getName(fd, ARENA_BYTES - ENDPOINT_BYTES)).toBe(0);
  });

  it('answers EINVAL for arguments that are missing or no numbers', () => {
    const loose = native as unknown as Record<string, (...values: unknown[]) => number>;
    for (const name of ['open', 'bind', 'connect', 'listen', 'accept', 'getName', 'close', 'setOption', 'takeError']) {
      expect(loose[name]?.(), name).toBe(EINVAL);
      expect(loose[name]?.('1', {}, null, undefined), name).toBe(EINVAL);
    }
    expect(loose['setOptionString']?.(0, 1, 2, 3)).toBe(EINVAL);
    expect(loose['bindArena']?.(new Uint8Array(4))).toBe(EINVAL);
  });

  it('reuses an address when told to', () => {
    const fd = keep(native.open(4, SOCKET_STREAM, 0));
    expect(native.setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1)).toBe(0);
    expect(native.getOption(fd, SOL_SOCKET, SO_REUSEADDR)).toBe(1);
  });
});
