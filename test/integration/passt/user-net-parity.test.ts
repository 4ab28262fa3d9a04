/**
 * `--user-net` against QEMU's own `-netdev user`: what a guest is told by DHCP and by router advertisements, for the same options. QEMU is here
 * a network without a machine: two netdevs on a hub.
 *
 * Left out is what is meant to differ: MTU, lifetimes (QEMU's leases are for a day), MAC addresses, and DNS and DHCPv6, which only ours
 * announces by router advertisements.
 */
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import {
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  ethernet,
  icmpv6,
  ipv4,
  ipv6,
  PROTOCOL_UDP,
  udp,
} from '../../support/frames.ts';
import { needQemu, requireOrSkip } from '../../support/netns/capabilities.ts';
import { createHost, type Host } from '../../support/netns/host.ts';
import { stopChild } from '../../support/netns/process.ts';
import { rigSuiteExceptOnDebian } from '../../support/rig-suite.ts';
import { GUEST, ScriptedGuest } from '../../support/scripted-guest.ts';
import { stackCommand } from '../../support/stack-under-test.ts';

await requireOrSkip(needQemu);

const QEMU = 'qemu-system-x86_64';
const TIMEOUT_MS = 30_000;
/** Options that both have to tell alike, if at all: mask, router, resolvers, names, server, boot server, search list. */
const OPTIONS = [1, 3, 6, 12, 15, 54, 66, 67, 119];

const NETWORKS = [
  '',
  ',net=192.168.76.0/24',
  ',net=192.168.76.9/255.255.255.0',
  ',net=10.5.0.0',
  ',net=172.20.3.0/20',
  ',net=10.0.2.0/27',
  ',host=10.0.2.9,dhcpstart=10.0.2.40,dns=10.0.2.10',
  ',hostname=vm,domainname=example.org,dnssearch=mgmt.example.org,dnssearch=example.org',
  ',tftp=/tmp,bootfile=/pxelinux.0',
  ',bootfile=a.efi,tftp-server-name=boot.example',
  ',ipv6=off',
  ',ipv4=off',
  ',ipv4=on',
  ',ipv6-net=fd00:1::/64,ipv6-host=fd00:1::9',
  ',ipv6-prefix=fd00:2::',
];

interface Lease {
  readonly address: string;
  readonly server: string;
  readonly from: string;
  readonly file: string;
  /** By number, hexadecimal. */
  readonly options: Record<number, string>;
}

interface Told {
  readonly lease: Lease | undefined;
  readonly router: Router | undefined;
}

/** Of an advertisement: who announces, and prefixes with lengths and flags (RFC 4861 §4.6.2). */
interface Router {
  readonly from: string;
  readonly isRouter: boolean;
  readonly prefixes: string[];
}

const dotted = (bytes: Buffer): string => [...bytes].join('.');
const isOffer = (frame: Buffer): boolean =>
  frame.readUInt16BE(12) === ETHERTYPE_IPV4 && frame[23] === PROTOCOL_UDP && frame.readUInt16BE(34) === 67;
const isAdvertisement = (frame: Buffer): boolean =>
  frame.readUInt16BE(12) === ETHERTYPE_IPV6 && frame[20] === 58 && frame[54] === 134;

/** RFC 2131 and RFC 2132; asks for everything that is compared. */
function discover(): Buffer {
  const message = Buffer.alloc(240);
  message.set([1, 1, 6, 0, 0x12, 0x34, 0x56, 0x78, 0, 0, 0x80, 0]);
  message.set(Buffer.from(GUEST.mac.replaceAll(':', ''), 'hex'), 28);
  message.set([0x63, 0x82, 0x53, 0x63], 236);
  const options = Buffer.from([53, 1, 1, 55, OPTIONS.length, ...OPTIONS, 255]);
  const datagram = udp('0.0.0.0', '255.255.255.255', 68, 67, Buffer.concat([message, options]));
  const packet = ipv4('0.0.0.0', '255.255.255.255', PROTOCOL_UDP, datagram);
  return ethernet('ff:ff:ff:ff:ff:ff', GUEST.mac, ETHERTYPE_IPV4, packet);
}

function readOffer(frame: Buffer): Lease {
  const message = frame.subarray(42);
  const options: Record<number, string> = {};
  for (let at = 240; at < message.length && message[at] !== 255; ) {
    const [code, length] = [message[at]!, message[at + 1]!];
    if (code === 0) {
      at++;
      continue;
    }
    const value = message.toString('hex', at + 2, at + 2 + length);
    if (OPTIONS.includes(code)) options[code] = (options[code] ?? '') + value;
    at += 2 + length;
  }
  return {
    address: dotted(message.subarray(16, 20)),
    server: dotted(message.subarray(20, 24)),
    from: dotted(frame.subarray(26, 30)),
    file: message.toString('latin1', 108, 236).replace(/\0.*$/s, ''),
    options,
  };
}

