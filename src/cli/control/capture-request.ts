/** What a request to record says, and whether the descriptor that came with it can be recorded in. */
import { constants, fstatSync, ftruncateSync } from 'node:fs';
import { PasselError, reasonOf } from '../../base/errors.ts';
import type { OwnedFd } from '../../base/owned-fd.ts';
import { CAPTURE_FORMATS, type CaptureFormatName } from '../capture-format.ts';
import type { CaptureRequest } from '../captures.ts';
import type { GuestSide } from '../guest-side.ts';
import { CAPTURE_SIZE_MIN, SNAPLEN_MAX, SNAPLEN_MIN } from '../options/capture-values.ts';
import { chooseGuests } from './impairments.ts';
import { checkNames, refuse } from './requests.ts';

/** Of a path. */
const NAME_MAX_LENGTH = 4096;

/**
 * @param request - a JSON object
 * @param fds - the first becomes the recorder's
 * @throws PasselError; the descriptors stay the caller's then
 */
export function readCaptureRequest(
  request: Readonly<Record<string, unknown>>,
  guests: readonly GuestSide[],
  fds: readonly OwnedFd[],
): CaptureRequest {
  checkNames('field', Object.keys(request), ['guest', 'name', 'format', 'size', 'snaplen']);
  const format =
    CAPTURE_FORMATS.find((each) => each === request['format']) ?? refuse("'format' must be pcap or pcapng");
  const name = request['name'];
  if (typeof name !== 'string' || name === '' || name.length > NAME_MAX_LENGTH)
    refuse("'name' must be that of the file");
  const chosen = chooseGuests(guests, request['guest']);
  checkLinks(format, chosen);
  const maxBytes = readLimit(request, 'size', CAPTURE_SIZE_MIN, Number.MAX_SAFE_INTEGER);
  const snapBytes = readLimit(request, 'snaplen', SNAPLEN_MIN, SNAPLEN_MAX);
  const [file, other] = fds;
  if (file === undefined || other !== undefined) refuse('the file to record in must come with it, as one descriptor');
  checkFile(file.fd, name as string);
  return { fd: file.take(), name: name as string, format, guests: chosen, maxBytes, snapBytes };
}

function checkLinks(format: CaptureFormatName, guests: readonly GuestSide[]): void {
  if (format === 'pcapng' || guests.length === 1) return;
  const names = guests.map(({ plan }) => plan.name).join(', ');
  refuse(`a file of the format pcap has the frames of one guest: name one of ${names}, or let it be pcapng`);
}

function readLimit(
  request: Readonly<Record<string, unknown>>,
  name: string,
  min: number,
  max: number,
): number | undefined {
  const value = request[name];
  if (value === undefined || value === null) return undefined;
  const isGood = Number.isSafeInteger(value) && (value as number) >= min && (value as number) <= max;
  return isGood ? (value as number) : refuse(`'${name}' must be a number of bytes, from ${min} to ${max}`);
}

/** Only what never keeps its writer waiting: the network would wait with it. */
function checkFile(fd: number, name: string): void {
  const cannot = (reason: string): never => {
    throw new PasselError('PASSEL_E_CAPTURE_FILE', { value: name, reason });
  };
  try {
    if ((fstatSync(fd).mode & constants.S_IFMT) !== constants.S_IFREG) cannot('it is not a regular file');
    ftruncateSync(fd, 0);
  } catch (error) {
    if (error instanceof PasselError) throw error;
    // Not open for writing, mostly.
    cannot(reasonOf(error));
  }
}
