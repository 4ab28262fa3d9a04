import { describe, expect, it } from 'vitest';
import { pseudoSumIpv4, pseudoSumIpv6, sumBytes } from '../../../src/wire/checksum.ts';
import { checkEthernet, getEtherType, getMacHi, getMacLo, writeEthernetHeader } from '../../../src/wire/ethernet.ts';
import { checkIpv4, getIpv4Dst, getIpv4Src, getIpv4TotalLength, writeIpv4Header } from '../../../src/wire/ipv4.ts';
import {
  checkIpv6,
  createIpv6Extensions,
  loadIpv6,
  skipIpv6Extensions,
  writeIpv6Header,
} from '../../../src/wire/ipv6.ts';
import {
  checkTcp,
  createTcpOptions,
  getTcpAck,
  getTcpFlags,
  getTcpSeq,
  parseTcpOptions,
  writeTcpHeader,
  writeTcpTimestampOption,
} from '../../../src/wire/tcp.ts';
import { TCP_DATA_FRAME, TCP6_SYN_FRAME } from './golden-frames.ts';

const PACKETS = 20_000;
const arena = new DataView(new ArrayBuffer(4096));
new Uint8Array(arena.buffer).set(TCP_DATA_FRAME, 0);
new Uint8Array(arena.buffer).set(TCP6_SYN_FRAME, 1024);
const options = createTcpOptions();
const extensions = createIpv6Extensions();
const words = new Uint32Array(8);
const sink = new Uint32Array(1);

/** One segment of each family read and answered, as the data path does it. */
function handlePair(out: number): void {
  const v4 = 14;
  if (checkEthernet(arena, 0, 72) < 0) return;
  sink[0]! ^= getEtherType(arena, 0) ^ getMacHi(arena, 0) ^ getMacLo(arena, 6);
  const tcp = v4 + checkIpv4(arena, v4, 72);
  sink[0]! ^= getIpv4Src(arena, v4) ^ getIpv4Dst(arena, v4) ^ getIpv4TotalLength(arena, v4);
  const headerLength = checkTcp(arena, tcp, 72);
  parseTcpOptions(arena, tcp, headerLength, options);
  sink[0]! ^= getTcpSeq(arena, tcp) ^ getTcpAck(arena, tcp) ^ getTcpFlags(arena, tcp) ^ options.tsVal;

  writeEthernetHeader(arena, out, 0x0200, 0x15, 0x9a55, 0x9a559a55, 0x0800);
  writeIpv4Header(arena, out + 14, 58, 0, 0x4000, 64, 6, 0xc0000201, 0xc0000202, 0);
  writeTcpTimestampOption(arena, out + 54, 0xfedcba98, 0x89abcdef);
  const sum = sumBytes(arena, out + 66, 6, pseudoSumIpv4(0xc0000201, 0xc0000202, 6, 38));
  writeTcpHeader(arena, out + 34, 80, 50000, 0xf0000000, 0xe0000000, 32, 0x18, 65535, sum);

  const v6 = 1024 + 14;
  checkIpv6(arena, v6, 1024 + 94);
  loadIpv6(arena, v6 + 8, words, 0);
  loadIpv6(arena, v6 + 24, words, 4);
  skipIpv6Extensions(arena, v6, 1024 + 94, extensions);
  parseTcpOptions(arena, extensions.l4Offset, 40, options);
  writeIpv6Header(arena, out + 14, 20, 6, 64, words, 4, words, 0, 0, 0);
  writeTcpHeader(arena, out + 54, 80, 50000, 1, 2, 20, 0x10, 100, pseudoSumIpv6(words, 4, words, 0, 6, 20));
}

function heapGrowth(): number {
  const before = process.memoryUsage().heapUsed;
  for (let i = 0; i < PACKETS; i++) handlePair(2048 + (i & 255));
  return process.memoryUsage().heapUsed - before;
}

describe('the codecs of the data path', () => {
  it('allocate nothing per packet once they are compiled', async () => {
    // Compilation runs beside us and takes its time on a busy machine, and the test runner itself allocates now and then.
    let best = Number.POSITIVE_INFINITY;
    for (let round = 0; round < 100 && best >= 1; round++) {
      best = Math.min(best, Math.abs(heapGrowth()) / PACKETS);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    expect(best).toBeLessThan(1);
  });
});
