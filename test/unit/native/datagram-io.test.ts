import { afterEach, describe, expect, it } from 'vitest';
import { createArena } from '../../../src/base/arena.ts';
import {
  DATAGRAM_META_BYTES,
  DATAGRAM_META_FLAGS,
  DATAGRAM_META_LENGTH,
  DATAGRAM_META_LOCAL,
  DATAGRAM_META_SEGMENT,
  DATAGRAM_META_SUM,
  DATAGRAM_TRUNCATED,
  ENDPOINT_BYTES,
  SOCKET_DGRAM,
  SOCKET_ERROR_CODE,
  SOCKET_ERROR_DESTINATION,
  SOCKET_ERROR_ERRNO,
  SOCKET_ERROR_OFFENDER,
  SOCKET_ERROR_ORIGIN,
  SOCKET_ERROR_TYPE,
} from '../../../src/stack/ports.ts';
import { loadNative } from '../../../src/sys/native.ts';
import {
  allocateEndpoint,
  bindLoopback,
  EAFNOSUPPORT,
  EAGAIN,
  ECONNREFUSED,
  EFAULT,
  EINVAL,
  fillPattern,
  readPort,
  retry,
  showEndpoint,
  sumNaively,
  writeLoopback,
} from '../sys/support.ts';

const native = loadNative();
const ARENA_BYTES = 4 << 20;
const arena = createArena(ARENA_BYTES);
native.bindArena(arena.buffer);
const endpoint = allocateEndpoint(arena);
const out = arena.allocate(1 << 17);
const into = arena.allocate(1 << 20);
const metas = arena.allocate(1024 * DATAGRAM_META_BYTES);
const list = arena.allocate(8 * 1024);
fillPattern(arena.bytes.subarray(out, out + (1 << 17)));

const IPPROTO_IP = 0;
const IP_PKTINFO = 8;
const IP_RECVERR = 11;
const IPPROTO_IPV6 = 41;
const IPV6_RECVPKTINFO = 49;
const IPV6_RECVERR = 25;
const IPV6_V6ONLY = 26;
const IPPROTO_UDP = 17;
const UDP_SEGMENT = 103;
const UDP_GRO = 104;

const V6_LOOPBACK = '0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1';

const fds: number[] = [];
function makeSocket(family: number): { fd: number; port: number } {
  const fd = native.open(family, SOCKET_DGRAM, 0);
  expect(fd).toBeGreaterThan(0);
  fds.push(fd);
  return { fd, port: bindLoopback(native, arena, endpoint, fd, family) };
}
function connectTo(fd: number, family: number, port: number): void {
  writeLoopback(arena, endpoint, family, port);
  expect(native.connect(fd, endpoint)).toBe(0);
}
afterEach(() => {
  for (const fd of fds.splice(0)) native.close(fd);
});

const meta = (i: number, field: number) => arena.view.getUint32(metas + i * DATAGRAM_META_BYTES + field, true);
const source = (i: number) => metas + i * DATAGRAM_META_BYTES;
const local = (i: number) => metas + i * DATAGRAM_META_BYTES + DATAGRAM_META_LOCAL;
const sent = (from: number, length: number) => arena.bytes.slice(out + from, out + from + length);
const got = (from: number, length: number) => arena.bytes.slice(into + from, into + from + length);

function writeList(lengths: readonly number[]): void {
  let from = out;
  lengths.forEach((length, i) => {
    arena.view.setUint32(list + 8 * i, from, true);
    arena.view.setUint32(list + 8 * i + 4, length, true);
    from += length;
  });
}

