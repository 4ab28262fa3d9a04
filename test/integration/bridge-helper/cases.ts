/**
 * What qemu-bridge-helper and passel-bridge-helper are both asked. Where they are meant to differ, the case says how each ends and why.
 */
import type { BridgeCase } from '../../support/bridge/caller.ts';

/** How a helper ends: `tap` with a tap of the bridge, `no` with status 1 and nothing, or `help` with status 0 and nothing. */
export type Ending = 'tap' | 'no' | 'help' | 'crash';

export interface DifferentialCase extends BridgeCase {
  /** Both end like this, and the taps are alike. */
  readonly both?: Ending;
  /** Or they differ. */
  readonly differ?: { readonly c: Ending; readonly ours: Ending; readonly why: string };
  /** What our message must hold. */
  readonly says?: string;
}

const conf = (text: string) => ({ 'bridge.conf': { text } });
const ask = (bridge: string): string[] => ['--use-vnet', `--br=${bridge}`, '--fd={fd}'];
const ALLOWED = conf('allow br0\n');
const ALICE = { uid: 1000, gid: 1000 };

const ARGUMENTS: DifferentialCase[] = [
  { name: "QEMU's order", files: ALLOWED, args: ['--use-vnet', '--fd={fd}', '--br=br0'], both: 'tap' },
  { name: "libvirt's order", files: ALLOWED, args: ['--use-vnet', '--br=br0', '--fd={fd}'], both: 'tap' },
  { name: 'the flag last', files: ALLOWED, args: ['--br=br0', '--fd={fd}', '--use-vnet'], both: 'tap' },
  { name: 'no virtio-net header', files: ALLOWED, args: ['--br=br0', '--fd={fd}'], both: 'tap' },
  { name: 'the last bridge counts', files: ALLOWED, args: ['--br=nope', '--br=br0', '--fd={fd}'], both: 'tap' },
  { name: 'the last bridge counts, denied', files: ALLOWED, args: ['--br=br0', '--br=nope', '--fd={fd}'], both: 'no' },
  { name: 'the last descriptor counts', files: ALLOWED, args: ['--fd=77', '--br=br0', '--fd={fd}'], both: 'tap' },
  { name: 'a datagram socket', files: ALLOWED, args: ask('br0'), socket: 'dgram', both: 'tap' },
  { name: 'no argument', files: ALLOWED, args: [], both: 'no', says: '--br' },
  { name: 'no bridge', files: ALLOWED, args: ['--fd={fd}'], both: 'no', says: '--br is missing' },
  { name: 'no descriptor', files: ALLOWED, args: ['--br=br0'], both: 'no', says: '--fd is missing' },
  { name: 'an unknown option', files: ALLOWED, args: [...ask('br0'), '--nope'], both: 'no', says: '--nope' },
  { name: 'an operand', files: ALLOWED, args: [...ask('br0'), 'br0'], both: 'no', says: "'br0'" },
  { name: 'a negative descriptor', files: ALLOWED, args: ['--br=br0', '--fd=-1'], both: 'no', says: "--fd: '-1'" },
  {
    name: 'a descriptor that is no number',
    files: ALLOWED,
    args: ['--br=br0', '--fd=abc'],
    both: 'no',
    says: "--fd: 'abc'",
  },
  {
    name: 'a descriptor that is not open',
    files: ALLOWED,
    args: ['--br=br0', '--fd=99'],
    socket: 'none',
    both: 'no',
    says: '99',
  },
  {
    name: 'a descriptor that is a pipe',
    files: ALLOWED,
    args: ask('br0'),
    socket: 'pipe',
    both: 'no',
    says: 'not a socket',
  },
  {
    name: 'a name of 16 bytes',
    files: conf('allow all\n'),
    args: ask('abcdefghijklmnop'),
    both: 'no',
    says: 'too long: 16 bytes',
  },
  { name: 'a name of 15 bytes', files: conf('allow abcdefghijklmno\n'), args: ask('abcdefghijklmno'), both: 'tap' },
  {
    name: 'a name that would be cut to an allowed one',
    files: conf('allow abcdefghijklmno\n'),
    args: ask('abcdefghijklmnoX'),
    both: 'no',
  },
  { name: 'a name with a separator', files: conf('allow all\n'), args: ask('../br0'), both: 'no', says: "has a '/'" },
  { name: 'a name with a blank', files: conf('allow all\n'), args: ask('br0 '), both: 'no', says: 'blank' },
  { name: 'an empty name', files: conf('allow all\n'), args: ask(''), both: 'no', says: 'empty' },
  {
    name: 'the bridge as a word of its own',
    files: ALLOWED,
    args: ['--br', 'br0', '--fd={fd}'],
    differ: { c: 'no', ours: 'tap', why: 'the C program knows only the form with an equals sign; ours knows both' },
  },
  {
    name: 'help',
    files: ALLOWED,
    args: ['--help'],
    differ: { c: 'no', ours: 'help', why: 'the C program has no help' },
  },
];

