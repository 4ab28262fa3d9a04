/** One request to a control socket. */
import { request } from 'node:http';
import { Socket } from 'node:net';
import { getSystemErrorMap } from 'node:util';
import { PasselError, reasonOf } from '../../base/errors.ts';

const TIMEOUT_MS = 30_000;
/** The longest page of flows is a tenth of this. */
const ANSWER_MAX_BYTES = 8 * 1024 * 1024;

/**
 * What is asked of the stack at the other end of a control socket.
 * @param fd - goes with it; stays the caller's
 */
export type AskStack = (method: string, target: string, body?: unknown, fd?: number) => Promise<unknown>;

/**
 * @param path - the control socket
 * @returns a function that asks, and rejects with PASSEL_E_CTL_CONNECT, PASSEL_E_CTL_ANSWER or, for what the stack refuses,
 * PASSEL_E_CTL_REFUSED
 */
export function createClient(path: string): AskStack {
  return async (method, target, body, fd) => {
    const content = body === undefined ? undefined : JSON.stringify(body);
    const connection = fd === undefined ? undefined : await connectWithFd(path, fd);
    const { status, text } = await exchange(path, method, target, content, connection);
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

/** Connects and sends a descriptor, with an empty line, which servers of HTTP ignore in front of a request (RFC 9112, 2.2). */
async function connectWithFd(path: string, fd: number): Promise<Socket> {
  // Loaded only where it is wanted.
  const { loadNative } = await import('../../sys/native.ts');
  const { connectUnix } = await import('../../sys/unix-socket.ts');
  const { sendWithFds } = await import('../../sys/scm.ts');
  const native = loadNative();
  let connection: number;
  try {
    connection = connectUnix(native, path);
  } catch (error) {
    throw cannotConnect(path, error as Error);
  }
  try {
    sendWithFds(native, connection, Buffer.from('\r\n'), [fd]);
  } catch (error) {
    native.close(connection);
    throw notOurs(path, reasonOf(error));
  }
  return new Socket({ fd: connection, readable: true, writable: true });
}

function exchange(
  path: string,
  method: string,
  target: string,
  body: string | undefined,
  connection: Socket | undefined,
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const headers = body === undefined ? {} : { 'Content-Type': 'application/json' };
    let connected = connection !== undefined;
    // With an agent, even none, Node would not ask for the connection, and make one of TCP.
    const way = connection === undefined ? { socketPath: path, agent: false } : { createConnection: () => connection };
    const fail = (error: Error): void =>
      reject(connected ? notOurs(path, reasonOf(error)) : cannotConnect(path, error));
    const asked = request({ ...way, method, path: target, headers }, (response) => {
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
