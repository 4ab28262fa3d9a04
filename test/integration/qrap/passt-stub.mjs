// Answers the probe of qrap as a passt without guest does: `node passt-stub.mjs SOCKET REPLY_HEX`. A process of its own, since
// qrap waits for half a second only and a test process may be busy for longer. Says "ready", ends with its standard input.
import { createServer } from 'node:net';

const [path, reply] = process.argv.slice(2);
const server = createServer((socket) => {
  socket.on('error', () => {});
  socket.once('data', () => socket.write(Buffer.from(reply, 'hex')));
});
server.listen(path, () => process.stdout.write('ready\n'));
process.stdin.resume().on('end', () => process.exit(0));
