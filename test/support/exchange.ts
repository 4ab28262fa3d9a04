/** Short exchanges between an echo server and a client, in any two namespaces, with every byte compared. */
import type { Namespace } from './netns/namespace.ts';
import { runPeer, startListener, type TcpResult, type UdpListenResult, type UdpSendResult } from './peer.ts';

type Place = Pick<Namespace, 'spawn'>;

/** Where a client goes from, and where it goes. */
export interface ClientSide {
  in: Place;
  addr: string;
  port: number;
  /** `ADDRESS` or `ADDRESS,PORT` to come from. */
  bind?: string;
}

/** Where the server is; every address of both families when `addr` is absent. */
export interface ServerSide {
  in: Place;
  addr?: string;
  port: number;
}

function options({ addr, port, bind }: Omit<ClientSide, 'in'>): { addr: string; port: number; bind?: string } {
  return { addr, port, ...(bind === undefined ? {} : { bind }) };
}

function listening({ addr, port }: ServerSide): { port: number; echo: true; addr?: string } {
  return { port, echo: true, ...(addr === undefined ? {} : { addr }) };
}

/** Sends `bytes` to an echo server and has them back; resolves with what the client saw. */
export async function exchangeTcp(server: ServerSide, client: ClientSide, bytes = 20_000): Promise<TcpResult> {
  const echo = await startListener(server.in, 'listen', listening(server));
  try {
    return await runPeer(client.in, 'connect', {
      ...options(client),
      send: bytes,
      'finish-after-recv': bytes,
      timeout: 10,
    });
  } finally {
    await echo.stop();
  }
}

/** Transfers `up` bytes to a server and `down` bytes from it, in one connection; resolves with what both saw. */
export async function transferTcp(
  server: ServerSide,
  client: ClientSide,
  { up, down, timeout = 30 }: { up: number; down: number; timeout?: number },
): Promise<{ client: TcpResult; server: TcpResult }> {
  const { in: serverIn, ...at } = server;
  const { in: clientIn, ...to } = client;
  const serverOptions = { ...at, send: down, 'finish-after-recv': up, accept: 1, timeout };
  const listener = await startListener(serverIn, 'listen', serverOptions);
  try {
    const seen = await runPeer(clientIn, 'connect', { ...to, send: up, 'finish-after-recv': down, timeout });
    return { client: seen, server: await listener.result(5_000) };
  } finally {
    await listener.process.stop();
  }
}

/** Sends datagrams of `sizes` to an echo server; resolves with what client and server saw. */
export async function exchangeUdp(
  server: ServerSide,
  client: ClientSide,
  sizes: readonly number[] = [1, 1000, 5120],
  waitMs = 3_000,
): Promise<{ client: UdpSendResult; server: UdpListenResult }> {
  const echo = await startListener(server.in, 'udp-listen', listening(server));
  let sent: UdpSendResult;
  try {
    // The socket is connected: an answer from any other address than the one asked would not be taken.
    sent = await runPeer(client.in, 'udp-send', {
      ...options(client),
      sizes: sizes.join(','),
      'expect-echo': true,
      'wait-ms': waitMs,
    });
  } catch (error) {
    await echo.stop();
    throw error;
  }
  return { client: sent, server: await echo.stop() };
}

/** What {@link exchangeTcp} gives when all went well. */
export function goodTcp(bytes = 20_000): object {
  return { clean: 1, received: bytes, mismatches: 0, errors: {} };
}

/** What the client of {@link exchangeUdp} saw when all went well. */
export function goodUdp(datagrams = 3): object {
  return { echoed: datagrams, bad: 0, missing: [], errors: {} };
}

/** What a client sees where nobody is, on a host that says so. */
export const REFUSED_TCP = { received: 0, errors: { ECONNREFUSED: 1 } };
export const REFUSED_UDP = { echoed: 0, errors: { ECONNREFUSED: 1 } };