const TEXTS: DifferentialCase[] = [
  { name: 'allow', files: conf('allow br0\n'), args: ask('br0'), both: 'tap' },
  {
    name: 'allow another',
    files: conf('allow br1\n'),
    args: ask('br0'),
    both: 'no',
    says: 'to allow it, root adds the line "allow br0"',
  },
  { name: 'allow all', files: conf('allow all\n'), args: ask('br0'), both: 'tap' },
  {
    name: 'deny all',
    files: conf('allow br0\ndeny all\n'),
    args: ask('br0'),
    both: 'no',
    says: 'bridge.conf:2: deny all',
  },
  {
    name: 'deny after allow',
    files: conf('allow br0\ndeny br0\n'),
    args: ask('br0'),
    both: 'no',
    says: 'bridge.conf:2: deny br0',
  },
  {
    name: 'deny before allow',
    files: conf('deny br0\nallow br0\n'),
    args: ask('br0'),
    both: 'no',
    says: 'bridge.conf:1: deny br0',
  },
  { name: 'allow all but one', files: conf('allow all\ndeny br-jumbo\n'), args: ask('br0'), both: 'tap' },
  { name: 'allow all but this', files: conf('allow all\ndeny br0\n'), args: ask('br0'), both: 'no' },
  {
    name: 'a bridge called all, which the kernel does not allow',
    files: conf('allow all\n'),
    args: ask('all'),
    both: 'no',
  },
  { name: 'an empty file', files: conf(''), args: ask('br0'), both: 'no', says: 'nothing in' },
  {
    name: 'comments and empty lines',
    files: conf('# a comment\n\n  # another\n\t\nallow br0\n'),
    args: ask('br0'),
    both: 'tap',
  },
  { name: 'blanks around', files: conf('  allow   br0  \n'), args: ask('br0'), both: 'tap' },
  { name: 'a tab', files: conf('allow\tbr0\n'), args: ask('br0'), both: 'tap' },
  { name: 'a space and a tab', files: conf('allow \tbr0\n'), args: ask('br0'), both: 'tap' },
  { name: 'carriage returns', files: conf('allow br0\r\n'), args: ask('br0'), both: 'tap' },
  { name: 'no newline at the end', files: conf('allow br0'), args: ask('br0'), both: 'tap' },
  { name: 'a pattern is a name', files: conf('allow br*\n'), args: ask('br0'), both: 'no' },
  { name: 'capitals', files: conf('ALLOW br0\n'), args: ask('br0'), both: 'no', says: 'bridge.conf:1' },
  {
    name: 'an unknown command',
    files: conf('allow br0\npermit br0\n'),
    args: ask('br0'),
    both: 'no',
    says: "bridge.conf:2': unknown command 'permit'",
  },
  { name: 'a keyword alone', files: conf('allow br0\nallow\n'), args: ask('br0'), both: 'no', says: 'bridge.conf:2' },
  {
    name: 'a name too long in the list',
    files: conf('allow br0\nallow abcdefghijklmnop\n'),
    args: ask('br0'),
    both: 'no',
    says: 'too long',
  },
  { name: 'a comment behind a rule, long', files: conf('allow br0 # for the guests\n'), args: ask('br0'), both: 'no' },
  {
    name: 'a tab and a space',
    files: conf('allow\t br0\n'),
    args: ask('br0'),
    differ: { c: 'no', ours: 'tap', why: 'to the C program the tab belongs to the keyword when a space follows' },
  },
  {
    name: 'a comment behind another rule, short',
    files: conf('allow br0\ndeny br0 # x\n'),
    args: ask('br0'),
    differ: {
      c: 'tap',
      ours: 'no',
      why: 'the C program takes "br0 # x" for a name, and the deny never matches; ours refuses the list',
    },
  },
  {
    name: 'a long comment',
    files: conf(`#${'x'.repeat(4094)}deny br0\nallow br0\n`),
    args: ask('br0'),
    differ: {
      c: 'no',
      ours: 'tap',
      why: 'the C program reads the tail of a line of over 4095 bytes as a line of its own',
    },
  },
  {
    name: 'a long comment that would allow',
    files: conf(`#${'x'.repeat(4094)}allow br0\n`),
    args: ask('br0'),
    differ: { c: 'tap', ours: 'no', why: 'the same, the dangerous way round' },
  },
];

