/**
 * The host's list of names, kept up to date by a process that cannot open files any more: the services agent opens the file for it, by its
 * name in its folder, which was opened at the start. A file that is replaced is found as well as one that is written to.
 *
 * It is looked at when somebody asks for a name, once a second at most; whoever asks first waits for that, and no longer than until somebody asks a
 * second later: a file system that hangs costs new names, not answers.
 */
import { closeSync, constants, fstatSync, openSync, readFileSync, readSync, realpathSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { PasselError, reasonOf } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import { parseHosts } from '../../forward/dns/hosts-file.ts';
import type { NameRecords } from '../../forward/dns/own-names.ts';
import type { NameList } from '../../forward/dns/server.ts';
import type { NativeAddon } from '../../sys/native-addon.ts';
import { type ServicesAgent, type ServicesAgentOptions, startServicesAgent } from '../../sys/services.ts';

const LOOK_INTERVAL_MS = 1000;
/** Questions that wait for a look. */
const WAITING_MAX = 256;
/** Of a longer file the rest is left out. */
const MAX_BYTES = 4 << 20;

export interface HostsListOptions extends Pick<ServicesAgentOptions, 'user' | 'ownMounts' | 'isQuiet'> {
  readonly native: NativeAddon;
  readonly log: Logger;
  readonly path: string;
  /** See `parseHosts`. */
  readonly toGuest: (address: Uint32Array) => Uint32Array | undefined;
}

export interface HostsList extends NameList {
  /** Readable when `onReadable` has something to do. */
  readonly fd: number;
  onReadable(): void;
  close(): void;
}

/** @throws PasselError when the file cannot be read, or the process that opens it cannot be started */
export function openHostsList(options: HostsListOptions): HostsList {
  const { native, log, toGuest, path, user, ownMounts, isQuiet } = options;
  const { file, text } = readFirst(path);
  let records = parseHosts(text, toGuest);
  let seen = '';
  let lookedMs = Number.NEGATIVE_INFINITY;
  let waiting: (() => void)[] = [];
  let askedMs = 0;
  let agent: ServicesAgent;
  const folderFd = openSync(dirname(file), constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    agent = startServicesAgent(native, { services: [], folderFd, user, ownMounts, isQuiet });
  } catch (error) {
    throw new PasselError('PASSEL_E_SERVICES', { reason: reasonOf(error) }, { cause: error });
  } finally {
    closeSync(folderFd);
  }
  const goOn = (): void => {
    lookedMs = performance.now();
    const asked = waiting;
    waiting = [];
    for (const then of asked) then();
  };
  const take = (fd: number): void => {
    if (fd < 0) {
      log.debug(`${path} cannot be opened (errno ${-fd}): its names stay as they were`);
      return;
    }
    try {
      const { dev, ino, size, mtimeMs, ctimeMs } = fstatSync(fd);
      const state = [dev, ino, size, mtimeMs, ctimeMs].join();
      if (state === seen) return;
      records = parseHosts(readText(fd, size), toGuest);
      seen = state;
      log.debug(`${path} was read`);
    } catch (error) {
      log.debug(`${path} cannot be read (${reasonOf(error)}): its names stay as they were`);
    } finally {
      native.close(fd);
    }
  };
  return {
    fd: agent.fd,
    get records(): NameRecords {
      return records;
    },
    refresh(then) {
      const nowMs = performance.now();
      if (waiting.length > 0 && (waiting.length >= WAITING_MAX || nowMs - askedMs >= LOOK_INTERVAL_MS)) goOn();
      if (nowMs - lookedMs < LOOK_INTERVAL_MS) {
        then();
        return;
      }
      waiting.push(then);
      if (waiting.length > 1) return;
      askedMs = nowMs;
      if (!agent.openFile(basename(file), 0, 0)) goOn();
    },
    onReadable() {
      try {
        agent.takeAnswers((_a, _b, fd) => take(fd));
      } catch (error) {
        log.warn(`${path} is not looked at any more, its names stay as they are: ${reasonOf(error)}`);
        agent.close();
      }
      goOn();
    },
    close: () => agent.close(),
  };
}

function readFirst(path: string): { file: string; text: string } {
  try {
    const file = realpathSync(path);
    return { file, text: readFileSync(file, 'utf8') };
  } catch (error) {
    const values = { option: '--dns-hosts', value: path, reason: reasonOf(error) };
    throw new PasselError('PASSEL_E_FILE', values, { cause: error });
  }
}

function readText(fd: number, sizeBytes: number): string {
  const bytes = Buffer.alloc(Math.min(sizeBytes, MAX_BYTES));
  let at = 0;
  while (at < bytes.length) {
    const length = readSync(fd, bytes, at, bytes.length - at, at);
    if (length === 0) break;
    at += length;
  }
  return bytes.toString('utf8', 0, at);
}
