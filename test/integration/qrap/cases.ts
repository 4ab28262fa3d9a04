/**
 * Command lines for qrap. `SAME` are those where C's result starts QEMU: ours must be the same words. `DIFFERENT` are those where
 * it cannot, or where C misbehaves; each has what ours becomes and the reason, which passel-qrap(1) gives too.
 */

export interface SameCase {
  readonly name: string;
  readonly words: readonly string[];
}

export interface DifferentCase extends SameCase {
  /** Arguments of QEMU as ours makes them. */
  readonly ours: readonly string[];
  readonly why: string;
}

const split = (text: string): string[] => (text === '' ? [] : text.split(' '));
const range = (first: number, last: number): number[] => Array.from({ length: last - first + 1 }, (_, i) => first + i);

/** PCI Express ports pci.N as libvirt writes them: eight to a slot. */
const placeOfPort = (n: number) => ({ slot: 10 + Math.floor((n - 1) / 8), fn: (n - 1) % 8 });
const ports = (numbers: readonly number[]): string[] =>
  numbers.flatMap((n) => {
    const { slot, fn } = placeOfPort(n);
    return [
      '-device',
      `pcie-root-port,chassis=${n},id=pci.${n},bus=pcie.0,multifunction=on,addr=0x${slot.toString(16)}.0x${fn}`,
    ];
  });
const jsonPorts = (numbers: readonly number[]): string[] =>
  numbers.flatMap((n) => [
    '-device',
    JSON.stringify({ driver: 'pcie-root-port', chassis: n, id: `pci.${n}`, bus: 'pcie.0' }),
  ]);
const onPorts = (numbers: readonly number[]): string[] =>
  numbers.flatMap((n) => ['-device', `virtio-rng-pci,bus=pci.${n},addr=0x0`]);
const json = (driver: string, more: object): string[] => ['-device', JSON.stringify({ driver, ...more })];

const Q35 = ['-machine', 'pc-q35-7.2,accel=tcg', '-nodefaults'];
const I440FX = ['-machine', 'pc-i440fx-7.2,accel=tcg', '-nodefaults'];
const S390 = ['-machine', 's390-ccw-virtio-7.2', '-nodefaults'];
const onSlots = (slots: readonly number[]): string[] =>
  slots.flatMap((n) => ['-device', `virtio-rng-pci,bus=pci.0,addr=0x${n.toString(16)}`]);
const onDevnos = (numbers: readonly number[]): string[] =>
  numbers.flatMap((n) => ['-device', `virtio-rng-ccw,devno=fe.0.${n.toString(16)}`]);

/**
 * A libvirt domain (pc-q35-7.2, fifteen root ports, a conventional bridge, everything in JSON) as its log has it, with names and
 * numbers of our own; QEMU started with a tap that libvirt opened.
 */
