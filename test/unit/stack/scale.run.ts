/**
 * The whole stack with tens of thousands of flows, in a process of its own and bundled as the executables are. No process has so many descriptors, so
 * all flows share a few sockets; their calls are real ones, of the number that a packet makes: a read of the link, a read or a write
 * of a socket, a write to the link. What is sent drops at a UDP port of the loopback interface that nobody reads, what is read stays
 * where it is.
 * Prints JSON: nanoseconds of CPU per packet by protocol and number of flows, with the calls and without them, bytes of memory per
 * flow, CPU while all are silent.
 */
import { createArena } from '../../../src/base/arena.ts';
import { systemClock } from '../../../src/base/clock.ts';
import { silentLogger } from '../../../src/base/logger.ts';
import { createAddressMap } from '../../../src/forward/address-map.ts';
import {
  DATAGRAM_META_BYTES,
  DATAGRAM_META_LENGTH,
  EVENT_IN,
  type ForwardLookup,
  KIND_TCP,
  KIND_UDP,
  NO_SUMS,
  SOCKET_DGRAM,
  SOCKET_STREAM,
} from '../../../src/stack/ports.ts';
import { NetworkStack } from '../../../src/stack/stack.ts';
import { loadNative } from '../../../src/sys/native.ts';
import { FakeLink } from '../../support/fake-link.ts';
import { FakeSocket } from '../../support/fake-socket.ts';
import { FakeSockets } from '../../support/fake-sockets.ts';
import { makeStackConfig } from '../../support/stack-config.ts';
import { buildFrame, GUEST_ISS, GUEST4, pattern } from './tcp/harness.ts';
import { concat, GUEST_4, udpPacket } from './udp/support.ts';

const FLOWS: readonly number[] = [1, 1000, 50_000];
const PACKETS = 10_000;
const ROUNDS = 7;
const PAYLOAD_BYTES = 512;
const FIRST_PORT = 1024;
const EAGAIN = -11;
const REMOTE = '198.51.100.1';
const SEQ = 38;
const ACK = 42;
const FLAGS = 47;
const SYN = 2;

const arena = createArena(256 << 20);
const udpSource = arena.bytes.slice(0, DATAGRAM_META_BYTES);
udpSource.set([4, 0, 0, 53, 0, 0, 0, 0, 198, 51, 100, 1]);

const native = loadNative();
native.bindArena(arena.buffer);
const { source, sink } = openSockets();

/** Whether packets make system calls. */
let withCalls = true;

/** Sockets without anything behind them: each number of a descriptor stands for the same one. */
class ManySockets extends FakeSockets {
  /** Bytes that the next peek or receive finds; not more than the source has. */
  available = 0;
  private opened = 1000;
  private readonly only = new FakeSocket(1, 4, 1, 6);

  protected override find(): FakeSocket {
    return this.only;
  }
  override open(): number {
    return this.opened++;
  }
  override connect(): number {
    return 0;
  }
  override close(): number {
    return 0;
  }
  override setOption(): number {
    return 0;
  }
  override watch(): number {
    return 0;
  }
  override sum(): number {
    return 0xffff;
  }
  override discard(_fd: number, lengthBytes: number): number {
    return lengthBytes;
  }
  override send(_fd: number, offset: number, lengthBytes: number): number {
    write(offset, lengthBytes);
    return lengthBytes;
  }
  override sendSegments(_fd: number, listOffset: number, count: number): number {
    let total = 0;
    for (let i = 0; i < count; i++) total += arena.view.getUint32(listOffset + 8 * i + 4, true);
    if (withCalls) native.sendSegments(sink, listOffset, count, 0);
    return total;
  }
  override peekSegments(...args: Parameters<FakeSockets['peekSegments']>): number {
    const bytes = this.available;
    this.available = 0;
    if (bytes === 0) return EAGAIN;
    read(args[1], bytes);
    return bytes;
  }
  override sendDatagrams(_fd: number, list: number, count: number): number {
    if (withCalls) native.sendDatagrams(sink, list, count);
    return count;
  }
  override sendEqualDatagrams(_fd: number, list: number, count: number): number {
    return this.sendDatagrams(_fd, list, count);
  }
  override receiveDatagrams(...args: Parameters<FakeSockets['receiveDatagrams']>): number {
    return this.receiveOne(args[1], args[5]);
  }
  override receiveSplitDatagrams(...args: Parameters<FakeSockets['receiveSplitDatagrams']>): number {
    return this.receiveOne(args[1], args[5]);
  }
  private receiveOne(offset: number, metas: number): number {
    const bytes = this.available;
    this.available = 0;
    if (bytes === 0) return EAGAIN;
    read(offset, bytes);
    arena.bytes.set(udpSource, metas);
    arena.view.setUint32(metas + DATAGRAM_META_LENGTH, bytes, true);
    return 1;
  }
}

/** Gives the stack the one frame that lies at `offset`, and remembers the number of the stack's last SYN. */
class OneFrameLink extends FakeLink {
  offset = 0;
  length = 0;
  lastSyn = 0;
  private readonly scratch = arena.allocate(2048);
  private committed = -1;
  override keepFrames = false;

