/** The stream link over a real socket pair, alone or inside wrappers, for the compliance suite. */
import type { Arena } from '../../src/base/arena.ts';
import { createArena } from '../../src/base/arena.ts';
import { createStreamLink } from '../../src/link/stream.ts';
import { type GuestLink, KIND_LINK, LINK_IDLE, SHUT_WRITE } from '../../src/stack/ports.ts';
import { createHostSockets } from '../../src/sys/host-sockets.ts';
import { loadNative } from '../../src/sys/native.ts';
import { createPoller } from '../../src/sys/poller.ts';
import { createSocketPair } from '../../src/sys/unix-socket.ts';
import type { Peer, TransportUnderTest } from './guest-link.ts';

const ARENA_BYTES = 16 << 20;
const PEER_BYTES = 256 * 1024;

/** What a stream's peer can do beyond frames. */
export interface StreamPeer extends Peer {
  /** Sends bytes as they are. @returns bytes taken */
  sendBytes(bytes: Uint8Array): number;
  /** Ends the peer's direction only. */
  shutDown(): void;
}

export interface StreamTransport extends TransportUnderTest {
  connect(): StreamPeer;
}

/** Puts the stream link into wrappers, outermost last. */
export type Wrap = (link: GuestLink, arena: Arena) => GuestLink;

export function createStreamTransport(wrap: Wrap = (link) => link): StreamTransport {
  const native = loadNative();
  const arena = createArena(ARENA_BYTES);
  const poller = createPoller(native, arena);
  const sockets = createHostSockets(native, arena, poller.fd);
  const peerRegion = arena.allocate(PEER_BYTES);
  const stream = createStreamLink({ arena, sockets });
  const link = wrap(stream, arena);
  const open = new Set<number>();
  const frames = new Int32Array(512);
  let readable = false;
  poller.handlers[KIND_LINK] = (_index, events) => {
    if (stream.onHostEvent(events)) readable = true;
  };

  const transport: StreamTransport = {
    link,
    arena,
    gone: [],
    rooms: 0,
    connect() {
      const [ours, theirs] = createSocketPair(native);
      open.add(theirs);
      const status = stream.attach(ours);
      if (status < 0) throw new Error(`attach: errno ${-status}`);
      return createPeer(theirs);
    },
    pump() {
      const got: Uint8Array[] = [];
      poller.drain();
      while (readable) {
        const count = link.receive(frames);
        if (count <= LINK_IDLE) {
          readable = false;
          break;
        }
        for (let i = 0; i < count; i++) {
          const at = frames[2 * i]!;
          got.push(arena.bytes.slice(at, at + frames[2 * i + 1]!));
        }
      }
      link.flush();
      return got;
    },
    detach: () => stream.detach(),
    close() {
      stream.detach();
      for (const fd of open) native.close(fd);
      poller.close();
    },
  };
  stream.onGone = (reason) => transport.gone.push(reason);
  stream.onRoom = () => {
    transport.rooms++;
  };
  return transport;

  function createPeer(fd: number): StreamPeer {
    let pending = Buffer.alloc(0);
    const peer: StreamPeer = {
      sendBytes(bytes) {
        const length = Math.min(bytes.length, PEER_BYTES);
        arena.bytes.set(bytes.subarray(0, length), peerRegion);
        return Math.max(0, sockets.send(fd, peerRegion, length, 0));
      },
      sendFrame(frame) {
        const whole = Buffer.concat([Buffer.alloc(4), frame]);
        whole.writeUInt32BE(frame.length, 0);
        for (let sent = 0; sent < whole.length; ) {
          const taken = peer.sendBytes(whole.subarray(sent));
          // A frame that has begun must be finished: the link is made to take some.
          if (taken === 0) return sent !== 0 ? fail('the peer is stuck inside a frame') : false;
          sent += taken;
        }
        return true;
      },
      receiveFrames(limitBytes = Number.POSITIVE_INFINITY) {
        const parts = [pending];
        for (let left = limitBytes; left > 0; ) {
          const got = sockets.receive(fd, peerRegion, Math.min(PEER_BYTES, left), 0);
          if (got <= 0) break;
          parts.push(Buffer.from(arena.bytes.subarray(peerRegion, peerRegion + got)));
          left -= got;
        }
        pending = Buffer.concat(parts);
        const got: Uint8Array[] = [];
        let at = 0;
        while (at + 4 <= pending.length && at + 4 + pending.readUInt32BE(at) <= pending.length) {
          const length = pending.readUInt32BE(at);
          got.push(Uint8Array.from(pending.subarray(at + 4, at + 4 + length)));
          at += 4 + length;
        }
        pending = pending.subarray(at);
        return got;
      },
      isEnded: () => sockets.receive(fd, peerRegion, 1, 0) === 0,
      shutDown: () => void sockets.shutdown(fd, SHUT_WRITE),
      close() {
        if (open.delete(fd)) native.close(fd);
      },
    };
    return peer;
  }
}

function fail(message: string): never {
  throw new Error(message);
}
