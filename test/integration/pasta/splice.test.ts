/**
 * Loopback to loopback: between the host's and the namespace's, both ways, past the interface. What the interface carries is
 * counted, so that a transfer that took it would show.
 */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { exchangeTcp, exchangeUdp, goodTcp, goodUdp, transferTcp } from '../../support/exchange.ts';
import { createPastaHost, type PastaHost } from '../../support/pasta-host.ts';
import { type Pasta, startPasta } from '../../support/pasta-rig.ts';
import { PASTA_FAMILIES, pastaSuite } from '../../support/pasta-suite.ts';
import { runPeer } from '../../support/peer.ts';
import { isDebianStack } from '../../support/stack-under-test.ts';

const MIB = 1024 * 1024;
const ours = it.runIf(!isDebianStack());

/** Bytes that the namespace's interface has received and sent. */
function interfaceBytes({ guest }: Pasta): number {
  const line = readFileSync(`/proc/${guest.pid}/net/dev`, 'utf8')
    .split('\n')
    .find((text) => text.includes(':') && !text.trim().startsWith('lo:'));
  const fields = (line ?? '')
    .slice((line ?? '').indexOf(':') + 1)
    .trim()
    .split(/\s+/);
  return Number(fields[0]) + Number(fields[8]);
}

pastaSuite('the loopback of a host and its namespace', () => {
  let host: PastaHost;
  let pasta: Pasta;
  beforeAll(async () => {
    host = await createPastaHost();
    const inward = ['-t', '7001-7003', '-u', '7001-7003'];
    const outward = ['-T', '7011,7012:7013', '-U', '7011,7012:7013'];
    pasta = await startPasta(host, ['--config-net', ...inward, ...outward]);
  });
  afterAll(async () => {
    await pasta?.close();
    await host?.close();
  });

  for (const { family, loopback } of PASTA_FAMILIES) {
    it(`carries much data in and back without the interface, over ${family}`, async () => {
      const before = interfaceBytes(pasta);
      const sizes = { up: 64 * MIB, down: 32 * MIB, timeout: 60 };
      const server = { in: pasta.guest, port: 7001 };
      const { client, server: seen } = await transferTcp(server, { in: host, addr: loopback, port: 7001 }, sizes);
      expect(client).toMatchObject({ clean: 1, received: sizes.down, mismatches: 0, errors: {} });
      expect(seen).toMatchObject({ received: sizes.up, mismatches: 0, errors: {} });
      expect(interfaceBytes(pasta) - before).toBeLessThan(MIB);
    });

    it(`carries much data out and back without the interface, over ${family}`, async () => {
      const before = interfaceBytes(pasta);
      const sizes = { up: 32 * MIB, down: 64 * MIB, timeout: 60 };
      const server = { in: host, addr: loopback, port: 7011 };
      const { client, server: seen } = await transferTcp(
        server,
        { in: pasta.guest, addr: loopback, port: 7011 },
        sizes,
      );
      expect(client).toMatchObject({ clean: 1, received: sizes.down, mismatches: 0, errors: {} });
      expect(seen).toMatchObject({ received: sizes.up, mismatches: 0, errors: {} });
      expect(interfaceBytes(pasta) - before).toBeLessThan(MIB);
    });

    it(`leads out to another port where the rule says so, over ${family}`, async () => {
      const server = { in: host, addr: loopback, port: 7013 };
      const client = { in: pasta.guest, addr: loopback, port: 7012 };
      expect(await exchangeTcp(server, client)).toMatchObject(goodTcp());
    });

    it(`carries datagrams in and out, and shows their server the client's port, over ${family}`, async () => {
      const inward = await exchangeUdp(
        { in: pasta.guest, port: 7002 },
        { in: host, addr: loopback, port: 7002, bind: `${loopback},4777` },
        [0, 1, 1400, 9000, 60_000],
      );
      expect(inward.client).toMatchObject(goodUdp(5));
      expect(inward.server.sources).toEqual([expect.stringMatching(/,4777$/)]);
      const outward = await exchangeUdp(
        { in: host, addr: loopback, port: 7011 },
        { in: pasta.guest, addr: loopback, port: 7011, bind: `${loopback},4778` },
        [0, 1, 1400, 9000, 60_000],
      );
      expect(outward.client).toMatchObject(goodUdp(5));
      expect(outward.server.sources).toEqual([expect.stringMatching(/,4778$/)]);
    });

    ours(`resets a client whose server is not there, over ${family}`, async () => {
      const options = { addr: loopback, port: 7003, send: 100_000, 'finish-after-recv': 1, timeout: 10 };
      const { received, errors } = await runPeer(host, 'connect', options);
      expect(received).toBe(0);
      expect(Object.keys(errors)).toEqual([expect.stringMatching(/^(ECONNRESET|EPIPE)$/)]);
    });
  }
});

pastaSuite('a server on the loopback of a namespace', () => {
  let host: PastaHost;
  beforeAll(async () => {
    host = await createPastaHost();
  });
  afterAll(async () => {
    await host?.close();
  });
  const reach = async (args: readonly string[]): Promise<unknown> => {
    const pasta = await startPasta(host, [...args, '-t', '7001', '-T', 'none', '-u', 'none', '-U', 'none']);
    try {
      return await exchangeTcp(
        { in: pasta.guest, addr: '127.0.0.1', port: 7001 },
        { in: host, addr: '127.0.0.1', port: 7001 },
      );
    } finally {
      await pasta.close();
    }
  };

  ours('is reached from that of the host with --host-lo-to-ns-lo', async () => {
    expect(await reach(['--config-net', '--host-lo-to-ns-lo'])).toMatchObject(goodTcp());
  });
  it('is reached while the namespace is not configured', async () => {
    expect(await reach([])).toMatchObject(goodTcp());
  });
  ours('is not reached otherwise: connections go to the address of the namespace', async () => {
    expect(await reach(['--config-net'])).toMatchObject({ received: 0 });
  });
  ours('is reached without an interface', async () => {
    expect(await reach(['--splice-only'])).toMatchObject(goodTcp());
  });
});