export const LIBVIRT_DOMAIN: readonly string[] = [
  ...split('-name guest=vm,debug-threads=on -S'),
  ...[
    '-object',
    '{"qom-type":"secret","id":"masterKey0","format":"raw","file":"/var/lib/libvirt/qemu/domain-1-vm/master-key.aes"}',
  ],
  ...split('-machine pc-q35-7.2,usb=off,vmport=off,dump-guest-core=off,memory-backend=pc.ram -accel kvm'),
  ...split('-cpu host,migratable=on -m 6144'),
  ...['-object', '{"qom-type":"memory-backend-ram","id":"pc.ram","size":6442450944}', '-overcommit', 'mem-lock=off'],
  ...split('-smp 2,maxcpus=4,sockets=1,dies=1,cores=2,threads=2 -uuid 00000000-1111-4222-8333-444444444444'),
  ...split('-no-user-config -nodefaults -chardev socket,id=charmonitor,fd=35,server=on,wait=off'),
  ...split('-mon chardev=charmonitor,id=monitor,mode=control -rtc base=utc,driftfix=slew'),
  ...split('-global kvm-pit.lost_tick_policy=delay -no-hpet -no-shutdown -boot strict=on'),
  ...range(1, 15).flatMap((n) => {
    const slot = n <= 8 ? 2 : 3;
    const fn = (n - 1) % 8;
    const place = fn === 0 ? { multifunction: true, addr: `0x${slot}` } : { addr: `0x${slot}.0x${fn}` };
    return json('pcie-root-port', { port: 15 + n, chassis: n, id: `pci.${n}`, bus: 'pcie.0', ...place });
  }),
  ...json('pcie-pci-bridge', { id: 'pci.16', bus: 'pci.7', addr: '0x0' }),
  ...json('qemu-xhci', { p2: 15, p3: 15, id: 'usb', bus: 'pci.2', addr: '0x0' }),
  ...json('virtio-serial-pci', { id: 'virtio-serial0', bus: 'pci.3', addr: '0x0' }),
  ...[
    '-blockdev',
    '{"driver":"file","filename":"/var/lib/libvirt/images/vm.qcow2","node-name":"libvirt-2-storage","auto-read-only":true}',
  ],
  ...[
    '-blockdev',
    '{"node-name":"libvirt-2-format","read-only":false,"driver":"qcow2","file":"libvirt-2-storage","backing":null}',
  ],
  ...json('virtio-blk-pci', { bus: 'pci.4', addr: '0x0', drive: 'libvirt-2-format', id: 'virtio-disk0', bootindex: 1 }),
  ...json('ide-cd', { bus: 'ide.0', id: 'sata0-0-0' }),
  ...['-netdev', '{"type":"tap","fd":"36","vhost":true,"vhostfd":"38","id":"hostnet0"}'],
  ...json('virtio-net-pci', { netdev: 'hostnet0', id: 'net0', mac: '52:54:00:00:00:01', bus: 'pci.1', addr: '0x0' }),
  ...split('-chardev pty,id=charserial0'),
  ...json('isa-serial', { chardev: 'charserial0', id: 'serial0', index: 0 }),
  ...split('-chardev socket,id=charchannel0,fd=34,server=on,wait=off'),
  ...json('virtserialport', {
    bus: 'virtio-serial0.0',
    nr: 1,
    chardev: 'charchannel0',
    id: 'channel0',
    name: 'org.qemu.guest_agent.0',
  }),
  ...json('usb-tablet', { id: 'input0', bus: 'usb.0', port: '1' }),
  ...['-audiodev', '{"id":"audio1","driver":"none"}', '-vnc', '127.0.0.1:0,audiodev=audio1'],
  ...json('virtio-vga', { id: 'video0', max_outputs: 1, bus: 'pcie.0', addr: '0x1' }),
  ...json('i6300esb', { id: 'watchdog0', bus: 'pci.16', addr: '0x1' }),
  ...split('-watchdog-action reset'),
  ...json('virtio-balloon-pci', { id: 'balloon0', bus: 'pci.5', addr: '0x0' }),
  ...['-object', '{"qom-type":"rng-random","id":"objrng0","filename":"/dev/urandom"}'],
  ...json('virtio-rng-pci', { rng: 'objrng0', id: 'rng0', bus: 'pci.6', addr: '0x0' }),
  ...split('-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny -msg timestamp=on'),
];

const CARDS = ['virtio-net-pci', 'virtio-net-ccw', 'e1000', 'e1000e', 'rtl8139'];

