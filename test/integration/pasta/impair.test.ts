/** `--impair` on the interface of a namespace, where frames have virtio-net headers and up to 64 KiB. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { transferTcp } from '../../support/exchange.ts';
import { createPastaHost, type PastaHost } from '../../support/pasta-host.ts';
import { type Pasta, startPasta } from '../../support/pasta-rig.ts';
import { PASTA_FAMILIES, pastaSuite } from '../../support/pasta-suite.ts';
import { isDebianStack } from '../../support/stack-under-test.ts';

const BYTES = 2 << 20;

describe.runIf(!isDebianStack())("what Debian's pasta does not have", () => {
  pastaSuite('a namespace behind a link made worse', () => {
    let host: PastaHost;
    let pasta: Pasta;
    beforeAll(async () => {
      host = await createPastaHost();
      pasta = await startPasta(host, ['--config-net', '--impair', 'to-guest.delay=20ms,loss=2%,seed=5']);
    });
    afterAll(async () => {
      await pasta?.close();
      await host?.close();
    });

    it('waits for every answer as long as it is delayed', async () => {
      const address = PASTA_FAMILIES[0]!.remote;
      const { stdout } = await pasta.guest.run('ping', ['-n', '-c', '10', '-i', '0.05', '-W', '2', address], {
        check: false,
      });
      const times = [...stdout.matchAll(/time=([\d.]+) ms/g)].map((match) => Number(match[1]));
      expect(times.length).toBeGreaterThan(5);
      for (const time of times) expect(time).toBeGreaterThanOrEqual(20);
      expect(Math.min(...times)).toBeLessThan(30);
    });

    it.each(PASTA_FAMILIES)(
      'gets and sends every byte in order all the same, over $family',
      async ({ remote }) => {
        const { client, server } = await transferTcp(
          { in: host.wan, addr: remote, port: 5001 },
          { in: pasta.guest, addr: remote, port: 5001 },
          { up: BYTES, down: BYTES, timeout: 60 },
        );
        const expected = { received: BYTES, mismatches: 0, timedOut: false, errors: {} };
        expect(client).toMatchObject(expected);
        expect(server).toMatchObject(expected);
      },
      90_000,
    );
  });
});
