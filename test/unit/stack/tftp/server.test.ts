/** The TFTP server, message by message, with files and clock in the test's hand. */
import { beforeEach, describe, expect, it } from 'vitest';
import { createArena } from '../../../../src/base/arena.ts';
import { silentLogger } from '../../../../src/base/logger.ts';
import { createAddressMap } from '../../../../src/forward/address-map.ts';
import type { GuestServices } from '../../../../src/stack/ports.ts';
import { NetworkStack } from '../../../../src/stack/stack.ts';
import { FakeLink } from '../../../support/fake-link.ts';
import { FakeSockets } from '../../../support/fake-sockets.ts';
import { makeStackConfig } from '../../../support/stack-config.ts';
import { concat, ip, type Packet, parseFrame, pattern, udpPacket } from '../udp/support.ts';

const GUEST = '10.0.2.15';
const SERVER = '10.0.2.2';
const GUEST_6 = 'fec0::15';
const SERVER_6 = 'fec0::2';
const ENOENT = 2;
const EXDEV = 18;

const text = (value: string): Uint8Array => Uint8Array.from(Buffer.from(`${value}\0`));
const request = (operation: number, file: string, ...rest: string[]): Uint8Array =>
  concat([0, operation], text(file), ...rest.map(text));
const read = (file: string, ...options: string[]): Uint8Array => request(1, file, 'octet', ...options);
const ack = (block: number): Uint8Array => Uint8Array.of(0, 4, block >> 8, block & 255);
const data = (block: number, bytes: Uint8Array): number[] => [0, 3, block >> 8, block & 255, ...bytes];
const optionAck = (...options: string[]): number[] => [...concat([0, 6], ...options.map(text))];
const error = (code: number): (string | number)[] => [5, code];

class TftpTest {
  readonly files = new Map<string, Uint8Array>();
  readonly asked: { path: string; index: number; generation: number }[] = [];
  readonly sockets: FakeSockets;
  nowMs = 1000;
  private readonly link: FakeLink;
  private readonly stack: NetworkStack;
  private readonly open = new Map<number, Uint8Array>();

  constructor(mtu = 1500) {
    const arena = createArena(24 << 20);
    this.link = new FakeLink(arena);
    this.sockets = new FakeSockets(arena);
    const services: GuestServices = {
      find: () => -1,
      targetOf: () => undefined,
      connect: () => false,
      openFile: (path, index, generation) => {
        this.asked.push({ path, index, generation });
        return true;
      },
      fileBytes: (fd) => this.open.get(fd)!.length,
      readFile: (fd, offset, lengthBytes, position) => {
        const part = this.open.get(fd)!.subarray(position, position + lengthBytes);
        arena.bytes.set(part, offset);
        return part.length;
      },
    };
    this.stack = new NetworkStack({
      arena,
      config: makeStackConfig(
        {
          ipv4: {
            ...{ guestAddress: ip(GUEST)[3]!, prefixLength: 24, gateway: ip(SERVER)[3]!, resolvers: [] },
            ...{ outboundAddress: 0, outboundInterface: '' },
          },
          ipv6: {
            ...{ guestAddress: ip(GUEST_6), prefixLength: 64, gateway: ip(SERVER_6), ourLinkLocal: ip('fe80::2') },
            ...{ resolvers: [], outboundAddress: undefined, outboundInterface: '' },
          },
        },
        { mtu },
      ),
      link: this.link,
      sockets: this.sockets,
      map: createAddressMap({ ipv4: undefined, ipv6: undefined, linkLocalScopeId: 0, isRestricted: true }),
      forwards: { targetOf: () => undefined, fdOf: () => -1 },
      clock: { nowMs: () => this.nowMs },
      log: silentLogger,
      secret: new Uint32Array(8),
      services,
      flowCapacity: 256,
    });
  }

  /** The guest sends a message; answers are the payloads that come back, to its port. */
  send(message: Uint8Array, port = 2000, [from, to] = [GUEST, SERVER]): number[][] {
    this.link.pushFromGuest(frameOf(udpPacket(from!, port, to!, 69, message)));
    this.stack.onLinkReadable();
    this.stack.endTurn();
    return this.take(port);
  }

  /** The guest sends messages, read in one go. */
  sendAll(messages: readonly Uint8Array[]): void {
    for (const message of messages) this.link.pushFromGuest(frameOf(udpPacket(GUEST, 2000, SERVER, 69, message)));
    this.stack.onLinkReadable();
    this.stack.endTurn();
    this.link.sent.length = 0;
  }

