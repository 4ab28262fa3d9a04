/** Ethernet frames over a stream socket, as QEMU's stream netdev has them: a 32-bit length in front of each. */
import { Socket } from 'node:net';
import { FRAME_PREFIX_BYTES } from '../../../wire/frame-length.ts';

/** A frame: [offset, end) of `view`, valid during the call. */
export type FrameHandler = (view: DataView, offset: number, end: number) => void;

export interface FramePort {
  onFrame: FrameHandler;
  /** Called after all frames of one read. */
  onBatchEnd: () => void;
  /** Sends `lengthBytes` from `offset` of `bytes`; they are copied. Frames of one turn leave together. */
  send(bytes: Uint8Array, offset: number, lengthBytes: number): void;
  close(): void;
}

/** @param fd - a connected stream socket, owned by the port from here on */
export function openFramePort(fd: number): FramePort {
  const socket = new Socket({ fd });
  let pending: Buffer = Buffer.alloc(0);
  let corked = false;
  const port: FramePort = {
    onFrame: () => {},
    onBatchEnd: () => {},
    send(bytes, offset, lengthBytes) {
      if (!corked) {
        corked = true;
        socket.cork();
        process.nextTick(() => {
          corked = false;
          socket.uncork();
        });
      }
      const message = Buffer.allocUnsafe(FRAME_PREFIX_BYTES + lengthBytes);
      message.writeUInt32BE(lengthBytes);
      message.set(bytes.subarray(offset, offset + lengthBytes), FRAME_PREFIX_BYTES);
      socket.write(message);
    },
    close: () => socket.destroy(),
  };
  // The stack going away shows in what waits for it.
  socket.on('error', () => {});
  socket.on('data', (chunk: Buffer) => {
    const bytes = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    let at = 0;
    while (at + FRAME_PREFIX_BYTES <= bytes.length) {
      const end = at + FRAME_PREFIX_BYTES + view.getUint32(at);
      if (end > bytes.length) break;
      port.onFrame(view, at + FRAME_PREFIX_BYTES, end);
      at = end;
    }
    pending = bytes.subarray(at);
    port.onBatchEnd();
  });
  return port;
}
