/**
 * What a kernel does with a frame that leaves work to it, the slow way and by code of its own: cuts it into segments, each with
 * whole checksums. Whatever is wrong in the frame or its virtio-net header is an error, so a test that takes frames through this
 * has checked both.
 */

const NEEDS_CHECKSUM = 1;
const TCP4 = 1;
const TCP6 = 4;
const UDP = 5;
const PROTOCOL_UDP = 17;

function onesSum(bytes: Uint8Array, from: number, to: number, initial: number): number {
  let sum = initial;
  for (let i = from; i < to; i++) sum += ((i - from) & 1) === 0 ? bytes[i]! << 8 : bytes[i]!;
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 65536);
  return sum;
}

/**
 * @param header - 12 bytes
 * @returns plain frames, padded to 60 bytes
 * @throws when the header does not fit the frame, or asks for less or more than there is to do
 */
export function cutFrame(header: Uint8Array, frame: Uint8Array): Uint8Array[] {
  const vnet = new DataView(header.buffer, header.byteOffset, 12);
  const [flags, kind] = [vnet.getUint8(0), vnet.getUint8(1)];
  const [headers, size, start, offset] = [2, 4, 6, 8].map((at) => vnet.getUint16(at, true)) as [
    number,
    number,
    number,
    number,
  ];
  if (vnet.getUint16(10, true) !== 0) throw new Error('more than one buffer');
  if ((flags & NEEDS_CHECKSUM) === 0) {
    if (header.some((byte) => byte !== 0)) throw new Error(`a header without work to do: ${header}`);
    if (frame.length < 60) throw new Error(`a plain frame of ${frame.length} bytes`);
    return [frame];
  }
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  const isIpv4 = view.getUint16(12) === 0x0800;
  const ipBytes = isIpv4 ? 20 : 40;
  const l4 = 14 + ipBytes;
  const protocol = view.getUint8(isIpv4 ? 23 : 20);
  const isUdp = protocol === PROTOCOL_UDP;
  const checksumAt = isUdp ? 6 : 16;
  const l4Header = isUdp ? 8 : (view.getUint8(l4 + 12) >> 4) * 4;
  if (start !== l4 || offset !== checksumAt) throw new Error(`the checksum is not at ${start} + ${offset}`);
  if (headers !== l4 + l4Header) throw new Error(`the headers are not ${headers} bytes`);
  const end = isIpv4 ? 14 + view.getUint16(16) : 54 + view.getUint16(18);
  if (end !== frame.length) throw new Error(`a packet that ends at ${end} in a frame of ${frame.length}`);
  const addresses = isIpv4 ? onesSum(frame, 26, 34, 0) : onesSum(frame, 22, 54, 0);
  const partial = onesSum(frame, 0, 0, addresses + protocol + (end - l4));
  if (view.getUint16(l4 + checksumAt) !== partial) throw new Error('the checksum is not the sum of the pseudo-header');
  const payload = end - headers;
  const expected = isUdp ? UDP : isIpv4 ? TCP4 : TCP6;
  if (isUdp && view.getUint16(l4 + 4) !== end - l4) throw new Error('the UDP length is not that of all');
  if (kind === 0 ? size !== 0 : kind !== expected || size === 0 || payload <= size) {
    throw new Error(`kind ${kind} with segments of ${size} for ${payload} bytes`);
  }
  const step = kind === 0 ? payload : size;
  const cut: Uint8Array[] = [];
  for (let at = 0; at < payload; at += step) {
    const length = Math.min(step, payload - at);
    const bytes = new Uint8Array(Math.max(60, headers + length));
    bytes.set(frame.subarray(0, headers));
    bytes.set(frame.subarray(headers + at, headers + at + length), headers);
    const out = new DataView(bytes.buffer);
    const l4Bytes = l4Header + length;
    if (isIpv4) {
      out.setUint16(16, 20 + l4Bytes);
      out.setUint16(24, 0);
      out.setUint16(24, ~onesSum(bytes, 14, 34, 0) & 0xffff);
    } else {
      out.setUint16(18, l4Bytes);
    }
    if (isUdp) {
      out.setUint16(l4 + 4, l4Bytes);
    } else {
      out.setUint32(l4 + 4, (view.getUint32(l4 + 4) + at) >>> 0);
      // PSH belongs to the last one.
      if (at + length < payload) out.setUint8(l4 + 13, view.getUint8(l4 + 13) & ~8);
    }
    out.setUint16(l4 + checksumAt, 0);
    out.setUint16(l4 + checksumAt, ~onesSum(bytes, l4, headers + length, addresses + protocol + l4Bytes) & 0xffff);
    cut.push(bytes);
  }
  return cut;
}
