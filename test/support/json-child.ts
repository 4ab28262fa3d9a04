/**
 * A child that speaks JSON lines on standard output, as our C test tools do: `{"event": NAME, …}`.
 */
import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { exitStatus, stopChild, waitForExit } from './netns/process.ts';

/** One line of output. */
export type JsonEvent = { event: string } & Record<string, unknown>;

/** A running tool. */
export interface JsonChild {
  readonly child: ChildProcess;
  /** What it wrote to standard error so far. */
  stderr(): string;
  /**
   * The next line whose event is `event`; earlier ones are kept for their own callers.
   * Rejects when the tool ends without it or `timeoutMs` has passed.
   */
  next<T extends JsonEvent = JsonEvent>(event: string, timeoutMs?: number): Promise<T>;
  /** Writes a line to its standard input. */
  send(line: string): void;
  /** SIGTERM, then SIGKILL; resolves with the exit status. */
  stop(): Promise<number>;
  /** Resolves with the exit status when it has ended. */
  exited(): Promise<number>;
}

interface Waiter {
  event: string;
  resolve(value: JsonEvent): void;
  reject(error: Error): void;
  timer: NodeJS.Timeout;
}

/** Wraps a child whose stdin, stdout and stderr are pipes. */
export function wrapJsonChild(name: string, child: ChildProcess): JsonChild {
  const queued: JsonEvent[] = [];
  const waiters: Waiter[] = [];
  let stderr = '';
  let ended: string | undefined;
  child.stderr?.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  child.stdin?.on('error', () => {});

  const settle = (waiter: Waiter): void => {
    clearTimeout(waiter.timer);
    waiters.splice(waiters.indexOf(waiter), 1);
  };
  if (child.stdout === null) throw new Error(`${name} has no output pipe`);
  createInterface({ input: child.stdout }).on('line', (line) => {
    const value = JSON.parse(line) as JsonEvent;
    const waiter = waiters.find((w) => w.event === value.event);
    if (waiter === undefined) {
      queued.push(value);
      return;
    }
    settle(waiter);
    waiter.resolve(value);
  });
  child.on('error', (error) => {
    ended = error.message;
  });
  child.on('close', (code, signal) => {
    ended ??= `ended with status ${exitStatus(code, signal)}`;
    for (const waiter of [...waiters]) {
      settle(waiter);
      waiter.reject(new Error(`${name} ${ended} before '${waiter.event}': ${stderr}`));
    }
  });

  return {
    child,
    stderr: () => stderr,
    next<T extends JsonEvent>(event: string, timeoutMs = 90_000): Promise<T> {
      const index = queued.findIndex((value) => value.event === event);
      if (index >= 0) return Promise.resolve(queued.splice(index, 1)[0] as T);
      if (ended !== undefined) return Promise.reject(new Error(`${name} ${ended} before '${event}': ${stderr}`));
      return new Promise<T>((resolve, reject) => {
        const waiter: Waiter = {
          event,
          resolve: resolve as (value: JsonEvent) => void,
          reject,
          timer: setTimeout(() => {
            settle(waiter);
            reject(new Error(`${name}: no '${event}' within ${timeoutMs} ms: ${stderr}`));
          }, timeoutMs),
        };
        waiters.push(waiter);
      });
    },
    send: (line) => {
      child.stdin?.write(`${line}\n`);
    },
    stop: () => stopChild(child),
    exited: () => waitForExit(child),
  };
}