const two = (main: string, extra: string) => ({ 'bridge.conf': { text: main }, extra: { text: extra } });

const INCLUDES: DifferentialCase[] = [
  {
    name: 'an include that allows',
    files: two('include /etc/qemu/extra\n', 'allow br0\n'),
    args: ask('br0'),
    both: 'tap',
  },
  {
    name: 'an include that denies',
    files: two('allow br0\ninclude /etc/qemu/extra\n', 'deny br0\n'),
    args: ask('br0'),
    both: 'no',
    says: 'extra:1: deny br0',
  },
  {
    name: 'an include from the working directory',
    files: two('include extra\n', 'allow br0\n'),
    args: ask('br0'),
    cwd: '/etc/qemu',
    both: 'tap',
  },
  {
    name: 'two levels',
    files: { ...two('include /etc/qemu/extra\n', 'include /etc/qemu/more\n'), more: { text: 'allow br0\n' } },
    args: ask('br0'),
    both: 'tap',
  },
  {
    name: 'an include by two ways',
    files: two('include /etc/qemu/extra\ninclude /etc/qemu/extra\n', 'allow br0\n'),
    args: ask('br0'),
    both: 'tap',
  },
  {
    name: 'an include through a link',
    files: { ...two('include /etc/qemu/link\n', 'allow br0\n'), link: { link: '/etc/qemu/extra' } },
    args: ask('br0'),
    both: 'tap',
  },
  {
    name: 'an include that is missing',
    files: conf('allow br0\ninclude /etc/qemu/gone\n'),
    args: ask('br0'),
    says: "bridge.conf:2': cannot open '/etc/qemu/gone'",
    differ: {
      c: 'tap',
      ours: 'no',
      why: 'the C program passes over an include that it cannot open, whose deny it may have been',
    },
  },
  {
    name: 'a syntax error in an include',
    files: two('allow br0\ninclude /etc/qemu/extra\n', 'dney br0\ndeny br0\n'),
    args: ask('br0'),
    says: "extra:1': unknown command 'dney'",
    differ: {
      c: 'tap',
      ours: 'no',
      why: 'the C program goes on with what it had read, without the deny behind the error',
    },
  },
  {
    name: 'an include of itself',
    files: conf('allow br0\ninclude /etc/qemu/bridge.conf\n'),
    args: ask('br0'),
    says: "bridge.conf:2': '/etc/qemu/bridge.conf' includes itself",
    differ: { c: 'crash', ours: 'no', why: 'the C program calls itself until its stack ends' },
  },
  {
    name: 'an include of a folder',
    files: conf('allow br0\ninclude /etc/qemu\n'),
    args: ask('br0'),
    differ: { c: 'tap', ours: 'no', why: 'the C program reads nothing from it' },
  },
];

