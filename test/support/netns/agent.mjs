/**
 * Runs inside a namespace, does network things on request: servers that stay, and exchanges that end with an answer.
 * Plain JavaScript because it is started by Node itself, not by the test runner. Driven by agent.ts over Node's IPC.
 */
import { createHash } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import { connect, createServer } from 'node:net';

/** Bytes that depend on their position, so that loss, repetition and exchange all show (xorshift, 32 bits). */
function makePattern(lengthBytes, seed) {
  const words = new Uint32Array(Math.ceil(lengthBytes / 4));
  let state = seed | 0 || 1;
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[i] = state;
  }
  return Buffer.from(words.buffer, 0, lengthBytes);
}

function hashBytes(bytes) {
  return createHash('sha256').update(bytes).digest('hex');
}

async function listen(server, port, host) {
  server.listen({ port, host, ipv6Only: host.includes(':') });
  await once(server, 'listening');
  return { port: server.address().port };
}

async function bindUdp(port, host) {
  const socket = createSocket({ type: host.includes(':') ? 'udp6' : 'udp4', ipv6Only: host.includes(':') });
  socket.bind({ port, address: host });
  await once(socket, 'listening');
  return socket;
}

/** Names with their records, as answered by serveDns. */
function answerDns(query, records) {
  if (query.length < 17) return undefined;
  const labels = [];
  let offset = 12;
  while (query[offset]) {
    labels.push(query.toString('latin1', offset + 1, offset + 1 + query[offset]));
    offset += query[offset] + 1;
  }
  const name = labels.join('.').toLowerCase();
  const type = query.readUInt16BE(offset + 1);
  const question = query.subarray(12, offset + 5);
  const known = records[name];
  const answers = [];
  for (const address of known ?? []) {
    const bytes = address.includes(':') ? parseIpv6(address) : Buffer.from(address.split('.').map(Number));
    if ((bytes.length === 4 ? 1 : 28) !== type) continue;
    const fixed = Buffer.from([0xc0, 12, 0, type, 0, 1, 0, 0, 0, 60, 0, bytes.length]);
    answers.push(fixed, bytes);
  }
  const header = Buffer.from(query.subarray(0, 12));
  header[2] = 0x84 | (query[2] & 1);
  header[3] = known === undefined ? 0x83 : 0x80;
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(answers.length / 2, 6);
  header.writeUInt32BE(0, 8);
  return Buffer.concat([header, question, ...answers]);
}

function parseIpv6(text) {
  const [head, tail] = text.split('::');
  const groups = head === '' ? [] : head.split(':');
  if (tail !== undefined) {
    const last = tail === '' ? [] : tail.split(':');
    while (groups.length + last.length < 8) groups.push('0');
    groups.push(...last);
  }
  const bytes = Buffer.alloc(16);
  groups.forEach((group, index) => {
    bytes.writeUInt16BE(Number.parseInt(group, 16), index * 2);
  });
  return bytes;
}

const udpServers = new Map();
const udpSeen = [];
const dnsSeen = [];

const operations = {
  /** GET /bytes/LENGTH/SEED gives that pattern; GET /from the peer's address; POST the hash and length of its body. */
  serveHttp: ({ host, port = 0 }) => {
    const server = createHttpServer((request, response) => {
      if (request.method === 'POST') {
        const hash = createHash('sha256');
        let length = 0;
        request.on('data', (chunk) => {
          hash.update(chunk);
          length += chunk.length;
        });
        request.on('end', () => response.end(`${hash.digest('hex')} ${length}\n`));
        return;
      }
      const [, what, length, seed] = request.url.split('/');
      if (what === 'from') response.end(`${request.socket.remoteAddress}\n`);
      else if (what === 'bytes') {
        const body = makePattern(Number(length), Number(seed));
        response.writeHead(200, { 'Content-Length': body.length });
        response.end(body);
      } else {
        response.statusCode = 404;
        response.end();
      }
    });
    return listen(server, port, host);
  },

  /** Sends every datagram back, and notes its length and sender. */
  serveUdpEcho: async ({ host, port = 0 }) => {
    const socket = await bindUdp(port, host);
    socket.on('message', (bytes, from) => {
      udpSeen.push({ address: from.address, port: from.port, lengthBytes: bytes.length });
      socket.send(bytes, from.port, from.address);
    });
    udpServers.set(socket.address().port, socket);
    return { port: socket.address().port };
  },

  listUdpSeen: () => udpSeen,

  /** A name server for `records` (name → addresses) over UDP and TCP. */
  serveDns: async ({ host, port = 53, records }) => {
    const socket = await bindUdp(port, host);
    socket.on('message', (query, from) => {
      dnsSeen.push({ transport: 'udp', address: from.address });
      const answer = answerDns(query, records);
      if (answer !== undefined) socket.send(answer, from.port, from.address);
    });
    const server = createServer((connection) => {
      connection.on('error', () => {});
      connection.on('data', (bytes) => {
        dnsSeen.push({ transport: 'tcp', address: connection.remoteAddress });
        const answer = answerDns(bytes.subarray(2), records);
        const length = Buffer.alloc(2);
        length.writeUInt16BE(answer.length);
        connection.end(Buffer.concat([length, answer]));
      });
    });
    return listen(server, port, host);
  },

  listDnsSeen: () => dnsSeen,

  /** Connects, sends a pattern, half-closes, reads to the end. */
  exchangeTcp: async ({ host, port, lengthBytes = 0, seed = 1, localAddress, timeoutMs = 60_000 }) => {
    const startMs = performance.now();
    const socket = connect({ host, port, localAddress, allowHalfOpen: true });
    const hash = createHash('sha256');
    let receivedBytes = 0;
    let text = '';
    socket.on('data', (chunk) => {
      hash.update(chunk);
      receivedBytes += chunk.length;
      if (text.length < 4096) text += chunk.toString('latin1');
    });
    const timer = setTimeout(() => socket.destroy(new Error(`no end after ${timeoutMs} ms`)), timeoutMs);
    const ended = once(socket, 'end').finally(() => clearTimeout(timer));
    // Both fail when the socket does; the first to be awaited reports it.
    ended.catch(() => {});
    await once(socket, 'connect');
    const sent = makePattern(lengthBytes, seed);
    socket.end(sent);
    await ended;
    socket.destroy();
    return {
      receivedBytes,
      receivedHash: hash.digest('hex'),
      sentHash: hashBytes(sent),
      text: text.slice(0, 4096),
      elapsedMs: performance.now() - startMs,
    };
  },

  /** Sends one datagram, again each second, and waits for one back. */
  exchangeUdp: async ({ host, port, lengthBytes, seed = 1, timeoutMs = 10_000, localAddress }) => {
    const socket = await bindUdp(0, localAddress ?? (host.includes(':') ? '::' : '0.0.0.0'));
    const sent = makePattern(lengthBytes, seed);
    const send = () => socket.send(sent, port, host);
    send();
    const timer = setInterval(send, 1000);
    try {
      const [bytes, from] = await once(socket, 'message', { signal: AbortSignal.timeout(timeoutMs) });
      return { same: bytes.equals(sent), lengthBytes: bytes.length, from: from.address };
    } finally {
      clearInterval(timer);
      socket.close();
    }
  },

  hashPattern: ({ lengthBytes, seed }) => hashBytes(makePattern(lengthBytes, seed)),
};

process.on('message', async ({ id, operation, args }) => {
  try {
    process.send({ id, result: await operations[operation](args) });
  } catch (error) {
    process.send({ id, error: `${operation}: ${error.message}` });
  }
});
process.on('disconnect', () => process.exit(0));
process.send({ ready: true });
