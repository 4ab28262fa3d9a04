import { describe, expect, it } from 'vitest';
import { networkArguments, pickNicModel } from '../../../src/qemu/add-network.ts';
import { parseQemuCommand } from '../../../src/qemu/command-line.ts';

const parse = (line: string) => parseQemuCommand(line.split(' '));

describe('a QEMU command line', () => {
  it.each([
    ['qemu-system-x86_64', 'x86_64'],
    ['/usr/bin/qemu-system-aarch64', 'aarch64'],
    ['qemu-system-s390x-7.2', 's390x'],
    ['/usr/libexec/qemu-kvm', 'native'],
    ['kvm', 'native'],
    ['./start-vm.sh', undefined],
    ['qemu-img', undefined],
  ])('of %s is for %s', (program, architecture) => {
    expect(parseQemuCommand([program]).architecture).toBe(architecture);
  });
  it.each([
    'q -netdev user,id=n0 -device e1000,netdev=n0',
    'q --netdev user,id=n0',
    'q -nic user',
    'q -nic none',
    'q -net none',
    'q -m 1G -nographic -net nic',
  ])('%s has a network', (line) => {
    expect(parse(line).hasNetwork).toBe(true);
  });
  it.each(['q -m 1G disk.img', 'q -append -netdev', 'q -name -nic -nographic', 'q -kernel -net'])(
    '%s has none',
    (line) => {
      expect(parse(line).hasNetwork).toBe(false);
    },
  );
  it.each([
    ['q -machine q35,accel=kvm', 'q35'],
    ['q -M microvm', 'microvm'],
    ['q -machine type=virt,gic-version=3', 'virt'],
    ['q -machine accel=tcg', ''],
    ['q -M pc -machine accel=tcg', 'pc'],
  ])('%s is for machine %j', (line, machine) => {
    expect(parse(line).machine).toBe(machine);
  });
  it('tells when it daemonizes', () => {
    expect(parse('q -daemonize').daemonizes).toBe(true);
    expect(parse('q -append -daemonize').daemonizes).toBe(false);
  });
});

describe('the network that is added', () => {
  const added = (line: string, nic?: string) => networkArguments(parse(line), 3, nic).join(' ');

  it('is a stream netdev on the inherited socket and a virtio NIC', () => {
    expect(added('qemu-system-x86_64 -m 1G')).toBe(
      '-netdev stream,id=passel0,server=off,addr.type=fd,addr.str=3 -device virtio-net-pci,netdev=passel0',
    );
  });
  it('uses the NIC that was asked for', () => {
    expect(added('q', 'e1000,mac=52:54:00:01:02:03')).toContain('-device e1000,mac=52:54:00:01:02:03,netdev=passel0');
  });
  it('does not reuse an id', () => {
    expect(added('q -device virtio-rng,id=passel0')).toContain('id=passel1,');
  });
  it('is only the netdev where a NIC waits for one', () => {
    expect(added('q -device e1000,netdev=lan')).toBe('-netdev stream,id=lan,server=off,addr.type=fd,addr.str=3');
  });
  it('is nothing where there is one already, or no machine', () => {
    expect(added('q -nic none')).toBe('');
    expect(added('q -M none')).toBe('');
  });
  it('suits the machine', () => {
    expect(pickNicModel(parse('qemu-system-s390x'))).toBe('virtio-net-ccw');
    expect(pickNicModel(parse('qemu-system-x86_64 -M microvm'))).toBe('virtio-net-device');
  });
});
