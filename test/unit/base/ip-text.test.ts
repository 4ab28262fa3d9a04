import { isIPv4, isIPv6 } from 'node:net';
import { describe, expect, it } from 'vitest';
import {
  formatIp,
  isIpv4Text,
  isIpv6Text,
  isLinkLocalIpv6,
  isLoopbackIp,
  isMulticastIp,
  parseIp,
  parseIpv4,
} from '../../../src/base/ip-text.ts';
import { seededRandom } from '../../support/seeded-random.ts';

describe('addresses as text', () => {
  it.each([
    ['192.0.2.1', '192.0.2.1'],
    ['255.255.255.255', '255.255.255.255'],
    ['::', '::'],
    ['::1', '::1'],
    ['fe80::', 'fe80::'],
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:0DB8::ABCD', '2001:db8::abcd'],
    ['1:2:3:4:5:6:7:8', '1:2:3:4:5:6:7:8'],
    ['1:0:3:4:5:6:7:8', '1:0:3:4:5:6:7:8'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['64:ff9b::192.0.2.33', '64:ff9b::c000:221'],
  ])('%s is read and written as %s', (text, written) => {
    expect(formatIp(parseIp(text)!)).toBe(written);
  });
  it.each(['', '1.2.3', '1.2.3.4.5', '256.1.1.1', '01.2.3.4', ':::', 'fe80::1%eth0', 'x'])(
    '%j is no address',
    (text) => {
      expect(parseIp(text)).toBeUndefined();
    },
  );
  it('keeps IPv4 unsigned', () => {
    expect(parseIpv4('255.0.0.1')).toBe(0xff000001);
  });
  it('knows the special ranges', () => {
    expect(isLoopbackIp(parseIp('127.255.0.1')!)).toBe(true);
    expect(isLoopbackIp(parseIp('128.0.0.1')!)).toBe(false);
    expect(isLinkLocalIpv6(parseIp('febf::1')!)).toBe(true);
    expect(isLinkLocalIpv6(parseIp('fec0::1')!)).toBe(false);
    expect(isMulticastIp(parseIp('239.1.1.1')!)).toBe(true);
    expect(isMulticastIp(parseIp('ff02::1')!)).toBe(true);
    expect(isMulticastIp(parseIp('240.0.0.1')!)).toBe(false);
  });
  it('are told from other text as node:net does it', () => {
    const random = seededRandom(0x1b57);
    const below = (limit: number): number => Math.floor(random() * limit);
    const pick = <T>(list: readonly T[]): T => list[below(list.length)]!;
    const ALPHABET = [
      ...'0123456789abcfFg:.:.%/[]@ \t',
      '::',
      '25',
      '255',
      '256',
      '1.2.3.4',
      '%eth0',
      'ffff',
      'fffff',
      '0x',
      'é',
    ];
    const SEEDS = [
      '192.0.2.1',
      '::',
      '::1',
      '2001:db8::1',
      '1:2:3:4:5:6:7:8',
      '::ffff:192.0.2.1',
      'fe80::1%eth0',
      '0.0.0.0',
    ];
    let good = 0;
    for (let round = 0; round < 20_000; round++) {
      const letters = [...pick(SEEDS)];
      for (let changes = below(4); changes > 0; changes--) {
        letters.splice(below(letters.length + 1), below(2), ...(below(2) === 0 ? [pick(ALPHABET)] : []));
      }
      const text = letters.join('');
      expect([text, isIpv4Text(text), isIpv6Text(text)]).toEqual([text, isIPv4(text), isIPv6(text)]);
      if (isIPv4(text) || isIPv6(text)) good++;
    }
    expect(good).toBeGreaterThan(2000);
  });
});
