/**
 * The flow table: every TCP connection, UDP flow and echo session of the guest, as typed-array columns.
 *
 * A flow is an index; (index, generation) where it outlives a turn. Life cycle: `open` takes a free entry and files it under its
 * key; `retire` takes it out of the hash at once, so that the same key may be opened anew in the same turn, and
 * remembers it; `sweep`, at the end of a turn, closes the host fd, lets the owner clean up and frees the entry. No other place frees.
 * An index is never reused within a turn, hence an event collected before can at worst meet a retired entry.
 *
 * Keys are what the guest sees: protocol kind, guest address and port, peer address and port. The hash is keyed with
 * random words against floods of colliding connections. Collisions: linear probing, deletion by shifting back (no tombstones).
 *
 * The columns are allocated at full capacity: the kernel gives zeroed pages on first touch only, and entries are
 * taken lowest first, so memory follows the highest number of flows ever open at once.
 */

import { ColumnBlock } from '../../base/column-block.ts';

export const FLOW_FREE = 0;
export const FLOW_TCP = 1;
export const FLOW_UDP = 2;
export const FLOW_PING = 3;
export const FLOW_TFTP = 4;

/** passt's limit too: 2^17 entries. */
export const DEFAULT_FLOW_CAPACITY = 131_072;

/** All that is kept by flow, here and by the modules, and something for the space between columns. */
const BYTES_PER_FLOW = 352;

export class FlowTable {
  readonly capacity: number;
  /** Where modules have their own columns, which have `capacity` entries as well. */
  readonly columns: ColumnBlock;
  /** FLOW_… kind; FLOW_FREE for entries not in use. */
  readonly kind: Uint8Array;
  /** 1 from `retire` until `sweep`. */
  readonly retired: Uint8Array;
  /** 4 or 6. */
  readonly family: Uint8Array;
  /** Counts the uses of an entry. */
  readonly generation: Uint32Array;
  /** Host side: a socket owned by the flow, closed by `sweep`; -1: none. */
  readonly fd: Int32Array;
  /** 4 words a flow, at `index * 4`. */
  readonly guestAddress: Uint32Array;
  readonly guestPort: Uint16Array;
  /** The remote as the guest addresses it; 4 words a flow. */
  readonly peerAddress: Uint32Array;
  readonly peerPort: Uint16Array;
  /** 1: a remote began the flow, through a forwarded port; 0: the guest did. */
  readonly fromHost: Uint8Array;
  /** When the flow was opened, in milliseconds of the stack's clock. */
  readonly openedMs: Float64Array;
  /** Payload that the guest has acknowledged (TCP) or was sent. */
  readonly bytesToGuest: Float64Array;
  /** Payload of the guest that was passed on. */
  readonly bytesToHost: Float64Array;
  /** Intrusive links, value is index + 1 (0: none). Owner: the room queue, see room-queue.ts. */
  readonly roomNext: Int32Array;
  readonly roomQueued: Uint8Array;

  /** Time of the running turn, by the stack's clock; its owner keeps it. */
  nowMs = 0;
  /** Entries in use, retired ones included. */
  count = 0;
  /** Entries in use by kind, retired ones excluded. */
  readonly live = new Int32Array(5);

  private readonly hash: Uint32Array;
  private readonly slots: Int32Array;
  private readonly mask: number;
  private readonly nextFree: Int32Array;
  private freeHead = 0;
  private highWater = 0;
  private readonly retiredList: Int32Array;
  private retiredCount = 0;
  private readonly keyA: number;
  private readonly keyB: number;

  /** @param secret two random 32-bit words that key the hash */
  constructor(capacity: number, secret: readonly [number, number]) {
    this.capacity = capacity;
    const columns = new ColumnBlock(capacity * BYTES_PER_FLOW);
    this.columns = columns;
    this.kind = columns.uint8(capacity);
    this.retired = columns.uint8(capacity);
    this.family = columns.uint8(capacity);
    this.generation = columns.uint32(capacity);
    this.fd = columns.int32(capacity);
    this.guestAddress = columns.uint32(capacity * 4);
    this.guestPort = columns.uint16(capacity);
    this.peerAddress = columns.uint32(capacity * 4);
    this.peerPort = columns.uint16(capacity);
    this.fromHost = columns.uint8(capacity);
    this.openedMs = columns.float64(capacity);
    this.bytesToGuest = columns.float64(capacity);
    this.bytesToHost = columns.float64(capacity);
    this.roomNext = columns.int32(capacity);
    this.roomQueued = columns.uint8(capacity);
    this.hash = columns.uint32(capacity);
    this.nextFree = columns.int32(capacity);
    this.retiredList = columns.int32(capacity);
    let slotCount = 16;
    while (slotCount < capacity * 2) slotCount *= 2;
    this.slots = columns.int32(slotCount);
    this.mask = slotCount - 1;
    this.keyA = secret[0] | 1;
    this.keyB = secret[1] >>> 0;
  }

  /** True while `index` is in use and not retired. */
  isLive(index: number): boolean {
    return this.kind[index] !== FLOW_FREE && this.retired[index] === 0;
  }

  private hashKey(
    kind: number,
    guest: Uint32Array,
    guestAt: number,
    guestPort: number,
    peer: Uint32Array,
    peerAt: number,
    peerPort: number,
  ): number {
    let h = this.keyB ^ (kind * 0x9e3779b1);
    h = mix(h ^ guest[guestAt + 3]!, this.keyA);
    h = mix(h ^ guest[guestAt + 2]!, this.keyA);
    h = mix(h ^ guest[guestAt + 1]! ^ guest[guestAt]!, this.keyA);
    h = mix(h ^ peer[peerAt + 3]!, this.keyA);
    h = mix(h ^ peer[peerAt + 2]!, this.keyA);
    h = mix(h ^ peer[peerAt + 1]! ^ ((peer[peerAt]! << 7) | (peer[peerAt]! >>> 25)), this.keyA);
    h = mix(h ^ ((guestPort << 16) | peerPort), this.keyA);
    // 31 bits: a larger number would be an object on the heap, one for each packet.
    return h & 0x7fffffff;
  }

