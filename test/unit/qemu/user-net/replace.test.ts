import { describe, expect, it } from 'vitest';
import { replaceUserNet } from '../../../../src/qemu/user-net/replace.ts';
import { readUserNet } from '../../../../src/qemu/user-net/user-net.ts';

const replace = (args: readonly string[]): { line: string; options: string } => {
  const { command, options } = replaceUserNet(['qemu-system-x86_64', ...args], 3);
  return { line: command.slice(1).join(' '), options };
};

describe('a command with a user network', () => {
  it.each([
    [
      ['-m', '1G', '-netdev', 'user,id=n1,ipv6=off,hostfwd=tcp::5555-:22', '-device', 'e1000,netdev=n1'],
      '-m 1G -netdev stream,id=n1,server=off,addr.type=fd,addr.str=3 -device e1000,netdev=n1',
      'user,ipv6=off,hostfwd=tcp::5555-:22',
    ],
    [
      ['-nic', 'user,ipv6=off,model=e1000,mac=52:54:98:76:54:32'],
      '-nic socket,fd=3,model=e1000,mac=52:54:98:76:54:32',
      'user,ipv6=off',
    ],
    [
      ['-nic', 'user,id=n1,guestfwd=tcp:10.0.2.100:1234-cmd:a b,,c'],
      '-nic socket,fd=3,id=n1',
      'user,guestfwd=tcp:10.0.2.100:1234-cmd:a b,,c',
    ],
    [
      ['--net', 'nic,model=rtl8139', '-net', 'user,restrict=on'],
      '--net nic,model=rtl8139 -net socket,fd=3',
      'user,restrict=on',
    ],
    [['disk.img'], 'disk.img -nic socket,fd=3', 'user'],
    [['-append', '-nic user', '-nic', 'user'], '-append -nic user -nic socket,fd=3', 'user'],
  ])('%j gets a socket in its place, and the card stays', (args, line, options) => {
    expect(replace(args)).toEqual({ line, options });
    readUserNet(options);
  });
  it('may be JSON', () => {
    const json = '{"type":"user","id":"j","restrict":true,"hostfwd":[{"str":"tcp::5557-:22"},{"str":"tcp::1-:2"}]}';
    const { line, options } = replace(['-netdev', json]);
    expect(line).toBe('-netdev stream,id=j,server=off,addr.type=fd,addr.str=3');
    expect(readUserNet(options)).toMatchObject({
      isRestricted: true,
      hostForwards: [{ hostPort: 5557 }, { hostPort: 1 }],
    });
  });
  it('keeps values that are refused, for the error to name them', () => {
    expect(() => readUserNet(replace(['-nic', 'user,smb=/tmp,smbserver=10.0.2.2']).options)).toThrow(
      /--user-net smbserver/,
    );
  });
  it.each([
    [['-nic', 'none']],
    [['-netdev', 'tap,id=n0']],
    [['-nodefaults']],
    [['-nic', 'user', '-netdev', 'user,id=n2']],
  ])('%j has none to replace, or too many', (args) => {
    expect(() => replace(args)).toThrow(/--replace-user-net/);
  });
});
