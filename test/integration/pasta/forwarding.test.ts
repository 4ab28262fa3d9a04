/**
 * Ports of the host that lead into the namespace: {TCP, UDP} × {IPv4, IPv6} × {single, range, other, other range, bound to an
 * address, bound to an interface} × {from beyond the host, from its loopback}. Clients from beyond the host come through the
 * tap, those on its loopback to the loopback of the namespace. Every byte is compared by position.
 */
import { afterAll, beforeAll, expect, it } from 'vitest';
import {
  type ClientSide,
  exchangeTcp,
  exchangeUdp,
  goodTcp,
  goodUdp,
  REFUSED_TCP,
  REFUSED_UDP,
  type ServerSide,
} from '../../support/exchange.ts';
import { FORWARD_FORMS, ONE } from '../../support/forward-forms.ts';
import { createPastaHost, type PastaHost } from '../../support/pasta-host.ts';
import { listeningPorts, type Pasta, startPasta } from '../../support/pasta-rig.ts';
import { eitherWay, itIsOursOnly, PASTA_FAMILIES, pastaSuite } from '../../support/pasta-suite.ts';

for (const { family, own, loopback, remote } of PASTA_FAMILIES) {
  pastaSuite(`ports of the host that lead into the namespace, over ${family}`, () => {
    let host: PastaHost;
    let pasta: Pasta;
    beforeAll(async () => {
      host = await createPastaHost();
      const specs = [...new Set(FORWARD_FORMS.map(({ spec }) => spec(own, loopback)))];
      const off = ['-T', 'none', '-U', 'none'];
      pasta = await startPasta(host, ['--config-net', ...off, ...specs.flatMap((spec) => ['-t', spec, '-u', spec])]);
    });
    afterAll(async () => {
      await pasta?.close();
      await host?.close();
    });

    for (const { name, port, guestPort, only } of FORWARD_FORMS) {
      for (const path of ['tap', 'loopback'] as const) {
        const leads = guestPort !== undefined && (only === undefined || only === path);
        const what = leads ? `leads to ${guestPort}` : 'leads nowhere';
        const server = (): ServerSide => ({ in: pasta.guest, port: guestPort ?? port });
        const client = (): ClientSide =>
          path === 'tap' ? { in: host.wan, addr: own, bind: remote, port } : { in: host, addr: loopback, port };

        it(`${name} ${what}, for TCP, by ${path}`, async () => {
          expect(await exchangeTcp(server(), client())).toMatchObject(leads ? goodTcp() : REFUSED_TCP);
        });

        it(`${name} ${what}, for UDP, by ${path}`, async () => {
          const { client: result } = await exchangeUdp(server(), client(), leads ? undefined : ONE);
          expect(result).toMatchObject(leads ? goodUdp() : REFUSED_UDP);
        });
      }
    }

    it('are those that were named and no others', async () => {
      const inRange = (ports: Set<number>): number[] => [...ports].filter((port) => port >= 6000 && port < 6200).sort();
      const named = [6001, 6002, 6010, 6011, 6012, 6020, 6021, 6022, 6030, 6031, 6033, 6034, 6040, 6041, 6043, 6044];
      const expected = [...named, 6060];
      for (const protocol of ['tcp', 'udp'] as const) {
        expect(inRange(listeningPorts(host, protocol)), protocol).toEqual(expected);
        expect(inRange(listeningPorts(pasta.guest, protocol)), `${protocol} inside`).toEqual([]);
      }
    });
  });
}

pastaSuite('source addresses of forwarded connections', () => {
  let host: PastaHost;
  let pasta: Pasta;
  beforeAll(async () => {
    host = await createPastaHost();
    pasta = await startPasta(host, ['--config-net', '-t', '6001', '-u', '6001', '-T', 'none', '-U', 'none']);
  });
  afterAll(async () => {
    await pasta?.close();
    await host?.close();
  });

  for (const { family, own, remote, loopback } of PASTA_FAMILIES) {
    it(`is that of the client beyond the host, and the address it was led to for one on it, over ${family}`, async () => {
      const server = { in: pasta.guest, port: 6001 };
      for (const [client, source] of [
        [{ in: host.wan, addr: own, port: 6001, bind: `${remote},4001` }, `${remote},4001`],
        [{ in: host, addr: loopback, port: 6001 }, eitherWay('loopbackTarget', { ours: own, debian: loopback })],
      ] as const) {
        const exchange = await exchangeUdp(server, client);
        expect(exchange.client).toMatchObject(goodUdp());
        expect(exchange.server.sources).toEqual([expect.stringContaining(source)]);
      }
    });
  }

  itIsOursOnly('loopbackTarget', 'a service on the loopback of the namespace is private', async () => {
    for (const { loopback } of PASTA_FAMILIES) {
      const result = await exchangeTcp(
        { in: pasta.guest, addr: loopback, port: 6001 },
        { in: host, addr: loopback, port: 6001 },
      );
      expect(result).toMatchObject({ received: 0 });
    }
  });
});
