/** Refusals of the broker. Apart from the protocol, so that programs which only open something do without its schemas. */

/** Stable codes of refusals, for programs. */
export const BROKER_ERROR_CODES = [
  /** Not a JSON object of this protocol; `message` says where. */
  'bad-request',
  'unsupported-version',
  'unknown-verb',
  /** The message or its descriptors were cut; all were closed. */
  'truncated',
  /** `fds` does not say how many descriptors came, or the verb wants another number. */
  'fd-count',
  /** A descriptor is not what was expected, or of a kind that is never kept. */
  'fd-kind',
  /** The policy does not let this user do this. */
  'denied',
  'no-such-name',
  'name-taken',
  /** The user's quota, or the broker's own limit, is used up. */
  'quota',
  /** A system call failed; `errno` has its name. */
  'system',
  /** The broker ends, or the client did not read its answers. */
  'closing',
] as const;
export type BrokerErrorCode = (typeof BROKER_ERROR_CODES)[number];

/** A refusal with a stable code. */
export class BrokerError extends Error {
  override readonly name = 'BrokerError';
  readonly code: BrokerErrorCode;
  /** `ENOENT` and the like, with code `system`. */
  readonly errno: string | undefined;

  constructor(code: BrokerErrorCode, message: string, errno?: string) {
    super(message);
    this.code = code;
    this.errno = errno;
  }
}
