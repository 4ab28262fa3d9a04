/** The guest that works everywhere: a small network host in this process, which speaks frames to the stack. */
import { parseIp } from '../../base/ip-text.ts';
import { type Advertisement, type DemoGuest, type Lease, withTimeout } from './demo-guest.ts';
import { buildQuery, describeResponse } from './dns-message.ts';
import { discoverRouter, leaseAddress } from './frame-guest/configure.ts';
import { FrameHost } from './frame-guest/frame-host.ts';
import { openFramePort } from './frame-guest/frame-port.ts';
import { type FrameConnection, FrameTcp } from './frame-guest/tcp.ts';

const TIMEOUT_MS = 10_000;
const TRANSFER_TIMEOUT_MS = 30_000;
const DNS_PORT = 53;
const DNS_SOURCE_PORT = 50053;
const UPLOAD_CHUNK = new Uint8Array(1 << 20);

/** @param fd - our end of the stream socket to the stack; owned by the guest */
export function createBuiltInGuest(fd: number): DemoGuest {
  const port = openFramePort(fd);
  const host = new FrameHost(port);
  const tcp = new FrameTcp(host);
  port.onBatchEnd = () => tcp.sendDueAcks();

  return {
    kind: 'built-in',
    title: 'a small network host inside this program, which speaks Ethernet frames to the stack',
    improvement: undefined,
    getLease: (): Promise<Lease> => leaseAddress(host),
    getAdvertisement: (): Promise<Advertisement> => discoverRouter(host),
    resolveName(name, resolver) {
      const answer = new Promise<string>((resolve) => {
        host.udpHandlers.set(DNS_SOURCE_PORT, (_source, _sourcePort, view, at, end) => {
          resolve(describeResponse(Buffer.from(view.buffer, view.byteOffset + at, end - at)));
        });
      });
      host.sendDatagram(parseIp(resolver)!, DNS_SOURCE_PORT, DNS_PORT, buildQuery(0x7061, name));
      return withTimeout('DNS', TIMEOUT_MS, answer);
    },
    async fetchPage(address, remotePort) {
      const chunks: Buffer[] = [];
      const { connection, ended } = open(tcp, address, remotePort, (bytes) => chunks.push(Buffer.from(bytes)));
      await withTimeout('connection', TIMEOUT_MS, connection.opened);
      connection.write(Buffer.from(`GET / HTTP/1.0\r\nHost: demo\r\n\r\n`));
      await withTimeout('HTTP', TIMEOUT_MS, ended);
      connection.end();
      const text = Buffer.concat(chunks).toString();
      return text.slice(text.indexOf('\r\n\r\n') + 4);
    },
    async answerOnce(localPort, text) {
      tcp.listen(localPort, (connection) => {
        connection.write(Buffer.from(text));
        connection.end();
        return {};
      });
    },
    async download(address, remotePort) {
      let total = 0;
      const { connection, ended } = open(tcp, address, remotePort, (bytes) => {
        total += bytes.length;
      });
      await withTimeout('connection', TIMEOUT_MS, connection.opened);
      await withTimeout('download', TRANSFER_TIMEOUT_MS, ended);
      connection.end();
      return total;
    },
    async upload(address, remotePort, bytes) {
      const { connection, ended } = open(tcp, address, remotePort, () => {});
      await withTimeout('connection', TIMEOUT_MS, connection.opened);
      for (let left = bytes; left > 0; left -= UPLOAD_CHUNK.length) {
        connection.write(UPLOAD_CHUNK.subarray(0, Math.min(left, UPLOAD_CHUNK.length)));
      }
      connection.end();
      await withTimeout('upload', TRANSFER_TIMEOUT_MS, ended);
    },
    async stop() {
      port.close();
    },
  };
}

interface OpenConnection {
  readonly connection: FrameConnection;
  /** The other side has sent everything. */
  readonly ended: Promise<void>;
}

function open(
  tcp: FrameTcp,
  address: string,
  remotePort: number,
  onBytes: (bytes: Uint8Array) => void,
): OpenConnection {
  let connection: FrameConnection | undefined;
  const ended = new Promise<void>((resolve) => {
    connection = tcp.connect(parseIp(address)!, remotePort, {
      onData: (view, at, lengthBytes) => onBytes(new Uint8Array(view.buffer, view.byteOffset + at, lengthBytes)),
      onEnd: resolve,
    });
  });
  return { connection: connection!, ended };
}
