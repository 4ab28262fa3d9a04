/**
 * The two formats of capture files: the classic one (draft-ietf-opsawg-pcap) with microseconds, which has one link and does not know directions,
 * and pcapng (draft-ietf-opsawg-pcapng), which names links, says which way a frame went, has nanoseconds, and says when and why it ended.
 *
 * Both are written in our byte order, little-endian; the first word of each tells the reader.
 */

/** What writes records of one format. All offsets are into `view`; times are whole seconds and nanoseconds since 1970. */
export interface CaptureFormat {
  /** Bytes around the data of a record, padding included, at most. */
  readonly recordOverhead: number;
  /** What is in front of all records. */
  header(interfaces: readonly string[], snapBytes: number, comment: string): Uint8Array;
  /**
   * Writes what stands in front of the data.
   * @param capturedBytes - of `lengthBytes`, what follows
   * @returns where the data goes
   */
  begin(
    view: DataView,
    at: number,
    link: number,
    seconds: number,
    nanoseconds: number,
    capturedBytes: number,
    lengthBytes: number,
  ): number;
  /** Writes what stands behind the data, which ends at `at`. @returns the end */
  end(view: DataView, at: number, capturedBytes: number, isToGuest: boolean): number;
  /** What is behind all records. @param counts - frames by link */
  trailer(counts: readonly number[], seconds: number, nanoseconds: number, comment: string): Uint8Array;
}

/** No frame is longer. */
export const SNAP_MAX_BYTES = 262_144;
const LINKTYPE_ETHERNET = 1;

// ---------------------------------------------------------------------------------------------------------------- classic

const PCAP_MAGIC = 0xa1b2c3d4;

export const PCAP_FORMAT: CaptureFormat = {
  recordOverhead: 16,
  header(_interfaces, snapBytes) {
    const view = new DataView(new ArrayBuffer(24));
    view.setUint32(0, PCAP_MAGIC, true);
    view.setUint16(4, 2, true);
    view.setUint16(6, 4, true);
    view.setUint32(16, snapBytes, true);
    view.setUint32(20, LINKTYPE_ETHERNET, true);
    return new Uint8Array(view.buffer);
  },
  begin(view, at, _link, seconds, nanoseconds, capturedBytes, lengthBytes) {
    view.setUint32(at, seconds, true);
    view.setUint32(at + 4, Math.trunc(nanoseconds / 1000), true);
    view.setUint32(at + 8, capturedBytes, true);
    view.setUint32(at + 12, lengthBytes, true);
    return at + 16;
  },
  end: (_view, at) => at,
  trailer: () => new Uint8Array(0),
};

// ---------------------------------------------------------------------------------------------------------------- pcapng

const SECTION_HEADER_BLOCK = 0x0a0d0d0a;
const INTERFACE_BLOCK = 1;
const STATISTICS_BLOCK = 5;
const PACKET_BLOCK = 6;
const BYTE_ORDER_MAGIC = 0x1a2b3c4d;

const OPTION_COMMENT = 1;
/** Of a section. */
const OPTION_HARDWARE = 2;
const OPTION_OS = 3;
const OPTION_APPLICATION = 4;
/** Of an interface. */
const OPTION_NAME = 2;
const OPTION_TIME_RESOLUTION = 9;
/** Of a frame. */
const OPTION_FLAGS = 2;
/** Of statistics. */
const OPTION_END_TIME = 3;
const OPTION_RECEIVED = 4;

/** Negative power of ten: nanoseconds. */
const TIME_RESOLUTION = 9;
/** Bits 0 and 1 of a frame's flags. */
const INBOUND = 1;
const OUTBOUND = 2;

const PACKET_HEADER_BYTES = 28;
/** Option of flags, end of options, length of the block. */
const PACKET_TRAILER_BYTES = 8 + 4 + 4;

const TWO_TO_32 = 0x1_0000_0000;

/** Who writes, in the header of a pcapng file. */
export interface CaptureAuthor {
  readonly hardware: string;
  readonly os: string;
  readonly application: string;
}

