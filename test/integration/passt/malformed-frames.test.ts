/** Frames that are cut, changed and wrong in every field: nothing crashes, nothing grows, the log stays short. */
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import {
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  ethernet,
  ipv4,
  ipv6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  TCP_ACK,
  TCP_SYN,
  tcp,
  udp,
} from '../../support/frames.ts';
import { createHost, HOST_NET, type Host } from '../../support/netns/host.ts';
import { itExceptOnDebian, rigSuite } from '../../support/rig-suite.ts';
import { SAMPLE_FRAMES } from '../../support/sample-frames.ts';
import { GUEST, ScriptedGuest, withLength } from '../../support/scripted-guest.ts';
import { seededRandom } from '../../support/seeded-random.ts';
import { type StackProcess, startStack } from '../../support/stack-process.ts';
import { stackCommand } from '../../support/stack-under-test.ts';

const { remoteV4, remoteV6 } = HOST_NET;
const STACK_MAC = '9a:55:9a:55:9a:55';
const MUTANTS_PER_FRAME = 400;
const RSS_GROWTH_LIMIT_BYTES = 48 << 20;
const LOG_LINES_LIMIT = 40;

rigSuite('malformed frames', () => {
  let host: Host;
  let stack: StackProcess;
  let guest: ScriptedGuest;
  let linesBefore = 0;

  const countLines = (): number => stack.output().split('\n').length;

  beforeAll(async () => {
    host = await createHost();
    const path = `${host.directory}/passt.socket`;
    stack = startStack(host, stackCommand(), ['--foreground', '--socket', path]);
    guest = await ScriptedGuest.connect(path);
    await guest.checkAlive();
  });
  afterAll(async () => {
    const status = await stack?.stop();
    await guest?.close();
    await host?.close();
    expect(status).toBe(0);
  });
  beforeEach(() => {
    linesBefore = countLines();
    guest.received.length = 0;
  });

  /** Sends all in large pieces, then proves that the stack is in step and unharmed. */
  const sendAll = async (frames: Buffer[]): Promise<void> => {
    const rssBefore = stack.rssBytes();
    for (let i = 0; i < frames.length; i += 64) {
      await guest.sendBytes(Buffer.concat(frames.slice(i, i + 64).map((frame) => withLength(frame))));
    }
    await guest.checkAlive(10_000);
    expect(guest.isClosed).toBe(false);
    expect(stack.running()).toBe(true);
    expect(stack.rssBytes() - rssBefore).toBeLessThan(RSS_GROWTH_LIMIT_BYTES);
    expect(countLines() - linesBefore, stack.output().slice(-2000)).toBeLessThan(LOG_LINES_LIMIT);
  };

  it('cut at every length are dropped or answered, and do no harm', async () => {
    const frames: Buffer[] = [];
    for (const { frame } of SAMPLE_FRAMES) {
      for (let length = 14; length < frame.length; length++) frames.push(frame.subarray(0, length));
    }
    await sendAll(frames);
  });

  for (const { name, frame } of SAMPLE_FRAMES) {
    itExceptOnDebian('it stops answering', `made from a ${name} by changing up to four bytes do no harm`, async () => {
      const random = seededRandom(frame.length * 7919);
      const mutants: Buffer[] = [];
      for (let i = 0; i < MUTANTS_PER_FRAME; i++) {
        const mutant = Buffer.from(frame);
        for (let changes = 1 + Math.floor(random() * 4); changes > 0; changes--) {
          mutant[Math.floor(random() * mutant.length)] = Math.floor(random() * 256);
        }
        mutants.push(mutant);
      }
      await sendAll(mutants);
    });
  }

  it('with a wrong length in an IPv4 header do no harm', async () => {
    const datagram = udp(GUEST.ipv4, remoteV4, 41_000, 9, Buffer.from('payload'));
    const frames: Buffer[] = [];
    for (const totalLength of [0, 1, 19, 20, 21, 27, 28, 34, 36, 1500, 65_535]) {
      frames.push(ipv4(GUEST.ipv4, remoteV4, PROTOCOL_UDP, datagram, { totalLength }));
    }
    for (let headerWords = 0; headerWords < 16; headerWords++) {
      frames.push(ipv4(GUEST.ipv4, remoteV4, PROTOCOL_UDP, datagram, { headerWords }));
    }
    for (let version = 0; version < 16; version++)
      frames.push(ipv4(GUEST.ipv4, remoteV4, PROTOCOL_UDP, datagram, { version }));
    await sendAll(frames.map((packet) => ethernet(STACK_MAC, GUEST.mac, ETHERTYPE_IPV4, packet)));
  });

  it('with a wrong length in an IPv6 header do no harm', async () => {
    const datagram = udp(GUEST.ipv6, remoteV6, 41_001, 9, Buffer.from('payload'));
    const frames: Buffer[] = [];
    for (const payloadLength of [0, 1, 7, 8, 14, 16, 1500, 65_535]) {
      frames.push(ipv6(GUEST.ipv6, remoteV6, PROTOCOL_UDP, datagram, { payloadLength }));
    }
    // Extension headers that say they are longer than the packet, and a chain that refers to itself.
    for (const nextHeader of [0, 43, 44, 50, 51, 59, 60, 135]) {
      frames.push(ipv6(GUEST.ipv6, remoteV6, nextHeader, Buffer.from([nextHeader, 255, 0, 0, 0, 0, 0, 0])));
      frames.push(ipv6(GUEST.ipv6, remoteV6, nextHeader, Buffer.alloc(1280, nextHeader)));
      frames.push(ipv6(GUEST.ipv6, remoteV6, nextHeader, Buffer.alloc(0)));
    }
    await sendAll(frames.map((packet) => ethernet(STACK_MAC, GUEST.mac, ETHERTYPE_IPV6, packet)));
  });

  it('with a wrong length in a TCP or UDP header do no harm', async () => {
    const packets: Buffer[] = [];
    for (let headerWords = 0; headerWords < 16; headerWords++) {
      for (const flags of [TCP_SYN, TCP_ACK, 0, 63]) {
        const segment = tcp(GUEST.ipv4, remoteV4, { sourcePort: 41_002, destinationPort: 9, flags, headerWords });
        packets.push(ipv4(GUEST.ipv4, remoteV4, PROTOCOL_TCP, segment));
      }
    }
    // Options without end, of length zero or one, longer than the header.
    for (const options of [
      [2],
      [2, 0, 0, 0],
      [2, 1, 0, 0],
      [2, 40, 5, 180],
      [3, 3, 255, 0],
      [5, 255, 0, 0],
      [254, 0, 0, 0],
    ]) {
      const padded = Buffer.alloc(Math.ceil(options.length / 4) * 4, 2);
      Buffer.from(options).copy(padded);
      const segment = tcp(GUEST.ipv4, remoteV4, {
        sourcePort: 41_003,
        destinationPort: 9,
        flags: TCP_SYN,
        options: padded,
      });
      packets.push(ipv4(GUEST.ipv4, remoteV4, PROTOCOL_TCP, segment));
    }
    for (const length of [0, 1, 7, 8, 9, 14, 16, 65_535]) {
      packets.push(
        ipv4(GUEST.ipv4, remoteV4, PROTOCOL_UDP, udp(GUEST.ipv4, remoteV4, 41_004, 9, Buffer.from('payload'), length)),
      );
    }
    await sendAll(packets.map((packet) => ethernet(STACK_MAC, GUEST.mac, ETHERTYPE_IPV4, packet)));
  });

  itExceptOnDebian('it stops answering', 'from addresses that no guest can have do no harm', async () => {
    const sources = ['0.0.0.0', '127.0.0.1', '255.255.255.255', '224.0.0.1', remoteV4];
    const destinations = ['0.0.0.0', '127.0.0.1', '255.255.255.255', '224.0.0.251', '240.0.0.1', GUEST.ipv4];
    const packets: Buffer[] = [];
    for (const source of sources) {
      for (const destination of destinations) {
        packets.push(ipv4(source, destination, PROTOCOL_UDP, udp(source, destination, 41_005, 9, Buffer.from('x'))));
        const segment = tcp(source, destination, { sourcePort: 41_006, destinationPort: 9, flags: TCP_SYN });
        packets.push(ipv4(source, destination, PROTOCOL_TCP, segment));
      }
    }
    await sendAll(packets.map((packet) => ethernet(STACK_MAC, GUEST.mac, ETHERTYPE_IPV4, packet)));
    // None of these may have moved what the stack believes the guest's address to be: the guest is still served.
    await guest.checkAlive();
  });

  itExceptOnDebian('it stops answering', 'of unknown type, and empty ones, are ignored', async () => {
    const frames: Buffer[] = [];
    for (const etherType of [0, 1, 0x5dc, 0x8100, 0x88a8, 0x8847, 0xffff]) {
      frames.push(ethernet(STACK_MAC, GUEST.mac, etherType, Buffer.alloc(0)));
      frames.push(ethernet(STACK_MAC, GUEST.mac, etherType, Buffer.alloc(46, 0xff)));
    }
    for (const etherType of [ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6]) {
      frames.push(ethernet(STACK_MAC, GUEST.mac, etherType, Buffer.alloc(0)));
      frames.push(ethernet(STACK_MAC, GUEST.mac, etherType, Buffer.alloc(1500, 0xff)));
      frames.push(ethernet(STACK_MAC, GUEST.mac, etherType, Buffer.alloc(1500)));
    }
    await sendAll(frames);
    expect(guest.received.filter((frame) => frame.readUInt16BE(12) !== ETHERTYPE_ARP)).toEqual([]);
  });
});
