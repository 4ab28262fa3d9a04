import { describe, expect, it } from 'vitest';
import { parseListeningPorts } from '../../../src/forward/listening-ports.ts';

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
`;

describe('listening ports of the host', () => {
  it('are the sockets in LISTEN for TCP, of both families', () => {
    const ports = new Set<number>();
    parseListeningPorts('tcp', TCP, ports);
    parseListeningPorts('tcp', TCP6, ports);
    expect([...ports]).toEqual([22, 80]);
  });
  it('are the bound but unconnected sockets for UDP', () => {
    const ports = new Set<number>();
    parseListeningPorts('udp', UDP, ports);
    expect([...ports]).toEqual([53]);
  });
});