  override receive(frames: Int32Array): number {
    if (this.length === 0) return 0;
    read(this.scratch, this.length);
    frames[0] = this.offset;
    frames[1] = this.length;
    this.length = 0;
    return 1;
  }
  override commit(offset: number, lengthBytes: number): void {
    // What a timer has due may follow it in the same turn.
    if ((arena.view.getUint8(offset + FLAGS) & SYN) !== 0) this.lastSyn = arena.view.getUint32(offset + SEQ);
    this.committed = offset;
    super.commit(offset, lengthBytes);
  }
  override flush(): number {
    if (this.committed >= 0) write(this.committed, PAYLOAD_BYTES);
    this.committed = -1;
    return super.flush();
  }
}

function read(offset: number, lengthBytes: number): void {
  if (withCalls) native.peekSegments(source, offset, lengthBytes, lengthBytes, 1, 0, NO_SUMS);
}

function write(offset: number, lengthBytes: number): void {
  if (withCalls) native.send(sink, offset, lengthBytes, 0);
}

/** A stream with bytes to peek at, and a datagram socket whose peer nobody reads. */
function openSockets(): { source: number; sink: number } {
  const pair = new Int32Array(2);
  const scratch = arena.allocate(2048);
  must(native.socketPair(SOCKET_STREAM, pair));
  must(native.send(pair[1]!, scratch, 2048, 0));
  const unread = must(native.open(4, SOCKET_DGRAM, 0));
  arena.bytes.set([4, 0, 0, 0, 0, 0, 0, 0, 127, 0, 0, 1], scratch);
  must(native.bind(unread, scratch));
  must(native.getName(unread, scratch));
  const socket = must(native.open(4, SOCKET_DGRAM, 0));
  must(native.connect(socket, scratch));
  return { source: pair[0]!, sink: socket };
}

function must(result: number): number {
  if (result < 0) throw new Error(`a socket could not be made: errno ${-result}`);
  return result;
}

const family4 = (): Parameters<typeof createAddressMap>[0]['ipv4'] => ({
  guest: GUEST4,
  router: new Uint32Array([0, 0, 0xffff, 0xc0000201]),
  loopbackAlias: undefined,
  guestAlias: undefined,
  dnsAlias: undefined,
  dnsHost: undefined,
});
const noForwards = { targetOf: () => undefined, fdOf: () => -1 } as unknown as ForwardLookup;

/** A stack with `count` open flows, each opened by the guest and used once in both directions. */
abstract class Crowd {
  readonly sockets = new ManySockets(arena);
  readonly link = new OneFrameLink(arena, 1 << 20, 64);
  readonly stack: NetworkStack;
  readonly count: number;
  private random = 1;

  constructor(count: number) {
    this.count = count;
    this.stack = new NetworkStack({
      arena,
      config: makeStackConfig({
        ipv4: {
          guestAddress: GUEST4[3]!,
          prefixLength: 24,
          gateway: 0xc0000201,
          resolvers: [],
          outboundAddress: 0,
          outboundInterface: '',
        },
        ipv6: undefined,
      }),
      link: this.link,
      sockets: this.sockets,
      map: createAddressMap({ ipv4: family4(), ipv6: undefined, linkLocalScopeId: 0 }),
      forwards: noForwards,
      clock: systemClock,
      log: silentLogger,
      secret: new Uint32Array([1, 2, 3, 4, 5, 6, 7, 8]),
    });
    this.stack.onGuestConnected();
  }

  openAll(): void {
    for (let index = 0; index < this.count; index++) this.open(index);
    if (this.stack.flows.count !== this.count) throw new Error(`${this.stack.flows.count} flows of ${this.count}`);
  }

  /** Lets `packets` packets pass, every second one to the guest, one a turn, each of a flow that chance picks. */
  run(packets: number): void {
    const before = this.link.framesSent;
    for (let i = 0; i < packets; i += 2) {
      this.random = (Math.imul(this.random, 1_664_525) + 1_013_904_223) >>> 0;
      this.exchange((this.random >>> 8) % this.count);
    }
    if (this.link.framesSent - before < packets / 2) throw new Error('packets were lost');
  }

  protected handIn(offset: number, length: number): void {
    this.link.offset = offset;
    this.link.length = length;
    this.stack.onLinkReadable();
    this.stack.endTurn();
  }

  protected deliver(kind: number, index: number): void {
    this.sockets.available = PAYLOAD_BYTES;
    this.stack.onFlowEvent(kind, index, EVENT_IN);
    this.stack.endTurn();
  }

  protected abstract open(index: number): void;
  protected abstract exchange(index: number): void;
}

class TcpCrowd extends Crowd {
  private readonly frame = arena.allocate(2048);
  private readonly template = buildFrame({ flags: 'PA', data: pattern(PAYLOAD_BYTES) });
  private readonly guestNext = new Uint32Array(this.count).fill(GUEST_ISS + 1);
  private readonly ourNext = new Uint32Array(this.count).fill(1);