const PERMISSIONS: DifferentialCase[] = [
  { name: 'no list', files: {}, args: ask('br0'), both: 'no', says: 'bridge.conf' },
  { name: 'an ordinary user', files: ALLOWED, args: ask('br0'), user: ALICE, both: 'tap' },
  { name: 'an ordinary user, denied', files: conf('deny br0\n'), args: ask('br0'), user: ALICE, both: 'no' },
  {
    name: 'a list that the user may not read',
    files: { 'bridge.conf': { text: 'allow br0\n', mode: '600' } },
    args: ask('br0'),
    user: ALICE,
    both: 'no',
    says: 'EACCES',
  },
  {
    name: "an include that is the user's by group",
    files: {
      'bridge.conf': { text: 'include /etc/qemu/alice\n' },
      alice: { text: 'allow br0\n', mode: '640', gid: 1000 },
    },
    args: ask('br0'),
    user: ALICE,
    both: 'tap',
  },
  {
    name: "an include that is the user's by a supplementary group",
    files: {
      'bridge.conf': { text: 'include /etc/qemu/team\n' },
      team: { text: 'allow br0\n', mode: '640', gid: 2000 },
    },
    args: ask('br0'),
    user: { ...ALICE, groups: [2000] },
    both: 'tap',
  },
  {
    name: "an include that is another user's",
    files: { 'bridge.conf': { text: 'include /etc/qemu/bob\n' }, bob: { text: 'allow br0\n', mode: '640', gid: 1001 } },
    args: ask('br0'),
    user: ALICE,
    both: 'no',
  },
  {
    name: "a deny that is another user's",
    files: {
      'bridge.conf': { text: 'allow br0\ninclude /etc/qemu/bob\n' },
      bob: { text: 'deny br0\n', mode: '640', gid: 1001 },
    },
    args: ask('br0'),
    user: ALICE,
    both: 'tap',
  },
  {
    name: 'a list that everybody can write',
    files: { 'bridge.conf': { text: 'allow br0\n', mode: '666' } },
    args: ask('br0'),
    says: 'everybody can write it',
    differ: { c: 'tap', ours: 'no', why: 'the C program looks at nothing but the text' },
  },
  {
    name: 'a list that a group can write',
    files: { 'bridge.conf': { text: 'allow br0\n', mode: '664', gid: 1000 } },
    args: ask('br0'),
    says: 'group 1000 can write it',
    differ: { c: 'tap', ours: 'no', why: 'the same' },
  },
  {
    name: 'a list of another user',
    files: { 'bridge.conf': { text: 'allow br0\n', uid: 1001 } },
    args: ask('br0'),
    says: 'belongs to user 1001',
    differ: { c: 'tap', ours: 'no', why: 'the same' },
  },
];

const BRIDGE_STATES: DifferentialCase[] = [
  { name: 'a bridge with another MTU', files: conf('allow all\n'), args: ask('br-jumbo'), both: 'tap' },
  {
    name: 'a bridge that does not exist',
    files: conf('allow all\n'),
    args: ask('br9'),
    both: 'no',
    says: "mtu of bridge 'br9'",
  },
  {
    name: 'an interface that is no bridge',
    files: conf('allow all\n'),
    args: ask('veth0'),
    both: 'no',
    says: "bridge 'veth0'",
  },
  { name: 'the loopback interface', files: conf('allow all\n'), args: ask('lo'), both: 'no', says: "'lo'" },
];

export const CASES: readonly DifferentialCase[] = [
  ...ARGUMENTS,
  ...TEXTS,
  ...INCLUDES,
  ...PERMISSIONS,
  ...BRIDGE_STATES,
];
