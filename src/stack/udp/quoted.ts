import { IP_PROTOCOL_UDP } from '../../wire/ip-protocol.ts';
import type { FlowTable } from '../flow/table.ts';
import type { QuotedDatagram } from '../icmp/errors.ts';
import type { UdpColumns } from './columns.ts';

/** Describes a datagram of a flow, of which `payloadBytes` at `payloadOffset` are known, for an ICMP error about it. */
export function fillQuoted(
  quoted: QuotedDatagram,
  flows: FlowTable,
  columns: UdpColumns,
  flow: number,
  payloadOffset: number,
  payloadBytes: number,
): void {
  quoted.family = flows.family[flow]!;
  quoted.protocol = IP_PROTOCOL_UDP;
  quoted.guestPort = flows.guestPort[flow]!;
  quoted.peerPort = flows.peerPort[flow]!;
  quoted.hopLimit = columns.hopLimit[flow]!;
  quoted.payloadOffset = payloadOffset;
  quoted.payloadBytes = payloadBytes;
  // The socket does not say which one it was; the last one's length is right where all are alike, as probes are.
  quoted.fullPayloadBytes = Math.max(columns.lastBytes[flow]!, payloadBytes);
}
