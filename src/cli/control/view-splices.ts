/** Connections and datagram flows of a namespace that are joined by their sockets and are no flows of the stack, as plain objects. */
import { formatIp } from '../../base/ip-text.ts';
import type { SpliceForward } from '../../forward/splice/ports.ts';
import { getEndpointPort, loadEndpointAddress } from '../../stack/endpoint.ts';
import type { HostSockets } from '../../stack/ports.ts';
import type { EndpointView } from './view.ts';

export interface SpliceView {
  /** Never the same for two of them. */
  readonly id: string;
  readonly proto: 'tcp' | 'udp';
  readonly state: string;
  /** Where the client is. */
  readonly startedBy: 'host' | 'namespace';
  readonly ageSeconds: number;
  /** Payload. */
  readonly bytesFromClient: number;
  readonly bytesToClient: number;
  /** Who connected, and whom they reached, each as its own side sees it; null: not known (any more). */
  readonly client: EndpointView | null;
  readonly server: EndpointView | null;
}

export interface SplicePage {
  readonly splices: readonly SpliceView[];
  /** All of them now; the page has the first 1000. */
  readonly total: number;
}

/** What the sockets' endpoints are read with. */
export interface SpliceViewOptions {
  readonly splice: SpliceForward;
  readonly sockets: HostSockets;
  readonly view: DataView;
  /** Room for one endpoint record. */
  readonly scratch: number;
}

const PAGE_MAX = 1000;

export function viewSplices({ splice, sockets, view, scratch }: SpliceViewOptions): SplicePage {
  const splices: SpliceView[] = [];
  const peerOf = (fd: number): EndpointView | null =>
    sockets.getPeer(fd, scratch) < 0 ? null : viewRecord(view, scratch);
  for (let flow = 0; flow < splice.tcp.bound && splices.length < PAGE_MAX; flow++) {
    const found = splice.tcp.describe(flow);
    if (found === undefined) continue;
    const ends = { client: peerOf(found.clientFd), server: peerOf(found.serverFd) };
    splices.push({ ...viewCommon('tcp', flow, found), ...ends });
  }
  for (let flow = 0; flow < splice.udp.bound && splices.length < PAGE_MAX; flow++) {
    const found = splice.udp.describe(flow);
    if (found === undefined) continue;
    const ends = { client: viewRecord(view, found.clientRecord), server: peerOf(found.serverFd) };
    splices.push({ ...viewCommon('udp', flow, found), ...ends });
  }
  return { splices, total: splice.tcp.count + splice.udp.count };
}

interface Common {
  readonly state: string;
  readonly ofNamespace: boolean;
  readonly generation: number;
  readonly ageMs: number;
  readonly bytesFromClient: number;
  readonly bytesToClient: number;
}

function viewCommon(proto: 'tcp' | 'udp', flow: number, found: Common): Omit<SpliceView, 'client' | 'server'> {
  const { state, ofNamespace, generation, ageMs, bytesFromClient, bytesToClient } = found;
  return {
    id: `${proto}-${flow}.${generation}`,
    proto,
    state,
    startedBy: ofNamespace ? 'namespace' : 'host',
    ageSeconds: Math.round(ageMs) / 1000,
    bytesFromClient,
    bytesToClient,
  };
}

function viewRecord(view: DataView, record: number): EndpointView | null {
  const words = new Uint32Array(4);
  if (loadEndpointAddress(view, record, words, 0) === 0) return null;
  return { address: formatIp(words), port: getEndpointPort(view, record) };
}
