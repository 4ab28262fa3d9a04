import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { PortBits, parseListeningPorts, readListeningPorts } from '../../../src/forward/listening-ports.ts';

const TCP = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 18394 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 18395 1 0000000000000000 20 4 30 10 -1
`;
const TCP6 = `  sl  local_address                         remote_address                        st
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000
`;
const UDP = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  291: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 12345 2 0000000000000000 0
  292: 0100007F:0036 0100007F:0035 01 00000000:00000000 00:00000000 00000000     0        0 12346 2 0000000000000000 0
12293: 00000000:FFFF 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 12347 2 0000000000000000 0
`;

function portsOf(...tables: ['tcp' | 'udp', string][]): number[] {
  const bits = new PortBits();
  for (const [proto, text] of tables) parseListeningPorts(proto, Buffer.from(text), text.length, bits);
  return listPorts(bits);
}

function listPorts(bits: PortBits): number[] {
  const ports: number[] = [];
  bits.forEach((port) => {
    ports.push(port);
  });
  return ports;
}

function readTable(proto: 'tcp' | 'udp', text: string): { ports: number[]; again: number[] } {
  const folder = mkdtempSync(join(tmpdir(), 'passel-ports-'));
  const path = join(folder, 'table');
  writeFileSync(path, text);
  const fd = openSync(path, 'r');
  try {
    const [first, second] = [new PortBits(), new PortBits()];
    readListeningPorts(proto, fd, first);
    readListeningPorts(proto, fd, second);
    return { ports: listPorts(first), again: listPorts(second) };
  } finally {
    closeSync(fd);
    rmSync(folder, { recursive: true });
  }
}

describe('listening ports of a table', () => {
  it('are the sockets in LISTEN for TCP, of both families', () => {
    expect(portsOf(['tcp', TCP], ['tcp', TCP6])).toEqual([22, 80]);
  });
  it('are the bound but unconnected sockets for UDP', () => {
    expect(portsOf(['udp', UDP])).toEqual([53, 65_535]);
  });
  it('are not looked for behind the first TCP socket that does not listen', () => {
    expect(parseListeningPorts('tcp', Buffer.from(TCP), TCP.length, new PortBits())).toBe(false);
    expect(portsOf(['tcp', TCP + TCP6])).toEqual([22]);
  });
  it('are not made of lines that are none', () => {
    expect(portsOf(['udp', 'a:b\n:::\n  1: 0:\n 2: 00000000:00G1 00000000:0000 07 \n\n 3: 0000'])).toEqual([]);
  });
  it('are found in tables longer than a read, again and again', () => {
    const line = UDP.split('\n')[1]!;
    const lines = Array.from({ length: 3000 }, (_, i) =>
      line.replace(':0035', `:${(i + 1).toString(16).toUpperCase().padStart(4, '0')}`),
    );
    const expected = Array.from({ length: 3000 }, (_, i) => i + 1);
    const { ports, again } = readTable('udp', `${UDP.split('\n')[0]}\n${lines.join('\n')}\n`);
    expect(ports).toEqual(expected);
    expect(again).toEqual(expected);
  });
  it('are none without a table', () => {
    const bits = new PortBits();
    readListeningPorts('tcp', -1, bits);
    expect(listPorts(bits)).toEqual([]);
  });
  it('of this machine hold those of a server', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const fd = openSync('/proc/self/net/tcp', 'r');
    const bits = new PortBits();
    readListeningPorts('tcp', fd, bits);
    closeSync(fd);
    const { port } = server.address() as { port: number };
    server.close();
    expect(bits.has(port)).toBe(true);
  });
});