  protected open(index: number): void {
    const syn = buildFrame({
      flags: 'S',
      seq: GUEST_ISS,
      mss: 1460,
      scale: 7,
      sackOk: true,
      srcPort: FIRST_PORT + index,
    });
    arena.bytes.set(syn, this.frame);
    this.handIn(this.frame, syn.length);
    this.ourNext[index] = this.link.lastSyn + 1;
    arena.bytes.set(this.template, this.frame);
    this.exchange(index);
  }

  protected exchange(index: number): void {
    const { view } = arena;
    view.setUint16(this.frame + 34, FIRST_PORT + index);
    // In this order the guest acknowledges what it is sent at once, and nothing is under way when the flow is left alone.
    this.deliver(KIND_TCP, index);
    this.ourNext[index] = this.ourNext[index]! + PAYLOAD_BYTES;
    view.setUint32(this.frame + SEQ, this.guestNext[index]!);
    view.setUint32(this.frame + ACK, this.ourNext[index]!);
    this.guestNext[index] = this.guestNext[index]! + PAYLOAD_BYTES;
    this.handIn(this.frame, this.template.length);
  }
}

class UdpCrowd extends Crowd {
  private readonly frame = arena.allocate(2048);
  private readonly template = concat(
    buildFrame({}).subarray(0, 14),
    udpPacket(GUEST_4, 1, REMOTE, 53, pattern(PAYLOAD_BYTES)),
  );

  protected open(index: number): void {
    arena.bytes.set(this.template, this.frame);
    this.exchange(index);
  }

  protected exchange(index: number): void {
    arena.view.setUint16(this.frame + 34, FIRST_PORT + index);
    this.handIn(this.frame, this.template.length);
    this.deliver(KIND_UDP, index);
  }
}

function cpuNs(run: () => void): number {
  const before = process.cpuUsage();
  run();
  const { user, system } = process.cpuUsage(before);
  return (user + system) * 1000;
}

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[values.length >> 1]!;
}

interface Costs {
  /** CPU per packet, by number of flows. */
  readonly ns: number[];
  readonly nsWithoutCalls: number[];
}

/** Each number of flows in turn, again and again, so that what else the machine does hits all of them. */
function compare(crowds: readonly Crowd[]): Costs {
  const measureAll = (calls: boolean): number[] => {
    const samples = crowds.map((): number[] => []);
    withCalls = calls;
    for (let round = 0; round < ROUNDS; round++) {
      for (const [i, crowd] of crowds.entries()) samples[i]!.push(cpuNs(() => crowd.run(PACKETS)) / PACKETS);
    }
    return samples.map(median);
  };
  return { ns: measureAll(true), nsWithoutCalls: measureAll(false) };
}

function measure(make: (count: number) => Crowd): Costs & { bytesPerFlow: number; crowd: Crowd } {
  // Compiles all there is.
  const warm = make(1000);
  warm.openAll();
  warm.run(10 * PACKETS);
  const crowds = FLOWS.map(make);
  const largest = crowds.at(-1)!;
  for (const crowd of crowds.slice(0, -1)) crowd.openAll();
  globalThis.gc?.();
  const before = process.memoryUsage().rss;
  largest.openAll();
  globalThis.gc?.();
  const bytesPerFlow = (process.memoryUsage().rss - before) / largest.count;
  return { ...compare(crowds), bytesPerFlow, crowd: largest };
}

/** Bytes that all columns together have for a flow, of whichever kind it is. */
function columnBytes(root: object, capacity: number): number {
  const seen = new Set<object>();
  const waiting: object[] = [root];
  let bytes = 0;
  for (let value = waiting.pop(); value !== undefined; value = waiting.pop()) {
    if (seen.has(value)) continue;
    seen.add(value);
    if (ArrayBuffer.isView(value)) {
      const { length = 0 } = value as Uint8Array;
      if (length >= capacity && value.buffer !== arena.buffer) bytes += value.byteLength / capacity;
      continue;
    }
    for (const child of Object.values(value)) if (typeof child === 'object' && child !== null) waiting.push(child);
  }
  return bytes;
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

const tcp = measure((count) => new TcpCrowd(count));
const udp = measure((count) => new UdpCrowd(count));
// The quietest of some seconds: the last acknowledgements and round trips end, and the engine tidies up, when nobody can say.
let idleMsPerSecond = Number.POSITIVE_INFINITY;
for (let second = 0; second < 8 && idleMsPerSecond > 1; second++) {
  const before = process.cpuUsage();
  await sleep(1000);
  const { user, system } = process.cpuUsage(before);
  idleMsPerSecond = Math.min(idleMsPerSecond, (user + system) / 1000);
}
const report = ({ ns, nsWithoutCalls, bytesPerFlow, crowd }: ReturnType<typeof measure>): object => ({
  ns,
  nsWithoutCalls,
  bytesPerFlow,
  columnBytes: columnBytes(crowd.stack, crowd.stack.flows.capacity),
  live: crowd.stack.flows.count,
});
process.stdout.write(`${JSON.stringify({ flows: FLOWS, tcp: report(tcp), udp: report(udp), idleMsPerSecond })}\n`);
process.exit(0);
