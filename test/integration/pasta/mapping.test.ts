/** Addresses that mean somebody else on the other side, protocols that are left out, and where the namespace's packets come from. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { exchangeTcp, exchangeUdp, goodTcp, goodUdp } from '../../support/exchange.ts';
import { HOST_NET } from '../../support/netns/host.ts';
import { createPastaHost, type PastaHost } from '../../support/pasta-host.ts';
import { type Pasta, startPasta } from '../../support/pasta-rig.ts';
import { eitherWay, itIsOursOnly, PASTA_FAMILIES, pastaSuite } from '../../support/pasta-suite.ts';
import { runPeer, startListener } from '../../support/peer.ts';

const ALIASES = {
  IPv4: { loopback: '192.0.2.98', own: '192.0.2.99', resolver: '192.0.2.53' },
  IPv6: { loopback: '2001:db8:1::98', own: '2001:db8:1::99', resolver: '2001:db8:1::53' },
} as const;

/** No ports, so that nothing but the tap leads anywhere. */
const CLOSED = ['-t', 'none', '-u', 'none', '-T', 'none', '-U', 'none'];

pastaSuite('the address map', () => {
  let host: PastaHost;
  let pasta: Pasta | undefined;
  beforeAll(async () => {
    host = await createPastaHost();
  });
  afterAll(() => host?.close());

  /** Runs `body` with a pasta started with `args`. */
  const withPasta = async (args: readonly string[], body: (pasta: Pasta) => Promise<void>): Promise<void> => {
    pasta = await startPasta(host, ['--config-net', ...CLOSED, ...args]);
    try {
      await body(pasta);
    } catch (error) {
      // What went wrong first is what matters.
      await pasta.close().catch(() => {});
      throw error;
    }
    await pasta.close();
  };

  const ping = async (guest: Pasta['guest'], address: string, ...more: string[]): Promise<number> => {
    const args = ['-c', '2', '-i', '0.1', '-W', '2', ...more, address];
    const { stdout } = await guest.run('ping', args, { check: false });
    return Number(/(\d+) received/.exec(stdout)?.[1] ?? -1);
  };

  it("leads from the gateway's address to the host's loopback, and from others to themselves", () =>
    withPasta([], async ({ guest }) => {
      for (const { gateway, loopback, remote } of PASTA_FAMILIES) {
        for (const [at, as] of [
          [loopback, gateway],
          [remote, remote],
        ] as const) {
          const server = { in: at === loopback ? host : host.wan, addr: at, port: 5001 };
          expect(await exchangeTcp(server, { in: guest, addr: as, port: 5001 })).toMatchObject(goodTcp());
          const { client } = await exchangeUdp(server, { in: guest, addr: as, port: 5001 });
          expect(client).toMatchObject(goodUdp());
        }
      }
    }));

  it("shows the host's address to a server beyond it, and keeps the source port of datagrams", () =>
    withPasta([], async ({ guest }) => {
      for (const { remote, own } of PASTA_FAMILIES) {
        const client = { in: guest, addr: remote, port: 5001, bind: `${own},4567` };
        const { server } = await exchangeUdp({ in: host.wan, addr: remote, port: 5001 }, client);
        expect(server.sources).toEqual([`${own},4567`]);
      }
    }));

  it('leaves the gateway what it is with --no-map-gw', () =>
    withPasta(['--no-map-gw'], async ({ guest }) => {
      const gateway = HOST_NET.gatewayV4;
      const server = { in: host.wan, addr: gateway, port: 5001 };
      expect(await exchangeTcp(server, { in: guest, addr: gateway, port: 5001 })).toMatchObject(goodTcp());
      const { client } = await exchangeUdp(server, { in: guest, addr: gateway, port: 5001 });
      expect(client).toMatchObject(goodUdp());
    }));

  it("keeps the host's loopback closed with --no-map-gw, which slirp4netns calls --disable-host-loopback", () =>
    withPasta(
      ['--no-map-gw', '-4', '-a', '10.0.2.100', '-n', '24', '-g', '10.0.2.2', '-I', 'tap0'],
      async ({ guest }) => {
        const client = { in: guest, addr: '10.0.2.2', port: 5001 };
        const options = { addr: client.addr, port: 5001, send: 10, 'finish-after-recv': 10, timeout: 1 };
        const listener = await startListener(host, 'listen', { addr: '127.0.0.1', port: 5001, echo: true });
        expect(await runPeer(guest, 'connect', options)).toMatchObject({ received: 0 });
        expect(await listener.stop()).toMatchObject({ opened: 0 });
      },
    ));

  it("opens the host's loopback at 10.0.2.2 without it, as slirp4netns does", () =>
    withPasta(['-4', '-a', '10.0.2.100', '-n', '24', '-g', '10.0.2.2', '-I', 'tap0'], async ({ guest }) => {
      const server = { in: host, addr: '127.0.0.1', port: 5001 };
      expect(await exchangeTcp(server, { in: guest, addr: '10.0.2.2', port: 5001 })).toMatchObject(goodTcp());
    }));

  itIsOursOnly('mapOptions', "moves the host's loopback with --map-host-loopback", () =>
    withPasta(
      PASTA_FAMILIES.flatMap(({ family }) => ['--map-host-loopback', ALIASES[family].loopback]),
      async ({ guest }) => {
        for (const { family, loopback } of PASTA_FAMILIES) {
          const server = { in: host, addr: loopback, port: 5001 };
          const client = { in: guest, addr: ALIASES[family].loopback, port: 5001 };
          expect(await exchangeTcp(server, client)).toMatchObject(goodTcp());
          expect((await exchangeUdp(server, client)).client).toMatchObject(goodUdp());
        }
      },
    ),
  );

  itIsOursOnly('mapOptions', "reaches the host's own address with --map-guest-addr", () =>
    withPasta(
      PASTA_FAMILIES.flatMap(({ family }) => ['--map-guest-addr', ALIASES[family].own]),
      async ({ guest }) => {
        for (const { family, own } of PASTA_FAMILIES) {
          const server = { in: host, addr: own, port: 5001 };
          const client = { in: guest, addr: ALIASES[family].own, port: 5001 };
          expect(await exchangeTcp(server, client)).toMatchObject(goodTcp());
          expect((await exchangeUdp(server, client)).client).toMatchObject(goodUdp());
        }
      },
    ),
  );

  it("leads from --dns-forward's addresses to the first resolvers", () =>
    withPasta(
      PASTA_FAMILIES.flatMap(({ family }) => ['--dns-forward', ALIASES[family].resolver]),
      async ({ guest }) => {
        for (const { family, remote } of PASTA_FAMILIES) {
          const server = { in: host.wan, addr: remote, port: 53 };
          const client = { in: guest, addr: ALIASES[family].resolver, port: 53 };
          const { client: udp } = await exchangeUdp(server, client, [1, 100, 1232]);
          expect(udp).toMatchObject(goodUdp());
        }
      },
    ));

  itIsOursOnly('dnsForwardTcp', 'leads there over TCP too', () =>
    withPasta(
      PASTA_FAMILIES.flatMap(({ family }) => ['--dns-forward', ALIASES[family].resolver]),
      async ({ guest }) => {
        for (const { family, remote } of PASTA_FAMILIES) {
          const server = { in: host.wan, addr: remote, port: 53 };
          const client = { in: guest, addr: ALIASES[family].resolver, port: 53 };
          expect(await exchangeTcp(server, client)).toMatchObject(goodTcp());
        }
      },
    ),
  );

  itIsOursOnly('mapOptions', 'leads to the resolver that --dns-host names', () =>
    withPasta(['--dns-forward', '192.0.2.53', '--dns-host', '192.0.2.1'], async ({ guest }) => {
      const server = { in: host.wan, addr: '192.0.2.1', port: 53 };
      const { client } = await exchangeUdp(server, { in: guest, addr: '192.0.2.53', port: 53 }, [1, 100, 1232]);
      expect(client).toMatchObject(goodUdp());
    }),
  );

  it('carries echo requests and their answers', () =>
    withPasta([], async ({ guest }) => {
      for (const { remote, gateway } of PASTA_FAMILIES) {
        expect(await ping(guest, remote)).toBe(2);
        expect(await ping(guest, remote, '-s', '1400')).toBe(2);
        expect(await ping(guest, gateway)).toBe(2);
      }
    }));

  it('carries none with --no-icmp', () =>
    withPasta(['--no-icmp', '-4'], async ({ guest }) => {
      expect(await ping(guest, HOST_NET.remoteV4, '-W', '1')).toBe(0);
      const server = { in: host.wan, addr: HOST_NET.remoteV4, port: 5001 };
      expect(await exchangeTcp(server, { in: guest, addr: HOST_NET.remoteV4, port: 5001 })).toMatchObject(goodTcp());
    }));

  it('carries no TCP with --no-tcp', () =>
    withPasta(['--no-tcp'], async ({ guest }) => {
      const server = { in: host.wan, addr: HOST_NET.remoteV4, port: 5001 };
      const client = { in: guest, addr: HOST_NET.remoteV4, port: 5001 };
      const options = { addr: client.addr, port: 5001, send: 10, timeout: 1 };
      expect(await runPeer(guest, 'connect', options)).toMatchObject({ established: 0 });
      expect((await exchangeUdp(server, client)).client).toMatchObject(goodUdp());
    }));

  it('carries no UDP with --no-udp', () =>
    withPasta(['--no-udp'], async ({ guest }) => {
      const server = { in: host.wan, addr: HOST_NET.remoteV4, port: 5001 };
      const client = { in: guest, addr: HOST_NET.remoteV4, port: 5001 };
      const { client: sent, server: seen } = await exchangeUdp(server, client, [100], 500);
      expect(sent).toMatchObject({ echoed: 0 });
      expect(seen.datagrams).toBe(0);
      expect(await exchangeTcp(server, client)).toMatchObject(goodTcp());
    }));
});

