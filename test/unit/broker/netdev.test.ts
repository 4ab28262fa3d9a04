/** The verb `netdev` with a maker of the test's: who may have which network, order of answers, clients that go while it is being made. */
import { readdirSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createArena } from '../../../src/base/arena.ts';
import type { AuditRecord } from '../../../src/broker/audit.ts';
import { BROKER_ARENA_BYTES, type Broker, createBroker } from '../../../src/broker/broker.ts';
import { connectBroker, type FdBroker } from '../../../src/broker/client.ts';
import { DEFAULT_NETWORKS, type Policy, parsePolicy } from '../../../src/broker/policy.ts';
import { BrokerError } from '../../../src/broker/protocol.ts';
import { checkNetworks } from '../../../src/cli/fd-broker/network-maker.ts';
import { loadNative } from '../../../src/sys/native.ts';
import { createSocketPair, listenUnix, UNIX_SEQPACKET } from '../../../src/sys/unix-socket.ts';
import { waitUntil } from '../../support/netns/process.ts';

const native = loadNative();
const arena = createArena(8192);
native.bindArena(arena.buffer);
const scratch = { view: arena.view, offset: arena.allocate(BROKER_ARENA_BYTES) };
const me = process.getuid!();

const policyOf = (rule: object, networks: object = { lan: { passt: [] }, other: { socket: '/run/x' } }): Policy =>
  parsePolicy(JSON.stringify({ version: 1, networks, rules: [{ users: [me], verbs: 'all', ...rule }] }));

interface Asked {
  readonly name: string;
  readonly limit: number;
  /** Ends what is being made: with a socket, the other end of which comes back, or an error. */
  succeed(): number;
  fail(error: Error): void;
}

let counter = 0;
let path: string;
let broker: Broker;
let client: FdBroker;
let asked: Asked[];
let audit: AuditRecord[];

function start(policy: Policy): void {
  path = `@passel-netdev-test-${process.pid}-${counter++}`;
  asked = [];
  audit = [];
  broker = createBroker({
    native,
    arena: scratch,
    policy,
    maxFds: 100,
    audit: (record) => audit.push(record),
    joinNetwork: (name, _network, _peer, limit) =>
      new Promise((resolve, reject) => {
        const succeed = (): number => {
          const [ours, theirs] = createSocketPair(native);
          resolve({ fd: ours, result: { pid: 7 } });
          return theirs;
        };
        asked.push({ name, limit, succeed, fail: reject });
      }),
  });
  broker.server.serve(listenUnix(native, `\0${path.slice(1)}`, { type: UNIX_SEQPACKET, backlog: 64 }));
  client = connectBroker(native, path);
}

const nextAsked = async (count = 1): Promise<Asked> => {
  await waitUntil('the maker to be asked', () => asked.length === count, 10_000);
  return asked[count - 1]!;
};
const countFds = (): number => readdirSync('/proc/self/fd').length;
/** Whether the other end of a socket has been closed. */
const hasEnded = (fd: number): boolean => {
  const got = native.receiveFds(fd, new Uint8Array(1), 0, 1, new Int32Array(2), new Int32Array(3));
  return got === 0;
};

beforeEach(() => start(policyOf({ networks: ['lan'] })));
afterEach(() => {
  client.close();
  broker.close();
});

