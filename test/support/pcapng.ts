/** Reads a pcapng file (draft-ietf-opsawg-pcapng) block by block, checking what can be checked. */

export interface PcapngFrame {
  readonly link: number;
  readonly timeNs: bigint;
  readonly lengthBytes: number;
  readonly direction: 'inbound' | 'outbound' | undefined;
  readonly data: Buffer;
}

export interface PcapngFile {
  readonly section: Record<'hardware' | 'os' | 'application' | 'comment', string | undefined>;
  readonly interfaces: { name: string | undefined; linkType: number; resolution: number; snapBytes: number }[];
  readonly frames: PcapngFrame[];
  readonly statistics: { link: number; received: bigint | undefined; comment: string | undefined }[];
}

type Options = ReadonlyMap<number, Buffer>;

/** @throws Error for what is not well-formed; a last block that is not whole yet is left out */
export function readPcapng(file: Buffer): PcapngFile {
  const result: PcapngFile = {
    section: { hardware: undefined, os: undefined, application: undefined, comment: undefined },
    interfaces: [],
    frames: [],
    statistics: [],
  };
  for (let at = 0; at + 12 <= file.length; ) {
    const type = file.readUInt32LE(at);
    const length = file.readUInt32LE(at + 4);
    if (length % 4 !== 0 || length < 12) throw new Error(`block of ${length} bytes at ${at}`);
    if (at + length > file.length) break;
    if (file.readUInt32LE(at + length - 4) !== length) throw new Error(`block at ${at} does not end as it begins`);
    readBlock(result, type, file.subarray(at + 8, at + length - 4));
    at += length;
  }
  return result;
}

function readBlock(result: PcapngFile, type: number, body: Buffer): void {
  const text = (options: Options, code: number): string | undefined => options.get(code)?.toString('utf8');
  if (type === 0x0a0d0d0a) {
    if (body.readUInt32LE(0) !== 0x1a2b3c4d) throw new Error('not in our byte order');
    const options = readOptions(body, 16);
    const [comment, hardware, os, application] = [1, 2, 3, 4].map((code) => text(options, code));
    Object.assign(result.section, { comment, hardware, os, application });
  } else if (type === 1) {
    const options = readOptions(body, 8);
    result.interfaces.push({
      name: text(options, 2),
      linkType: body.readUInt16LE(0),
      resolution: options.get(9)?.[0] ?? 6,
      snapBytes: body.readUInt32LE(4),
    });
  } else if (type === 6) {
    const captured = body.readUInt32LE(12);
    const options = readOptions(body, 20 + ((captured + 3) & ~3));
    const flags = options.get(2)?.readUInt32LE(0) ?? 0;
    result.frames.push({
      link: body.readUInt32LE(0),
      timeNs: (BigInt(body.readUInt32LE(4)) << 32n) | BigInt(body.readUInt32LE(8)),
      lengthBytes: body.readUInt32LE(16),
      direction: ([undefined, 'inbound', 'outbound'] as const)[flags & 3],
      data: body.subarray(20, 20 + captured),
    });
  } else if (type === 5) {
    const options = readOptions(body, 12);
    result.statistics.push({
      link: body.readUInt32LE(0),
      received: options.get(4)?.readBigUInt64LE(0),
      comment: text(options, 1),
    });
  } else throw new Error(`block of type ${type}`);
}

function readOptions(body: Buffer, start: number): Options {
  const options = new Map<number, Buffer>();
  for (let at = start; at < body.length; ) {
    const code = body.readUInt16LE(at);
    const length = body.readUInt16LE(at + 2);
    if (code === 0) {
      if (at + 4 !== body.length) throw new Error('something behind the last option');
      return options;
    }
    options.set(code, body.subarray(at + 4, at + 4 + length));
    at += 4 + ((length + 3) & ~3);
  }
  throw new Error('options have no end');
}
