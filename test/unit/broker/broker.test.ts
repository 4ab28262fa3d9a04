/** The broker as a whole, in this process: its server on an abstract socket, clients connected to it. */
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createArena } from '../../../src/base/arena.ts';
import type { AuditRecord } from '../../../src/broker/audit.ts';
import { BROKER_ARENA_BYTES, type Broker, createBroker } from '../../../src/broker/broker.ts';
import { connectBroker, type FdBroker } from '../../../src/broker/client.ts';
import { defaultPolicy, type Policy, parsePolicy } from '../../../src/broker/policy.ts';
import { formatRequest } from '../../../src/broker/protocol.ts';
import { loadNative } from '../../../src/sys/native.ts';
import { receiveWithFds, sendWithFds } from '../../../src/sys/scm.ts';
import { connectUnix, createSocketPair, listenUnix, UNIX_SEQPACKET } from '../../../src/sys/unix-socket.ts';
import { waitUntil } from '../../support/netns/process.ts';

const native = loadNative();
const arena = createArena(8192);
native.bindArena(arena.buffer);
const scratch = { view: arena.view, offset: arena.allocate(BROKER_ARENA_BYTES) };
const me = process.getuid!();

let counter = 0;
let path: string;
let folder: string;
let broker: Broker;
let client: FdBroker;
let audit: AuditRecord[];
const opened: number[] = [];

function start(policy: Policy = defaultPolicy(me), maxFds = 1000): void {
  path = `@passel-broker-test-${process.pid}-${counter++}`;
  audit = [];
  broker = createBroker({
    native,
    arena: scratch,
    policy,
    maxFds,
    stallMs: 300,
    audit: (record) => audit.push(record),
  });
  broker.server.serve(listenUnix(native, `\0${path.slice(1)}`, { type: UNIX_SEQPACKET, backlog: 64 }));
  client = connectBroker(native, path);
}

function restart(policy: Policy, maxFds?: number): void {
  client.close();
  broker.close();
  start(policy, maxFds);
}

const own = (fd: number): number => {
  opened.push(fd);
  return fd;
};
const pair = (type?: number): [number, number] => {
  const [a, b] = createSocketPair(native, type);
  return [own(a), own(b)];
};
const file = (text: string): number => {
  const name = join(folder, `f${counter++}`);
  writeFileSync(name, text);
  return own(openSync(name, 'r+'));
};
const textOf = (fd: number): string => {
  const bytes = Buffer.alloc(100);
  return bytes.toString('utf8', 0, readSync(fd, bytes, 0, 100, 0));
};
const countFds = (): number => readdirSync('/proc/self/fd').length;
const settled = () => new Promise((resolve) => setTimeout(resolve, 20));

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'passel-broker-'));
  start();
});
afterEach(() => {
  client.close();
  broker.close();
  for (const fd of opened.splice(0)) closeSync(fd);
  rmSync(folder, { recursive: true });
});

