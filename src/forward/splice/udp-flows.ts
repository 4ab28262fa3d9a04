/**
 * The spliced UDP flows: columns, and the index that finds a flow by who sent a datagram to which listener.
 *
 * The client's endpoint record and the address it wrote to lie in the arena, since the addon sends the answers from there.
 */
import type { Arena } from '../../base/arena.ts';
import { ENDPOINT_BYTES } from '../../stack/ports.ts';
import { isSameRecord } from './endpoints.ts';

const BUCKETS = 4096;

export class UdpFlows {
  readonly capacity: number;
  /** Entries in use. */
  count = 0;
  /** 1: in use. */
  readonly live: Uint8Array;
  readonly generation: Uint32Array;
  readonly fd: Int32Array;
  readonly listener: Int32Array;
  /** 1: the listener is one of the namespace, and `fd` one of the host. */
  readonly ofNamespace: Uint8Array;
  /** When something was last sent either way, in milliseconds of the owner's clock. */
  readonly lastMs: Float64Array;
  readonly openedMs: Float64Array;
  /** 1: the server has answered. */
  readonly answered: Uint8Array;
  readonly bytesFromClient: Float64Array;
  readonly bytesToClient: Float64Array;

  private readonly view: DataView;
  private readonly records: number;
  /** Heads of the buckets and links of their entries, index + 1 (0: none). */
  private readonly heads = new Int32Array(BUCKETS);
  private readonly next: Int32Array;
  private readonly bucketOf: Int32Array;
  private readonly free: number[] = [];
  private highWater = 0;

  constructor(arena: Arena, capacity: number) {
    this.capacity = capacity;
    this.view = arena.view;
    this.records = arena.allocate(capacity * 2 * ENDPOINT_BYTES);
    this.live = new Uint8Array(capacity);
    this.generation = new Uint32Array(capacity);
    this.fd = new Int32Array(capacity).fill(-1);
    this.listener = new Int32Array(capacity);
    this.ofNamespace = new Uint8Array(capacity);
    this.lastMs = new Float64Array(capacity);
    this.openedMs = new Float64Array(capacity);
    this.answered = new Uint8Array(capacity);
    this.bytesFromClient = new Float64Array(capacity);
    this.bytesToClient = new Float64Array(capacity);
    this.next = new Int32Array(capacity);
    this.bucketOf = new Int32Array(capacity);
  }

  /** Endpoint record of the client. */
  clientOf(flow: number): number {
    return this.records + flow * 2 * ENDPOINT_BYTES;
  }

  /** Endpoint record with the address that the client wrote to, for the answers to come from. */
  localOf(flow: number): number {
    return this.clientOf(flow) + ENDPOINT_BYTES;
  }

  /** One past the highest index ever used. */
  get bound(): number {
    return this.highWater;
  }

  /** The flow of datagrams from the endpoint record `client` to a listener, or -1. */
  find(listener: number, ofNamespace: number, client: number): number {
    const { view, next } = this;
    for (let entry = this.heads[this.hash(listener, client)]!; entry !== 0; entry = next[entry - 1]!) {
      const flow = entry - 1;
      if (
        this.listener[flow] === listener &&
        this.ofNamespace[flow] === ofNamespace &&
        isSameRecord(view, this.clientOf(flow), client)
      ) {
        return flow;
      }
    }
    return -1;
  }

  /** Takes an entry and files it; both records are the caller's to fill, the client's first. @returns -1: all are in use */
  open(listener: number, ofNamespace: number, client: number): number {
    let flow = this.free.pop() ?? -1;
    if (flow < 0) {
      if (this.highWater === this.capacity) return -1;
      flow = this.highWater++;
    }
    const bucket = this.hash(listener, client);
    this.live[flow] = 1;
    this.generation[flow] = this.generation[flow]! + 1;
    this.listener[flow] = listener;
    this.ofNamespace[flow] = ofNamespace;
    this.answered[flow] = 0;
    this.bytesFromClient[flow] = 0;
    this.bytesToClient[flow] = 0;
    this.next[flow] = this.heads[bucket]!;
    this.heads[bucket] = flow + 1;
    this.bucketOf[flow] = bucket;
    this.count++;
    return flow;
  }

  /** Takes a flow out of the index. Its entry comes back with {@link release}. */
  unfile(flow: number): void {
    const { heads, next } = this;
    const bucket = this.bucketOf[flow]!;
    this.live[flow] = 0;
    this.count--;
    if (heads[bucket] === flow + 1) {
      heads[bucket] = next[flow]!;
      return;
    }
    let before = heads[bucket]! - 1;
    while (next[before] !== flow + 1) before = next[before]! - 1;
    next[before] = next[flow]!;
  }

  /** Lets the entry of an unfiled flow be used again. */
  release(flow: number): void {
    this.fd[flow] = -1;
    this.free.push(flow);
  }

  private hash(listener: number, client: number): number {
    const { view } = this;
    // Loopback addresses differ in their last word; the port is in the first.
    let h = Math.imul(view.getInt32(client) ^ listener, 0x9e3779b1);
    h = Math.imul(h ^ (h >>> 15) ^ view.getInt32(client + 8), 0x2c1b3c6d);
    h = Math.imul(h ^ (h >>> 13) ^ view.getInt32(client + 20), 0x297a2d39);
    return (h ^ (h >>> 16)) & (BUCKETS - 1);
  }
}