export const SAME: readonly SameCase[] = [
  // A number and a command.
  { name: 'number and command', words: split('5 kvm img -net socket,fd=5 -net nic') },
  { name: 'another command and number', words: split('7 qemu-system-x86_64 -netdev socket,fd=7,id=n') },
  { name: 'nothing behind the command', words: split('5 kvm') },
  { name: 'hexadecimal', words: split('0x9 kvm -x') },
  { name: 'hexadecimal in capitals', words: split('0X1F kvm -x') },
  { name: 'octal', words: split('010 kvm -x') },
  { name: 'a leading zero', words: split('05 kvm -x') },
  { name: 'something behind the number', words: split('5abc kvm -x') },
  { name: 'an octal number that ends early', words: split('059 kvm -x') },
  { name: 'space in front', words: [' 6', 'kvm', '-x'] },
  { name: 'a tab in front', words: ['\t6', 'kvm', '-x'] },
  { name: 'a sign', words: split('+6 kvm -x') },
  { name: 'a larger number', words: split('63 kvm -x') },
  { name: 'empty and odd words', words: ['5', 'kvm', '', ' ', 'a\nb', '"', "'", '\\', 'ü', '--print'] },
  { name: 'cards and netdevs stay', words: split('5 kvm -device e1000,netdev=n -netdev user,id=n -net nic -nic user') },
  { name: 'the way of another option', words: split('9 kvm --help') },
  // q35.
  { name: 'q35: the first port', words: [...Q35, ...ports([3])] },
  { name: 'q35: the second port', words: [...Q35, ...ports([3, 4]), ...onPorts([3])] },
  { name: 'q35: ports in another order', words: [...Q35, ...ports([5, 4, 3]), ...onPorts([3])] },
  { name: 'q35: ports that are not contiguous', words: [...Q35, ...ports([3, 4, 5, 6]), ...onPorts([3, 4, 6])] },
  { name: 'q35: ports 3 to 11 are taken', words: [...Q35, ...ports(range(1, 12)), ...onPorts(range(3, 11))] },
  { name: 'q35: the last port', words: [...Q35, ...ports(range(1, 30)), ...onPorts(range(3, 29))] },
  { name: 'q35: ports 1 and 2 are not looked at', words: [...Q35, ...ports([1, 2, 3]), ...onPorts([1])] },
  {
    name: 'q35: the port of a card that goes is free',
    words: [
      ...Q35,
      ...ports([3, 4]),
      ...onPorts([3]),
      ...split('-netdev user,id=n -device e1000,bus=pci.4,addr=0x0,netdev=n'),
    ],
  },
  {
    name: 'q35: devices on pcie.0 do not count',
    words: [...Q35, ...ports([3]), ...split('-device virtio-rng-pci,bus=pcie.0,addr=0x3')],
  },
  { name: 'q35: a number above 31 wraps around', words: [...Q35, ...ports([3, 4, 35]), ...onPorts([35])] },
  {
    name: 'q35: port and nothing else',
    words: [...Q35, ...ports([3, 4]), ...split('-device virtio-rng-pci,bus=pci.3')],
  },
  {
    name: 'q35: several functions of a port',
    words: [
      ...Q35,
      ...ports([3, 4]),
      ...split(
        '-device virtio-rng-pci,bus=pci.3,multifunction=on,addr=0x0 -device virtio-rng-pci,bus=pci.3,addr=0x0.0x1',
      ),
    ],
  },
  {
    name: 'q35: JSON',
    words: [...Q35, ...jsonPorts([3, 4]), ...json('virtio-rng-pci', { bus: 'pci.3', addr: '0x0' })],
  },
  {
    name: 'q35: JSON mixed with plain text',
    words: [...Q35, ...ports([3, 4, 5]), ...onPorts([4]), ...json('virtio-rng-pci', { bus: 'pci.3', addr: '0x0' })],
  },
  {
    name: 'q35: JSON with the address elsewhere',
    words: [...Q35, ...ports([3, 4]), ...json('virtio-rng-pci', { addr: '0x0', bus: 'pci.3', id: 'r' })],
  },
  {
    name: 'q35: a port that a file may define',
    words: [...Q35, ...split('-readconfig q35.cfg -device virtio-rng-pci,bus=pci.3,addr=0x0')],
  },
  { name: 'q35: the machine behind the devices', words: [...ports([3]), ...Q35] },
  { name: 'another machine: ports', words: [...split('-machine virt,gic-version=3'), ...ports([3])] },
  { name: '-M is not looked at', words: [...split('-M q35'), ...ports([3])] },
  { name: 'a machine by its alias: ports', words: [...split('-machine q35'), ...ports([3, 4]), ...onPorts([3])] },
  { name: 'the last -machine decides', words: [...split('-machine pc-i440fx-7.2 -machine q35'), ...ports([3])] },
  { name: 'a libvirt domain', words: LIBVIRT_DOMAIN },
  { name: 'q35: a conventional bridge is as good', words: [...Q35, ...split('-device pcie-pci-bridge,id=pci.3')] },
  { name: 'no machine: a bridge is as good', words: split('-device pci-bridge,id=pci.3,chassis_nr=3') },
  // i440FX.
  {
    name: 'i440fx: devices that are not on PCI',
    words: [
      ...I440FX,
      ...split(
        '-usb -device usb-tablet -device virtio-serial-pci,bus=pci.0,addr=0x2 -device virtserialport,chardev=c -device ide-hd,drive=d',
      ),
    ],
  },
  {
    name: 'i440fx: JSON without an address comes later than what is in a list',
    words: [...I440FX, ...json('virtio-rng-pci', { id: 'r' })],
  },
  { name: 'i440fx: the first slot', words: [...I440FX, ...split('-device isa-debugcon,chardev=c')] },
  { name: 'i440fx: slot 2 is taken', words: [...I440FX, ...onSlots([2])] },
  { name: 'i440fx: slots 2 and 3 are taken', words: [...I440FX, ...onSlots([2, 3])] },
  { name: 'i440fx: a gap', words: [...I440FX, ...onSlots([2, 4])] },
  { name: 'i440fx: hexadecimal', words: [...I440FX, ...onSlots(range(2, 9))] },
  { name: 'i440fx: the last slot', words: [...I440FX, ...onSlots(range(2, 29))] },
  { name: 'i440fx: a function', words: [...I440FX, ...split('-device virtio-rng-pci,bus=pci.0,addr=0x2.0x1')] },
  {
    name: 'i440fx: a slot with a leading zero',
    words: [...I440FX, ...split('-device virtio-rng-pci,bus=pci.0,addr=0x02')],
  },
  { name: 'i440fx: JSON', words: [...I440FX, ...json('virtio-rng-pci', { bus: 'pci.0', addr: '0x2' })] },
  {
    name: 'i440fx: JSON mixed with plain text',
    words: [...I440FX, ...onSlots([2]), ...json('virtio-rng-pci', { bus: 'pci.0', addr: '0x3' })],
  },
  { name: 'i440fx: no display', words: split('-machine pc-i440fx-7.2 -vga none -device isa-serial,chardev=c') },
  { name: 'i440fx: a display with an address', words: split('-machine pc-i440fx-7.2 -device VGA,bus=pci.0,addr=0x2') },
  {
    name: 'i440fx: behind a bridge',
    words: [
      ...I440FX,
      ...split('-device pci-bridge,id=b,chassis_nr=1,bus=pci.0,addr=0x2 -device virtio-rng-pci,bus=b,addr=0x5'),
    ],
  },
  {
    name: 'i440fx: another version',
    words: split('-machine pc-1.3 -nodefaults -device virtio-rng-pci,bus=pci.0,addr=0x2'),
  },
  {
    name: 'i440fx: everything in -machine',
    words: split(
      '-machine pc-i440fx-rhel7.6.0,accel=kvm,usb=off -nodefaults -device virtio-rng-pci,bus=pci.0,addr=0x3',
    ),
  },
  // s390.
  { name: 's390: the first number', words: [...S390, ...split('-device virtio-rng-ccw')] },
  { name: 's390: number 1 is taken', words: [...S390, ...onDevnos([1])] },
  { name: 's390: in four digits', words: [...S390, ...split('-device virtio-rng-ccw,devno=fe.0.0001')] },
  { name: 's390: hexadecimal', words: [...S390, ...onDevnos(range(1, 9))] },
  { name: 's390: the last number', words: [...S390, ...onDevnos(range(1, 14))] },
  { name: 's390: JSON', words: [...S390, ...json('virtio-rng-ccw', { devno: 'fe.0.0001' })] },
  { name: 's390: a larger number', words: [...S390, ...split('-device virtio-rng-ccw,devno=fe.0.0011')] },
  // What goes.
  { name: 'all cards', words: [...Q35, ...ports([3]), ...CARDS.flatMap((card) => ['-device', `${card},x=y`])] },
  { name: 'all cards in JSON', words: [...Q35, ...ports([3]), ...CARDS.flatMap((card) => json(card, { x: 'y' }))] },
  { name: 'the options of old', words: [...Q35, ...ports([3]), ...split('-net nic,model=e1000 -net user -m 1')] },
  { name: '-netdev in JSON', words: [...Q35, ...ports([3]), '-netdev', '{"type":"user","id":"n"}'] },
  { name: 'a netdev in front of everything', words: [...split('-netdev user,id=n'), ...Q35, ...ports([3])] },
  { name: '-netdev at the end without a value', words: [...Q35, ...ports([3]), '-netdev'] },
  { name: '-net at the end without a value', words: [...Q35, ...ports([3]), '-net'] },
  {
    name: 'several',
    words: [
      ...Q35,
      ...ports([3]),
      ...split('-netdev user,id=a -netdev user,id=b -device e1000,netdev=a -device rtl8139,netdev=b'),
    ],
  },
  // What stays.
  {
    name: 'cards of other models',
    words: [
      ...Q35,
      ...ports([3]),
      ...split('-device ne2k_pci,id=c -device pcnet,id=d -device vmxnet3,id=e -device e1000-82545em,id=f'),
    ],
  },
  {
    name: 'cards without properties',
    words: [...Q35, ...ports([3]), ...split('-device virtio-net-pci -device e1000')],
  },
  { name: '-nic', words: [...Q35, ...ports([3]), ...split('-nic user,id=n')] },
  {
    name: 'options with two dashes',
    words: [...Q35, ...ports([3]), ...split('--netdev user,id=n --device e1000,netdev=n')],
  },
  { name: 'a card in JSON with blanks', words: [...Q35, ...ports([3]), '-device', '{ "driver": "e1000" }'] },
  {
    name: 'a card in JSON whose driver is not first',
    words: [...Q35, ...ports([3]), '-device', '{"id":"x","driver":"e1000"}'],
  },
  { name: 'a card in JSON without properties', words: [...Q35, ...ports([3]), '-device', '{"driver":"e1000"}'] },
  { name: 'a card that waits for the netdev', words: split('--device e1000,netdev=hostnet0') },
  { name: 'a similar value', words: [...Q35, ...ports([3]), ...split('-name netdev')] },
  { name: 'a number and no command', words: ['2', 'kvm', ...Q35, ...ports([3])] },
  { name: 'a negative number', words: ['-5', 'kvm', ...Q35, ...ports([3])] },
  { name: 'a number that is too large', words: ['2147483647', 'kvm', ...Q35, ...ports([3])] },
  { name: 'a number beyond 32 bits', words: ['4294967301', 'kvm', ...Q35, ...ports([3])] },
  { name: 'a command and no number', words: ['kvm', '5', ...Q35, ...ports([3])] },
  { name: 'an empty word', words: ['', ...Q35, ...ports([3]), ''] },
  { name: 'a display and a machine without bus', words: split('-machine none -S') },
  {
    name: 'a machine without bus, in full',
    words: split(
      '-S -no-user-config -nodefaults -nographic -machine none,accel=kvm:tcg -qmp unix:/tmp/m,server=on,wait=off',
    ),
  },
  { name: '4 000 words', words: [...Q35, ...ports([3]), ...range(1, 4000).map(String)] },
  {
    name: '4 000 devices',
    words: [
      ...Q35,
      ...ports([3, 4]),
      ...range(1, 2000).flatMap((n) => ['-device', `usb-tablet,id=t${n}`]),
      ...onPorts([3]),
    ],
  },
];

