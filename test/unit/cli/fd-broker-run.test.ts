import { describe, expect, it } from 'vitest';
import { listReferences, parseNamedFd, replaceReferences } from '../../../src/cli/fd-broker/fd-spec.ts';

const reject = (expected: string): never => {
  throw new Error(expected);
};
const parse = (text: string) => parseNamedFd(text, reject).spec;

describe('a SPEC', () => {
  it.each([
    ['a=file:/x', { kind: 'file', path: '/x', mode: 'ro' }],
    ['a=file:/x,y,rw', { kind: 'file', path: '/x,y', mode: 'rw' }],
    ['a=file:/x,other', { kind: 'file', path: '/x,other', mode: 'ro' }],
    ['a=unix-listen:@x', { kind: 'unix-listen', path: '@x' }],
    ['a=passt:/a=b', { kind: 'unix-connect', path: '/a=b' }],
    ['a=tcp-listen:0.0.0.0:0', { kind: 'tcp-listen', place: { address: '0.0.0.0', port: 0 } }],
    ['a=tcp-connect:[::1]:65535', { kind: 'tcp-connect', place: { address: '::1', port: 65_535 } }],
    ['a=udp:127.0.0.1:1', { kind: 'udp', place: { address: '127.0.0.1', port: 1 }, peer: undefined }],
    [
      'a=udp:[::1]:0,to=[::2]:5',
      { kind: 'udp', place: { address: '::1', port: 0 }, peer: { address: '::2', port: 5 } },
    ],
    ['a=tap:br0', { kind: 'tap', bridge: 'br0', vnetHeader: false }],
    ['a=tap:br0,vnet', { kind: 'tap', bridge: 'br0', vnetHeader: true }],
    ['a=broker:disk-1.img', { kind: 'broker', name: 'disk-1.img', copy: false }],
    ['a=broker:disk,copy', { kind: 'broker', name: 'disk', copy: true }],
  ])('%s is understood', (text, spec) => {
    expect(parse(text)).toEqual(spec);
  });

  it.each([
    'a',
    'a=',
    '=file:x',
    '1a=file:x',
    'a b=file:x',
    'a=file:',
    'a=file:,rw',
    'a=constructor:x',
    'a=unix-listen:',
    'a=unix-listen:@',
    'a=tcp-listen:::1:80',
    'a=tcp-listen:[127.0.0.1]:80',
    'a=tcp-listen:127.0.0.1:65536',
    'a=tcp-listen:[fe80::1%lo]:80',
    'a=tcp-connect:127.0.0.1:0',
    'a=udp:127.0.0.1:0,to=127.0.0.1:0',
    'a=udp:127.0.0.1:0,to=[::1]:1',
    'a=udp:127.0.0.1:0,to=127.0.0.1:1,to=127.0.0.1:2',
    'a=tap:br0,other',
    'a=tap:sixteen-letters-',
    'a=broker:a/b',
    'a=broker:a,move',
  ])('%s is refused', (text) => {
    expect(() => parse(text)).toThrow();
  });
});

describe('references', () => {
  it('are found in both forms, wherever they stand', () => {
    expect([...listReferences(['x', 'fd=@a@,b={fd:b-2}', '@a@@c@', '@1@', 'a@b', '{fd}', '@@'])]).toEqual([
      'a',
      'b-2',
      'c',
    ]);
  });
  it('are replaced, and nothing else is', () => {
    const numbers = new Map([
      ['a', 3],
      ['b', 14],
    ]);
    expect(replaceReferences(['fds=@a@:{fd:b}', '@a@@b@', 'me@here', '$&@a@', '\xff@a@'], numbers)).toEqual([
      'fds=3:14',
      '314',
      'me@here',
      '$&3',
      '\xff3',
    ]);
  });
});
