/**
 * The control socket: HTTP and JSON on a unix socket that only its owner may connect to.
 *
 * It shares its process's only thread, so all that a client can cause is bounded: connections, sizes of requests and answers, and the time
 * that either may take. An answer is made in one go and waits in memory for a client that is slow to take it.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { PasselError } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import type { OwnedFd } from '../../base/owned-fd.ts';
import type { NativeAddon } from '../../sys/native-addon.ts';
import { acceptConnections } from './connections.ts';
import { type Answer, type AnswerRequest, answerError } from './requests.ts';

const BODY_MAX_BYTES = 16 * 1024;
const HEADERS_MAX_BYTES = 8 * 1024;
const CONNECTIONS_MAX = 64;
const REQUEST_TIMEOUT_MS = 10_000;
/** A connection on which nothing moves for so long is closed. */
const IDLE_TIMEOUT_MS = 30_000;

export interface ControlServer {
  /** Ends all connections and closes the socket. */
  close(): void;
}

/**
 * Serves an already listening socket.
 * @param fd - becomes the server's
 * @param native - take descriptors too; left out: they are lost
 * @param requestTimeoutMs - how long a request may take to be there
 * @returns once requests are taken
 */
export async function openControlServer(
  fd: number,
  answer: AnswerRequest,
  log: Logger,
  native?: NativeAddon,
  requestTimeoutMs: number = REQUEST_TIMEOUT_MS,
): Promise<ControlServer> {
  /** Descriptors that have come with a connection, until its next request has them. */
  const given = new WeakMap<object, readonly OwnedFd[]>();
  const server = createServer(
    {
      maxHeaderSize: HEADERS_MAX_BYTES,
      headersTimeout: requestTimeoutMs,
      requestTimeout: requestTimeoutMs,
      keepAliveTimeout: IDLE_TIMEOUT_MS,
    },
    (request, response) => {
      const fds = given.get(request.socket) ?? [];
      given.delete(request.socket);
      void serve(request, response, answer, fds);
    },
  );
  server.maxConnections = CONNECTIONS_MAX;
  server.timeout = IDLE_TIMEOUT_MS;
  server.on('checkExpectation', (_request, response: ServerResponse) => {
    send(response, answerError(new PasselError('PASSEL_E_CONTROL_REQUEST', { reason: 'no expectations are met' })));
  });
  server.on('clientError', (_error, socket) => {
    closeAll(given.get(socket) ?? []);
    if (socket.writable) socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
    else socket.destroy();
  });
  if (native !== undefined) {
    const connections = acceptConnections({
      ...{ native, fd, max: CONNECTIONS_MAX, patienceMs: requestTimeoutMs },
      onConnection(socket, fds) {
        given.set(socket, fds);
        socket.once('close', () => closeAll(given.get(socket) ?? []));
        limitRequests(socket, server, requestTimeoutMs);
        server.emit('connection', socket);
      },
      onTrouble: (message) => log.warn(`control socket: ${message}`),
    });
    return connections;
  }
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ fd }, () => {
      server.off('error', reject);
      server.on('error', (error) => log.warn(`control socket: ${error.message}`));
      resolve();
    });
  });
  return {
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

async function serve(
  request: IncomingMessage,
  response: ServerResponse,
  answer: AnswerRequest,
  fds: readonly OwnedFd[],
): Promise<void> {
  const { method = '', url = '' } = request;
  try {
    const body = await readBody(request);
    if (body === undefined) {
      send(response, answerError(new PasselError('PASSEL_E_CONTROL_SIZE', { value: BODY_MAX_BYTES })));
      return;
    }
    send(response, await answer(method, url, body, fds));
  } catch {
    // The client went away in the middle of its request.
    response.destroy();
  } finally {
    // Those that were wanted have another owner by now.
    closeAll(fds);
  }
}

function closeAll(fds: readonly OwnedFd[]): void {
  for (const fd of fds) fd.close();
}

/** Ends a connection whose request is not there in time, which a server that does not listen itself leaves to us. */
function limitRequests(socket: Socket, server: Server, timeoutMs: number): void {
  let timer: NodeJS.Timeout | undefined;
  const arm = (ms: number): void => {
    clearTimeout(timer);
    timer = setTimeout(() => socket.destroy(), ms).unref();
  };
  const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
    if (request.socket !== socket) return;
    request.once('end', () => clearTimeout(timer));
    // The next one has the time of an idle connection, and its own.
    response.once('finish', () => arm(IDLE_TIMEOUT_MS + timeoutMs));
  };
  arm(timeoutMs);
  server.on('request', onRequest);
  socket.once('close', () => {
    clearTimeout(timer);
    server.off('request', onRequest);
  });
}

/** @returns undefined when there is too much; the rest is not read then */
async function readBody(request: IncomingMessage): Promise<string | undefined> {
  const parts: Buffer[] = [];
  let bytes = 0;
  return new Promise((resolve, reject) => {
    request.on('data', (part: Buffer) => {
      bytes += part.length;
      if (bytes > BODY_MAX_BYTES) {
        request.pause();
        resolve(undefined);
      } else parts.push(part);
    });
    request.on('end', () => resolve(Buffer.concat(parts).toString('utf8')));
    request.on('error', reject);
    request.on('close', () => reject(new Error('closed')));
  });
}

function send(response: ServerResponse, answer: Answer): void {
  const body = Buffer.from(`${JSON.stringify(answer.body)}\n`);
  // What was not read of a request that is too long cannot be told from the next one.
  const isCut = answer.status === 413;
  response.sendDate = false;
  response.writeHead(answer.status, {
    'Content-Type': 'application/json',
    'Content-Length': body.length,
    'Cache-Control': 'no-store',
    ...(answer.allow === undefined ? {} : { Allow: answer.allow }),
    ...(isCut ? { Connection: 'close' } : {}),
  });
  response.end(body);
}
