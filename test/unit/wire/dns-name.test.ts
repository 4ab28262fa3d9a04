import { describe, expect, it } from 'vitest';
import {
  isDnsName,
  readDnsName,
  readDnsNameList,
  writeCompressedDnsNameList,
  writeDnsName,
  writeDnsNameList,
} from '../../../src/wire/dns-name.ts';
import { WIRE_BAD_LENGTH, WIRE_BAD_OPTION } from '../../../src/wire/status.ts';
import { BASE, blankView, Dice, expectBuilt, fromHex, viewOf } from './bytes.ts';

const LABEL_63 = 'a'.repeat(63);
/** Three labels of 63 and one of 61: 255 bytes on the wire. */
const LONGEST = `${LABEL_63}.${LABEL_63}.${LABEL_63}.${'b'.repeat(61)}`;

function readList(hex: string): string[] | undefined {
  const bytes = fromHex(hex);
  return readDnsNameList(viewOf(bytes), BASE, BASE + bytes.length);
}

function readOne(hex: string): string | undefined {
  const bytes = fromHex(hex);
  return readDnsName(viewOf(bytes), BASE, BASE + bytes.length);
}

describe('a domain name', () => {
  it('is written as labels behind their lengths, with or without a dot at the end', () => {
    for (const name of ['example.org', 'example.org.']) {
      const view = blankView(13);
      expect(writeDnsName(view, BASE, BASE + 13, name)).toBe(BASE + 13);
      expectBuilt(view, '076578616d706c65 036f7267 00');
    }
  });

  it.each([
    ['', 'nothing'],
    ['.', 'the root'],
    ['..', 'only dots'],
    ['a..b', 'an empty label'],
    ['.a', 'an empty first label'],
    [`${LABEL_63}x.org`, 'a label of 64'],
    [`${LONGEST}b`, '256 bytes'],
    ['a b.org', 'a space'],
    ['b\u00fccher.example', 'a letter outside ASCII'],
    ['a\u0000.org', 'a zero'],
  ])('%j is refused: %s', (name) => {
    expect(isDnsName(name)).toBe(false);
    expect(writeDnsName(blankView(300), BASE, BASE + 300, name)).toBe(WIRE_BAD_OPTION);
  });

  it('of 255 bytes is the longest', () => {
    expect(isDnsName(LONGEST)).toBe(true);
    expect(writeDnsName(blankView(255), BASE, BASE + 255, LONGEST)).toBe(BASE + 255);
    expect(writeDnsName(blankView(255), BASE, BASE + 254, LONGEST)).toBe(WIRE_BAD_LENGTH);
  });

  it('is read whole, partly, or as the root', () => {
    expect(readOne('076578616d706c65 036f7267 00')).toBe('example.org');
    expect(readOne('03626f78')).toBe('box');
    expect(readOne('00')).toBe('');
    expect(readOne('')).toBe('');
    expect(readOne('03626f78 00 ffff')).toBe('box');
  });

  it('is not read when a label is cut off, too long, or a pointer', () => {
    expect(readOne('03626f')).toBeUndefined();
    expect(readOne(`40${'61'.repeat(64)}00`)).toBeUndefined();
    expect(readOne('c000')).toBeUndefined();
    expect(readOne(`${`3f${'61'.repeat(63)}`.repeat(4)}00`)).toBeUndefined();
  });
});

describe('a list of domain names', () => {
  it('is compressed like the example of RFC 3397 section 2', () => {
    const expected = '03656e67 056170706c65 03636f6d 00 096d61726b6574696e67 c004';
    const view = blankView(27);
    const names = ['eng.apple.com', 'marketing.apple.com'];
    expect(writeCompressedDnsNameList(view, BASE, BASE + 27, names)).toBe(BASE + 27);
    expectBuilt(view, expected);
    expect(readList(expected)).toEqual(names);
  });

  it('is written without compression elsewhere', () => {
    const view = blankView(30);
    expect(writeDnsNameList(view, BASE, BASE + 30, ['a.org', 'b.a.org'])).toBe(BASE + 16);
    expect(readDnsNameList(view, BASE, BASE + 16)).toEqual(['a.org', 'b.a.org']);
  });

  it('reads back as written, both ways, for random lists', () => {
    const dice = new Dice(1035);
    const labels = ['a', 'bb', 'org', 'example', 'corp', 'x'.repeat(63)];
    for (let i = 0; i < 300; i++) {
      const names = Array.from({ length: dice.between(0, 9) }, () =>
        Array.from({ length: dice.between(1, 3) }, () => labels[dice.between(0, labels.length - 1)]).join('.'),
      );
      const view = blankView(3000);
      const plain = writeDnsNameList(view, BASE, view.byteLength, names);
      expect(readDnsNameList(view, BASE, plain)).toEqual(names);
      const small = blankView(3000);
      const compressed = writeCompressedDnsNameList(small, BASE, small.byteLength, names);
      expect(readDnsNameList(small, BASE, compressed)).toEqual(names);
      expect(compressed).toBeLessThanOrEqual(plain);
    }
  });

  it('points no further than a pointer reaches', () => {
    const names = Array.from({ length: 500 }, (_, i) => `${'n'.repeat(60)}.host${i}`);
    const view = blankView(60_000);
    const end = writeCompressedDnsNameList(view, BASE, view.byteLength, [...names, ...names]);
    expect(end - BASE).toBeGreaterThan(0x4000);
    expect(readDnsNameList(view, BASE, end)).toEqual([...names, ...names]);
  });

  it('has no room anywhere but where it fits', () => {
    const names = ['eng.apple.com', 'marketing.apple.com'];
    for (let room = 0; room < 27; room++) {
      const view = blankView(64);
      expect(writeCompressedDnsNameList(view, BASE, BASE + room, names)).toBe(WIRE_BAD_LENGTH);
      expect(writeDnsNameList(view, BASE, BASE + room, names)).toBe(WIRE_BAD_LENGTH);
      for (let at = BASE + room; at < view.byteLength; at++) expect(view.getUint8(at)).toBe(0xa5);
    }
  });

  it('passes an earlier failure on', () => {
    expect(writeDnsNameList(blankView(9), WIRE_BAD_OPTION, 100, ['a'])).toBe(WIRE_BAD_OPTION);
    expect(writeCompressedDnsNameList(blankView(9), WIRE_BAD_OPTION, 100, ['a'])).toBe(WIRE_BAD_OPTION);
    expect(writeCompressedDnsNameList(blankView(99), BASE, BASE + 99, ['a', 'b..c'])).toBe(WIRE_BAD_OPTION);
  });

  it('leaves out the padding of neighbour discovery', () => {
    expect(readList('0161 00 0000000000')).toEqual(['a']);
  });

  it.each([
    ['a pointer to itself', 'c000'],
    ['a pointer forwards', 'c002 016100'],
    ['a loop of two', '0161 c004 0162 c000'],
    ['a loop hidden inside a label', '02c00100 c001'],
    ['a pointer cut off', '016100 c0'],
    ['a name cut off in a label', '0361'],
    ['a name without its zero', '0161'],
    ['a reserved kind of label', '8161 00'],
    ['a name grown beyond 255 by pointers', `${`3f${'61'.repeat(63)}`.repeat(3)}00 ${`3f${'61'.repeat(63)}`} c000`],
  ])('is not read with %s', (_, hex) => {
    expect(readList(hex)).toBeUndefined();
  });
});