describe('datagrams in batches', () => {
  for (const family of [4, 6]) {
    it(`carries a batch with sources, lengths and sums (IPv${family})`, () => {
      const a = makeSocket(family);
      const b = makeSocket(family);
      connectTo(a.fd, family, b.port);
      writeList([100, 0, 1473, 7]);
      expect(native.sendDatagrams(a.fd, list, 4)).toBe(4);
      arena.bytes.fill(0xff, metas, metas + 4 * DATAGRAM_META_BYTES);
      expect(native.receiveDatagrams(b.fd, into, 2048, 2000, 8, metas)).toBe(4);
      let from = 0;
      [100, 0, 1473, 7].forEach((length, i) => {
        expect(meta(i, DATAGRAM_META_LENGTH)).toBe(length);
        expect(meta(i, DATAGRAM_META_FLAGS)).toBe(0);
        expect(meta(i, DATAGRAM_META_SEGMENT)).toBe(0);
        expect(got(i * 2048, length)).toEqual(sent(from, length));
        expect(meta(i, DATAGRAM_META_SUM)).toBe(sumNaively(sent(from, length)));
        expect(showEndpoint(arena, source(i))).toBe(`${family} ${family === 4 ? '127.0.0.1' : V6_LOOPBACK} scope 0`);
        expect(readPort(arena, source(i))).toBe(a.port);
        expect(showEndpoint(arena, local(i))).toBe('0  scope 0');
        from += length;
      });
      expect(native.receiveDatagrams(b.fd, into, 2048, 2000, 8, metas)).toBe(EAGAIN);
    });

    it(`tells the address a datagram was sent to and the interface it came by (IPv${family})`, () => {
      const a = makeSocket(family);
      const b = makeSocket(family);
      const option = family === 4 ? [IPPROTO_IP, IP_PKTINFO] : [IPPROTO_IPV6, IPV6_RECVPKTINFO];
      expect(native.setOption(b.fd, option[0]!, option[1]!, 1)).toBe(0);
      writeLoopback(arena, endpoint, family, b.port);
      expect(native.sendTo(a.fd, out, 33, endpoint)).toBe(33);
      expect(native.receiveDatagrams(b.fd, into, 2048, 2000, 1, metas)).toBe(1);
      expect(showEndpoint(arena, local(0))).toBe(`${family} ${family === 4 ? '127.0.0.1' : V6_LOOPBACK} scope 1`);
      expect(readPort(arena, local(0))).toBe(0);
    });
  }

  it('leaves sums out for those who do not need them', () => {
    const a = makeSocket(4);
    const b = makeSocket(4);
    connectTo(a.fd, 4, b.port);
    writeList([100, 1473]);
    expect(native.sendDatagrams(a.fd, list, 2)).toBe(2);
    arena.bytes.fill(0xff, metas, metas + 2 * DATAGRAM_META_BYTES);
    expect(native.receiveUnsummed(b.fd, into, 2048, 2000, 8, metas)).toBe(2);
    expect([meta(0, DATAGRAM_META_SUM), meta(1, DATAGRAM_META_SUM)]).toEqual([0, 0]);
    expect([meta(0, DATAGRAM_META_LENGTH), meta(1, DATAGRAM_META_LENGTH)]).toEqual([100, 1473]);
    expect(got(2048, 1473)).toEqual(sent(100, 1473));
    expect(readPort(arena, source(1))).toBe(a.port);
  });

  it('puts what is longer than expected elsewhere, and sums the whole', () => {
    const a = makeSocket(4);
    const b = makeSocket(4);
    connectTo(a.fd, 4, b.port);
    const lengths = [101, 50, 102, 1473, 0, 101];
    writeList(lengths);
    expect(native.sendDatagrams(a.fd, list, 6)).toBe(6);
    arena.bytes.fill(0xaa, into, into + (1 << 20));
    const tails = into + 1024;
    expect(native.receiveSplitDatagrams(b.fd, into, 128, 101, 8, metas, tails, 65_536)).toBe(6);
    let from = 0;
    lengths.forEach((length, i) => {
      const first = Math.min(length, 101);
      expect(meta(i, DATAGRAM_META_LENGTH)).toBe(length);
      expect(meta(i, DATAGRAM_META_FLAGS)).toBe(0);
      expect(meta(i, DATAGRAM_META_SUM)).toBe(sumNaively(sent(from, length)));
      expect(got(i * 128, first)).toEqual(sent(from, first));
      expect(got(1024 + i * 65_536, length - first)).toEqual(sent(from + first, length - first));
      expect(arena.bytes[tails + i * 65_536 + length - first]).toBe(0xaa);
      expect(arena.bytes[into + i * 128 + first]).toBe(0xaa);
      from += length;
    });
  });

  it('shows IPv4 traffic of a socket for both families as IPv4, and answers it', () => {
    const fd = native.open(6, SOCKET_DGRAM, 0);
    fds.push(fd);
    expect(native.setOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0)).toBe(0);
    expect(native.setOption(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)).toBe(0);
    arena.bytes.fill(0, endpoint, endpoint + ENDPOINT_BYTES);
    arena.bytes[endpoint] = 6;
    expect(native.bind(fd, endpoint)).toBe(0);
    native.getName(fd, endpoint);
    const port = readPort(arena, endpoint);
    const a = makeSocket(4);
    writeLoopback(arena, endpoint, 4, port);
    expect(native.sendTo(a.fd, out, 10, endpoint)).toBe(10);
    expect(native.receiveDatagrams(fd, into, 2048, 2000, 1, metas)).toBe(1);
    expect(showEndpoint(arena, source(0))).toBe('4 127.0.0.1 scope 0');
    expect(showEndpoint(arena, local(0))).toBe('4 127.0.0.1 scope 1');
    expect(native.sendTo(fd, out, 5, source(0))).toBe(5);
    expect(native.receiveDatagrams(a.fd, into, 2048, 2000, 1, metas)).toBe(1);
  });

  it('marks a datagram that did not fit', () => {
    const a = makeSocket(4);
    const b = makeSocket(4);
    connectTo(a.fd, 4, b.port);
    writeList([500, 100]);
    expect(native.sendDatagrams(a.fd, list, 2)).toBe(2);
    arena.bytes.fill(0xee, into, into + 1024);
    expect(native.receiveDatagrams(b.fd, into, 512, 200, 2, metas)).toBe(2);
    expect(meta(0, DATAGRAM_META_FLAGS)).toBe(DATAGRAM_TRUNCATED);
    expect(meta(0, DATAGRAM_META_LENGTH)).toBe(200);
    expect(meta(0, DATAGRAM_META_SUM)).toBe(sumNaively(sent(0, 200)));
    expect(got(200, 312)).toEqual(new Uint8Array(312).fill(0xee));
    expect(meta(1, DATAGRAM_META_FLAGS)).toBe(0);
  });

  it('carries more datagrams than one system call takes', () => {
    const a = makeSocket(4);
    const b = makeSocket(4);
    connectTo(a.fd, 4, b.port);
    writeList(Array.from({ length: 300 }, () => 2));
    expect(native.setOption(b.fd, 1, 8, 4 << 20)).toBe(0);
    expect(native.sendDatagrams(a.fd, list, 200)).toBe(200);
    expect(native.sendDatagrams(a.fd, list, 60)).toBe(60);
    expect(native.receiveDatagrams(b.fd, into, 64, 64, 300, metas)).toBe(260);
    expect(native.sendDatagrams(a.fd, list, 300)).toBeGreaterThan(256);
  });

  it('gives merged datagrams with their segment size', () => {
    const a = makeSocket(4);
    const b = makeSocket(4);
    connectTo(a.fd, 4, b.port);
    expect(native.setOption(b.fd, IPPROTO_UDP, UDP_GRO, 1)).toBe(0);
    expect(native.setOption(a.fd, IPPROTO_UDP, UDP_SEGMENT, 1000)).toBe(0);
    expect(native.send(a.fd, out, 3500, 0)).toBe(3500);
    expect(native.receiveDatagrams(b.fd, into, 65536, 65536, 4, metas)).toBe(1);
    expect(meta(0, DATAGRAM_META_LENGTH)).toBe(3500);
    expect(meta(0, DATAGRAM_META_SEGMENT)).toBe(1000);
  });

  it('refuses ranges outside the arena and endpoints of no family', () => {
    const a = makeSocket(4);
    connectTo(a.fd, 4, a.port);
    expect(native.receiveDatagrams(a.fd, into, 2048, 2000, 0, metas)).toBe(EINVAL);
    expect(native.receiveDatagrams(a.fd, ARENA_BYTES - 100, 50, 51, 2, metas)).toBe(EFAULT);
    expect(native.receiveDatagrams(a.fd, into, 0xffffffff, 0xffffffff, 0xffffffff, metas)).toBe(EFAULT);
    expect(native.receiveDatagrams(a.fd, into, 64, 64, 2, ARENA_BYTES - 127)).toBe(EFAULT);
    expect(native.receiveSplitDatagrams(a.fd, into, 64, 64, 2, metas, ARENA_BYTES - 65_536, 66)).toBe(EFAULT);
    expect(native.receiveSplitDatagrams(a.fd, into, 64, 64, 2, metas, into, 0xffffffff)).toBe(EFAULT);
    expect(native.receiveSplitDatagrams(a.fd, into, 64, 65_536, 2, metas, into, 64)).toBe(EINVAL);
    writeList([10, 10]);
    arena.view.setUint32(list + 12, ARENA_BYTES, true);
    expect(native.sendDatagrams(a.fd, list, 2)).toBe(EFAULT);
    expect(native.sendDatagrams(a.fd, ARENA_BYTES - 8, 2)).toBe(EFAULT);
    expect(native.sendTo(a.fd, ARENA_BYTES, 1, endpoint)).toBe(EFAULT);
    expect(native.sendTo(a.fd, out, 1, ARENA_BYTES - 23)).toBe(EFAULT);
    arena.bytes[endpoint] = 0;
    expect(native.sendTo(a.fd, out, 1, endpoint)).toBe(EAFNOSUPPORT);
  });
});

