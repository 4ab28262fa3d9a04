/** The name server of a network: what it knows itself, whom it asks about the rest, and what it keeps to itself. */
import { rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import type { StatusView } from '../../../src/cli/control/view.ts';
import { type DnsAnswer, type DnsPeer, startDnsPeer } from '../../support/dns/dns-peer.ts';
import { createGuestNetwork, type GuestNetwork } from '../../support/guest-network.ts';
import { PROJECT_ROOT } from '../../support/native-tools.ts';
import { needCommand, requireOrSkip } from '../../support/netns/capabilities.ts';
import { HOST_NET, type Host } from '../../support/netns/host.ts';
import { runProcess } from '../../support/netns/process.ts';
import { createRig, type Rig } from '../../support/rig.ts';
import { rigSuiteExceptOnDebian } from '../../support/rig-suite.ts';

const suite = await requireOrSkip(needCommand('udhcpc', 'udhcpc'), needCommand('busybox', 'busybox-static'));

const RESOLVER = '10.0.2.3';
/** More addresses of the wan, each with a resolver. */
const CORP = '198.51.100.53';
const CORP6 = '2001:db8:2::53';

rigSuiteExceptOnDebian('it answers no names', 'names', () => {
  suite('on a network with a domain', () => {
    let network: GuestNetwork;
    let wan: DnsPeer;
    let guest: DnsPeer;
    let hosts: string;
    beforeAll(async () => {
      let host: Host | undefined;
      network = await createGuestNetwork(
        ['web', 'db'],
        (made) => {
          host = made;
          hosts = join(made.directory, 'hosts');
          return [
            ...['--user-net', 'domainname=lab.test', '--dns-hosts', hosts],
            ...['--dns-server', `corp.example=${CORP}`, '--dns-server', `deep.corp.example=${CORP6}#5353`],
            ...['--dns-server', 'dark.example=none', '--dns-server', `lab.test=${CORP}`],
            ...['--dns-server', `loop.example=${CORP}#5399`, '-u', '5300:web/53'],
          ];
        },
        async (made) => {
          await writeFile(
            join(made.directory, 'hosts'),
            '127.0.0.1 localhost\n127.0.1.1 myhost.example myhost\n192.0.2.77 nas.example nas\n',
          );
          await made.wan.sh(`ip addr add ${CORP}/32 dev lo; ip addr add ${CORP6}/128 dev lo nodad`);
        },
      );
      wan = await startDnsPeer(host!.wan);
      // The first of the host's resolvers; at the address of the second nobody is.
      await wan.serve({ host: HOST_NET.remoteV4, label: 'host', address: '203.0.113.1' });
      await wan.serve({ host: CORP, label: 'corp', address: '203.0.113.2' });
      await wan.serve({ host: CORP6, port: 5353, label: 'deep', address: '203.0.113.3' });
      expect(await network.lease('web')).toBe('10.0.2.15');
      expect(await network.lease('db')).toBe('10.0.2.16');
      guest = await startDnsPeer(network.guest('web').namespace);
    }, 120_000);
    afterAll(() => network?.close());
    beforeEach(() => wan.seen());

    const ask = async (name: string, type = 'A', more: object = {}): Promise<DnsAnswer> => {
      const [answer] = await guest.ask({ host: RESOLVER, questions: [[name, type]], ...more });
      return answer!;
    };
    const data = ({ answers }: DnsAnswer): string[] => answers.map((each) => each[1]);

    it.each([false, true])('asks the resolver of the longest domain (by TCP: %s)', async (tcp) => {
      for (const [name, label] of [
        ['www.example.org', 'host'],
        ['corp.example', 'corp'],
        ['www.corp.example', 'corp'],
        ['WWW.Deep.CORP.example', 'deep'],
        ['notcorp.example', 'host'],
      ] as const) {
        expect([name, data(await ask(name, 'TXT', { tcp }))]).toEqual([name, [label]]);
      }
      const seen = await wan.seen();
      expect(seen.map(({ name, label, via }) => [name, label, via])).toContainEqual([
        'WWW.Deep.CORP.example',
        'deep',
        tcp ? 'tcp' : 'udp',
      ]);
      expect(new Set(seen.map(({ via }) => via))).toEqual(new Set([tcp ? 'tcp' : 'udp']));
    });

    it.each([false, true])('answers for its own domain alone, also what it has not (by TCP: %s)', async (tcp) => {
      expect(await ask('db.lab.test', 'A', { tcp })).toMatchObject({
        rcode: 'NOERROR',
        authoritative: true,
        answers: [['A', '10.0.2.16']],
      });
      for (const [name, type] of [
        ['nobody.lab.test', 'A'],
        ['_ldap._tcp.lab.test', 'SRV'],
        ['99.2.0.10.in-addr.arpa', 'PTR'],
      ] as const) {
        const answer = await ask(name, type, { tcp });
        expect([name, answer.rcode, answer.authorities.map(([of]) => of)]).toEqual([name, 'NXDOMAIN', ['SOA']]);
      }
      expect((await ask('db.lab.test', 'AAAA', { tcp })).authorities).toEqual([['SOA', 'lab.test']]);
      expect((await ask('www.dark.example', 'A', { tcp })).rcode).toBe('NXDOMAIN');
      expect(await wan.seen()).toEqual([]);
    });

    it('has the names of the host, at the addresses by which the guest reaches them', async () => {
      expect(data(await ask('nas'))).toEqual(['192.0.2.77']);
      expect(data(await ask('77.2.0.192.in-addr.arpa', 'PTR'))).toEqual(['nas.example']);
      // Loopback of the host is not that of the guest.
      expect(data(await ask('myhost'))).toEqual(['10.0.2.2']);
      expect(data(await ask('localhost'))).toEqual(['127.0.0.1']);
      expect(await wan.seen()).toEqual([]);
      expect(data(await ask('nas.example', 'TXT'))).toEqual(['host']);
    });

    it.each([
      ['written to', (text: string) => writeFile(hosts, text)],
      ['replaced', (text: string) => writeFile(`${hosts}.new`, text).then(() => rename(`${hosts}.new`, hosts))],
    ] as const)('notices that the list of the host is %s', async (how, change) => {
      const address = how === 'replaced' ? '192.0.2.79' : '192.0.2.78';
      await change(`${address} nas.example nas\n`);
      await expect.poll(async () => data(await ask('nas')), { timeout: 20_000 }).toEqual([address]);
      // The rest of the file is not what it was.
      expect(data(await ask('myhost.example'))).toEqual(['203.0.113.1']);
    });

    it('passes questions on as they are, with an id and from a port of their own each time', async () => {
      for (let i = 0; i < 8; i++) await ask('www.example.org', 'TXT', { udp: 4096, option: 65001 });
      const seen = await wan.seen();
      expect(seen).toHaveLength(8);
      expect(seen[0]).toMatchObject({ udp: 4096, options: [[65001, 'beef']] });
      // All eight alike, by chance: less than once in 10^12 runs each.
      expect(new Set(seen.map(({ id }) => id)).size).toBeGreaterThan(4);
      expect(new Set(seen.map(({ port }) => port)).size).toBeGreaterThan(4);
      expect(seen.every(({ id }) => id === 1000)).toBe(false);
    });

    it('says what resolvers say: no such name, and long answers by TCP', async () => {
      expect((await ask('missing.example.org')).rcode).toBe('NXDOMAIN');
      expect(await ask('big.example.org', 'TXT')).toMatchObject({ truncated: true, answers: [] });
      const whole = await ask('big.example.org', 'TXT', { tcp: true });
      expect([whole.truncated, whole.answers.length]).toEqual([false, 40]);
    });

    it('gives nobody more than they take in a datagram, whatever a resolver sends', async () => {
      const cut = await ask('careless.example.org', 'TXT');
      expect([cut.truncated, cut.answers]).toEqual([true, []]);
      expect(cut.lengthBytes).toBeLessThan(100);
      expect((await ask('careless.example.org', 'TXT', { udp: 4096 })).answers).toHaveLength(20);
    });

    it('answers several questions in one connection', async () => {
      const names = ['web.lab.test', 'www.example.org', 'www.corp.example', 'db.lab.test'];
      const answers = await guest.ask({ host: RESOLVER, questions: names.map((name) => [name, 'A']), tcp: true });
      expect(Object.fromEntries(answers.map((each) => [each.id - 1000, data(each)[0]]))).toEqual({
        0: '10.0.2.15',
        1: '203.0.113.1',
        2: '203.0.113.2',
        3: '10.0.2.16',
      });
    });

    it('waits for the answer that was asked for, and says when there is none', async () => {
      const [silent, forged, failed] = await Promise.all(
        ['silent.corp.example', 'forged.corp.example', 'fail.corp.example'].map((name) => ask(name)),
      );
      expect([silent!.rcode, forged!.rcode, failed!.rcode]).toEqual(['SERVFAIL', 'SERVFAIL', 'SERVFAIL']);
      // Asked again a few times, and no more: nothing is amplified.
      const seen = await wan.seen();
      const count = (name: string): number => seen.filter((each) => each.name.startsWith(name)).length;
      for (const word of ['silent', 'forged']) {
        expect(count(word)).toBeGreaterThan(1);
        expect(count(word)).toBeLessThanOrEqual(4);
      }
      expect(count('fail')).toBe(1);
      expect(new Set(seen.filter(({ name }) => name.startsWith('silent')).map(({ port }) => port)).size).toBe(1);
    });

    it('is found by what guests have', async () => {
      const { namespace } = network.guest('db');
      const look = async (name: string): Promise<string> =>
        (await namespace.run('busybox', ['nslookup', '-type=a', name, RESOLVER], { check: false })).stdout;
      expect(await look('web.lab.test')).toContain('Address: 10.0.2.15');
      expect(await look('www.corp.example')).toContain('Address: 203.0.113.2');
      await namespace.sh(
        `printf 'nameserver ${RESOLVER}\\nsearch lab.test\\n' > /tmp/resolv.$$ && mount --bind /tmp/resolv.$$ /etc/resolv.conf && rm /tmp/resolv.$$`,
      );
      expect((await namespace.run('getent', ['ahostsv4', 'web'])).stdout).toMatch(/^10\.0\.2\.15 /);
      expect((await namespace.run('getent', ['hosts', '10.0.2.15'])).stdout).toMatch(/web\.lab\.test/);
    });

    it('counts what it was asked', async () => {
      const cli = [`${PROJECT_ROOT}/dist/helpers/passel.cjs`, 'ctl', '-s', network.controlPath, 'status', '--json'];
      const count = async () => (JSON.parse((await runProcess(process.execPath, cli)).stdout) as StatusView).names!;
      const before = await count();
      await ask('db.lab.test');
      await ask('www.example.org');
      await ask('www.dark.example');
      const { queries, answered, forwarded, refused } = await count();
      expect([
        queries - before.queries,
        answered - before.answered,
        forwarded - before.forwarded,
        refused - before.refused,
      ]).toEqual([3, 1, 1, 1]);
    });

    it('ends a loop: a question that comes back to us is not asked again', async () => {
      await wan.relay({ host: CORP, port: 5399, to: { host: HOST_NET.hostV4, port: 5300 }, label: 'wan' });
      await guest.relay({ host: '10.0.2.15', port: 53, to: { host: RESOLVER, port: 53 }, label: 'guest' });
      expect((await ask('www.loop.example')).rcode).toBe('SERVFAIL');
      const seen = (await wan.seen()).length;
      expect(seen).toBeGreaterThan(0);
      expect(seen).toBeLessThanOrEqual(4);
      expect((await guest.seen()).length).toBeGreaterThan(0);
    });
  });

  suite('for a guest with the addresses of its host', () => {
    let rig: Rig;
    let wan: DnsPeer;
    let guest: DnsPeer;
    beforeAll(async () => {
      rig = await createRig({ args: ['--dns-record', 'printer.example=192.0.2.90', '--dns-hosts', 'none'] });
      wan = await startDnsPeer(rig.wan);
      guest = await startDnsPeer(rig.guest);
    }, 60_000);
    afterAll(() => rig?.close());

    it('goes to the next resolver when one is not there or refuses, and says when there is none', async () => {
      const first = { host: HOST_NET.remoteV4, questions: [['www.example.org', 'TXT']] as const };
      expect((await guest.ask(first))[0]!.rcode).toBe('SERVFAIL');
      await wan.serve({ host: HOST_NET.remoteV6, label: 'second', address: '203.0.113.6' });
      expect((await guest.ask(first))[0]!.answers).toEqual([['TXT', 'second']]);
      await wan.serve({ host: HOST_NET.remoteV4, label: 'refuses', address: '203.0.113.7', rcode: 5 });
      await wan.seen();
      for (const tcp of [false, true]) {
        const [next] = await guest.ask({ host: HOST_NET.remoteV6, questions: [[`w${tcp}.example.org`, 'TXT']], tcp });
        expect(next!.answers).toEqual([['TXT', 'second']]);
      }
      const [own] = await guest.ask({ host: HOST_NET.remoteV6, questions: [['printer.example', 'A']], tcp: true });
      expect(own!.answers).toEqual([['A', '192.0.2.90']]);
    });
  });
});
