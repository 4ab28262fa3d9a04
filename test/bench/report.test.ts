import { describe, expect, it } from 'vitest';
import { countResent } from './measure.ts';
import { findBestPeer, formatText, type RowResult } from './report.ts';

const row = (samples: RowResult['samples'], lowerIsBetter = false): RowResult => ({
  name: 'row',
  title: 'Row',
  unit: 'Gbit/s',
  lowerIsBetter,
  samples,
});

describe('the report of a benchmark', () => {
  it('compares ours with the best of all peers, whichever that is, and with Debian', () => {
    const result = row({
      ours: [{ value: 4, cpuSecondsPerGb: 0.5 }],
      'ours-plain': [{ value: 9 }],
      debian: [{ value: 1, cpuSecondsPerGb: 2 }],
      qemu: [{ value: 2, cpuSecondsPerGb: 4 }],
      'limit-direct': [{ value: 20, cpuSecondsPerGb: 0.1 }],
    });
    expect(findBestPeer(result, 'value', false)).toEqual({ stack: 'qemu', median: 2 });
    expect(formatText([result])).toMatch(/ours +4\.00 Gbit\/s .*×2\.00 qemu +×4\.00 +0\.250 debian/);
  });

  it('takes the least as the best where less is better', () => {
    const result = row({ ours: [{ value: 50 }], debian: [{ value: 100 }], qemu: [{ value: 75 }] }, true);
    expect(formatText([result])).toMatch(/×1\.50 qemu +×2\.00/);
  });

  it('compares the second value, such as the 99th percentile, with the least of all others', () => {
    const result = row({
      ours: [{ value: 1, second: 100 }],
      debian: [{ value: 1, second: 150 }],
      qemu: [{ value: 1, second: 200 }],
    });
    result.secondTitle = 'p99 µs';
    expect(formatText([result])).toContain('p99 µs 100 (×1.50 debian)');
  });

  it('compares with nobody when no peer has a result', () => {
    expect(formatText([row({ ours: [{ value: 50 }], debian: [] })])).not.toContain('×');
    expect(formatText([row({ ours: [], debian: [{ value: 50 }] })])).not.toMatch(/× |debian.*debian/);
  });

  it('counts what the guest sent again and what it got though it had it', () => {
    const tables = [
      'Tcp: RtoMin RetransSegs InErrs',
      'Tcp: 200 7 0',
      'TcpExt: SyncookiesSent DelayedACKLost',
      'TcpExt: 1 5',
      'IpExt: InOctets',
      'IpExt: 100',
    ];
    expect(countResent(`${tables.join('\n')}\n`)).toBe(12);
  });
});
