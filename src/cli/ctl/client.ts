/** One request to a control socket. */
import { request } from 'node:http';
import { getSystemErrorMap } from 'node:util';
import { PasselError, reasonOf } from '../../base/errors.ts';

const TIMEOUT_MS = 30_000;
/** The longest page of flows is a tenth of this. */
const ANSWER_MAX_BYTES = 8 * 1024 * 1024;

/** What is asked of the stack at the other end of a control socket. */
export type AskStack = (method: string, target: string, body?: unknown) => Promise<unknown>;

/**
 * @param path - the control socket
 * @returns a function that asks, and rejects with PASSEL_E_CTL_CONNECT, PASSEL_E_CTL_ANSWER or, for what the stack refuses,
 * PASSEL_E_CTL_REFUSED
 */
export function createClient(path: string): AskStack {
  return async (method, target, body) => {
    const { status, text } = await exchange(
      path,
      method,
      target,
      body === undefined ? undefined : JSON.stringify(body),
    );
    let answer: unknown;
    try {
      answer = JSON.parse(text);
    } catch {
      throw notOurs(path, `HTTP status ${status} without JSON`);
    }
    if (status >= 200 && status < 300) return answer;
    const { error } = answer as { error?: { message?: string; hint?: string } };
    if (typeof error?.message !== 'string') throw notOurs(path, `HTTP status ${status} without a message`);
    const extras = typeof error.hint === 'string' ? { hint: error.hint } : {};
    throw new PasselError('PASSEL_E_CTL_REFUSED', { reason: error.message }, extras);
  };
}

function notOurs(path: string, reason: string): PasselError {
  return new PasselError('PASSEL_E_CTL_ANSWER', { value: path, reason });
}

function exchange(
  path: string,
  method: string,
  target: string,
  body: string | undefined,
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const headers = body === undefined ? {} : { 'Content-Type': 'application/json' };
    let connected = false;
    const fail = (error: Error): void =>
      reject(connected ? notOurs(path, reasonOf(error)) : cannotConnect(path, error));
    const asked = request({ socketPath: path, method, path: target, headers, agent: false }, (response) => {
      const parts: Buffer[] = [];
      let bytes = 0;
      response.on('data', (part: Buffer) => {
        bytes += part.length;
        if (bytes > ANSWER_MAX_BYTES) asked.destroy(new Error('its answer has no end'));
        else parts.push(part);
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text: Buffer.concat(parts).toString() }));
      response.on('error', fail);
    });
    asked.on('socket', (socket) => socket.once('connect', () => (connected = true)));
    asked.setTimeout(TIMEOUT_MS, () => asked.destroy(new Error(`no answer within ${TIMEOUT_MS / 1000} s`)));
    asked.on('error', fail);
    asked.end(body);
  });
}

const HINTS: Readonly<Record<string, string>> = {
  ENOENT: 'start the stack or helper with --conf-path PATH, and name the same path here',
  ECONNREFUSED: 'what made this socket has ended',
  EACCES: 'only the user who started it, and root, may use its control socket',
};

function cannotConnect(path: string, error: Error): PasselError {
  const { code, errno } = error as NodeJS.ErrnoException;
  const hint = HINTS[code ?? ''];
  const text = errno === undefined ? undefined : getSystemErrorMap().get(errno)?.[1];
  const values = { value: path, reason: text === undefined ? reasonOf(error) : `${code}: ${text}` };
  return new PasselError('PASSEL_E_CTL_CONNECT', values, { cause: error, ...(hint === undefined ? {} : { hint }) });
}