describe('netdev', () => {
  it('gives the socket when it is there, and the broker keeps none of it', async () => {
    const answer = client.ask('netdev', { network: 'lan' });
    const one = await nextAsked();
    expect(one).toMatchObject({ name: 'lan', limit: DEFAULT_NETWORKS });
    const theirs = one.succeed();
    const { fds, result } = await answer;
    expect(result).toEqual({ network: 'lan', pid: 7 });
    expect(hasEnded(theirs)).toBe(false);
    fds[0]!.close();
    expect(hasEnded(theirs)).toBe(true);
    native.close(theirs);
    expect(audit).toMatchObject([{ verb: 'netdev', subject: 'lan', sent: 1, error: undefined }]);
  });

  it('answers others meanwhile, and the same client in order', async () => {
    const order: string[] = [];
    const other = connectBroker(native, path);
    const slow = client.ask('netdev', { network: 'lan' }).then(({ fds }) => {
      order.push('netdev');
      for (const fd of fds) fd.close();
    });
    const one = await nextAsked();
    const next = client.ask('list', {}).then(() => order.push('list'));
    await other.ask('list', {}).then(() => order.push('other'));
    native.close(one.succeed());
    await Promise.all([slow, next]);
    expect(order).toEqual(['other', 'netdev', 'list']);
    other.close();
  });

  it('keeps it under a name', async () => {
    const answer = client.ask('netdev', { network: 'lan', name: 'n', dropOnHangup: true });
    const theirs = (await nextAsked()).succeed();
    expect((await answer).result).toEqual({ network: 'lan', pid: 7, name: 'n' });
    expect(broker.registry.fdCount).toBe(1);
    native.close(theirs);
    await waitUntil('it to be dropped', () => broker.registry.fdCount === 0, 10_000);
  });

  it('closes the socket when the client has gone before it was there', async () => {
    await client.ask('list', {});
    const before = countFds();
    const hasty = connectBroker(native, path);
    const lost = hasty.ask('netdev', { network: 'lan' }).catch(() => undefined);
    const one = await nextAsked();
    hasty.close();
    await lost;
    await waitUntil('the connection to end', () => broker.server.connectionCount === 1, 10_000);
    const theirs = one.succeed();
    await waitUntil('the socket to be closed', () => hasEnded(theirs), 10_000);
    native.close(theirs);
    expect(countFds()).toBe(before);
  });

  it('says why it cannot be had, and serves on', async () => {
    const answer = client.ask('netdev', { network: 'lan' });
    (await nextAsked()).fail(new BrokerError('system', "network 'lan': no"));
    await expect(answer).rejects.toMatchObject({ code: 'system', message: "network 'lan': no" });
    const second = client.ask('netdev', { network: 'lan' });
    const one = await nextAsked(2);
    native.close(one.succeed());
    (await second).fds[0]!.close();
  });

  it.each(['other', 'none', 'toString'])(
    "is denied for '%s', whether there is such a network or not",
    async (network) => {
      await expect(client.ask('netdev', { network })).rejects.toMatchObject({
        code: 'denied',
        message: `the policy: user ${me} has no network '${network}'`,
      });
      expect(asked).toEqual([]);
    },
  );

  it('needs the verb besides the network, takes any for "all", and the largest limit of several rules', async () => {
    client.close();
    broker.close();
    const text = (rules: object[]): Policy =>
      parsePolicy(JSON.stringify({ version: 1, networks: { lan: { passt: [] } }, rules }));
    start(text([{ users: [me], verbs: ['list'], networks: 'all' }]));
    await expect(client.ask('netdev', { network: 'lan' })).rejects.toMatchObject({ code: 'denied' });
    client.close();
    broker.close();
    const quota = { names: 1, fds: 1 };
    start(
      text([
        { users: [me], verbs: ['netdev'], networks: 'all', quota: { ...quota, networks: 2 } },
        { users: 'all', verbs: [], quota: { ...quota, networks: 3 } },
        { users: 'all', verbs: [], quota },
      ]),
    );
    const answer = client.ask('netdev', { network: 'lan' });
    const one = await nextAsked();
    expect(one.limit).toBe(3);
    native.close(one.succeed());
    (await answer).fds[0]!.close();
  });
});

describe('a policy with networks', () => {
  it.each([
    ['a rule with a network that there is not', { networks: ['wan'] }, undefined, "no network is called 'wan'"],
    ['a name like an option', {}, { '-x': { passt: [] } }, 'networks'],
    ['a network that is nothing', {}, { lan: {} }, 'networks.lan'],
    ['a relative socket', {}, { lan: { socket: 'x' } }, 'networks.lan'],
  ])('is refused with %s', (_what, rule, networks, message) => {
    expect(() => policyOf(rule, networks)).toThrow(message);
  });

  it.each([
    [['--socket', '/x'], '--socket is not possible in a policy'],
    [['-f'], '-f is not possible in a policy'],
    [['--help'], '--help is not possible in a policy'],
    [['--mtu', 'x'], "--mtu: 'x' is not valid"],
    [['--no-such'], 'unknown option'],
    [['word'], "unexpected argument 'word'"],
  ])('is refused with the arguments %j for passel-passt', (passt, message) => {
    expect(() => checkNetworks(policyOf({}, { lan: { passt } }))).toThrow(`networks.lan: ${message}`);
  });

  it('may not say twice who it runs as', () => {
    const policy = policyOf({}, { lan: { passt: ['--runas', '5'], runAs: 'client' } });
    expect(() => checkNetworks(policy)).toThrow('--runas and runAs exclude each other');
    expect(() => checkNetworks(policyOf({}, { lan: { passt: ['--runas', '5'] } }))).not.toThrow();
  });
});