describe('names', () => {
  it('keep a descriptor that its giver has closed, and hand it out once by take', async () => {
    const fd = openSync(join(folder, 'x'), 'w+');
    writeSync(fd, 'kept');
    await client.ask('put', { name: 'disk' }, [fd]);
    closeSync(fd);
    const { fds, result } = await client.ask('take', { name: 'disk' });
    expect(result).toEqual({ name: 'disk' });
    expect(fds).toHaveLength(1);
    expect(textOf(fds[0]!.fd)).toBe('kept');
    fds[0]!.close();
    await expect(client.ask('take', { name: 'disk' })).rejects.toMatchObject({ code: 'no-such-name' });
    await waitUntil('it to be closed', () => broker.registry.fdCount === 0);
  });
  it('hold several descriptors in order, and give copies as often as asked', async () => {
    await client.ask('put', { name: 'n', uses: 2 }, [file('a'), file('b')]);
    for (let i = 0; i < 2; i++) {
      const { fds } = await client.ask('copy', { name: 'n' });
      expect(fds.map(({ fd }) => textOf(fd))).toEqual(['a', 'b']);
      for (const fd of fds) fd.close();
    }
    await expect(client.ask('copy', { name: 'n' })).rejects.toMatchObject({ code: 'no-such-name' });
  });
  it('are taken once only, unless replaced', async () => {
    await client.ask('put', { name: 'n' }, [file('a')]);
    await expect(client.ask('put', { name: 'n' }, [file('b')])).rejects.toMatchObject({ code: 'name-taken' });
    await client.ask('put', { name: 'n', replace: true }, [file('c')]);
    const { fds } = await client.ask('take', { name: 'n' });
    expect(textOf(fds[0]!.fd)).toBe('c');
    fds[0]!.close();
  });
  it('are listed, described and dropped', async () => {
    const [a] = pair();
    await client.ask('put', { name: 'z', ttl: 100, uses: 3 }, [a]);
    await client.ask('put', { name: 'b' }, [file('')]);
    const listed = await client.ask('list', {});
    expect(listed.result).toEqual({
      names: [
        { owner: me, name: 'b', fds: 1 },
        { owner: me, name: 'z', fds: 1 },
      ],
      total: 2,
    });
    const { result } = await client.ask('stat', { name: 'z' });
    expect(result).toMatchObject({
      owner: me,
      uses: 3,
      fds: [{ kind: 'socket', family: 'unix', type: 'stream', listening: false, access: 'read-write' }],
    });
    expect(result['ttl']).toBeLessThanOrEqual(100);
    await client.ask('drop', { name: 'z' });
    await expect(client.ask('stat', { name: 'z' })).rejects.toMatchObject({ code: 'no-such-name' });
  });
  it('end after their time', async () => {
    await client.ask('put', { name: 'n', ttl: 0.05 }, [file('')]);
    await waitUntil('the name to end', () => broker.registry.fdCount === 0);
  });
  it('end when the other end hangs up, and not when data comes', async () => {
    const [a, b] = createSocketPair(native);
    await client.ask('put', { name: 'n', dropOnHangup: true }, [a]);
    native.close(a);
    native.sendFds(b, Uint8Array.of(1), 0, 1, new Int32Array(0), 0);
    await settled();
    expect(broker.registry.fdCount).toBe(1);
    native.close(b);
    await waitUntil('the name to end', () => broker.registry.fdCount === 0);
  });
  it.each([
    [{ kind: 'socket' as const }, 'kind is file, expected socket'],
    [{ access: 'write' as const }, ''],
    [{ family: 'unix' as const }, 'family is none'],
  ])('are checked against %j on arrival and again when handed out', async (expected, reason) => {
    await client.ask('put', { name: 'n' }, [file('')]);
    if (reason === '') {
      const { fds } = await client.ask('copy', { name: 'n', expect: expected });
      fds[0]!.close();
      return;
    }
    await expect(client.ask('put', { name: 'm', expect: expected }, [file('')])).rejects.toThrow(reason);
    await expect(client.ask('take', { name: 'n', expect: expected })).rejects.toMatchObject({ code: 'fd-kind' });
    expect(broker.registry.fdCount).toBe(1);
  });
});

