import type { ColumnBlock } from '../../base/column-block.ts';
import type { FlowTable } from '../flow/table.ts';
import { sumAddresses } from '../fragment/guest-packets.ts';

/** What UDP keeps about a flow beside the flow table's own columns; one entry per flow-table index, valid while the flow lives. */
export class UdpColumns {
  /** 0: datagrams leave by the flow's own connected socket; else listener index + 1, by whose socket they leave. */
  readonly via: Int32Array;
  /** The remote as the host addresses it: 4 words a flow, its port, its scope. */
  readonly remoteAddress: Uint32Array;
  readonly remotePort: Uint16Array;
  readonly remoteScope: Uint32Array;
  /** The host's address that the remote has written to, for flows that leave by a listener; 4 words a flow. */
  readonly localAddress: Uint32Array;
  readonly localScope: Uint32Array;
  /** 0: `localAddress` is not known (or was no unicast address), and the kernel picks one. */
  readonly localFamily: Uint8Array;
  /** TTL or hop limit that the flow's own socket sends with; 0: unknown. */
  readonly hopLimit: Uint8Array;
  /** SEEN_FROM_… bits. */
  readonly seen: Uint8Array;
  /** Payload bytes of the guest's last datagram. */
  readonly lastBytes: Uint16Array;
  /** 1: the kernel has refused a run of datagrams given as one. */
  readonly refusesRuns: Uint8Array;
  /** `sumAddresses` of peer and guest. */
  readonly addressSum: Uint16Array;

  constructor(capacity: number, columns: ColumnBlock) {
    this.via = columns.int32(capacity);
    this.remoteAddress = columns.uint32(capacity * 4);
    this.remotePort = columns.uint16(capacity);
    this.remoteScope = columns.uint32(capacity);
    this.localAddress = columns.uint32(capacity * 4);
    this.localScope = columns.uint32(capacity);
    this.localFamily = columns.uint8(capacity);
    this.hopLimit = columns.uint8(capacity);
    this.seen = columns.uint8(capacity);
    this.lastBytes = columns.uint16(capacity);
    this.refusesRuns = columns.uint8(capacity);
    this.addressSum = columns.uint16(capacity);
  }

  /** Puts the columns of a new flow into their initial state. */
  reset(flows: FlowTable, index: number): void {
    const at = index * 4;
    this.addressSum[index] = sumAddresses(flows.family[index]!, flows.peerAddress, at, flows.guestAddress, at);
    this.via[index] = 0;
    this.localFamily[index] = 0;
    this.hopLimit[index] = 0;
    this.seen[index] = 0;
    this.refusesRuns[index] = 0;
    this.lastBytes[index] = 0;
  }
}

export const SEEN_FROM_GUEST = 1;
export const SEEN_FROM_HOST = 2;
export const SEEN_BOTH = SEEN_FROM_GUEST | SEEN_FROM_HOST;
