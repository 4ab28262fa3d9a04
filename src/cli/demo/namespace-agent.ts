/**
 * The inside of the namespace guest: runs in a network namespace of its own, where it makes a tap device, leases an address
 * for it, pumps frames between the device and the stack, and does with the kernel's TCP what the demo asks for.
 * Requests and answers are JSON lines on a socket; the other end is namespace-guest.ts.
 */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { readFileSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { get } from 'node:http';
import { connect, createServer, Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { formatIp, parseIpv4 } from '../../base/ip-text.ts';
import { loadNative, type NativeAddon } from '../../sys/native.ts';
import { parseIpv6Addresses } from '../../sys/proc-addresses.ts';
import { openTap } from '../../sys/tap.ts';
import type { Advertisement, Lease } from './demo-guest.ts';
import { buildQuery, describeResponse } from './dns-message.ts';
import { leaseAddress } from './frame-guest/configure.ts';
import { FrameHost } from './frame-guest/frame-host.ts';
import { type FramePort, openFramePort } from './frame-guest/frame-port.ts';

/** Descriptors that namespace-guest.ts hands over. */
export const AGENT_FRAME_FD = 3;
export const AGENT_CONTROL_FD = 4;

const DEVICE = 'eth0';
const MAC = Uint8Array.of(0x52, 0x54, 0x00, 0x70, 0x61, 0x73);
const IFF_UP = 1;
const FRAME_MAX_BYTES = 1 << 17;
const DEFAULT_MTU = 1500;
const ADDRESS_WAIT_MS = 10_000;
const UPLOAD_CHUNK = Buffer.alloc(1 << 20);

/** What the agent can be asked; answers are JSON values. */
export interface AgentMethods {
  getLease(): Promise<Lease>;
  getAdvertisement(): Promise<Advertisement>;
  resolveName(name: string, resolver: string): Promise<string>;
  fetchPage(address: string, port: number): Promise<string>;
  answerOnce(port: number, text: string): Promise<void>;
  download(address: string, port: number): Promise<number>;
  upload(address: string, port: number, bytes: number): Promise<void>;
}

/** Serves requests until the control socket closes. @returns exit status */
export async function runNamespaceAgent(): Promise<number> {
  const methods = createMethods(loadNative());
  const control = new Socket({ fd: AGENT_CONTROL_FD });
  const lines = createInterface({ input: control });
  lines.on('line', async (line) => {
    const { id, method, args } = JSON.parse(line) as { id: number; method: keyof AgentMethods; args: unknown[] };
    try {
      const result = await (methods[method] as (...a: unknown[]) => Promise<unknown>)(...args);
      control.write(`${JSON.stringify({ id, result })}\n`);
    } catch (error) {
      control.write(`${JSON.stringify({ id, error: (error as Error).message })}\n`);
    }
  });
  await once(lines, 'close');
  return 0;
}

function createMethods(native: NativeAddon): AgentMethods {
  const port = openFramePort(AGENT_FRAME_FD);
  const tap = openTap(native, { name: DEVICE });
  native.netifSetHardwareAddress(DEVICE, MAC);
  native.netifSetFlags('lo', IFF_UP, 0);
  // Nobody else is on this link: waiting to find out would cost a second and more.
  setSysctl('accept_dad', '0');
  setSysctl('router_solicitation_delay', '0');

  return {
    async getLease() {
      const host = new FrameHost(port);
      const lease = await leaseAddress(host);
      native.netifSetMtu(DEVICE, lease.mtu || DEFAULT_MTU);
      native.netifSetAddress(DEVICE, parseIpv4(lease.address)!, lease.prefixLength);
      native.netifSetFlags(DEVICE, IFF_UP, 0);
      const router = parseIpv4(lease.router)!;
      native.netifAddRoute(DEVICE, router, 32, 0);
      native.netifAddRoute(DEVICE, 0, 0, router);
      pumpFrames(native, port, tap.fd);
      return lease;
    },
    async getAdvertisement() {
      // The kernel solicits by itself when the device comes up.
      for (const startMs = performance.now(); performance.now() - startMs < ADDRESS_WAIT_MS; ) {
        const all = parseIpv6Addresses(readFileSync('/proc/net/if_inet6', 'latin1'));
        const global = all.find((each) => each.interfaceName === DEVICE && !each.isLinkLocal);
        if (global !== undefined) {
          const prefix = Uint32Array.of(global.address[0]!, global.address[1]!, 0, 0);
          return { prefix: `${formatIp(prefix)}/${global.prefixLength}`, address: formatIp(global.address) };
        }
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      throw new Error('no address from a router advertisement');
    },
    async resolveName(name, resolver) {
      const socket = createSocket('udp4');
      socket.send(buildQuery(0x7061, name), 53, resolver);
      const timer = setTimeout(() => socket.emit('error', new Error('no answer within 10 s')), ADDRESS_WAIT_MS);
      try {
        const [response] = (await once(socket, 'message')) as [Buffer];
        return describeResponse(response);
      } finally {
        clearTimeout(timer);
        socket.close();
      }
    },
    async fetchPage(host, remotePort) {
      const [response] = (await once(get({ host, port: remotePort, timeout: 10_000 }), 'response')) as [
        import('node:http').IncomingMessage,
      ];
      let body = '';
      for await (const chunk of response) body += String(chunk);
      return body;
    },
    async answerOnce(localPort, text) {
      const server = createServer((socket) => {
        socket.on('error', () => {});
        socket.end(text);
        server.close();
      });
      server.listen(localPort);
      await once(server, 'listening');
    },
    async download(host, remotePort) {
      let total = 0;
      const socket = connect(remotePort, host);
      socket.on('data', (chunk) => {
        total += chunk.length;
      });
      await once(socket, 'end');
      return total;
    },
    async upload(host, remotePort, bytes) {
      const socket = connect(remotePort, host);
      await once(socket, 'connect');
      socket.resume();
      for (let left = bytes; left > 0; left -= UPLOAD_CHUNK.length) {
        if (!socket.write(UPLOAD_CHUNK.subarray(0, Math.min(left, UPLOAD_CHUNK.length)))) await once(socket, 'drain');
      }
      socket.end();
      await once(socket, 'end');
    },
  };
}

/** Moves frames both ways from here on. */
function pumpFrames(native: NativeAddon, port: FramePort, tapFd: number): void {
  port.onFrame = (view, offset, end) => {
    try {
      writeSync(tapFd, new Uint8Array(view.buffer, view.byteOffset + offset, end - offset));
    } catch {
      // A frame that the kernel does not take is lost, as on any wire.
    }
  };
  const frame = new Uint8Array(FRAME_MAX_BYTES);
  native.startPoll(tapFd, () => {
    for (;;) {
      let lengthBytes: number;
      try {
        lengthBytes = readSync(tapFd, frame);
      } catch {
        // EAGAIN: that was all for now.
        return;
      }
      port.send(frame, 0, lengthBytes);
    }
  });
}

function setSysctl(name: string, text: string): void {
  try {
    writeFileSync(`/proc/sys/net/ipv6/conf/${DEVICE}/${name}`, text);
  } catch {
    // Without it the demo takes a second longer.
  }
}