  /** The process answers the last request for a file. */
  answer(result: Uint8Array | number, port = 2000): number[][] {
    const { index, generation } = this.asked.at(-1)!;
    let fd = typeof result === 'number' ? -result : this.sockets.open(4, 1, 0);
    if (typeof result !== 'number') this.open.set(fd, result);
    else fd = -result;
    this.stack.onServiceAnswer(index, generation, fd);
    this.stack.endTurn();
    return this.take(port);
  }

  /** Asks for a file and has it. */
  fetch(message: Uint8Array, file: Uint8Array): number[][] {
    expect(this.send(message)).toEqual([]);
    return this.answer(file);
  }

  pass(ms: number): number[][] {
    this.nowMs += ms;
    this.stack.endTurn();
    return this.take();
  }

  /** All open files become shorter than they were said to be. */
  truncateTo(lengthBytes: number): void {
    for (const [fd, bytes] of this.open) this.open.set(fd, bytes.subarray(0, lengthBytes));
  }

  get openFiles(): number {
    return this.sockets.openCount;
  }

  close(): void {
    this.stack.close();
  }

  private take(port = 2000): number[][] {
    const packets = this.link.sent
      .splice(0)
      .map(parseFrame)
      .filter((packet) => packet.protocol === 17);
    return packets.map((packet: Packet) => {
      const [a, b, c, d] = packet.payload;
      expect([a! * 256 + b!, c! * 256 + d!]).toEqual([69, port]);
      return [...packet.payload.subarray(8)];
    });
  }
}

function frameOf(packet: Uint8Array): Uint8Array {
  const macs = [0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55, 0x52, 0x54, 0, 1, 2, 3];
  return concat(macs, packet[0]! >> 4 === 4 ? [8, 0] : [0x86, 0xdd], packet);
}

