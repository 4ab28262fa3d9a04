import { describe, expect, it } from 'vitest';
import { findRefusedForm } from '../../../src/qemu/descriptor-forms.ts';

describe('findRefusedForm', () => {
  it.each([
    ['a client chardev', ['-chardev', 'socket,id=m,fd=3']],
    ['a server that waits', ['-chardev', 'socket,id=m,fd=3,server=on,wait=on']],
    ['a server by a switch', ['-chardev', 'socket,id=m,fd=3,server,wait=off']],
    ['a server with TLS', ['-chardev', 'socket,id=m,fd=3,server=on,tls-creds=t']],
    ['a client with an address of its own', ['-chardev', 'socket,id=m,path=/x,reconnect=1']],
    ['a set', ['-add-fd', 'set=0,fd=3']],
    ['a tap', ['--netdev', 'tap,id=n,fds=3:4,vhost=on']],
    ['a tap of its own', ['-netdev', 'tap,id=n,ifname=t0,script=no']],
    ['datagrams', ['-netdev', 'dgram,id=n,local.type=fd,local.str=3']],
    ['vhost-user by a path', ['-chardev', 'socket,id=c,path=/x', '-netdev', 'vhost-user,id=n,chardev=c']],
    ['a value that looks like an option', ['-append', '-add-fd', '-name', 'fd=0']],
    ['a command line that ends early', ['-chardev']],
  ])('lets %s pass', (_what, args) => {
    expect(findRefusedForm(args)).toBeUndefined();
  });

  it('says which option it is, in either order of two that do not fit', () => {
    const chardev = ['-chardev', 'socket,id=c,fd=3'];
    const netdev = ['-netdev', '{"type":"vhost-user","id":"n","chardev":"c"}'];
    for (const args of [
      [...chardev, ...netdev],
      [...netdev, ...chardev],
    ])
      expect(findRefusedForm(args)).toMatchObject({ option: 'netdev', value: netdev[1] });
  });

  it.each([
    ['chardev', 'socket,id=m,fd=3,server=off,wait=off', 'wait='],
    ['chardev', 'socket,id=m,fd=3,server=on,reconnect=1', 'reconnect='],
    ['chardev', 'socket,id=m,host=h,fd=3', 'host='],
    ['add-fd', 'fd=3,set=x', 'set='],
    ['add-fd', 'fd=0,set=1', 'standard stream'],
    ['netdev', '{"type":"tap","id":"n","fds":"3:4","queues":2}', 'fds= and queues='],
  ])('refuses -%s %s', (option, value, reason) => {
    const refused = findRefusedForm(['-S', `-${option}`, value]);
    expect(refused).toMatchObject({ option, value });
    expect(refused?.reason).toContain(reason);
  });
});