  /** @returns the live flow with this key, or -1 */
  find(
    kind: number,
    guest: Uint32Array,
    guestAt: number,
    guestPort: number,
    peer: Uint32Array,
    peerAt: number,
    peerPort: number,
  ): number {
    const hash = this.hashKey(kind, guest, guestAt, guestPort, peer, peerAt, peerPort);
    let slot = hash & this.mask;
    for (;;) {
      const entry = this.slots[slot]!;
      if (entry === 0) return -1;
      const index = entry - 1;
      if (
        this.hash[index] === hash &&
        this.kind[index] === kind &&
        this.guestPort[index] === guestPort &&
        this.peerPort[index] === peerPort &&
        sameWords(this.guestAddress, index * 4, guest, guestAt) &&
        sameWords(this.peerAddress, index * 4, peer, peerAt)
      ) {
        return index;
      }
      slot = (slot + 1) & this.mask;
    }
  }

  /**
   * Takes an entry and files it. The caller has made sure (`find`) that no live flow has the key. `fd` starts at -1.
   * @returns the index, or -1 when the table is full
   */
  open(
    kind: number,
    family: number,
    guest: Uint32Array,
    guestAt: number,
    guestPort: number,
    peer: Uint32Array,
    peerAt: number,
    peerPort: number,
  ): number {
    let index: number;
    if (this.freeHead !== 0) {
      index = this.freeHead - 1;
      this.freeHead = this.nextFree[index]!;
    } else if (this.highWater < this.capacity) {
      index = this.highWater++;
    } else {
      return -1;
    }
    this.kind[index] = kind;
    this.retired[index] = 0;
    this.family[index] = family;
    this.generation[index] = this.generation[index]! + 1;
    this.fd[index] = -1;
    this.fromHost[index] = 0;
    this.openedMs[index] = this.nowMs;
    this.bytesToGuest[index] = 0;
    this.bytesToHost[index] = 0;
    for (let i = 0; i < 4; i++) {
      this.guestAddress[index * 4 + i] = guest[guestAt + i]!;
      this.peerAddress[index * 4 + i] = peer[peerAt + i]!;
    }
    this.guestPort[index] = guestPort;
    this.peerPort[index] = peerPort;
    const hash = this.hashKey(kind, guest, guestAt, guestPort, peer, peerAt, peerPort);
    this.hash[index] = hash;
    let slot = hash & this.mask;
    while (this.slots[slot] !== 0) slot = (slot + 1) & this.mask;
    this.slots[slot] = index + 1;
    this.count++;
    this.live[kind] = this.live[kind]! + 1;
    return index;
  }

  /** Ends a flow: it is found no more; its entry and fd stay until `sweep`. Harmless on a retired entry. */
  retire(index: number): void {
    const kind = this.kind[index]!;
    if (kind === FLOW_FREE || this.retired[index] !== 0) return;
    this.retired[index] = 1;
    this.live[kind] = this.live[kind]! - 1;
    this.unfile(index);
    this.retiredList[this.retiredCount++] = index;
  }

  private unfile(index: number): void {
    const { slots, mask } = this;
    let hole = this.hash[index]! & mask;
    while (slots[hole] !== index + 1) hole = (hole + 1) & mask;
    // Close the gap: an entry may move into the hole if its home slot does not lie behind the hole.
    let probe = hole;
    for (;;) {
      probe = (probe + 1) & mask;
      const entry = slots[probe]!;
      if (entry === 0) break;
      const home = this.hash[entry - 1]! & mask;
      if (((probe - home) & mask) >= ((probe - hole) & mask)) {
        slots[hole] = entry;
        hole = probe;
      }
    }
    slots[hole] = 0;
  }

  /**
   * Frees what was retired. Call at the end of a turn.
   * @param release called once per entry, with its columns still in place: closes the fd and forgets what else belongs to the flow
   */
  sweep(release: (index: number) => void): void {
    // An entry that waits in the room queue stays until the queue has let go of it.
    let kept = 0;
    for (let i = 0; i < this.retiredCount; i++) {
      const index = this.retiredList[i]!;
      if (this.roomQueued[index] !== 0) {
        this.retiredList[kept++] = index;
        continue;
      }
      release(index);
      this.kind[index] = FLOW_FREE;
      this.fd[index] = -1;
      this.nextFree[index] = this.freeHead;
      this.freeHead = index + 1;
      this.count--;
    }
    this.retiredCount = kept;
  }

  /** True when `sweep` has something to do. */
  get hasRetired(): boolean {
    return this.retiredCount > 0;
  }

  /** One past the highest index ever used: the bound for a walk over all flows. */
  get bound(): number {
    return this.highWater;
  }
}

function mix(h: number, key: number): number {
  let x = Math.imul(h, key);
  x ^= x >>> 15;
  x = Math.imul(x, 0x2c1b3c6d);
  return x ^ (x >>> 13);
}

function sameWords(a: Uint32Array, at: number, b: Uint32Array, bt: number): boolean {
  return a[at + 3] === b[bt + 3] && a[at + 2] === b[bt + 2] && a[at + 1] === b[bt + 1] && a[at] === b[bt];
}
