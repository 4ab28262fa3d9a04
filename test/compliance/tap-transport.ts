/**
 * The tap link over a pair of SEQPACKET sockets, for the compliance suite. They keep the boundaries of frames in read and write as a tap
 * does, need no rights, and can do what a tap never does: be full, and end. Real devices: test/unit/link/tap-device.test.ts.
 */
import type { Arena } from '../../src/base/arena.ts';
import { createArena } from '../../src/base/arena.ts';
import { createTapLink, type TapLinkOptions } from '../../src/link/tap.ts';
import { KIND_LINK, LINK_IDLE } from '../../src/stack/ports.ts';
import { createHostSockets } from '../../src/sys/host-sockets.ts';
import { loadNative } from '../../src/sys/native.ts';
import { createPoller } from '../../src/sys/poller.ts';
import { createSocketPair } from '../../src/sys/unix-socket.ts';
import { VNET_HEADER_BYTES } from '../../src/wire/vnet.ts';
import type { Peer, TransportUnderTest } from './guest-link.ts';
import type { Wrap } from './stream-transport.ts';

const SOCK_SEQPACKET = 5;
const ARENA_BYTES = 24 << 20;
const PEER_BYTES = 128 * 1024;

export function createTapTransport(
  options: Partial<TapLinkOptions> = {},
  wrap: Wrap = (link) => link,
): TransportUnderTest {
  const native = loadNative();
  const arena = createArena(ARENA_BYTES);
  const poller = createPoller(native, arena);
  const sockets = createHostSockets(native, arena, poller.fd);
  const peerRegion = arena.allocate(PEER_BYTES);
  const tap = createTapLink({ arena, sockets, native, ...options });
  const link = wrap(tap, arena);
  const open = new Set<number>();
  const frames = new Int32Array(512);
  let readable = false;
  poller.handlers[KIND_LINK] = (_index, events) => {
    if (tap.onHostEvent(events)) readable = true;
  };

  const transport: TransportUnderTest = {
    link,
    arena,
    gone: [],
    rooms: 0,
    connect() {
      const [ours, theirs] = createSocketPair(native, SOCK_SEQPACKET);
      open.add(theirs);
      const status = tap.attach(ours);
      if (status < 0) throw new Error(`attach: errno ${-status}`);
      return createPeer(arena, theirs);
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
    detach: () => tap.detach(),
    close() {
      tap.detach();
      for (const fd of open) native.close(fd);
      poller.close();
    },
  };
  tap.onGone = (reason) => transport.gone.push(reason);
  tap.onRoom = () => {
    transport.rooms++;
  };
  return transport;

  function createPeer({ bytes }: Arena, fd: number): Peer {
    const headerBytes = tap.hasVnetHeader ? VNET_HEADER_BYTES : 0;
    return {
      sendFrame(frame) {
        bytes.fill(0, peerRegion, peerRegion + headerBytes);
        bytes.set(frame, peerRegion + headerBytes);
        return sockets.send(fd, peerRegion, headerBytes + frame.length, 0) > 0;
      },
      receiveFrames(limitBytes = Number.POSITIVE_INFINITY) {
        const got: Uint8Array[] = [];
        for (let left = limitBytes; left > 0; ) {
          const length = sockets.receive(fd, peerRegion, PEER_BYTES, 0);
          if (length <= 0) break;
          const header = bytes.subarray(peerRegion, peerRegion + headerBytes);
          // The suite's frames leave nothing to do: another header is another frame's, or rubbish.
          if (header.some((byte) => byte !== 0)) throw new Error(`a frame with the header ${header}`);
          got.push(bytes.slice(peerRegion + headerBytes, peerRegion + length));
          left -= length;
        }
        return got;
      },
      isEnded: () => sockets.receive(fd, peerRegion, 1, 0) === 0,
      close() {
        if (open.delete(fd)) native.close(fd);
      },
    };
  }
}