export function createPcapngFormat(author: CaptureAuthor): CaptureFormat {
  return {
    // Data is padded to words.
    recordOverhead: PACKET_HEADER_BYTES + 3 + PACKET_TRAILER_BYTES,
    header(interfaces, snapBytes, comment) {
      const section = new Uint8Array(16);
      const view = new DataView(section.buffer);
      view.setUint32(0, BYTE_ORDER_MAGIC, true);
      view.setUint16(4, 1, true);
      // Length of the section: not known.
      view.setBigInt64(8, -1n, true);
      const sectionBlock = block(SECTION_HEADER_BLOCK, section, [
        [OPTION_HARDWARE, text(author.hardware)],
        [OPTION_OS, text(author.os)],
        [OPTION_APPLICATION, text(author.application)],
        [OPTION_COMMENT, text(comment)],
      ]);
      const blocks = interfaces.map((name) => {
        const body = new DataView(new ArrayBuffer(8));
        body.setUint16(0, LINKTYPE_ETHERNET, true);
        body.setUint32(4, snapBytes, true);
        return block(INTERFACE_BLOCK, new Uint8Array(body.buffer), [
          [OPTION_NAME, text(name)],
          [OPTION_TIME_RESOLUTION, Uint8Array.of(TIME_RESOLUTION)],
        ]);
      });
      return Buffer.concat([sectionBlock, ...blocks]);
    },
    begin(view, at, link, seconds, nanoseconds, capturedBytes, lengthBytes) {
      view.setUint32(at, PACKET_BLOCK, true);
      view.setUint32(at + 4, packetBlockBytes(capturedBytes), true);
      view.setUint32(at + 8, link, true);
      writeTime(view, at + 12, seconds, nanoseconds);
      view.setUint32(at + 20, capturedBytes, true);
      view.setUint32(at + 24, lengthBytes, true);
      return at + PACKET_HEADER_BYTES;
    },
    end(view, at, capturedBytes, isToGuest) {
      let to = at;
      for (const end = at + (-capturedBytes & 3); to < end; to++) view.setUint8(to, 0);
      view.setUint16(to, OPTION_FLAGS, true);
      view.setUint16(to + 2, 4, true);
      view.setUint32(to + 4, isToGuest ? OUTBOUND : INBOUND, true);
      view.setUint32(to + 8, 0, true);
      view.setUint32(to + 12, packetBlockBytes(capturedBytes), true);
      return to + PACKET_TRAILER_BYTES;
    },
    trailer(counts, seconds, nanoseconds, comment) {
      const blocks = counts.map((count, number) => {
        const body = new DataView(new ArrayBuffer(12));
        body.setUint32(0, number, true);
        writeTime(body, 4, seconds, nanoseconds);
        const time = new DataView(new ArrayBuffer(8));
        writeTime(time, 0, seconds, nanoseconds);
        const received = new DataView(new ArrayBuffer(8));
        received.setBigUint64(0, BigInt(count), true);
        return block(STATISTICS_BLOCK, new Uint8Array(body.buffer), [
          [OPTION_END_TIME, new Uint8Array(time.buffer)],
          [OPTION_RECEIVED, new Uint8Array(received.buffer)],
          [OPTION_COMMENT, text(comment)],
        ]);
      });
      return Buffer.concat(blocks);
    },
  };
}

function packetBlockBytes(capturedBytes: number): number {
  return PACKET_HEADER_BYTES + ((capturedBytes + 3) & ~3) + PACKET_TRAILER_BYTES;
}

/** Nanoseconds since 1970 as 64 bits, the upper half first: more than a number holds exactly. */
function writeTime(view: DataView, at: number, seconds: number, nanoseconds: number): void {
  const high = Math.floor(seconds / 65536) * 1e9;
  const low = (high % 65536) * 65536 + (seconds % 65536) * 1e9 + nanoseconds;
  view.setUint32(at, Math.floor(high / 65536) + Math.floor(low / TWO_TO_32), true);
  view.setUint32(at + 4, low % TWO_TO_32, true);
}

function text(value: string): Uint8Array {
  return Buffer.from(value, 'utf8');
}

/** A block with its options; those that are empty are left out. */
function block(type: number, body: Uint8Array, options: readonly (readonly [number, Uint8Array])[]): Uint8Array {
  const parts: Uint8Array[] = [body];
  const head = (code: number, lengthBytes: number): Uint8Array => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt16LE(code, 0);
    bytes.writeUInt16LE(lengthBytes, 2);
    return bytes;
  };
  for (const [code, value] of options) {
    if (value.length > 0) parts.push(head(code, value.length), value, Buffer.alloc(-value.length & 3));
  }
  parts.push(head(0, 0));
  const bytes = 12 + parts.reduce((sum, part) => sum + part.length, 0);
  const start = Buffer.alloc(8);
  start.writeUInt32LE(type, 0);
  start.writeUInt32LE(bytes, 4);
  const end = Buffer.alloc(4);
  end.writeUInt32LE(bytes, 0);
  return Buffer.concat([start, ...parts, end]);
}
