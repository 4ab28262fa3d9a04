/** As many connections as descriptors allow, open and silent. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { readFileLimit, withIdleFlows } from '../../support/idle-flows.ts';
import { HOST_NET } from '../../support/netns/host.ts';
import { runPeer, startListener } from '../../support/peer.ts';
import { createRig, type Rig } from '../../support/rig.ts';
import { rigSuiteExceptOnDebian } from '../../support/rig-suite.ts';

/**
 * The stack and the listener have one descriptor for each. Of the 28 000 ports of a client, Linux takes those of one parity first, and then
 * looks at all of them for each connection, which would be measured.
 */
const FLOWS = Math.min(12_000, readFileLimit() - 500);
const ECHO_PORT = 5011;

rigSuiteExceptOnDebian('its memory and CPU are its own', `${FLOWS} idle connections`, () => {
  let rig: Rig;
  beforeAll(async () => {
    rig = await createRig({ mtu: 1500 });
  });
  afterAll(() => rig?.close());

  /**
   * CPU seconds of the stack per round trip of one byte: the least of some seconds, as what else runs here only makes it more; of up to
   * fifteen while it is above `enough`.
   */
  const measureRoundTrip = async (enough = Number.POSITIVE_INFINITY): Promise<number> => {
    let least = Number.POSITIVE_INFINITY;
    for (let i = 0; i < 3 || (i < 15 && least > enough); i++) {
      const before = rig.stack.cpuSeconds();
      const options = { addr: HOST_NET.gatewayV4, port: ECHO_PORT, duration: 1 };
      const { transactions, failed } = await runPeer(rig.guest, 'rr', options);
      expect(failed).toBe(0);
      least = Math.min(least, (rig.stack.cpuSeconds() - before) / transactions);
    }
    return least;
  };

  /** CPU seconds in one second: the least of some, since nobody knows when the last acknowledgement is out. */
  const measureSilence = async (): Promise<number> => {
    let least = Number.POSITIVE_INFINITY;
    for (let i = 0; i < 10 && least > 0; i++) {
      const before = rig.stack.cpuSeconds();
      await new Promise((resolve) => setTimeout(resolve, 1000));
      least = Math.min(least, rig.stack.cpuSeconds() - before);
    }
    return least;
  };

  it('take less than 1 KiB each, no CPU, and make a round trip on another no dearer than 1.5 times', async () => {
    const path = { guest: rig.guest, host: rig.host, address: HOST_NET.gatewayV4 };
    const echo = await startListener(rig.host, 'listen', { port: ECHO_PORT, echo: true, 'no-verify': true });
    // Compiles what takes part, and fills the first buffers.
    await withIdleFlows(path, Math.min(500, FLOWS), async () => undefined);
    const alone = await measureRoundTrip();
    const rssBefore = rig.stack.rssBytes();
    const [bytesPerFlow, silent, amongMany] = await withIdleFlows(path, FLOWS, async () => [
      (rig.stack.rssBytes() - rssBefore) / FLOWS,
      await measureSilence(),
      await measureRoundTrip(1.5 * alone),
    ]);
    const figures = JSON.stringify({ flows: FLOWS, bytesPerFlow, silent, alone, amongMany });
    expect(FLOWS, 'a limit of descriptors that allows a crowd').toBeGreaterThan(500);
    expect(bytesPerFlow, figures).toBeLessThan(1024);
    expect(silent, figures).toBe(0);
    expect(amongMany / alone, figures).toBeLessThanOrEqual(1.5);
    await echo.stop();
    await rig.waitUntilIdle();
    if (process.env['PASSEL_SHOW'] !== undefined) process.stderr.write(`${figures}\n`);
  });
});
