/**
 * Runs inside a namespace: resolvers that answer as the name says, and a client. Plain JavaScript because Node itself starts it. Driven by
 * dns-peer.ts over Node's IPC.
 */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { decode, encode, TRUNCATED_RESPONSE } from 'dns-packet';

const seen = [];

/** What a resolver says; undefined: nothing. */
function answerOf(query, label, address, via) {
  const [question] = query.questions;
  const { name, type } = question;
  const word = name.split('.')[0].toLowerCase();
  const base = { type: 'response', id: query.id, flags: 0x0180, questions: [question] };
  if (word === 'silent') return undefined;
  if (word === 'fail') return { ...base, flags: base.flags | 2 };
  if (word === 'missing') return { ...base, flags: base.flags | 3 };
  if (word === 'forged')
    return { ...base, id: query.id ^ 1, answers: [{ type: 'A', name, ttl: 9, data: '203.0.113.66' }] };
  if (word === 'big') {
    const answers = Array.from({ length: 40 }, (_, i) => ({
      type: 'TXT',
      name,
      ttl: 9,
      data: `${i} ${'x'.repeat(90)}`,
    }));
    return via === 'tcp' ? { ...base, answers } : { ...base, flags: base.flags | TRUNCATED_RESPONSE };
  }
  // Longer than it may be: a server that does not care.
  if (word === 'careless') {
    return {
      ...base,
      answers: Array.from({ length: 20 }, () => ({ type: 'TXT', name, ttl: 9, data: 'y'.repeat(90) })),
    };
  }
  if (type === 'TXT') return { ...base, answers: [{ type, name, ttl: 9, data: label }] };
  if (type === 'A') return { ...base, answers: [{ type, name, ttl: 9, data: address }] };
  if (type === 'PTR') return { ...base, answers: [{ type, name, ttl: 9, data: `ptr.${label}` }] };
  return base;
}

const operations = {
  /** Answers at an address; A records are `address`, TXT records `label`. `rcode`: what is said to everybody. */
  async serve({ host, port = 53, label, address, rcode }) {
    const take = (bytes, via, from) => {
      const query = decode(bytes);
      const [{ name, type }] = query.questions;
      const edns = query.additionals.find((each) => each.type === 'OPT');
      const options = edns?.options?.map(({ code, data }) => [code, data?.toString('hex')]);
      seen.push({
        label,
        via,
        name,
        type,
        id: query.id,
        port: from,
        udp: edns?.udpPayloadSize ?? 0,
        options: options ?? [],
      });
      if (rcode !== undefined)
        return encode({ type: 'response', id: query.id, flags: rcode, questions: query.questions });
      const answer = answerOf(query, label, address, via);
      return answer === undefined ? undefined : encode(answer);
    };
    const socket = createSocket({ type: host.includes(':') ? 'udp6' : 'udp4', ipv6Only: host.includes(':') });
    socket.on('message', (bytes, from) => {
      const answer = take(bytes, 'udp', from.port);
      if (answer !== undefined) socket.send(answer, from.port, from.address);
    });
    socket.bind({ port, address: host });
    await once(socket, 'listening');
    const server = createServer((client) => {
      let received = Buffer.alloc(0);
      client.on('error', () => {});
      client.on('data', (chunk) => {
        received = Buffer.concat([received, chunk]);
        while (received.length >= 2 && received.length >= 2 + received.readUInt16BE(0)) {
          const end = 2 + received.readUInt16BE(0);
          const answer = take(received.subarray(2, end), 'tcp', client.remotePort);
          received = received.subarray(end);
          if (answer === undefined) continue;
          const framed = Buffer.alloc(2 + answer.length);
          framed.writeUInt16BE(answer.length);
          answer.copy(framed, 2);
          client.write(framed);
        }
      });
    });
    server.listen({ port, host, ipv6Only: host.includes(':') });
    await once(server, 'listening');
  },

  /** Passes datagrams on, and what comes back for them. */
  async relay({ host, port, to, label }) {
    const socket = createSocket('udp4');
    socket.on('message', (bytes, from) => {
      seen.push({ label, via: 'udp', name: decode(bytes).questions[0].name });
      const onward = createSocket('udp4');
      onward.on('error', () => {});
      onward.on('message', (answer) => socket.send(answer, from.port, from.address));
      onward.send(bytes, to.port, to.host);
    });
    socket.bind({ port, address: host });
    await once(socket, 'listening');
  },

  seen: () => seen.splice(0),

  /** Asks one question, or several in one connection. @returns the answers in the order in which they came */
  async ask({ host, port = 53, questions, tcp = false, udp = 0, option, timeoutMs = 8000 }) {
    const additionals =
      udp === 0
        ? []
        : [
            {
              type: 'OPT',
              name: '.',
              udpPayloadSize: udp,
              flags: 0,
              options: option === undefined ? [] : [{ code: option, data: Buffer.from('beef', 'hex') }],
            },
          ];
    const messages = questions.map(([name, type], i) =>
      encode({ type: 'query', id: 1000 + i, flags: 0x0100, questions: [{ name, type }], additionals }),
    );
    const answers = [];
    await new Promise((resolve, reject) => {
      const fail = (error) => {
        clearTimeout(timer);
        reject(error);
      };
      const timer = setTimeout(() => reject(new Error('no answer')), timeoutMs);
      const take = (bytes) => {
        answers.push(bytes);
        if (answers.length < messages.length) return;
        clearTimeout(timer);
        resolve();
      };
      if (tcp) {
        const socket = connect({ host, port });
        let received = Buffer.alloc(0);
        socket.on('error', fail);
        socket.on('data', (chunk) => {
          received = Buffer.concat([received, chunk]);
          while (received.length >= 2 && received.length >= 2 + received.readUInt16BE(0)) {
            const end = 2 + received.readUInt16BE(0);
            take(received.subarray(2, end));
            received = received.subarray(end);
            if (answers.length === messages.length) socket.destroy();
          }
        });
        for (const message of messages) {
          const length = Buffer.alloc(2);
          length.writeUInt16BE(message.length);
          socket.write(Buffer.concat([length, message]));
        }
      } else {
        const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4');
        socket.on('error', fail);
        socket.on('message', (bytes) => {
          take(bytes);
          if (answers.length === messages.length) socket.close();
        });
        for (const message of messages) socket.send(message, port, host);
      }
    });
    return answers.map((bytes) => {
      const packet = decode(bytes);
      const text = (data) =>
        Array.isArray(data) ? Buffer.concat(data.map((each) => Buffer.from(each))).toString() : data;
      return {
        id: packet.id,
        rcode: packet.rcode,
        truncated: packet.flag_tc,
        authoritative: packet.flag_aa,
        lengthBytes: bytes.length,
        answers: packet.answers.map(({ type, data }) => [type, text(data)]),
        authorities: packet.authorities.map(({ type, name }) => [type, name]),
      };
    });
  },
};

process.on('message', async ({ id, operation, args }) => {
  try {
    process.send({ id, result: await operations[operation](args) });
  } catch (error) {
    process.send({ id, error: error.message });
  }
});
process.on('disconnect', () => process.exit());
process.send({ ready: true });