/** RFC 4861 §4.1. */
function solicit(): Buffer {
  const all = 'ff02::2';
  const message = icmpv6(GUEST.linkLocal, all, 133, 0, Buffer.alloc(4));
  return ethernet(
    '33:33:00:00:00:02',
    GUEST.mac,
    ETHERTYPE_IPV6,
    ipv6(GUEST.linkLocal, all, 58, message, { hopLimit: 255 }),
  );
}

function readAdvertisement(frame: Buffer): Router {
  const message = frame.subarray(54);
  const prefixes: string[] = [];
  for (let at = 16; at < message.length; at += 8 * message[at + 1]!) {
    if (message[at] !== 3) continue;
    prefixes.push(`${message.toString('hex', at + 16, at + 32)}/${message[at + 2]} ${message[at + 3]}`);
  }
  return { from: frame.toString('hex', 22, 38), isRouter: message.readUInt16BE(6) > 0, prefixes };
}

rigSuiteExceptOnDebian('it has no --user-net', 'the network of -netdev user', () => {
  let host: Host;
  let count = 0;
  beforeAll(async () => {
    host = await createHost();
  });
  afterAll(async () => {
    await host?.close();
  });

  /** What a guest is told on the socket of a command. */
  async function ask(command: string, args: readonly string[], socket: string, options: string): Promise<Told> {
    const child = host.spawn(command, args, { stdio: 'ignore' });
    const guest = await ScriptedGuest.connect(socket, TIMEOUT_MS);
    try {
      const has4 = !options.includes('ipv4=off');
      const has6 = !options.includes('ipv6=off') && !options.includes('ipv4=on');
      const answers = Promise.all([
        has4 ? guest.nextFrame('offer', isOffer, TIMEOUT_MS) : undefined,
        has6 ? guest.nextFrame('router advertisement', isAdvertisement, TIMEOUT_MS) : undefined,
      ]);
      await Promise.all([guest.sendFrame(discover()), guest.sendFrame(solicit()), answers]);
      const [offer] = guest.received.filter(isOffer);
      const [advertisement] = guest.received.filter(isAdvertisement);
      return {
        lease: offer === undefined ? undefined : readOffer(offer),
        router: advertisement === undefined ? undefined : readAdvertisement(advertisement),
      };
    } finally {
      await guest.close();
      await stopChild(child);
    }
  }

  /** What QEMU tells, and what we tell. */
  async function askBoth(options: string): Promise<Told[]> {
    const number = count++;
    const theirs = join(host.directory, `qemu-${number}`);
    const ours = join(host.directory, `ours-${number}`);
    const hub = ['user', 'stream'].flatMap((id) => ['-netdev', `hubport,id=${id}-port,hubid=0,netdev=${id}`]);
    const box = ['-machine', 'none', '-nodefaults', '-display', 'none', '-netdev', `user,id=user${options}`];
    const link = ['-netdev', `stream,id=stream,server=on,addr.type=unix,addr.path=${theirs}`];
    const { command, args } = stackCommand();
    return Promise.all([
      ask(QEMU, [...box, ...link, ...hub], theirs, options),
      ask(command, [...args, '-f', '-s', ours, '--user-net', `user${options}`], ours, options),
    ]);
  }

  it.each(NETWORKS)("'user%s' is as QEMU has it", async (options) => {
    const [expected, told] = await askBoth(options);
    expect(told).toEqual(expected);
  });

  it('has a router and a name server where it is restricted, unlike that of QEMU', async () => {
    const [theirs, ours] = await askBoth(',restrict=on');
    const { 3: router, 6: resolver, ...options } = ours!.lease!.options;
    expect([router, resolver]).toEqual(['0a000202', '0a000203']);
    expect({ ...ours, lease: { ...ours!.lease, options } }).toEqual(theirs);
  });

  it('announces 64 bits of a prefix of any length, by which guests make addresses', async () => {
    const [theirs, ours] = await askBoth(',ipv6-net=fd00:2::/56');
    expect(theirs!.router!.prefixes).toEqual(['fd000002000000000000000000000000/56 192']);
    expect(ours!.router!.prefixes).toEqual(['fd000002000000000000000000000000/64 192']);
  });
});
