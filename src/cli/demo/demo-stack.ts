/** The stack of the demo: the real passel-passt, as a process of its own, on one end of a socket pair. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';

export interface DemoStack {
  /** Processor time that it has used, in seconds; undefined once it has ended. */
  cpuSeconds(): number | undefined;
  /** Resident memory in bytes; undefined once it has ended. */
  memoryBytes(): number | undefined;
  /** Fulfilled with what it wrote when it ends on its own, which it should not. */
  readonly failed: Promise<string>;
  stop(): Promise<void>;
}

/** The stack's end of the pair in its process. */
const STACK_FD = 3;
/** USER_HZ of every Linux that Node runs on (proc(5)). */
const TICKS_PER_SECOND = 100;

/**
 * @param fd - the stack's end of the socket pair; stays the caller's
 * @param options - of passel-passt(1)
 */
export function startDemoStack(fd: number, options: readonly string[]): DemoStack {
  const args = [process.argv[1]!, 'passt', '--foreground', '--quiet', '--fd', String(STACK_FD), ...options];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'pipe', fd] });
  let output = '';
  child.stderr!.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  const ended = once(child, 'close');
  const stat = (): string[] | undefined => {
    try {
      const text = readFileSync(`/proc/${child.pid}/stat`, 'latin1');
      return text.slice(text.lastIndexOf(')') + 2).split(' ');
    } catch {
      return undefined;
    }
  };
  return {
    cpuSeconds() {
      const fields = stat();
      return fields && (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
    },
    memoryBytes() {
      try {
        const match = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${child.pid}/status`, 'latin1'));
        return match === null ? undefined : Number(match[1]) * 1024;
      } catch {
        return undefined;
      }
    },
    failed: ended.then(() => (output === '' ? 'it ended early' : output.trim())),
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill('SIGTERM');
      await ended;
    },
  };
}
