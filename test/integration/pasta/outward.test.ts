/**
 * Ports of the namespace that lead to the host's loopback (-T, -U), and ports that are found by themselves. Every byte is
 * compared by position.
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
import { waitUntil } from '../../support/netns/namespace.ts';
import { createPastaHost, type PastaHost } from '../../support/pasta-host.ts';
import { listeningPorts, type Pasta, startPasta } from '../../support/pasta-rig.ts';
import { PASTA_FAMILIES, pastaSuite, TO_LOOPBACK } from '../../support/pasta-suite.ts';
import { runPeer, startListener } from '../../support/peer.ts';

for (const { family, loopback } of PASTA_FAMILIES) {
  pastaSuite(`ports of the namespace that lead to the host, over ${family}`, () => {
    let host: PastaHost;
    let pasta: Pasta;
    beforeAll(async () => {
      host = await createPastaHost();
      const specs = ['6001', '6010-6012', '6002:6102', '6020-6022:6120-6122', '6040-6044,~6042'];
      const off = ['-t', 'none', '-u', 'none'];
      pasta = await startPasta(host, ['--config-net', ...off, ...specs.flatMap((spec) => ['-T', spec, '-U', spec])]);
      await waitUntil('the ports to listen', () => listeningPorts(pasta.guest, 'tcp').has(6044));
    });
    afterAll(async () => {
      await pasta?.close();
      await host?.close();
    });

    for (const { name, port, guestPort, only } of FORWARD_FORMS) {
      if (only !== undefined) continue;
      const what = guestPort !== undefined ? `leads to ${guestPort}` : 'leads nowhere';

      const server = (): ServerSide => ({ in: host, addr: loopback, port: guestPort ?? port });
      const client = (): ClientSide => ({ in: pasta.guest, addr: loopback, port });

      it(`${name} ${what}, for TCP`, async () => {
        expect(await exchangeTcp(server(), client())).toMatchObject(guestPort !== undefined ? goodTcp() : REFUSED_TCP);
      });

      it(`${name} ${what}, for UDP`, async () => {
        const leads = guestPort !== undefined;
        const { client: result } = await exchangeUdp(server(), client(), leads ? undefined : ONE);
        expect(result).toMatchObject(leads ? goodUdp() : REFUSED_UDP);
      });
    }
  });

  pastaSuite(`ports that are found, over ${family}`, () => {
    let host: PastaHost;
    let pasta: Pasta;
    beforeAll(async () => {
      host = await createPastaHost();
    });
    afterAll(async () => {
      await pasta?.close();
      await host?.close();
    });

    it('appear on the other side when a server does, both ways, and are gone when it is', async () => {
      const auto = ['-t', 'auto', '-u', 'none', '-T', 'auto', '-U', 'none'];
      pasta = await startPasta(host, ['--config-net', ...auto, ...TO_LOOPBACK]);
      for (const [inside, outside, port] of [
        [pasta.guest, host, 6301],
        [host, pasta.guest, 6302],
      ] as const) {
        const server = await startListener(inside, 'listen', { addr: loopback, port, echo: true });
        await waitUntil('the port to be forwarded', () => listeningPorts(outside, 'tcp').has(port), 15_000, 50);
        const options = { addr: loopback, port, send: 20_000, 'finish-after-recv': 20_000, timeout: 10 };
        expect(await runPeer(outside, 'connect', options)).toMatchObject(goodTcp());
        await server.stop();
        await waitUntil('the port to be closed', () => !listeningPorts(outside, 'tcp').has(port), 15_000, 50);
      }
    });
  });
}
