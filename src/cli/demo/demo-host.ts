/**
 * The host's side of the demo: a page, a source and a sink of bytes on loopback of both families, and a resolver where this
 * user may bind port 53. Nothing is sent beyond this computer.
 */
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { parseIpv4 } from '../../base/ip-text.ts';
import { buildAnswer } from './dns-message.ts';

/** A name that cannot exist elsewhere (RFC 6761, 6.2) and the address the demo's resolver has for it (RFC 5737). */
export const DEMO_NAME = 'guest.passel.test';
export const DEMO_NAME_ADDRESS = '192.0.2.77';
export const PAGE = 'Hello from a web server on the host.\n';
/** Any address of 127.0.0.0/8 can be bound, and this one leaves other resolvers on loopback alone. */
const RESOLVER_ADDRESS = '127.0.0.153';

/** Ports on 127.0.0.1 and, if there is IPv6, on ::1. */
export interface DemoHost {
  readonly hasIpv6: boolean;
  readonly pagePort: number;
  readonly sourcePort: number;
  readonly sinkPort: number;
  /** Address of the demo's own resolver; undefined: port 53 may not be bound here. */
  readonly resolver: string | undefined;
  /** Fulfilled with the number of bytes when the next client of the sink has sent everything. */
  nextUpload(): Promise<number>;
  close(): void;
}

/** @param sourceBytes - what the source sends to each client */
export async function startDemoHost(sourceBytes: number): Promise<DemoHost> {
  const servers: Server[] = [];
  const listenBoth = async (make: () => Server): Promise<{ port: number; hasIpv6: boolean }> => {
    const first = make();
    servers.push(first);
    first.listen(0, '127.0.0.1');
    await once(first, 'listening');
    const { port } = first.address() as AddressInfo;
    const second = make();
    try {
      second.listen(port, '::1');
      await once(second, 'listening');
      servers.push(second);
      return { port, hasIpv6: true };
    } catch {
      return { port, hasIpv6: false };
    }
  };
  const page = await listenBoth(() => createHttpServer((_request, response) => response.end(PAGE)));
  const source = await listenBoth(() => createServer((socket) => sendZeros(socket, sourceBytes)));
  let onUpload: (bytes: number) => void = () => {};
  const sink = await listenBoth(() => createServer((socket) => swallow(socket, (bytes) => onUpload(bytes))));
  const resolver = await startResolver();
  return {
    hasIpv6: page.hasIpv6 && source.hasIpv6 && sink.hasIpv6,
    pagePort: page.port,
    sourcePort: source.port,
    sinkPort: sink.port,
    resolver: resolver === undefined ? undefined : RESOLVER_ADDRESS,
    nextUpload: () =>
      new Promise((resolve) => {
        onUpload = resolve;
      }),
    close() {
      for (const server of servers) server.close();
      resolver?.close();
    },
  };
}

const ZEROS = Buffer.alloc(1 << 20);

function sendZeros(socket: Socket, bytes: number): void {
  let left = bytes;
  const fill = (): void => {
    while (left > 0) {
      const lengthBytes = Math.min(left, ZEROS.length);
      left -= lengthBytes;
      if (!socket.write(ZEROS.subarray(0, lengthBytes))) return;
    }
    socket.end();
  };
  socket.on('drain', fill);
  socket.on('error', () => {});
  fill();
}

/** Reads to the end; `net` then ends our direction, which tells the guest that everything has arrived. */
function swallow(socket: Socket, onEnd: (bytes: number) => void): void {
  let total = 0;
  socket.on('error', () => {});
  socket.on('data', (chunk) => {
    total += chunk.length;
  });
  socket.on('end', () => onEnd(total));
}

async function startResolver(): Promise<UdpSocket | undefined> {
  const socket = createSocket('udp4');
  socket.on('message', (query, peer) => {
    try {
      socket.send(buildAnswer(query, parseIpv4(DEMO_NAME_ADDRESS)!), peer.port, peer.address);
    } catch {
      // Not a query: nothing to answer.
    }
  });
  try {
    socket.bind(53, RESOLVER_ADDRESS);
    await once(socket, 'listening');
    return socket;
  } catch {
    socket.close();
    return undefined;
  }
}