describe('the TFTP server', () => {
  let tftp: TftpTest;
  beforeEach(() => {
    tftp = new TftpTest();
    return () => tftp.close();
  });

  it('sends a file in blocks, each after the acknowledgement of the one before, and closes it', () => {
    const file = pattern(1100);
    expect(tftp.fetch(read('/boot/file'), file)).toEqual([data(1, file.subarray(0, 512))]);
    expect(tftp.asked[0]!.path).toBe('boot/file');
    expect(tftp.send(ack(1))).toEqual([data(2, file.subarray(512, 1024))]);
    expect(tftp.send(ack(2))).toEqual([data(3, file.subarray(1024))]);
    expect(tftp.openFiles).toBe(1);
    expect(tftp.send(ack(3))).toEqual([]);
    expect(tftp.openFiles).toBe(0);
    expect(tftp.send(ack(3))[0]!.slice(1, 4)).toEqual([5, 0, 5]);
  });

  it('ends a file that is a multiple of the block with an empty one; an empty file is nothing else', () => {
    const file = pattern(512);
    tftp.fetch(read('file'), file);
    expect(tftp.send(ack(1))).toEqual([data(2, new Uint8Array(0))]);
    expect(tftp.send(ack(2))).toEqual([]);
    expect(tftp.fetch(read('empty'), new Uint8Array(0))).toEqual([data(1, new Uint8Array(0))]);
  });

  it('acknowledges options, with its own numbers, and begins after the acknowledgement of that', () => {
    const file = pattern(3000);
    const options = ['BLKSIZE', '1432', 'tsize', '0', 'timeout', '3', 'windowsize', '4'];
    expect(tftp.fetch(read('file', ...options), file)).toEqual([
      optionAck('blksize', '1432', 'timeout', '3', 'tsize', '3000'),
    ]);
    expect(tftp.send(ack(0))).toEqual([data(1, file.subarray(0, 1432))]);
    expect(tftp.pass(2500)).toEqual([]);
    expect(tftp.pass(600)).toEqual([data(1, file.subarray(0, 1432))]);
  });

  it('sends no larger blocks than fit a packet of 1500 bytes, whatever the MTU', () => {
    expect(tftp.fetch(read('file', 'blksize', '65464'), pattern(10))).toEqual([optionAck('blksize', '1468')]);
    const large = new TftpTest(65520);
    expect(large.fetch(read('file', 'blksize', '65464'), pattern(10))).toEqual([optionAck('blksize', '1468')]);
    large.close();
    const small = new TftpTest(600);
    expect(small.fetch(read('file', 'blksize', '1432'), pattern(10))).toEqual([optionAck('blksize', '568')]);
    small.close();
  });

  it.each([
    ['blksize', '7'],
    ['blksize', '65465'],
    ['blksize', 'x'],
    ['timeout', '0'],
    ['timeout', '256'],
  ])('leaves out the option %s=%s', (name, value) => {
    expect(tftp.fetch(read('file', name, value), pattern(10))).toEqual([data(1, pattern(10))]);
  });

  it('sends again what is not acknowledged, five times, and then gives up', () => {
    const file = pattern(100);
    const first = tftp.fetch(read('file'), file);
    for (let i = 0; i < 5; i++) expect(tftp.pass(1010)).toEqual(first);
    expect(tftp.pass(1010)).toEqual([]);
    expect(tftp.openFiles).toBe(0);
  });

  it('ignores acknowledgements of what was acknowledged, and of what was not sent', () => {
    const file = pattern(2000);
    tftp.fetch(read('file'), file);
    tftp.send(ack(1));
    expect(tftp.send(ack(1))).toEqual([]);
    expect(tftp.send(ack(3))).toEqual([]);
    expect(tftp.send(ack(2))).toEqual([data(3, file.subarray(1024, 1536))]);
  });

  it('goes on behind block 65535', () => {
    const file = pattern(8 * 65_540);
    tftp.fetch(read('file', 'blksize', '8'), file);
    for (let block = 0; block < 65_535; block += 4369) {
      tftp.sendAll(Array.from({ length: 4369 }, (_, i) => ack(block + i)));
    }
    expect(tftp.send(ack(65_535))).toEqual([data(0, file.subarray(65_535 * 8, 65_536 * 8))]);
    expect(tftp.send(ack(0))).toEqual([data(1, file.subarray(65_536 * 8, 65_537 * 8))]);
  });

  it('serves several clients at a time, over both families', () => {
    const [one, two] = [pattern(600, 1), pattern(600, 2)];
    tftp.send(read('one'));
    expect(tftp.answer(one)).toEqual([data(1, one.subarray(0, 512))]);
    tftp.send(read('two'), 2001, [GUEST_6, SERVER_6]);
    expect(tftp.answer(two, 2001)).toEqual([data(1, two.subarray(0, 512))]);
    expect(tftp.send(ack(1))).toEqual([data(2, one.subarray(512))]);
    expect(tftp.send(ack(1), 2001, [GUEST_6, SERVER_6])).toEqual([data(2, two.subarray(512))]);
  });

  it('starts a transfer anew for a client that asks again', () => {
    const file = pattern(100);
    tftp.send(read('file'));
    expect(tftp.send(read('file'))).toEqual([]);
    expect(tftp.asked).toHaveLength(1);
    tftp.answer(file);
    expect(tftp.fetch(read('file'), file)).toEqual([data(1, file)]);
    expect(tftp.openFiles).toBe(1);
  });

  it.each([
    ['a file that is not there', ENOENT, error(1)],
    ['a file outside the folder', EXDEV, error(2)],
  ])('refuses %s', (_what, errno, expected) => {
    tftp.send(read('file'));
    const [answer] = tftp.answer(errno);
    expect([answer![1], answer![3]]).toEqual(expected);
    expect(tftp.send(ack(1))[0]![3]).toBe(5);
  });

  it.each([
    ['writing', request(2, 'file', 'octet'), error(2)],
    ['text mode', request(1, 'file', 'netascii'), error(4)],
    ['no file at all', read('/'), error(1)],
    ['a request that is cut', read('file').slice(0, -1), error(4)],
  ])('refuses %s', (_what, message, expected) => {
    const [answer] = tftp.send(message);
    expect([answer![1], answer![3]]).toEqual(expected);
    expect(tftp.asked).toEqual([]);
  });

  it('ends a transfer when the client says so, and closes a file that comes too late', () => {
    tftp.fetch(read('file'), pattern(1000));
    expect(tftp.send(concat([0, 5, 0, 0], text('enough')))).toEqual([]);
    expect(tftp.openFiles).toBe(0);
    tftp.send(read('file'));
    tftp.send(concat([0, 5, 0, 0], text('enough')));
    tftp.answer(pattern(10));
    expect(tftp.openFiles).toBe(0);
  });

  it('ends a transfer whose file has become shorter', () => {
    const file = pattern(1000);
    tftp.fetch(read('file'), file);
    tftp.truncateTo(600);
    expect(tftp.send(ack(1))[0]!.slice(0, 4)).toEqual([0, 5, 0, 0]);
  });

  it('leaves other addresses alone, and takes any bytes', () => {
    expect(tftp.send(read('file'), 2000, [GUEST, '10.0.2.3'])).toEqual([]);
    for (let length = 0; length < 40; length++) {
      for (const operation of [0, 1, 2, 3, 4, 5, 6, 255]) {
        tftp.send(concat([0, operation], pattern(length, operation)), 3000 + length);
      }
    }
    expect(tftp.asked.length).toBeLessThan(40);
  });
});