describe('what is never kept', () => {
  it.each([
    ['a directory', () => openSync(folder, 'r')],
    ['a descriptor that only names a file', () => openSync(join(folder, 'f'), 0o10000000)],
  ])('%s', async (_what, make) => {
    writeFileSync(join(folder, 'f'), '');
    const fd = own(make());
    await client.ask('list', {});
    const before = countFds();
    await expect(client.ask('put', { name: 'n' }, [fd])).rejects.toMatchObject({ code: 'fd-kind' });
    await waitUntil('descriptors to be closed', () => countFds() === before);
  });
  it("the broker's own listener, and a connection to it", async () => {
    const connection = own(connectUnix(native, `\0${path.slice(1)}`, UNIX_SEQPACKET));
    await expect(client.ask('put', { name: 'n' }, [connection])).rejects.toThrow('a socket of this broker');
  });
  it('anything beyond the quota, of which the old stays', async () => {
    restart(
      parsePolicy(JSON.stringify({ version: 1, rules: [{ users: 'all', verbs: 'all', quota: { names: 2, fds: 3 } }] })),
    );
    await client.ask('put', { name: 'a' }, [file(''), file('')]);
    await expect(client.ask('put', { name: 'b' }, [file(''), file('')])).rejects.toMatchObject({ code: 'quota' });
    await client.ask('put', { name: 'b' }, [file('')]);
    await expect(client.ask('put', { name: 'c' }, [file('')])).rejects.toMatchObject({ code: 'quota' });
    await client.ask('drop', { name: 'a' });
    await client.ask('put', { name: 'c' }, [file('')]);
    await waitUntil('the dropped ones to be closed', () => broker.registry.fdCount === 2);
  });
  it('more than the broker itself can hold', async () => {
    restart(defaultPolicy(me), 2);
    await client.ask('put', { name: 'a' }, [file(''), file('')]);
    await expect(client.ask('put', { name: 'b' }, [file('')])).rejects.toThrow('the broker keeps 2');
  });
});

