/** Ports that follow those in use on the other side, which is what pasta does unless told otherwise. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { exchangeTcp, goodTcp } from '../../support/exchange.ts';
import { waitUntil } from '../../support/netns/process.ts';
import { createPastaHost, type PastaHost } from '../../support/pasta-host.ts';
import { listeningPorts, type Pasta, startPasta } from '../../support/pasta-rig.ts';
import { pastaSuite } from '../../support/pasta-suite.ts';
import { runPeer, startListener } from '../../support/peer.ts';
import { isDebianStack } from '../../support/stack-under-test.ts';

/** The tables are read each second. */
const SOON_MS = 20_000;
const ours = it.runIf(!isDebianStack());

pastaSuite('ports that follow the other side', () => {
  let host: PastaHost;
  let pasta: Pasta;
  beforeAll(async () => {
    host = await createPastaHost();
    pasta = await startPasta(host, ['--config-net']);
  });
  afterAll(async () => {
    await pasta?.close();
    await host?.close();
  });
  const onHost = (proto: 'tcp' | 'udp', port: number): boolean => listeningPorts(host, proto).has(port);
  const inGuest = (proto: 'tcp' | 'udp', port: number): boolean => listeningPorts(pasta.guest, proto).has(port);

  it.each([7101, 47101])(
    'open on the host when a server starts in the namespace, and close when it ends (%d)',
    async (port) => {
      expect(onHost('tcp', port)).toBe(false);
      const server = await startListener(pasta.guest, 'listen', { port, echo: true });
      await waitUntil('the port to open', () => onHost('tcp', port), SOON_MS);
      const options = { addr: '127.0.0.1', port, send: 20_000, 'finish-after-recv': 20_000, timeout: 10 };
      expect(await runPeer(host, 'connect', options)).toMatchObject(goodTcp());
      await server.stop();
      await waitUntil('the port to close', () => !onHost('tcp', port), SOON_MS);
    },
  );

  it('open in the namespace when a server starts on the host, and close when it ends', async () => {
    const port = 7102;
    const server = await startListener(host, 'listen', { addr: '127.0.0.1', port, echo: true });
    await waitUntil('the port to open', () => inGuest('tcp', port), SOON_MS);
    const options = { addr: '127.0.0.1', port, send: 20_000, 'finish-after-recv': 20_000, timeout: 10 };
    expect(await runPeer(pasta.guest, 'connect', options)).toMatchObject(goodTcp());
    await server.stop();
    await waitUntil('the port to close', () => !inGuest('tcp', port), SOON_MS);
    expect(onHost('tcp', port)).toBe(false);
  });

  ours('follow UDP servers that start later, too', async () => {
    const port = 7103;
    const server = await startListener(pasta.guest, 'udp-listen', { port, echo: true });
    await waitUntil('the port to open', () => onHost('udp', port), SOON_MS);
    expect(inGuest('tcp', port)).toBe(false);
    const options = { addr: '127.0.0.1', port, sizes: '1,1000', 'expect-echo': true, 'wait-ms': 3000 } as const;
    expect(await runPeer(host, 'udp-send', options)).toMatchObject({ echoed: 2 });
    await server.stop();
    await waitUntil('the port to close', () => !onHost('udp', port), SOON_MS);
  });

  it('are none that pasta itself has opened', async () => {
    const port = 7104;
    const server = await startListener(host, 'listen', { addr: '127.0.0.1', port, echo: true });
    await waitUntil('the port to open', () => inGuest('tcp', port), SOON_MS);
    // Another one, which is followed later than the first could have come back.
    const other = await startListener(host, 'listen', { addr: '127.0.0.1', port: 7105, echo: true });
    await waitUntil('the second port to open', () => inGuest('tcp', 7105), SOON_MS);
    await server.stop();
    await waitUntil('the port to close', () => !inGuest('tcp', port), SOON_MS);
    expect(onHost('tcp', port)).toBe(false);
    await other.stop();
  });
});

pastaSuite('ports that are listened on before pasta starts', () => {
  it('lead out at once', async () => {
    const host = await createPastaHost();
    const server = { in: host, addr: '127.0.0.1', port: 7106 };
    const listener = await startListener(host, 'listen', { addr: '127.0.0.1', port: 7107, echo: true });
    const pasta = await startPasta(host, ['--config-net', '-T', '7106', '-U', 'none']).catch(async (error: unknown) => {
      await host.close();
      throw error;
    });
    try {
      expect(await exchangeTcp(server, { in: pasta.guest, addr: '127.0.0.1', port: 7106 })).toMatchObject(goodTcp());
      expect(listeningPorts(pasta.guest, 'tcp').has(7107)).toBe(false);
    } finally {
      await listener.stop();
      await pasta.close();
      await host.close();
    }
  });
});
