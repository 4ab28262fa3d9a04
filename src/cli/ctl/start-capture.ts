/** `passel ctl pcap start`: the file is opened here, with the rights of who asks, and handed to the stack, which cannot open files. */
import { closeSync, constants, openSync, unlinkSync } from 'node:fs';
import { resolve } from 'node:path';
import { PasselError, reasonOf } from '../../base/errors.ts';
import { captureFormatOf } from '../capture-format.ts';
import type { Capture } from '../captures.ts';
import type { AskStack } from './client.ts';

export interface CaptureList {
  readonly captures: readonly Capture[];
}

export interface CaptureAsked {
  /** Null: all. */
  readonly guest: string | null;
  readonly size: number | undefined;
  readonly snaplen: number | undefined;
}

const { O_WRONLY, O_CREAT, O_EXCL, O_NONBLOCK } = constants;

/** @throws PasselError; a file that was not there is not there then */
export async function startCapture(ask: AskStack, path: string, asked: CaptureAsked): Promise<CaptureList> {
  const { fd, isNew } = open(path);
  try {
    // What is in the file goes when the stack takes it.
    const body = { ...asked, name: resolve(path), format: captureFormatOf(path) };
    return (await ask('POST', '/v1/captures', body, fd)) as CaptureList;
  } catch (error) {
    if (isNew) unlinkSync(path);
    throw error;
  } finally {
    closeSync(fd);
  }
}

/** Waits for nobody, whatever the file is. */
function open(path: string): { fd: number; isNew: boolean } {
  try {
    return { fd: openSync(path, O_WRONLY | O_CREAT | O_EXCL | O_NONBLOCK, 0o600), isNew: true };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw cannotOpen(path, error);
  }
  try {
    return { fd: openSync(path, O_WRONLY | O_NONBLOCK), isNew: false };
  } catch (error) {
    throw cannotOpen(path, error);
  }
}

function cannotOpen(path: string, error: unknown): PasselError {
  return new PasselError(
    'PASSEL_E_FILE',
    { option: 'pcap start', value: path, reason: reasonOf(error) },
    { cause: error },
  );
}
