/** Errors of system calls on the control path, in the shape that Node's own have. */
import { getSystemErrorName } from 'node:util';

/**
 * @param call - the system call's name
 * @param status - what the addon answered: -errno
 * @param subject - what it was about: a path, an interface
 * @returns an error with `errno`, `code` (`'ENOENT'`), `syscall` and, when given, `path`
 */
export function createSystemError(call: string, status: number, subject?: string): NodeJS.ErrnoException {
  const code = nameErrno(status);
  const error: NodeJS.ErrnoException = new Error(`${code}: ${call}${subject === undefined ? '' : ` '${subject}'`}`);
  error.errno = status;
  error.code = code;
  error.syscall = call;
  if (subject !== undefined) error.path = subject;
  return error;
}

/** The name of a negative errno, such as `'ECONNREFUSED'` for -111. */
export function nameErrno(status: number): string {
  try {
    return getSystemErrorName(status);
  } catch {
    return `errno ${-status}`;
  }
}

/** Passes a non-negative answer on; throws {@link createSystemError} for a negative one. */
export function checkStatus(status: number, call: string, subject?: string): number {
  if (status < 0) throw createSystemError(call, status, subject);
  return status;
}
