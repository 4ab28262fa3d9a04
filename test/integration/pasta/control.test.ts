/** The control socket of passel-pasta: what `passel ctl` says of connections that go past the stack. */
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { PROJECT_ROOT } from '../../support/native-tools.ts';
import { stopChild, waitUntil } from '../../support/netns/process.ts';
import { createPastaHost, type PastaHost } from '../../support/pasta-host.ts';
import { type Pasta, startPasta } from '../../support/pasta-rig.ts';
import { pastaSuite } from '../../support/pasta-suite.ts';
import { isDebianStack } from '../../support/stack-under-test.ts';

const PASSEL = join(PROJECT_ROOT, 'dist/helpers/passel.cjs');
const DATAGRAM_PORT = 7002;
const ours = it.runIf(!isDebianStack());

interface Splice {
  proto: string;
  state: string;
  startedBy: string;
  bytesFromClient: number;
  bytesToClient: number;
  client: { address: string; port: number };
  server: { address: string; port: number };
}

pastaSuite('the control socket of a namespace', () => {
  let host: PastaHost;
  let pasta: Pasta;
  let socket: string;
  beforeAll(async () => {
    host = await createPastaHost();
    if (isDebianStack()) return;
    socket = join(host.directory, 'control');
    pasta = await startPasta(host, [
      '--config-net',
      '--host-lo-to-ns-lo',
      '-t',
      '7001',
      '-T',
      '7011',
      '-u',
      `${DATAGRAM_PORT}`,
      '-U',
      'none',
      '-c',
      socket,
    ]);
  });
  afterAll(async () => {
    await pasta?.close();
    await host?.close();
  });
  const ctl = async (...args: string[]): Promise<string> =>
    (await host.user.run(process.execPath, [PASSEL, 'ctl', '-s', socket, ...args])).stdout;

  ours('shows spliced connections with both sides, their way and their bytes, while they last', async () => {
    expect(await ctl('splices')).toBe('no spliced connections\n');
    const servers = [
      pasta.guest.spawn('socat', ['TCP4-LISTEN:7001,bind=127.0.0.1', 'SYSTEM:head -c 5; echo hello; cat']),
      host.spawn('socat', ['TCP4-LISTEN:7011,bind=127.0.0.1', 'SYSTEM:cat']),
      pasta.guest.spawn('socat', [`UDP4-LISTEN:${DATAGRAM_PORT},bind=127.0.0.1`, 'SYSTEM:cat']),
    ];
    // Whoever comes before there is a server is reset, and what it sends is lost: nothing here is sent twice.
    for (const [place, file, port] of [
      [pasta.guest, 'tcp', 7001],
      [host, 'tcp', 7011],
      [pasta.guest, 'udp', DATAGRAM_PORT],
    ] as const) {
      const local = `0100007F:${port.toString(16).toUpperCase().padStart(4, '0')}`;
      await waitUntil('a server', async () =>
        (await place.run('cat', [`/proc/net/${file}`])).stdout.includes(`: ${local} `),
      );
    }
    const clients = [
      host.spawn('socat', ['-', 'TCP4:127.0.0.1:7001'], { stdio: ['pipe', 'pipe', 'inherit'] }),
      pasta.guest.spawn('socat', ['-', 'TCP4:127.0.0.1:7011'], {
        stdio: ['pipe', 'pipe', 'inherit'],
      }),
      host.spawn('socat', ['-', `UDP4:127.0.0.1:${DATAGRAM_PORT}`], { stdio: ['pipe', 'pipe', 'inherit'] }),
    ];
    try {
      clients[0]!.stdin!.write('12345');
      clients[2]!.stdin!.write('123');
      let splices: Splice[] = [];
      const find = (proto: string, startedBy: string) =>
        splices.find((each) => each.proto === proto && each.startedBy === startedBy);
      await waitUntil(
        'all to be there',
        async () => {
          ({ splices } = JSON.parse(await ctl('splices', '--json')) as { splices: Splice[] });
          return (
            splices.length === 3 &&
            find('tcp', 'host')?.bytesToClient === 11 &&
            find('udp', 'host')?.bytesToClient === 3
          );
        },
        15_000,
        200,
      );
      expect(find('tcp', 'host')).toMatchObject({
        state: 'open',
        bytesFromClient: 5,
        client: { address: '127.0.0.1' },
        server: { address: '127.0.0.1', port: 7001 },
      });
      expect(find('tcp', 'namespace')).toMatchObject({
        bytesFromClient: 0,
        server: { address: '127.0.0.1', port: 7011 },
      });
      expect(find('udp', 'host')).toMatchObject({
        state: 'two-way',
        bytesFromClient: 3,
        server: { port: DATAGRAM_PORT },
      });
      const table = await ctl('splices');
      expect(table).toMatch(/^PROTO +STATE +WAY +CLIENT +SERVER +SENT +ANSWERED +AGE\n/);
      expect(table).toMatch(/tcp +open +host -> namespace +127\.0\.0\.1:\d+ +127\.0\.0\.1:7001 +5/);
      expect(table).toContain('namespace -> host');
    } finally {
      await Promise.all([...clients, ...servers].map((child) => stopChild(child)));
    }
    await waitUntil('the connections to be gone', async () => !(await ctl('splices')).includes('tcp'), 10_000, 200);
  });
});
