/**
 * Whether an access list lets a bridge be used: the rules of a file and of the files that it includes, and the decision.
 *
 * Decision, as qemu-bridge-helper makes it: the order of rules does not matter; a bridge is granted when an `allow` names it (or
 * all) and no `deny` does.
 *
 * Files are opened as the *user who asks*: an `include` that this user may not read does not apply to them, which is how one list holds rules
 * for single users or groups (a file of mode 0640 root:alice grants what it grants to alice). The main file must be readable.
 * All other doubts refuse everything, where the C program went on with what it had understood: a syntax error or a missing file
 * anywhere, an include within itself, and a file that somebody other than root could have written.
 *
 * Each file is opened once; owner, permissions and contents are those of that one open file, so nothing can be put in its place between
 * check and use.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { isAbsolute } from 'node:path';
import { reasonOf } from '../base/errors.ts';
import { whyNotTrusted } from '../sys/file-trust.ts';
import { type AclRule, AclSyntaxError, EVERY_BRIDGE, parseAclText } from './acl-text.ts';

/** The path that is compiled into Debian's program. */
export const DEFAULT_ACL_PATH = '/etc/qemu/bridge.conf';

/** Far more than any list has; a device or an endless file must not fill memory. */
const MAX_FILE_BYTES = 1024 * 1024;
/** Depth of includes within includes. */
const MAX_DEPTH = 16;

/** How files are read. */
export interface AclReading {
  /** open(2) for reading, as the user who asks; the fd is the reader's. Default: as this process. */
  readonly open?: (path: string) => number;
  /** Take a file also when others can write it. */
  readonly trustWritable?: boolean;
  /** Includes must have absolute paths: the working directory is not that of the user who asks. */
  readonly absoluteOnly?: boolean;
}

/** An access list with everything that it includes. */
export interface Acl {
  readonly path: string;
  /** `allow` and `deny` of all files, in reading order. */
  readonly rules: readonly AclRule[];
  /** Includes that the user may not read, which therefore do not apply. */
  readonly passedOver: readonly AclRule[];
}

/** A list that cannot be used. `place` is `FILE` or `FILE:LINE`. */
export class AclError extends Error {
  override readonly name = 'AclError';
  readonly place: string;

  constructor(place: string, problem: string, cause?: unknown) {
    super(problem, cause === undefined ? {} : { cause });
    this.place = place;
  }
}

/** Why a bridge may or may not be used. */
export type AclVerdict =
  | { readonly granted: true; readonly rule: AclRule }
  | { readonly granted: false /** undefined: no rule allows it */; readonly rule: AclRule | undefined };

/**
 * Reads a list and its includes. A path in an `include` that is not absolute is taken from the working directory, as by the C program.
 * @throws AclError
 */
export function readAcl(path: string, reading: AclReading = {}): Acl {
  const rules: AclRule[] = [];
  const passedOver: AclRule[] = [];
  const open = reading.open ?? openAsSelf;

  const readFile = (file: string, via: AclRule | undefined, within: readonly FileId[]): void => {
    const place = via === undefined ? file : `${via.file}:${via.line}`;
    if (via !== undefined && reading.absoluteOnly === true && !isAbsolute(file)) {
      throw new AclError(place, `'${file}' is not absolute, and the working directory is not that of who asks`);
    }
    let fd: number;
    try {
      fd = open(file);
    } catch (error) {
      if (via !== undefined && (error as NodeJS.ErrnoException).code === 'EACCES') {
        passedOver.push(via);
        return;
      }
      const what = via === undefined ? 'cannot open it' : `cannot open '${file}', which it includes`;
      throw new AclError(place, `${what}: ${reasonOf(error)}`, error);
    }
    let contents: Uint8Array;
    let id: FileId;
    try {
      const stats = fstatSync(fd);
      id = `${stats.dev}:${stats.ino}`;
      if (within.includes(id)) throw new AclError(place, `'${file}' includes itself`);
      if (within.length >= MAX_DEPTH) throw new AclError(place, `more than ${MAX_DEPTH} files within each other`);
      if (!stats.isFile()) throw new AclError(file, 'it is not a regular file');
      const doubt = reading.trustWritable === true ? undefined : whyNotTrusted(stats);
      if (doubt !== undefined) throw new AclError(file, doubt);
      contents = readAll(fd, file);
    } finally {
      closeSync(fd);
    }
    for (const rule of parse(contents, file)) {
      if (rule.kind === 'include') readFile(Buffer.from(rule.argument, 'latin1').toString(), rule, [...within, id]);
      else rules.push(rule);
    }
  };

  readFile(path, undefined, []);
  return { path, rules, passedOver };
}

/** Device and inode: one file under any of its names. */
type FileId = string;

function openAsSelf(path: string): number {
  return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
}

function readAll(fd: number, file: string): Uint8Array {
  const bytes = Buffer.alloc(MAX_FILE_BYTES + 1);
  let length = 0;
  for (;;) {
    let got: number;
    try {
      got = readSync(fd, bytes, length, bytes.length - length, null);
    } catch (error) {
      throw new AclError(file, `cannot read it: ${reasonOf(error)}`, error);
    }
    if (got === 0) return bytes.subarray(0, length);
    length += got;
    if (length > MAX_FILE_BYTES) throw new AclError(file, `it has more than ${MAX_FILE_BYTES} bytes`);
  }
}

function parse(contents: Uint8Array, file: string): AclRule[] {
  try {
    return parseAclText(contents, file);
  } catch (error) {
    if (!(error instanceof AclSyntaxError)) throw error;
    throw new AclError(`${file}:${error.place.line}`, error.message, error);
  }
}

/** @param bridge - its name, one byte a character */
export function decideAcl(acl: Acl, bridge: string): AclVerdict {
  const matching = acl.rules.filter(({ argument }) => argument === EVERY_BRIDGE || argument === bridge);
  const denying = matching.find(({ kind }) => kind === 'deny');
  if (denying !== undefined) return { granted: false, rule: denying };
  const allowing = matching.find(({ kind }) => kind === 'allow');
  return allowing === undefined ? { granted: false, rule: undefined } : { granted: true, rule: allowing };
}