pastaSuite('the way out', () => {
  let host: PastaHost;
  beforeAll(async () => {
    host = await createPastaHost();
    await host.sh('ip addr add 192.0.2.16/24 dev eth0; ip addr add 2001:db8:1::16/64 dev eth0 nodad');
    await host.wan.sh(
      'ip neigh add 192.0.2.16 lladdr 02:00:5e:00:01:0f dev uplink; ip neigh add 2001:db8:1::16 lladdr 02:00:5e:00:01:0f dev uplink',
    );
  });
  afterAll(() => host?.close());

  for (const { family, remote } of PASTA_FAMILIES) {
    const second = family === 'IPv4' ? '192.0.2.16' : '2001:db8:1::16';
    it(`is from the address that --outbound names, over ${family}`, async () => {
      const pasta = await startPasta(host, ['--config-net', ...CLOSED, '-o', second]);
      try {
        const server = { in: host.wan, addr: remote, port: 5001 };
        const exchange = await exchangeUdp(server, { in: pasta.guest, addr: remote, port: 5001 });
        expect(exchange.client).toMatchObject(goodUdp());
        expect(exchange.server.sources).toEqual([expect.stringContaining(`${second},`)]);
      } finally {
        await pasta.close();
      }
    });
  }

  it('is through the interface that --outbound-if4 names', async () => {
    await host.sh('ip link add other type veth peer name end; ip link set other up; ip link set end up');
    await host.sh('ip addr add 203.0.113.9/24 dev other');
    const pasta = await startPasta(host, ['--config-net', ...CLOSED, '-4', '-i', 'eth0', '--outbound-if4', 'other']);
    try {
      // Nobody is at the other end of that one; eth0 would have led to the server.
      const at = { addr: HOST_NET.remoteV4, port: 5001 };
      const listener = await startListener(host.wan, 'listen', at);
      expect(await runPeer(pasta.guest, 'connect', { ...at, send: 10, timeout: 1 })).toMatchObject({ established: 0 });
      expect(await listener.stop()).toMatchObject({ opened: 0 });
      const server = { in: host.wan, ...at };
      const { datagrams } = (await exchangeUdp(server, { in: pasta.guest, ...at }, [100], 500)).server;
      expect(datagrams).toBe(eitherWay('outboundInterface', { ours: 0, debian: 1 }));
    } finally {
      await pasta.close();
    }
  });
});
