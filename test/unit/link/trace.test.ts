import { describe, expect, it } from 'vitest';
import { createArena } from '../../../src/base/arena.ts';
import { silentLogger } from '../../../src/base/logger.ts';
import { summarizeFrame } from '../../../src/link/frame-summary.ts';
import { createTraceLink } from '../../../src/link/trace.ts';
import { FakeLink } from '../../support/fake-link.ts';
import { seededRandom } from '../../support/seeded-random.ts';

const ETHERNET = '9a559a559a55525400123456';
const V6 = '20010db8000000000000000000000001fe800000000000000000000000000002';

function summary(hex: string): string {
  const bytes = Buffer.from(hex.replaceAll(' ', ''), 'hex');
  return summarizeFrame(new DataView(bytes.buffer, bytes.byteOffset, bytes.length), 0, bytes.length);
}

describe('summary of a frame', () => {
  it.each([
    ['0806 0001080006040001 525400123456 c0000202 000000000000 c0000201', 'ARP who has 192.0.2.1, tell 192.0.2.2'],
    ['0806 0001080006040002 525400123456 c0000202 9a559a559a55 c0000201', 'ARP 192.0.2.2 is here, to 192.0.2.1'],
    ['0806 0001', 'ARP, malformed'],
    [
      '0800 45000028000040004006b6cc c0000202 c0000201 c001 0050 00000001 00000002 5012 0400 0000 0000',
      'TCP 192.0.2.2:49153 > 192.0.2.1:80 [SA] seq 1 ack 2 window 1024 length 0',
    ],
    ['0800 45000014000040004006b6cc c0000202 c0000201', 'IPv4, malformed'],
    [`86dd 60000000 000a 11 40 ${V6} 0222 0223 000a 0000 0b00`, 'UDP [2001:db8::1]:546 > [fe80::2]:547 length 2'],
    [`86dd 60000000 0004 3a ff ${V6} 85000000`, 'ICMPv6 [2001:db8::1] > [fe80::2] type 133 code 0'],
    [`86dd 60000000 0008 2c 40 ${V6} 1100000100000001`, 'IPv6 2001:db8::1 > fe80::2 fragment'],
    [`86dd 60000000 0002 84 40 ${V6} 0000`, 'protocol 132 [2001:db8::1] > [fe80::2] length 2'],
    ['8100 0001 0800', 'EtherType 0x8100'],
  ])('%s', (hex, expected) => {
    const bytes = (ETHERNET.length + hex.replaceAll(' ', '').length) / 2;
    expect(summary(ETHERNET + hex)).toBe(`${bytes} bytes 52:54:00:12:34:56 > 9a:55:9a:55:9a:55 ${expected}`);
  });

  it('says something about any bytes', () => {
    expect(summary('9a55')).toBe('2 bytes, too short for Ethernet');
    const random = seededRandom(3);
    for (let round = 0; round < 2000; round++) {
      const bytes = Array.from({ length: 14 + Math.floor(random() * 80) }, () => Math.floor(random() * 256));
      [bytes[12], bytes[13], bytes[14]] = random() < 0.5 ? [8, 0, 0x45] : [0x86, 0xdd, 0x60];
      expect(summary(Buffer.from(bytes).toString('hex'))).toMatch(/^\d+ bytes /);
    }
  });
});

describe('trace', () => {
  function setUp(isEnabled: boolean) {
    const arena = createArena(4 << 20);
    const inner = new FakeLink(arena);
    const lines: string[] = [];
    const log = { ...silentLogger, isEnabled: () => isEnabled, trace: (line: string) => void lines.push(line) };
    const link = createTraceLink(inner, arena, log);
    inner.pushFromGuest(Buffer.from(`${ETHERNET}8100${'00'.repeat(46)}`, 'hex'));
    expect(link.receive(new Int32Array(8))).toBe(1);
    const start = link.reserve(64);
    arena.bytes.fill(0x11, start + 4, start + 64);
    link.commit(start + 4, 60);
    link.flush();
    expect(inner.sent).toHaveLength(1);
    return lines;
  }

  it('logs a line per frame, with its direction', () => {
    expect(setUp(true)).toEqual([
      'from guest: 60 bytes 52:54:00:12:34:56 > 9a:55:9a:55:9a:55 EtherType 0x8100',
      'to guest: 60 bytes 11:11:11:11:11:11 > 11:11:11:11:11:11 EtherType 0x1111',
    ]);
  });

  it('makes no lines that nobody wants', () => {
    expect(setUp(false)).toEqual([]);
  });
});
