import { describe, expect, it } from 'vitest';
import { parseJsonObject } from '../../../src/qemu/json.ts';
import {
  escapeValue,
  formatOptionList,
  getProperty,
  type Property,
  parseOptionList,
  readProperties,
} from '../../../src/qemu/option-string.ts';
import { seededRandom } from '../../support/seeded-random.ts';

const pairs = (properties: readonly Property[]) => properties.map(({ key, value }) => [key, value]);

describe('a list of options', () => {
  it.each<[text: string, implied: string | undefined, expected: [string, string | undefined][]]>([
    ['', 'driver', []],
    ['e1000', 'driver', [['driver', 'e1000']]],
    ['e1000', undefined, [['e1000', undefined]]],
    ['e1000,', 'driver', [['driver', 'e1000']]],
    [
      'file=a,,b,format=raw',
      'file',
      [
        ['file', 'a,b'],
        ['format', 'raw'],
      ],
    ],
    [
      'a,,b,,,,c,ro',
      'file',
      [
        ['file', 'a,b,,c'],
        ['ro', undefined],
      ],
    ],
    ['x=,,', undefined, [['x', ',']]],
    [
      'x=1,,,y=2',
      undefined,
      [
        ['x', '1,'],
        ['y', '2'],
      ],
    ],
    ['accel=tcg', 'type', [['accel', 'tcg']]],
    ['opt=a=b', undefined, [['opt', 'a=b']]],
    [
      'q35,accel',
      'type',
      [
        ['type', 'q35'],
        ['accel', undefined],
      ],
    ],
    ['=x', 'type', [['', 'x']]],
  ])('%j is taken apart', (text, implied, expected) => {
    expect(pairs(parseOptionList(text, implied))).toEqual(expected);
  });

  it('comes back as it was written', () => {
    for (const text of ['virtio-net-pci,netdev=n0,mac=52:54:00:12:34:56', 'file=a,,b,ro,x=', 'pc-q35-7.2,accel=kvm']) {
      expect(formatOptionList(parseOptionList(text, 'driver'), 'driver')).toBe(text);
    }
  });

  it('writes a first value out in full where it would be read as something else', () => {
    for (const value of ['a=b', '', 'a=b,c']) {
      const text = formatOptionList([{ key: 'file', value }], 'file');
      expect(pairs(parseOptionList(text, 'file'))).toEqual([['file', value]]);
    }
  });

  it('survives any values', () => {
    const random = seededRandom(7);
    const below = (limit: number) => Math.floor(random() * limit);
    for (let round = 0; round < 2000; round++) {
      const properties = Array.from({ length: 1 + below(4) }, (_, index) => ({
        key: index === 0 ? 'driver' : `k${index}`,
        value: Array.from({ length: below(6) }, () => ',=a"\'{'[below(6)]).join(''),
      }));
      expect(parseOptionList(formatOptionList(properties, 'driver'), 'driver')).toEqual(properties);
    }
  });

  it('escapes commas', () => {
    expect(escapeValue('a,b,,')).toBe('a,,b,,,,');
  });
});

describe('the value of a key', () => {
  it('is the last one, in either form', () => {
    expect(getProperty(readProperties('e1000,netdev=a,netdev=b', 'driver'), 'netdev')).toBe('b');
    expect(getProperty(readProperties('e1000', 'driver'), 'netdev')).toBeUndefined();
    expect(getProperty(readProperties('{"driver":"e1000","netdev":"n0"}', 'driver'), 'netdev')).toBe('n0');
  });
});

describe('JSON', () => {
  it('is read with its objects flattened, as a list names them', () => {
    const text =
      '{"type": "stream", "addr": {"type": "fd", "str": "5"}, "server": false, "n": 7, "a": [1, {"b": true}], "z": null}';
    expect(pairs(readProperties(text))).toEqual([
      ['type', 'stream'],
      ['addr.type', 'fd'],
      ['addr.str', '5'],
      ['server', 'off'],
      ['n', '7'],
      ['a.0', '1'],
      ['a.1.b', 'on'],
      ['z', undefined],
    ]);
  });
  it('may have strings in single quotes, as QEMU allows', () => {
    expect(parseJsonObject(`{'a': 'it\\'s "so"', "b": "don't"}`)).toEqual({ a: 'it\'s "so"', b: "don't" });
  });
  it.each(['{broken', '{"a":1}x', '{', "{'a}"])('%s is refused', (text) => {
    expect(() => readProperties(text)).toThrow(SyntaxError);
  });
});
