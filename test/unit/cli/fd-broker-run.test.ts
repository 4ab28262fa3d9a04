import { describe, expect, it } from 'vitest';
import { parseFdSpec, parseNamedFd, SPEC_FORMS } from '../../../src/cli/fd-broker/fd-spec.ts';
import { listReferences, replaceReferences } from '../../../src/cli/fd-broker/references.ts';

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
    ['a=tap:br0', { kind: 'tap', bridge: 'br0', vnetHeader: false, queues: 1 }],
    ['a=tap:br0,vnet', { kind: 'tap', bridge: 'br0', vnetHeader: true, queues: 1 }],
    ['a=tap:br0,vnet,queues=4', { kind: 'tap', bridge: 'br0', vnetHeader: true, queues: 4 }],
    ['a=netdev:lan.1', { kind: 'netdev', network: 'lan.1' }],
    ['a=7', { kind: 'inherited', fd: 7 }],
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
    'a=tap:br0,queues=0',
    'a=tap:br0,queues=254',
    'a=netdev:-x',
    'a=netdev:',
    'a=-1',
    'a=tap:sixteen-letters-',
    'a=broker:a/b',
    'a=broker:a,move',
  ])('%s is refused', (text) => {
    expect(() => parse(text)).toThrow();
  });

  it.each([
    ['file:', 'file:PATH[,ro|rw|append|create]'],
    ['unix-listen:', "unix-listen:PATH, the path of a unix socket, or '@' and a name"],
    ['passt:@', "passt:PATH, the path of a unix socket, or '@' and a name"],
    [
      'tcp-connect:localhost:1',
      'tcp-connect:ADDRESS:PORT, a numeric address (IPv6 in brackets) and a port from 1 to 65535',
    ],
    ['udp:127.0.0.1:0,to=[::1]:1', 'udp:ADDRESS:PORT[,to=ADDRESS:PORT], both addresses of one family'],
    ['tap:br0,queues=0', 'tap:BRIDGE[,vnet][,queues=N], N from 1 to 253'],
    ['netdev:a/b', "netdev:NETWORK, a name of the broker's policy"],
    ['broker:a,b', 'broker:NAME[,copy], a name that the broker keeps, without commas'],
    ['pipe:x', 'file:…, unix-listen:…'],
  ])('%s is refused by what its kind expects, in run and qmp alike', (text, expected) => {
    expect(() => parseFdSpec(text, reject)).toThrow(expected);
    expect(() => parse(`a=${text}`)).toThrow(expected);
  });

  it('has a form for every kind in the help texts', () => {
    for (const kind of [
      'file',
      'unix-listen',
      'unix-connect',
      'passt',
      'tcp-listen',
      'tcp-connect',
      'udp',
      'tap',
      'netdev',
      'broker',
    ]) {
      expect(SPEC_FORMS).toContain(`${kind}:`);
    }
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
      ['a', [3]],
      ['b', [14, 15]],
    ]);
    expect(replaceReferences(['fds=@a@:{fd:b}', '@a@@b@', 'me@here', '$&@a@', '\xff@a@'], numbers)).toEqual([
      'fds=3:14:15',
      '314:15',
      'me@here',
      '$&3',
      '\xff3',
    ]);
  });
});