describe('making descriptors', () => {
  it('opens below allowed folders only, whatever links say', async () => {
    const root = join(folder, 'images');
    mkdirSync(root);
    writeFileSync(join(root, 'disk'), 'disk');
    writeFileSync(join(folder, 'secret'), 'secret');
    symlinkSync('../secret', join(root, 'out'));
    symlinkSync(folder, join(root, 'folder'));
    symlinkSync('/proc/self/root', join(root, 'magic'));
    symlinkSync('disk', join(root, 'in'));
    const rule = { users: 'all', verbs: 'all', open: [{ root, access: 'read' }] };
    restart(parsePolicy(JSON.stringify({ version: 1, rules: [rule] })));
    const open = (name: string, access: 'read' | 'read-write' = 'read') => client.ask('open', { path: name, access });
    for (const name of ['disk', 'in', './disk', '../images/disk']) {
      const { fds } = await open(`${root}/${name}`);
      expect(textOf(fds[0]!.fd)).toBe('disk');
      fds[0]!.close();
    }
    for (const name of ['out', 'folder/secret', 'magic/etc/passwd']) {
      await expect(open(`${root}/${name}`)).rejects.toMatchObject({ code: 'system' });
    }
    for (const name of [join(folder, 'secret'), `${root}/../secret`, root, `${root}x`, '/etc/passwd']) {
      await expect(open(name)).rejects.toMatchObject({ code: 'denied' });
    }
    await expect(open(join(root, 'disk'), 'read-write')).rejects.toMatchObject({ code: 'denied' });
    await expect(client.ask('open', { path: join(root, 'new'), access: 'read', create: true })).rejects.toThrow(
      'making it',
    );
    await expect(open('disk')).rejects.toMatchObject({ code: 'bad-request' });
    await expect(open(join(root, 'gone'))).rejects.toMatchObject({ code: 'system', errno: 'ENOENT' });
  });
  it('opens a directory for nobody', async () => {
    await client.ask('list', {});
    const before = countFds();
    await expect(client.ask('open', { path: folder, access: 'read' })).rejects.toMatchObject({ code: 'fd-kind' });
    await waitUntil('descriptors to be closed', () => countFds() === before);
  });
  it('listens and connects, on unix sockets and TCP', async () => {
    const place = { family: 'unix' as const, path: join(folder, 's') };
    const listener = await client.ask('listen', { place, name: 'server' });
    expect(listener.fds).toEqual([]);
    const kept = await client.ask('stat', { name: 'server' });
    expect(kept.result).toMatchObject({ fds: [{ family: 'unix', type: 'stream', listening: true }] });
    const { fds } = await client.ask('connect', { place });
    fds[0]!.close();
    await expect(client.ask('listen', { place })).rejects.toMatchObject({ errno: 'EADDRINUSE' });

    const tcp = { family: 'tcp' as const, address: '127.0.0.1', port: 0 };
    const server = await client.ask('listen', { place: tcp });
    native.getName(server.fds[0]!.fd, scratch.offset + 32);
    const port = arena.view.getUint16(scratch.offset + 34);
    const peer = await client.ask('connect', { place: { ...tcp, port } });
    for (const fd of [...server.fds, ...peer.fds]) fd.close();
  });
  it('makes pairs, one end of which it may keep', async () => {
    const { fds } = await client.ask('socketpair', { name: 'other', type: 'dgram' });
    const taken = await client.ask('take', { name: 'other' });
    sendWithFds(native, fds[0]!.fd, Buffer.from('hello'), []);
    expect(Buffer.from(receiveWithFds(native, taken.fds[0]!.fd, 10)!.bytes).toString()).toBe('hello');
    for (const fd of [...fds, ...taken.fds]) fd.close();
    const both = await client.ask('socketpair', {});
    expect(both.fds).toHaveLength(2);
    for (const fd of both.fds) fd.close();
  });
  it('follows the policy for places', async () => {
    const rule = {
      users: 'all',
      verbs: 'all',
      listen: [
        { family: 'unix', root: folder },
        { family: 'unix', abstract: 'vm' },
        { family: 'tcp', address: '127.0.0.0/8', ports: '2000-2010' },
      ],
    };
    restart(parsePolicy(JSON.stringify({ version: 1, rules: [rule] })));
    const listen = async (place: Parameters<typeof client.ask<'listen'>>[1]['place']) => {
      const { fds } = await client.ask('listen', { place });
      fds[0]!.close();
    };
    await listen({ family: 'unix', path: join(folder, 'a') });
    await listen({ family: 'tcp', address: '127.0.0.1', port: 2005 });
    mkdirSync(join(folder, 'sub'));
    symlinkSync(tmpdir(), join(folder, 'sub', 'out'));
    for (const place of [
      { family: 'unix', path: '/tmp/elsewhere' },
      { family: 'unix', path: '@other' },
      { family: 'unix', path: `${folder}/../elsewhere` },
      { family: 'tcp', address: '127.0.0.1', port: 2011 },
      { family: 'tcp', address: '0.0.0.0', port: 2005 },
      { family: 'tcp', address: '::1', port: 2005 },
      { family: 'udp', address: '127.0.0.1', port: 2005 },
    ] as const) {
      await expect(client.ask('listen', { place })).rejects.toMatchObject({ code: 'denied' });
    }
    await expect(listen({ family: 'unix', path: join(folder, 'sub/out/x') })).rejects.toMatchObject({ errno: 'EXDEV' });
    await expect(client.ask('connect', { place: { family: 'unix', path: join(folder, 'a') } })).rejects.toMatchObject({
      code: 'denied',
    });
  });
});

