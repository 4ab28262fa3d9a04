import { describe, expect, it } from 'vitest';
import { parseFdSpec } from '../../../src/cli/fd-broker/fd-spec.ts';
import { checkFitness, expectationOf } from '../../../src/cli/fd-broker/fitness.ts';
import { type DescriptorNeed, listDescriptorUses } from '../../../src/qemu/descriptor-uses.ts';
import type { FdFacts } from '../../../src/sys/fd-facts.ts';

describe('what an option needs its descriptor to be', () => {
  it.each<[string, string, DescriptorNeed]>([
    ['-chardev', 'socket,id=c,fd=@d@', 'connected'],
    ['-chardev', 'socket,id=c,fd=@d@,server=off', 'connected'],
    ['-chardev', 'socket,id=c,fd=@d@,server=on,wait=off', 'listening'],
    ['-chardev', 'socket,id=c,fd=@d@,server', 'listening'],
    ['-netdev', 'stream,id=n,addr.type=fd,addr.str=@d@', 'connected'],
    ['--netdev', 'stream,id=n,server=on,addr.type=fd,addr.str=@d@', 'listening'],
    ['-netdev', '{"type":"stream","id":"n","addr":{"type":"fd","str":"@d@"}}', 'connected'],
    ['-netdev', 'dgram,id=n,local.type=fd,local.str=@d@', 'datagram'],
    ['-netdev', 'socket,id=n,fd=@d@', 'connected-or-datagram'],
    ['-netdev', 'tap,id=n,fd=@d@', 'tap'],
    ['-netdev', 'tap,id=n,fds=@d@', 'tap'],
  ])('%s %s', (option, value, need) => {
    const uses = listDescriptorUses(['-S', option, value, 'disk']);
    expect(uses).toEqual(
      [{ option: 'netdev', value, text: '@d@', several: value.includes('fds='), need }].map((use) => ({
        ...use,
        option: option.replace(/^--?/, ''),
      })),
    );
  });

  it.each([
    ['-chardev', 'file,id=c,path=/x'],
    ['-chardev', 'socket,id=c,path=/x,server=on'],
    ['-netdev', 'stream,id=n,addr.type=unix,addr.path=@d@'],
    ['-netdev', 'user,id=n'],
    ['-add-fd', 'fd=@d@,set=1'],
    ['-incoming', 'fd:@d@'],
    ['-netdev', 'tap,id=n,vhostfd=@d@'],
  ])('any: %s %s', (option, value) => {
    expect(listDescriptorUses([option, value])).toEqual([]);
  });
});

describe('a SPEC that does not fit', () => {
  const reject = (expected: string): never => {
    throw new Error(expected);
  };
  const check = (spec: string, netdev: string, opened?: FdFacts[]): void => {
    const uses = listDescriptorUses(netdev.split(' '));
    checkFitness({ option: '--fd d', text: spec, spec: parseFdSpec(spec, reject) }, uses, opened);
  };
  const STREAM = '-netdev stream,id=n,addr.type=fd,addr.str=@d@';
  const TAP = '-netdev tap,id=n,fd=@d@';

  it.each([
    ['unix-listen:/x', STREAM, 'it takes a connected stream socket, and this is a listening stream socket'],
    ['udp:127.0.0.1:1', STREAM, 'it takes a connected stream socket, and this is a datagram socket'],
    ['netdev:lan', TAP, 'it takes a tap, and this is a connected stream socket'],
    ['tap:br0', STREAM, 'and this is a tap'],
    ['tap:br0,queues=2', TAP, 'it takes one descriptor, and these are 2: fds= takes several'],
    ['passt:/x', '-netdev dgram,id=n,local.type=fd,local.str=@d@', 'it takes a datagram socket'],
    ['passt:/x', '-chardev socket,id=c,fd=@d@,server=on', 'it takes a listening stream socket'],
  ])('%s for %s is refused before it is opened', (spec, netdev, reason) => {
    expect(() => check(spec, netdev)).toThrow(`--fd d: '${spec}' does not fit '${netdev}': `);
    expect(() => check(spec, netdev)).toThrow(reason);
  });

  it.each([
    ['netdev:lan', STREAM],
    ['passt:/x', '-netdev socket,id=n,fd=@d@'],
    ['udp:127.0.0.1:1', '-netdev socket,id=n,fd=@d@'],
    ['tap:br0,queues=2', '-netdev tap,id=n,fds=@d@'],
    ['tcp-listen:127.0.0.1:1', '-chardev socket,id=c,fd=@d@,server=on'],
    ['broker:x', TAP],
  ])('%s for %s fits', (spec, netdev) => {
    expect(() => check(spec, netdev)).not.toThrow();
  });

  it('is refused when it is open, if it says nothing about what it will be', () => {
    const file: FdFacts = { kind: 'file', access: 'read', pathOnly: false };
    expect(() => check('file:/x', STREAM, [file])).toThrow('and this is a file');
    expect(() =>
      check('broker:x', TAP, [
        { ...file, kind: 'tap' },
        { ...file, kind: 'tap' },
      ]),
    ).toThrow('these are 2');
    expect(() => check('5', TAP, [{ ...file, kind: 'tap' }])).not.toThrow();
  });

  it('is what the broker is told to expect', () => {
    expect(expectationOf([])).toBeUndefined();
    expect(expectationOf(listDescriptorUses(STREAM.split(' ')))).toEqual({
      kind: 'socket',
      type: 'stream',
      listening: false,
    });
    expect(expectationOf(listDescriptorUses(TAP.split(' ')))).toEqual({ kind: 'tap' });
  });
});
