/**
 * The protocol between QEMU's `pr-manager-helper` object and a helper: QEMU's docs/interop/pr-helper.rst.
 *
 * A stream socket; all numbers are big-endian. The helper speaks first: 4 bytes, the features that it has, of which none is defined. The
 * client answers with the 4 bytes of those that it wants. Then requests and answers take turns. A request is a CDB, padded with
 * zeros to 16 bytes, with exactly one descriptor in SCM_RIGHTS on any of them: the device. For PERSISTENT RESERVE OUT as many
 * bytes of parameters follow as bytes 7 and 8 say. An answer is a header of 104 bytes (status, length of the payload, sense) and the
 * payload, which only PERSISTENT RESERVE IN with status GOOD has. QEMU ends with its guest when the length is not what it may be.
 *
 * What breaks these rules ends the connection: there is no way to say what is wrong, and nothing behind it could be told apart.
 */
import { PERSISTENT_RESERVE_IN, PERSISTENT_RESERVE_OUT } from './persistent-reserve.ts';
import { SENSE_BYTES } from './sense.ts';

/** Features in either direction. */
export const FEATURE_BYTES = 4;
/** A CDB with its padding. */
export const REQUEST_BYTES = 16;
/** The most that may go in either direction with a command. */
export const TRANSFER_MAX_BYTES = 8192;
export const RESPONSE_STATUS = 0;
export const RESPONSE_SIZE = 4;
export const RESPONSE_SENSE = 8;
/** Header of an answer, and so where its payload begins. */
export const RESPONSE_HEADER_BYTES = RESPONSE_SENSE + SENSE_BYTES;
export const RESPONSE_MAX_BYTES = RESPONSE_HEADER_BYTES + TRANSFER_MAX_BYTES;

/** What is wrong with a request. */
export type RequestFault = 'opcode' | 'length';

/** Bytes 7 and 8: how much the client will send, or take. The upper half of an OUT command's length is for the device to refuse. */
export function getTransferLength(request: Uint8Array): number {
  return (request[7]! << 8) | request[8]!;
}

export function isReserveOut(request: Uint8Array): boolean {
  return request[0] === PERSISTENT_RESERVE_OUT;
}

/** @param request - {@link REQUEST_BYTES} bytes. @returns undefined when it may be carried out */
export function checkRequest(request: Uint8Array): RequestFault | undefined {
  const [opcode] = request;
  if (opcode !== PERSISTENT_RESERVE_IN && opcode !== PERSISTENT_RESERVE_OUT) return 'opcode';
  return getTransferLength(request) > TRANSFER_MAX_BYTES ? 'length' : undefined;
}

/** Writes status and size into a header; sense is the caller's. */
export function writeResponseHead(out: Uint8Array, status: number, sizeBytes: number): void {
  const view = new DataView(out.buffer, out.byteOffset, out.byteLength);
  view.setUint32(RESPONSE_STATUS, status);
  view.setUint32(RESPONSE_SIZE, sizeBytes);
}

/** An answer, taken apart. */
export interface ResponseHead {
  readonly status: number;
  readonly sizeBytes: number;
}

/** @returns undefined for fewer than {@link RESPONSE_HEADER_BYTES} bytes */
export function parseResponseHead(bytes: Uint8Array): ResponseHead | undefined {
  if (bytes.length < RESPONSE_HEADER_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return { status: view.getUint32(RESPONSE_STATUS), sizeBytes: view.getUint32(RESPONSE_SIZE) };
}