describe('requests that are wrong', () => {
  /** Speaks the protocol by hand. */
  function raw(): {
    fd: number;
    send: (text: string, fds?: number[]) => void;
    answer: () => Promise<{ text: string; fds: readonly number[] }>;
  } {
    const fd = own(connectUnix(native, `\0${path.slice(1)}`, UNIX_SEQPACKET));
    return {
      fd,
      send: (text, fds = []) => {
        sendWithFds(native, fd, Buffer.from(text), fds);
      },
      async answer() {
        let message: ReturnType<typeof receiveWithFds>;
        await waitUntil('an answer', () => {
          message = receiveWithFds(native, fd, 70_000);
          return message !== undefined;
        });
        return { text: Buffer.from(message!.bytes).toString(), fds: message!.fds };
      },
    };
  }
  const ask = (members: object): string => JSON.stringify({ version: 1, id: 5, verb: 'list', fds: 0, ...members });

  it.each([
    ['no JSON', '{', 'bad-request', null],
    ['no object', '[]', 'bad-request', null],
    ['not UTF-8', '\xff\xfe', 'bad-request', null],
    ['another version', ask({ version: 2 }), 'unsupported-version', 5],
    ['an unknown verb', ask({ verb: 'exec' }), 'unknown-verb', 5],
    ['a verb of Object', ask({ verb: 'toString' }), 'unknown-verb', 5],
    ['a member too many', ask({ verb: 'put', name: 'x', tll: 5 }), 'bad-request', 5],
    ['a name with a slash', ask({ verb: 'take', name: '../x' }), 'bad-request', 5],
    ['a name too long', ask({ verb: 'take', name: 'x'.repeat(129) }), 'bad-request', 5],
    ['no descriptor', ask({ verb: 'put', name: 'x' }), 'fd-count', 5],
    ['a forged user', ask({ verb: 'take', name: 'x', uid: 0 }), 'bad-request', 5],
  ])('are refused: %s', async (_what, text, code, id) => {
    const by = raw();
    by.send(text);
    expect(JSON.parse((await by.answer()).text)).toMatchObject({ version: 1, id, error: { code }, fds: 0 });
    // The connection goes on.
    by.send(ask({}));
    expect(JSON.parse((await by.answer()).text)).toMatchObject({ id: 5, result: { total: 0 } });
  });
  it('leave no descriptor behind, however many came', async () => {
    const by = raw();
    const fds = [file(''), file(''), file('')];
    by.send(ask({}));
    await by.answer();
    await client.ask('list', {});
    const before = countFds();
    by.send(ask({ verb: 'put', name: 'x', fds: 2 }), fds);
    expect((await by.answer()).text).toContain('fd-count');
    by.send(ask({ fds: 3 }), fds);
    expect((await by.answer()).text).toContain('takes no descriptors');
    by.send('nonsense', fds);
    expect((await by.answer()).text).toContain('bad-request');
    by.send('x'.repeat(70_000), fds);
    expect((await by.answer()).text).toContain('truncated');
    await waitUntil('descriptors to be closed', () => countFds() === before);
    expect(broker.registry.fdCount).toBe(0);
  });
  it('253 descriptors are kept and come back', async () => {
    const fds = Array.from({ length: 253 }, () => file('x'));
    await client.ask('put', { name: 'many' }, fds);
    const { fds: back } = await client.ask('take', { name: 'many' });
    expect(back).toHaveLength(253);
    for (const fd of back) fd.close();
  });
  it('a client that never reads is cut off, and keeps nobody else waiting', async () => {
    const by = raw();
    await client.ask('put', { name: 'n' }, [file('kept')]);
    const request = formatRequest(1, 'copy', { name: 'n' }, 0);
    const fill = async (): Promise<void> => {
      for (let i = 0; i < 100_000; i++) {
        if (!sendWithFds(native, by.fd, request, [])) return;
        if (i % 16 === 0) await new Promise((resolve) => setImmediate(resolve));
      }
    };
    await fill();
    expect(broker.server.connectionCount).toBe(2);
    expect((await client.ask('list', {})).result['total']).toBe(1);
    await waitUntil('it to be cut off', () => broker.server.connectionCount === 1);
    const { fds } = await client.ask('take', { name: 'n' });
    expect(textOf(fds[0]!.fd)).toBe('kept');
    fds[0]!.close();
  });
  it('a name that a client does not fetch any more is not lost', async () => {
    await client.ask('put', { name: 'n' }, [file('kept')]);
    const entry = broker.registry.find(me, 'n')!;
    const [ours, theirs] = pair(UNIX_SEQPACKET);
    closeSync(opened.splice(opened.indexOf(theirs), 1)[0]!);
    expect(() => sendWithFds(native, ours, Uint8Array.of(0), entry.fds)).toThrow('EPIPE');
    const by = raw();
    by.send(ask({ verb: 'take', name: 'n' }));
    closeSync(opened.splice(opened.indexOf(by.fd), 1)[0]!);
    await settled();
    // Either it left in time, or it is still there: it is never both gone and open.
    expect([0, 1]).toContain(broker.registry.fdCount);
    if (broker.registry.fdCount === 1) {
      const { fds } = await client.ask('take', { name: 'n' });
      expect(textOf(fds[0]!.fd)).toBe('kept');
      fds[0]!.close();
    }
  });
});