describe('receiveError', () => {
  const record = arena.allocate(64);

  for (const family of [4, 6]) {
    it(`tells who refused a datagram, which one and where to (IPv${family})`, async () => {
      const probe = makeSocket(family);
      const a = makeSocket(family);
      const [level, name] = family === 4 ? [IPPROTO_IP, IP_RECVERR] : [IPPROTO_IPV6, IPV6_RECVERR];
      expect(native.setOption(a.fd, level!, name!, 1)).toBe(0);
      expect(native.receiveError(a.fd, record, into, 100)).toBe(EAGAIN);
      native.close(fds.shift()!);
      writeLoopback(arena, endpoint, family, probe.port);
      expect(native.sendTo(a.fd, out, 20, endpoint)).toBe(20);
      expect(await retry(() => native.receiveError(a.fd, record, into, 100))).toBe(20);
      expect(got(0, 20)).toEqual(sent(0, 20));
      expect(arena.view.getUint32(record + SOCKET_ERROR_ERRNO, true)).toBe(-ECONNREFUSED);
      expect(arena.bytes[record + SOCKET_ERROR_ORIGIN]).toBe(family === 4 ? 2 : 3);
      expect(arena.bytes[record + SOCKET_ERROR_TYPE]).toBe(family === 4 ? 3 : 1);
      expect(arena.bytes[record + SOCKET_ERROR_CODE]).toBe(family === 4 ? 3 : 4);
      const address = `${family} ${family === 4 ? '127.0.0.1' : V6_LOOPBACK} scope 0`;
      expect(showEndpoint(arena, record + SOCKET_ERROR_OFFENDER)).toBe(address);
      expect(showEndpoint(arena, record + SOCKET_ERROR_DESTINATION)).toBe(address);
      expect(readPort(arena, record + SOCKET_ERROR_DESTINATION)).toBe(probe.port);
      expect(native.receiveError(a.fd, record, into, 100)).toBe(EAGAIN);
    });
  }

  it('tells the MTU of a path that a datagram does not fit', () => {
    const a = makeSocket(4);
    expect(native.setOption(a.fd, IPPROTO_IP, IP_RECVERR, 1)).toBe(0);
    writeLoopback(arena, endpoint, 4, a.port);
    expect(native.setOption(a.fd, IPPROTO_IP, 10, 2)).toBe(0);
    connectTo(a.fd, 4, a.port);
    expect(native.send(a.fd, out, 65_530, 0)).toBe(-90);
    expect([0, EAGAIN]).toContain(native.receiveError(a.fd, record, into, 0));
  });

  it('refuses records and payloads outside the arena', () => {
    const a = makeSocket(4);
    expect(native.receiveError(a.fd, ARENA_BYTES - 63, into, 1)).toBe(EFAULT);
    expect(native.receiveError(a.fd, record, ARENA_BYTES, 1)).toBe(EFAULT);
  });
});