const NETDEV = ['-netdev', 'socket,fd=5,id=hostnet0'];
const card = (place = '', driver = 'virtio-net-pci'): string[] => [
  '-device',
  `${driver},${place === '' ? '' : `${place},`}netdev=hostnet0,x-txburst=4096`,
  ...NETDEV,
];
const jsonCard = (place: object): string[] => [
  ...json('virtio-net-pci', { ...place, netdev: 'hostnet0', 'x-txburst': 4096 }),
  ...['-netdev', '{"type":"socket","fd":"5","id":"hostnet0"}'],
];

function different(name: string, words: readonly string[], ours: readonly string[], why: string): DifferentCase {
  return { name, words, ours, why };
}
/** The words stay and something is added. */
function adds(name: string, words: readonly string[], added: readonly string[], why: string): DifferentCase {
  return different(name, words, [...words, ...added], why);
}

const NO_CARD = 'C adds no card where there is no other -device, although its manual says so';
const NO_PORT = 'C names a port that is not on the command line: QEMU ends with "Bus not found"';
const TAKEN = 'C names a place that is taken: QEMU ends';
const LATE = 'QEMU makes devices in JSON last: the port that C names in a list is not there yet';
const FULL = 'C gives up where its table ends; QEMU may still find a place';

export const DIFFERENT: readonly DifferentCase[] = [
  adds('no arguments', [], card(), NO_CARD),
  adds("the manual's example", split('test.qcow2 -m 1024 -display none -nodefaults -nographic'), card(), NO_CARD),
  different(
    'only a network',
    split('-m 512 -netdev user,id=n0 -net nic -net user -nographic'),
    [...split('-m 512 -nographic'), ...card()],
    NO_CARD,
  ),
  different(
    'only a card',
    split('-netdev user,id=n0 -device virtio-net-pci,netdev=n0 -m 512'),
    [...split('-m 512'), ...card()],
    NO_CARD,
  ),
  adds('only -nic', split('-nic user'), card(), NO_CARD),
  adds('microvm', split('-machine microvm'), card('', 'virtio-net-device'), NO_CARD),
  adds('no ports', split('-device virtio-rng-pci'), card(), NO_PORT),
  adds('q35 without ports', [...Q35, ...split('-device virtio-rng-pci')], card(), NO_PORT),
  adds('q35 without port 3', [...Q35, ...ports([7])], card('bus=pci.7,addr=0x0'), NO_PORT),
  adds(
    'q35: JSON, and ports of other names',
    [...Q35, ...json('pcie-root-port', { id: 'rp0' }), ...json('virtio-rng-pci', { bus: 'rp0' })],
    jsonCard({}),
    NO_PORT,
  ),
  adds('q35: ports in JSON', [...Q35, ...jsonPorts([3])], jsonCard({ bus: 'pci.3', addr: '0x0' }), LATE),
  adds('another machine without ports', split('-M pc-i440fx-7.2 -device virtio-rng-pci'), card(), NO_PORT),
  adds('a machine by its alias without ports', split('-machine pc -device virtio-rng-pci'), card(), NO_PORT),
  adds('s390 by -M', split('-M s390-ccw-virtio -device virtio-rng-ccw'), card('', 'virtio-net-ccw'), NO_PORT),
  adds(
    'q35: a port whose device C does not see',
    [...Q35, ...ports([3, 4]), '-device', '{"driver": "virtio-rng-pci", "bus": "pci.3", "addr": "0x0"}'],
    card('bus=pci.4,addr=0x0'),
    TAKEN,
  ),
  adds(
    'i440fx: the default display has slot 2',
    split('-machine pc-i440fx-7.2 -device isa-serial,chardev=c'),
    card(),
    TAKEN,
  ),
  adds('i440fx: a device without an address', [...I440FX, ...split('-device virtio-rng-pci')], card(), TAKEN),
  adds(
    'i440fx: an address in front of its bus',
    [...I440FX, ...split('-device virtio-rng-pci,addr=0x2,bus=pci.0')],
    card(),
    TAKEN,
  ),
  adds('i440fx: an address without a bus', [...I440FX, ...split('-device virtio-rng-pci,addr=2')], card(), TAKEN),
  adds(
    'i440fx: JSON with blanks',
    [...I440FX, '-device', '{"driver": "virtio-rng-pci", "bus": "pci.0", "addr": "0x2"}'],
    jsonCard({}),
    TAKEN,
  ),
  adds(
    's390: numbers that QEMU gives out',
    [...S390, ...split('-device virtio-rng-ccw -device virtio-serial-ccw')],
    card('', 'virtio-net-ccw'),
    TAKEN,
  ),
  adds('q35: all ports taken', [...Q35, ...ports(range(1, 30)), ...onPorts(range(3, 30))], card(), FULL),
  adds('i440fx: all slots taken', [...I440FX, ...onSlots(range(2, 30))], card(), FULL),
  adds('s390: all numbers taken', [...S390, ...onDevnos(range(1, 15))], card('', 'virtio-net-ccw'), FULL),
  adds(
    'a command that is not there',
    ['5', 'nonexistent', ...Q35, ...ports([3, 4]), ...onPorts([3])],
    card('bus=pci.4,addr=0x0'),
    'in C a stale errno switches the search for slots off',
  ),
  different(
    'an absolute path',
    split('5 /tmp/bin/kvm -x'),
    ['-x'],
    'C looks for every command below the folders of PATH',
  ),
  different(
    'a relative path',
    split('5 ./bin/qemu-kvm -x'),
    ['-x'],
    'C looks for every command below the folders of PATH',
  ),
  adds(
    'free text that looks like an option',
    [...split('-name -netdev -m 1'), ...Q35, ...ports([3])],
    card('bus=pci.3,addr=0x0'),
    'C takes the value of -name for an option',
  ),
  adds(
    'free text that looks like a machine',
    [...split('-name -machine pc-i440fx.img'), ...ports([3])],
    card('bus=pci.3,addr=0x0'),
    'C takes the value of -name for an option',
  ),
  different(
    'a -device without a value',
    [...Q35, ...ports([3]), '-device'],
    [...Q35, ...ports([3]), ...card('bus=pci.3,addr=0x0'), '-device'],
    'in C -device swallows what is added',
  ),
  adds(
    'a card that waits for the netdev',
    split('-device virtio-net-pci-non-transitional,netdev=hostnet0'),
    NETDEV,
    'C adds a second card on the same netdev: QEMU ends',
  ),
  different(
    'a card that C does not know, its netdev gone',
    [...Q35, ...ports([3]), ...split('-netdev tap,fd=22,id=h -device virtio-net-pci-non-transitional,netdev=h')],
    [...Q35, ...ports([3]), ...card('bus=pci.3,addr=0x0')],
    'C leaves a card whose netdev it removed: QEMU ends',
  ),
  different(
    'another netdev of that id',
    [...Q35, ...ports([3]), ...split('--netdev user,id=hostnet0')],
    [...Q35, ...ports([3]), ...card('bus=pci.3,addr=0x0')],
    'C adds a second netdev of the same id: QEMU ends',
  ),
  different(
    'descriptor 5 in use',
    [...Q35, ...ports([3]), ...split('-add-fd fd=5,set=1')],
    [
      ...Q35,
      ...ports([3]),
      ...split('-add-fd fd=5,set=1'),
      ...card('bus=pci.3,addr=0x0').slice(0, -1),
      'socket,fd=6,id=hostnet0',
    ],
    'C puts the socket where another open file is expected',
  ),
  adds(
    'a machine without bus, and a device',
    split('-machine none -device loader,addr=0,data=0,data-len=4'),
    NETDEV,
    NO_PORT,
  ),
];
