/** The way to a destination, hop by hop: TTL and hop limit of the guest, and the errors of routers that come back to it. */
import { afterAll, beforeAll, expect } from 'vitest';
import { createNamespace, linkVeth, type Namespace } from '../../support/netns/namespace.ts';
import { createRig, type Rig } from '../../support/rig.ts';
import { FAMILIES, itExceptOnDebian, rigSuite } from '../../support/rig-suite.ts';

/** A host behind the gateway of the rig, which thereby becomes a router. */
const FAR = { IPv4: '203.0.113.2', IPv6: '2001:db8:3::2' } as const;
const GATEWAY = { IPv4: '192.0.2.1', IPv6: '2001:db8:1::1' } as const;
const FAR_MTU = 1300;

rigSuite('the path from the guest', () => {
  let rig: Rig;
  let far: Namespace;
  beforeAll(async () => {
    rig = await createRig({ mtu: 1500 });
    far = await createNamespace('far');
    await linkVeth(rig.wan, far, {
      a: { name: 'far0', addresses: ['203.0.113.1/24', '2001:db8:3::1/64'], mtu: FAR_MTU },
      b: { name: 'eth0', addresses: [`${FAR.IPv4}/24`, `${FAR.IPv6}/64`], mtu: FAR_MTU },
    });
    await rig.wan.sh('echo 1 > /proc/sys/net/ipv4/ip_forward\necho 1 > /proc/sys/net/ipv6/conf/all/forwarding');
    await far.sh('ip route add default via 203.0.113.1\nip -6 route add default via 2001:db8:3::1');
  });
  afterAll(async () => {
    await rig?.close();
    await far?.close();
  });

  /** Addresses of the hops that answer, by busybox. */
  const trace = async (program: string, address: string, ...options: string[]): Promise<string[]> => {
    const args = [program, '-n', '-q', '1', '-w', '2', '-m', '4', ...options, address];
    const { stdout } = await rig.guest.run('busybox', args, { check: false });
    return [...stdout.matchAll(/^\s*\d+\s+([0-9a-f.:]+|\*)/gm)].map((match) => match[1]!);
  };

  for (const { family } of FAMILIES) {
    const program = family === 'IPv4' ? 'traceroute' : 'traceroute6';
    itExceptOnDebian('it does not read the error queue', `is seen by datagrams, over ${family}`, async () => {
      expect(await trace(program, FAR[family])).toEqual([GATEWAY[family], FAR[family]]);
    });

    itExceptOnDebian(
      'it does not pass errors on',
      `is told when a datagram is too long for it, over ${family}`,
      async () => {
        // With "don't fragment", as path MTU discovery does: the first probe teaches the host, the next ones the guest.
        const args = ['-c', '4', '-i', '0.2', '-W', '1', '-s', '1400', '-M', 'do', FAR[family]];
        const { stdout, stderr } = await rig.guest.run('ping', args, { check: false });
        expect(`${stdout}${stderr}`).toMatch(/mtu ?= ?1300/);
        // Whoever does not insist gets through.
        const plain = await rig.guest.run('ping', ['-c', '3', '-i', '0.2', '-W', '2', '-s', '3000', FAR[family]], {
          check: false,
        });
        expect(Number(/(\d+) received/.exec(plain.stdout)?.[1])).toBeGreaterThanOrEqual(2);
      },
    );
  }

  itExceptOnDebian('it does not pass errors on', 'is seen by echo requests too', async () => {
    expect(await trace('traceroute', FAR.IPv4, '-I')).toEqual([GATEWAY.IPv4, FAR.IPv4]);
  });
});

rigSuite('ping on a host that refuses ping sockets', () => {
  let rig: Rig;
  beforeAll(async () => {
    rig = await createRig({ mtu: 1500, host: { pingSockets: false } });
  });
  afterAll(() => rig?.close());

  for (const { family, remote, gateway } of FAMILIES) {
    itExceptOnDebian(
      'it has no other way',
      `is answered with the privilege to use raw sockets, over ${family}`,
      async () => {
        for (const address of [remote, gateway]) {
          const { stdout } = await rig.guest.run('ping', ['-c', '3', '-i', '0.05', '-W', '2', address], {
            check: false,
          });
          expect(stdout).toContain('3 received');
        }
      },
    );
  }
});
