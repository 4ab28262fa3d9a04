/** Ports of the host that lead to the guest: every form of -t and -u, from beyond the host and from its loopback. */
import { readFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import type { Namespace } from '../../support/netns/namespace.ts';
import { type Listener, runPeer, startListener, type TcpResult } from '../../support/peer.ts';
import { createRig, type Rig } from '../../support/rig.ts';
import { FAMILIES, itExceptOnDebian, rigSuite } from '../../support/rig-suite.ts';
import { isDebianStack, stackCommand } from '../../support/stack-under-test.ts';

/** Listening TCP ports in a namespace (state 0A of /proc/net/tcp). */
function listeningPorts(namespace: Namespace, family: 'IPv4' | 'IPv6'): Set<number> {
  const file = `/proc/${namespace.pid}/net/${family === 'IPv4' ? 'tcp' : 'tcp6'}`;
  const ports = new Set<number>();
  for (const line of readFileSync(file, 'utf8').split('\n').slice(1)) {
    const [, local, , state] = line.trim().split(/\s+/);
    if (state === '0A') ports.add(Number.parseInt(local?.split(':')[1] ?? '', 16));
  }
  return ports;
}

/** What a client finds at a port of the host: the guest's server behind it, or nothing. */
interface Case {
  form: string;
  port: number;
  /** The guest's port that answers; undefined: refused. */
  guestPort?: number;
  /** Only from there; from both sides by default. */
  only?: 'outside' | 'loopback';
}

const SPECS = [
  '6001',
  '6002:6102',
  '6010-6012',
  '6020-6022:6120-6122',
  '192.0.2.15/6030',
  '127.0.0.1/6031',
  '6040-6044,~6042',
  '6050,6052:6152',
];

const CASES: Case[] = [
  { form: 'a single port', port: 6001, guestPort: 6001 },
  { form: 'a port that becomes another', port: 6002, guestPort: 6102 },
  { form: 'the first of a range', port: 6010, guestPort: 6010 },
  { form: 'the last of a range', port: 6012, guestPort: 6012 },
  { form: 'a port beyond a range', port: 6013 },
  { form: 'the first of a range that becomes another', port: 6020, guestPort: 6120 },
  { form: 'the last of a range that becomes another', port: 6022, guestPort: 6122 },
  { form: 'a port bound to an address', port: 6030, guestPort: 6030, only: 'outside' },
  { form: 'a port bound to loopback', port: 6031, guestPort: 6031, only: 'loopback' },
  { form: 'a port in a range with an exclusion', port: 6043, guestPort: 6043 },
  { form: 'the excluded port of a range', port: 6042 },
  { form: 'the first of a list', port: 6050, guestPort: 6050 },
  { form: 'the last of a list, which becomes another', port: 6052, guestPort: 6152 },
];

/** A client's side of a short exchange with an echo server. */
const EXCHANGE = { send: 100, 'finish-after-recv': 100, timeout: 3 };

rigSuite('forwarded ports', () => {
  let rig: Rig;
  beforeAll(async () => {
    rig = await createRig({ args: SPECS.flatMap((spec) => ['-t', spec, '-u', spec]) });
  });
  afterAll(() => rig?.close());

  const { own, loopback, remote } = FAMILIES[0];

  for (const { form, port, guestPort, only } of CASES) {
    const name = guestPort === undefined ? 'lead nowhere' : `lead to the guest's port ${guestPort}`;
    it(`${name}: TCP, ${form} (${port})`, async () => {
      const clients = [
        { from: 'outside', namespace: rig.wan, options: { addr: own, port, bind: remote } },
        { from: 'loopback', namespace: rig.host, options: { addr: loopback, port } },
      ];
      let server: Listener<TcpResult> | undefined;
      if (guestPort !== undefined) server = await startListener(rig.guest, 'listen', { port: guestPort, echo: true });
      for (const { from, namespace, options } of clients) {
        const client = await runPeer(namespace, 'connect', { ...options, ...EXCHANGE });
        const expected =
          guestPort === undefined || (only !== undefined && only !== from)
            ? { received: 0, errors: { ECONNREFUSED: 1 } }
            : { received: 100, mismatches: 0, errors: {} };
        expect(client, `from ${from}`).toMatchObject(expected);
      }
      await server?.stop();
    });

    it(`${name}: UDP, ${form} (${port})`, async () => {
      const from = only === 'loopback' ? rig.host : rig.wan;
      const options = only === 'loopback' ? { addr: loopback } : { addr: own, bind: remote };
      const echo = await startListener(rig.guest, 'udp-listen', { port: guestPort ?? port, echo: true });
      const sent = await runPeer(from, 'udp-send', { ...options, port, 'expect-echo': true, 'wait-ms': 1500 });
      expect(sent).toMatchObject(guestPort === undefined ? { echoed: 0 } : { echoed: 1, bad: 0 });
      await echo.stop();
    });
  }

  it('are those that were named, in both families unless bound to an address', () => {
    const both = [6001, 6002, 6010, 6011, 6012, 6020, 6021, 6022, 6040, 6041, 6043, 6044, 6050, 6052];
    const ours = (port: number): boolean => port >= 6000 && port < 6100;
    const v4 = [...listeningPorts(rig.host, 'IPv4')].filter(ours);
    const v6 = [...listeningPorts(rig.host, 'IPv6')].filter(ours);
    // A dual-stack socket shows as IPv6 only.
    expect([...new Set([...v4, ...v6])].sort()).toEqual([...both, 6030, 6031].sort());
    expect(v6.sort()).toEqual(both);
  });
});

rigSuite('forwarded ports bound to an interface', () => {
  let rig: Rig;
  beforeAll(async () => {
    rig = await createRig({
      args: ['-t', '192.0.2.15%eth0/6060', ...(isDebianStack() ? [] : ['-t', '%eth0/6061'])],
    });
  });
  afterAll(() => rig?.close());

  const expectOnInterface = async (port: number): Promise<void> => {
    const { own, remote, loopback } = FAMILIES[0];
    const server = await startListener(rig.guest, 'listen', { port, echo: true });
    const outside = await runPeer(rig.wan, 'connect', { addr: own, port, bind: remote, ...EXCHANGE });
    expect(outside).toMatchObject({ received: 100, errors: {} });
    const inside = await runPeer(rig.host, 'connect', { addr: loopback, port, ...EXCHANGE });
    expect(inside).toMatchObject({ received: 0, errors: { ECONNREFUSED: 1 } });
    await server.stop();
  };

  it('and an address are there only', () => expectOnInterface(6060));
  itExceptOnDebian('a later form', 'and any address are there only', () => expectOnInterface(6061));
});

rigSuite('many forwarded ports', () => {
  let rig: Rig | undefined;
  afterEach(async () => {
    await rig?.close();
    rig = undefined;
  });

  /** The host's listening ports of either family. */
  const portsWith = async (spec: string): Promise<Set<number>> => {
    rig = await createRig({ args: ['-t', spec], readyTimeoutMs: 60_000 });
    return new Set([...listeningPorts(rig.host, 'IPv4'), ...listeningPorts(rig.host, 'IPv6')]);
  };

  itExceptOnDebian('it takes RFC 6335 for the ephemeral range', 'exclusions alone mean all others', async () => {
    const ports = await portsWith('~500-32000,~50-60,~61100-65535');
    const some = [49, 50, 60, 61, 499, 500, 32_000, 32_001, 32_767, 32_768, 40_000, 60_999, 61_000, 61_099, 61_100];
    expect(some.filter((port) => ports.has(port))).toEqual([49, 61, 499, 32_001, 32_767, 61_000, 61_099]);
  });

  itExceptOnDebian(
    'it goes on without them',
    'that are too many for the limit of descriptors are an error',
    async () => {
      const { name, command, args } = stackCommand();
      const stack = { name, command: 'prlimit', args: ['--nofile=512', '--', command, ...args] };
      const failure = createRig({ args: ['-t', 'all'], stack, readyTimeoutMs: 2_000 });
      await expect(failure).rejects.toThrow(/EMFILE|too many open files/i);
    },
  );

  it('none are none', async () => {
    expect((await portsWith('none')).size).toBe(0);
  });
});
