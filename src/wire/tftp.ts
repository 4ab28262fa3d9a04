/**
 * TFTP messages (RFC 1350) with the options of RFC 2347: a 16-bit operation, and behind it what that one has. Offsets are those of the UDP
 * payload. Texts are ASCII, each ended by a zero.
 *
 * Requests are parsed into an object: one comes per file.
 */
import { WIRE_BAD_LENGTH } from './status.ts';

export const TFTP_PORT = 69;

export const TFTP_READ = 1;
export const TFTP_WRITE = 2;
export const TFTP_DATA = 3;
export const TFTP_ACK = 4;
export const TFTP_ERROR = 5;
export const TFTP_OPTION_ACK = 6;

/** Error codes (RFC 1350, 5; RFC 2347). */
export const TFTP_ERROR_OTHER = 0;
export const TFTP_ERROR_NOT_FOUND = 1;
export const TFTP_ERROR_ACCESS = 2;
export const TFTP_ERROR_OPERATION = 4;
export const TFTP_ERROR_UNKNOWN_TRANSFER = 5;

export const TFTP_DATA_HEADER_BYTES = 4;
export const TFTP_ACK_BYTES = 4;
/** Without the option `blksize`. */
export const TFTP_DEFAULT_BLOCK_BYTES = 512;
/** RFC 2348. */
export const TFTP_MIN_BLOCK_BYTES = 8;
export const TFTP_MAX_BLOCK_BYTES = 65464;

/** A request to read or write. */
export interface TftpRequest {
  readonly fileName: string;
  /** In lower case: `octet`, `netascii`. */
  readonly mode: string;
  /** Names in lower case. */
  readonly options: ReadonlyMap<string, string>;
}

/** @returns the operation, or WIRE_BAD_LENGTH */
export function getTftpOperation(view: DataView, at: number, end: number): number {
  return end - at < 4 ? WIRE_BAD_LENGTH : view.getUint16(at);
}

/** Block number of data and acknowledgements. */
export function getTftpBlock(view: DataView, at: number): number {
  return view.getUint16(at + 2);
}

/** Parses a request to read or write; undefined: it is none. */
export function parseTftpRequest(view: DataView, at: number, end: number): TftpRequest | undefined {
  const texts: string[] = [];
  let text = '';
  for (let i = at + 2; i < end; i++) {
    const byte = view.getUint8(i);
    if (byte !== 0) {
      text += String.fromCharCode(byte);
      continue;
    }
    texts.push(text);
    text = '';
  }
  const [fileName, mode, ...rest] = texts;
  if (text !== '' || fileName === undefined || mode === undefined || fileName === '') return undefined;
  const options = new Map<string, string>();
  for (let i = 0; i + 1 < rest.length; i += 2) options.set(rest[i]!.toLowerCase(), rest[i + 1]!);
  return { fileName, mode: mode.toLowerCase(), options };
}

/** Writes the header in front of a block's data, which follows. */
export function writeTftpDataHeader(view: DataView, at: number, block: number): void {
  view.setUint16(at, TFTP_DATA);
  view.setUint16(at + 2, block & 0xffff);
}

/** Bytes of a message that {@link writeTftpTexts} makes. */
export function tftpTextsBytes(texts: readonly string[]): number {
  return texts.reduce((sum, text) => sum + text.length + 1, 0);
}

/** Writes an acknowledgement of options: name and value in turn. */
export function writeTftpOptionAck(view: DataView, at: number, texts: readonly string[]): void {
  view.setUint16(at, TFTP_OPTION_ACK);
  writeTftpTexts(view, at + 2, texts);
}

/** Writes an error with a text for people. */
export function writeTftpError(view: DataView, at: number, code: number, text: string): void {
  view.setUint16(at, TFTP_ERROR);
  view.setUint16(at + 2, code);
  writeTftpTexts(view, at + 4, [text]);
}

function writeTftpTexts(view: DataView, at: number, texts: readonly string[]): void {
  let next = at;
  for (const text of texts) {
    for (let i = 0; i < text.length; i++) view.setUint8(next++, text.charCodeAt(i) & 0x7f);
    view.setUint8(next++, 0);
  }
}
