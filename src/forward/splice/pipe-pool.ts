/**
 * Pipes for splicing, lent to a direction only while it has bytes in one: idle connections hold none, so a thousand of them cost their
 * sockets and nothing else.
 *
 * Large pipes make for few system calls; the kernel grants a user 64 MiB of them together (fs.pipe-user-pages-soft) and smaller ones
 * beyond that, down to two pages. Spare pipes are kept, at most {@link SPARE_MAX}.
 */
import type { SpliceCalls } from './ports.ts';

const PIPE_BYTES = 1024 * 1024;
const SPARE_MAX = 32;

export interface PipePool {
  /** Takes a pipe. @returns its number, or -errno when none can be made */
  take(): number;
  /** Gives an empty pipe back. */
  give(pipe: number): void;
  /** Ends a pipe that may hold bytes. */
  discard(pipe: number): void;
  readFd(pipe: number): number;
  writeFd(pipe: number): number;
  /** Pipes lent. */
  readonly lent: number;
  /** Closes the spare ones. */
  close(): void;
}

export function createPipePool(calls: SpliceCalls & { close(fd: number): number }): PipePool {
  const readFds: number[] = [];
  const writeFds: number[] = [];
  /** Numbers without a pipe. */
  const free: number[] = [];
  const spare: number[] = [];
  const fds = new Int32Array(2);
  let lent = 0;

  const end = (pipe: number): void => {
    calls.close(readFds[pipe]!);
    calls.close(writeFds[pipe]!);
    free.push(pipe);
  };
  return {
    get lent() {
      return lent;
    },
    take() {
      let pipe = spare.pop();
      if (pipe === undefined) {
        const status = calls.pipe(PIPE_BYTES, fds);
        if (status < 0) return status;
        pipe = free.pop() ?? readFds.length;
        readFds[pipe] = fds[0]!;
        writeFds[pipe] = fds[1]!;
      }
      lent++;
      return pipe;
    },
    give(pipe) {
      lent--;
      if (spare.length < SPARE_MAX) spare.push(pipe);
      else end(pipe);
    },
    discard(pipe) {
      lent--;
      end(pipe);
    },
    readFd: (pipe) => readFds[pipe]!,
    writeFd: (pipe) => writeFds[pipe]!,
    close() {
      for (const pipe of spare.splice(0)) end(pipe);
    },
  };
}
