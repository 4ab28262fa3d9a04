import { describe, expect, it } from 'vitest';
import { listNamedDescriptors } from '../../../src/qemu/named-descriptors.ts';

describe('the descriptors that a command line names', () => {
  it.each<[args: string[], expected: number[]]>([
    [[], []],
    [['-chardev', 'socket,id=m,fd=7,server=on'], [7]],
    [
      ['-netdev', 'tap,fds=4:5,vhostfds=6:7'],
      [4, 5, 6, 7],
    ],
    [
      ['-netdev', '{"type":"tap","fd":"36","vhost":true,"vhostfd":"38","id":"n"}'],
      [36, 38],
    ],
    [['-netdev', 'stream,id=n,addr.type=fd,addr.str=9'], [9]],
    [['-netdev', '{"type":"stream","addr":{"type":"fd","str":"9"}}'], [9]],
    [['-netdev', 'dgram,id=n,local.type=fd,local.str=8'], [8]],
    [['-add-fd', 'fd=3,set=2,opaque=x'], [3]],
    [['-incoming', 'fd:11'], [11]],
    [['-qmp', 'unix:fd=16,server=on'], [16]],
    [['-drive', 'file=/dev/fd/12,format=raw'], [12]],
    [['-device', 'vhost-vsock-pci,vhostfd=17'], [17]],
    [['-netdev', 'tap,fd=name', '-append', 'x', '-add-fd', 'fd=-1'], []],
    [['-netdev', 'stream,id=n,addr.type=unix,addr.str=5'], []],
    [['-device', '{broken fd=3'], []],
  ])('%j', (args, expected) => {
    expect(listNamedDescriptors(args)).toEqual(expected);
  });
});
