/** The search for passt over sockets that only exist here: each path has a script, one entry per connection. */
import { describe, expect, it } from 'vitest';
import { findPasst } from '../../../../src/cli/qrap/find-passt.ts';
import type { NativeAddon } from '../../../../src/sys/native-addon.ts';

const ENOENT = -2;
const EAGAIN = -11;
const EPIPE = -32;
const ECONNRESET = -104;

const REPLY = Uint8Array.from(
  Buffer.from(`0000002a${'ff'.repeat(6)}9a559a559a5508060001080006040002${'9a55'.repeat(3)}${'00'.repeat(14)}`, 'hex'),
);

interface Connection {
  readonly connect?: number;
  readonly send?: number;
  /** What comes: bytes, or what recv(2) returns. */
  readonly receive?: readonly (Uint8Array | number)[];
}

/** Scripts by the number of the path; the last entry is repeated. */
function makeNative(scripts: Record<number, readonly Connection[]>) {
  let arena = new Uint8Array();
  let nextFd = 10;
  const open = new Map<number, { script: Connection; received: (Uint8Array | number)[] } | undefined>();
  const tries: Record<number, number> = {};
  const native: Partial<NativeAddon> = {
    bindArena: (buffer) => {
      arena = new Uint8Array(buffer);
      return 0;
    },
    epollCreate: () => {
      open.set(nextFd, undefined);
      return nextFd++;
    },
    epollControl: () => 0,
    epollWait: () => 0,
    open: () => {
      open.set(nextFd, undefined);
      return nextFd++;
    },
    close: (fd) => (open.delete(fd) ? 0 : -9),
    unixConnect: (fd, path) => {
      const number = Number(/^\/tmp\/passt_(\d+)\.socket$/.exec(path)?.[1]);
      const list = scripts[number];
      if (list === undefined) return ENOENT;
      tries[number] = (tries[number] ?? 0) + 1;
      const script = list[Math.min(tries[number], list.length) - 1]!;
      if (script.connect === undefined) open.set(fd, { script, received: [...(script.receive ?? [REPLY])] });
      return script.connect ?? 0;
    },
    sendBuffer: (fd, _bytes, _offset, length) => open.get(fd)?.script.send ?? length,
    receive: (fd, offset, length) => {
      const { received } = open.get(fd)!;
      const next = received.shift() ?? EAGAIN;
      if (typeof next === 'number') return next;
      arena.set(next.subarray(0, length), offset);
      if (next.length > length) received.unshift(next.subarray(length));
      return Math.min(length, next.length);
    },
  };
  return { native: native as NativeAddon, open, tries };
}

describe('findPasst', () => {
  it('connects to the first that answers, and keeps nothing else open', () => {
    const { native, open } = makeNative({ 2: [{ receive: [0] }], 7: [{}] });
    const { path, fd } = findPasst(native);
    expect(path).toBe('/tmp/passt_7.socket');
    expect([...open.keys()]).toEqual([fd]);
  });

  it('tries again after a reset, at whatever moment it is seen', () => {
    const script = [{ send: EPIPE }, { send: ECONNRESET }, { receive: [ECONNRESET] }, { connect: ECONNRESET }, {}];
    const { native, open, tries } = makeNative({ 1: script });
    const { fd } = findPasst(native);
    expect(tries[1]).toBe(5);
    expect([...open.keys()]).toEqual([fd]);
  });

  it('waits for a place in the queue of a listener', () => {
    const { native, tries } = makeNative({ 1: [{ connect: EAGAIN }, { connect: EAGAIN }, {}] });
    expect(findPasst(native).path).toBe('/tmp/passt_1.socket');
    expect(tries[1]).toBe(3);
  });

  it('puts the answer together from single bytes', () => {
    const { native } = makeNative({ 1: [{ receive: [...REPLY].map((byte) => Uint8Array.of(byte)) }] });
    expect(findPasst(native).path).toBe('/tmp/passt_1.socket');
  });

  it('says what each path did, and leaves nothing open', () => {
    const { native, open } = makeNative({
      1: [{ connect: -13 }],
      2: [{ connect: -13 }],
      3: [{ send: 5 }],
      4: [{ receive: [0] }],
      5: [{ receive: [Uint8Array.of(0, 1, 0, 0)] }],
      6: [{ receive: [Uint8Array.of(0, 0, 0, 0)] }],
      7: [{ receive: [-5] }],
    });
    expect(() => findPasst(native)).toThrow(
      'no passt socket answered: /tmp/passt_1.socket to /tmp/passt_2.socket: permission denied; ' +
        '/tmp/passt_3.socket: it takes no data; /tmp/passt_4.socket: it closed the connection; ' +
        '/tmp/passt_5.socket to /tmp/passt_6.socket: what it sends is not a frame; /tmp/passt_7.socket: i/o error; ' +
        '/tmp/passt_8.socket to /tmp/passt_99.socket: no such file or directory',
    );
    expect(open.size).toBe(0);
  });
});