describe('the log', () => {
  it('says who asked for what, and what became of it', async () => {
    await client.ask('put', { name: 'n' }, [file('')]);
    await client.ask('take', { name: 'm' }).catch(() => {});
    expect(audit).toMatchObject([
      { peer: { uid: me, pid: process.pid }, verb: 'put', subject: 'n', received: 1, sent: 0, error: undefined },
      { verb: 'take', subject: 'm', sent: 0, error: { code: 'no-such-name' } },
    ]);
  });
});

describe('other users', () => {
  const rules = [{ users: [me], verbs: ['put', 'take'] }];
  it('may do what a rule lets them, and nothing else', async () => {
    restart(parsePolicy(JSON.stringify({ version: 1, rules })));
    await client.ask('put', { name: 'n' }, [file('')]);
    await expect(client.ask('list', {})).rejects.toMatchObject({ code: 'denied' });
    restart(parsePolicy(JSON.stringify({ version: 1, rules: [{ users: [me + 1], verbs: 'all' }] })));
    await expect(client.ask('put', { name: 'n' }, [file('')])).rejects.toMatchObject({ code: 'denied' });
  });
  it('see no names but their own and shared ones, and cannot drop those', async () => {
    restart(parsePolicy(JSON.stringify({ version: 1, rules: [{ users: 'all', verbs: 'all' }] })));
    const add = (owner: number, name: string, share: 'all' | number[]) =>
      broker.registry.add({ owner, name, fds: [openSync('/dev/null', 'r')], facts: [], share }, { names: 9, fds: 9 });
    add(me + 1, 'theirs', []);
    add(me + 1, 'mine-too', [me]);
    add(me + 2, 'everybodys', 'all');
    const { result } = await client.ask('list', {});
    expect(result['names']).toMatchObject([{ name: 'mine-too' }, { name: 'everybodys' }]);
    // The same answer for what is not there and for what is another's.
    for (const name of ['theirs', 'nothing']) {
      const asked = { name, owner: me + 1 };
      await expect(client.ask('take', asked)).rejects.toThrow(`user ${me + 1} has no '${name}'`);
    }
    await expect(client.ask('drop', { name: 'mine-too', owner: me + 1 })).rejects.toMatchObject({ code: 'denied' });
    await client.ask('put', { name: 'theirs' }, [file('')]);
    const { fds } = await client.ask('take', { name: 'everybodys', owner: me + 2 });
    fds[0]!.close();
  });
});

describe('a policy', () => {
  it.each([
    ['{"version":2,"rules":[]}', 'version'],
    ['{"version":1,"rules":[{"users":"all","verbs":["exec"]}]}', 'rules.0.verbs'],
    ['{"version":1,"rules":[{"users":"all","verb":"all"}]}', 'rules.0'],
    [
      '{"version":1,"rules":[{"users":"all","verbs":"all","open":[{"root":"srv","access":"read"}]}]}',
      'rules.0.open.0.root',
    ],
    [
      '{"version":1,"rules":[{"users":"all","verbs":"all","open":[{"root":"/srv/../etc","access":"read"}]}]}',
      'rules.0.open.0.root',
    ],
    [
      '{"version":1,"rules":[{"users":"all","verbs":"all","listen":[{"family":"tcp","address":"1.2.3.4/40","ports":"1"}]}]}',
      'rules.0.listen',
    ],
    [
      '{"version":1,"rules":[{"users":"all","verbs":"all","listen":[{"family":"tcp","address":"::1","ports":"9-1"}]}]}',
      'rules.0.listen',
    ],
  ])('is refused with the place of the mistake: %s', (text, place) => {
    expect(() => parsePolicy(text)).toThrow(place);
  });
});
