import { PassThrough } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { buildCpio } from '../../../../src/cli/demo/cpio.ts';
import { buildAnswer, buildQuery, describeResponse } from '../../../../src/cli/demo/dns-message.ts';
import { resolveModules } from '../../../../src/cli/demo/guest-kernel.ts';
import { openGuestConsole } from '../../../../src/cli/demo/qemu-console.ts';

describe('the initramfs of the demo', () => {
  it('is a newc archive: aligned entries and a trailer', () => {
    const archive = buildCpio([
      { path: 'bin', kind: 'folder' },
      { path: 'bin/x', kind: 'file', data: Buffer.from('hello'), executable: true },
    ]);
    expect(archive.length % 4).toBe(0);
    expect(archive.subarray(0, 6).toString()).toBe('070701');
    const text = archive.toString('latin1');
    expect(text.match(/070701/g)).toHaveLength(3);
    // Mode and size of the file.
    expect(text).toMatch(/070701.{8}000081ed.{32}00000005/);
    expect(archive.includes(Buffer.concat([Buffer.from('hello'), Buffer.alloc(3), Buffer.from('070701')]))).toBe(true);
    expect(text).toMatch(/TRAILER!!!\0+$/);
  });
});

describe('the modules of a kernel', () => {
  const DEPENDENCIES = `kernel/drivers/virtio/virtio_pci.ko.xz: kernel/virtio_legacy.ko.xz kernel/virtio_ring.ko.xz
kernel/drivers/net/virtio_net.ko.xz: kernel/net_failover.ko.xz kernel/failover.ko.xz kernel/virtio_ring.ko.xz
kernel/failover.ko.xz:
`;
  it('come with what they depend on, deepest first and once each', () => {
    expect(resolveModules(DEPENDENCIES, '')).toEqual([
      'kernel/virtio_ring.ko.xz',
      'kernel/virtio_legacy.ko.xz',
      'kernel/drivers/virtio/virtio_pci.ko.xz',
      'kernel/failover.ko.xz',
      'kernel/net_failover.ko.xz',
      'kernel/drivers/net/virtio_net.ko.xz',
    ]);
  });
  it('are not needed where they are built in', () => {
    const builtin = 'kernel/drivers/virtio/virtio_pci.ko\nkernel/drivers/net/virtio_net.ko\n';
    expect(resolveModules('', builtin)).toEqual([]);
  });
  it('are missing where a network card would not work', () => {
    expect(resolveModules(DEPENDENCIES.split('\n')[0]!, '')).toBeUndefined();
  });
});

describe('DNS messages', () => {
  it('ask for an address and are answered with it', () => {
    const query = buildQuery(7, 'guest.passel.test');
    expect(query.toString('latin1')).toContain('\x05guest\x06passel\x04test\0');
    expect(describeResponse(buildAnswer(query, 0xc000024d))).toBe('192.0.2.77');
  });
  it('say why there is no address', () => {
    const response = buildQuery(7, 'x.test');
    response.writeUInt16BE(0x8183, 2);
    expect(describeResponse(response)).toBe('no such name');
    response.writeUInt16BE(0x8180, 2);
    expect(describeResponse(response)).toBe('no address');
  });
});

describe('the console of a virtual machine', () => {
  it('matches answers to commands among other lines, and repeats what was not acknowledged', async () => {
    const [output, input] = [new PassThrough(), new PassThrough()];
    const console = openGuestConsole(output, input);
    output.write('[    0.5] noise\n@@ 0 0\r\n');
    await console.ready;
    const answer = console.run('echo hi');
    const sent = String(input.read());
    expect(sent).toMatch(/^\n1 12 ZWNobyBoaQ==\n$/);
    await new Promise((resolve) => setTimeout(resolve, 1700));
    expect(String(input.read())).toBe(sent);
    output.write(`@@ 1 got\nnoise @@ 1 0 ${Buffer.from('hi\n').toString('base64')}\n`);
    expect(await answer).toBe('hi\n');
    expect(console.text()).toContain('noise');
  });
  it('rejects with the output of a command that failed, and when the machine ends', async () => {
    const [output, input] = [new PassThrough(), new PassThrough()];
    const console = openGuestConsole(output, input);
    const first = console.run('false');
    output.write(`@@ 1 1 ${Buffer.from('no such thing\n').toString('base64')}\n`);
    await expect(first).rejects.toThrow('no such thing');
    const second = console.run('true');
    output.end('Kernel panic\n');
    await expect(second).rejects.toThrow(/ended: .*Kernel panic/);
  });
});
