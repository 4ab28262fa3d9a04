/** Ten megabytes each way, and datagrams of five kilobytes, by every path between a namespace and the world. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { exchangeUdp, goodTcp, goodUdp, transferTcp } from '../../support/exchange.ts';
import { waitUntil } from '../../support/netns/namespace.ts';
import { createPastaHost, type PastaHost } from '../../support/pasta-host.ts';
import { listeningPorts, type Pasta, startPasta } from '../../support/pasta-rig.ts';
import { itIsOursOnly, PASTA_FAMILIES, pastaSuite, TO_LOOPBACK } from '../../support/pasta-suite.ts';

const INWARD = 'from beyond the host into the namespace';

const BYTES = 10 << 20;

pastaSuite('transfers', () => {
  let host: PastaHost;
  let pasta: Pasta;
  beforeAll(async () => {
    host = await createPastaHost();
    pasta = await startPasta(host, [
      '--config-net',
      '-t',
      '6001',
      '-u',
      '6001',
      '-T',
      '6002',
      '-U',
      '6002',
      ...TO_LOOPBACK,
    ]);
    await waitUntil('the port inside to listen', () => listeningPorts(pasta.guest, 'tcp').has(6002));
  });
  afterAll(async () => {
    await pasta?.close();
    await host?.close();
  });

  for (const { family, own, remote, loopback, gateway } of PASTA_FAMILIES) {
    /** Path: who serves, and how the client calls it. */
    const paths = {
      'from the namespace to a server beyond the host': () => ({
        server: { in: host.wan, addr: remote, port: 5001 },
        client: { in: pasta.guest, addr: remote, port: 5001 },
      }),
      "from the namespace to the host's loopback by the gateway's address": () => ({
        server: { in: host, addr: loopback, port: 5002 },
        client: { in: pasta.guest, addr: gateway, port: 5002 },
      }),
      [INWARD]: () => ({
        server: { in: pasta.guest, port: 6001 },
        client: { in: host.wan, addr: own, port: 6001, bind: remote },
      }),
      "from the host's loopback to that of the namespace": () => ({
        server: { in: pasta.guest, addr: loopback, port: 6001 },
        client: { in: host, addr: loopback, port: 6001 },
      }),
      "from the namespace's loopback to that of the host": () => ({
        server: { in: host, addr: loopback, port: 6002 },
        client: { in: pasta.guest, addr: loopback, port: 6002 },
      }),
    };

    for (const [path, place] of Object.entries(paths)) {
      for (const direction of ['up', 'down'] as const) {
        const what = `carry ten megabytes ${direction === 'up' ? 'to' : 'from'} the server, ${path}, over ${family}`;
        const transfer = async (): Promise<void> => {
          const { server, client } = place();
          const [up, down] = direction === 'up' ? [BYTES, 0] : [0, BYTES];
          const seen = await transferTcp(server, client, { up, down });
          expect(seen).toMatchObject({ client: goodTcp(down), server: goodTcp(up) });
        };
        if (direction === 'down' && path === INWARD) itIsOursOnly('serverSendsFirst', what, transfer);
        else it(what, transfer);
      }

      it(`carry datagrams of five kilobytes and their answers, ${path}, over ${family}`, async () => {
        const { server, client } = place();
        const { client: result } = await exchangeUdp(server, client, [5120, 5120, 5120]);
        expect(result).toMatchObject(goodUdp());
      });
    }
  }
});
