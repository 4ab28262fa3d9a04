import { describe, expect, it } from 'vitest';
import { type Netdev, parseNetdev } from '../../../src/qemu/netdev.ts';
import { inheritedFd, isOverUdp, resolvePaths } from '../../../src/qemu/netdev-facts.ts';
import { mirrorNetdev } from '../../../src/qemu/netdev-mirror.ts';

class Failure extends Error {
  readonly key: string;
  readonly value: string | undefined;
  readonly expected: string;

  constructor(key: string, value: string | undefined, expected: string) {
    super(`${key}: ${expected}`);
    this.key = key;
    this.value = value;
    this.expected = expected;
  }
}
const parse = (text: string): Netdev =>
  parseNetdev(text, (key, value, expected) => {
    throw new Failure(key, value, expected);
  });
const failure = (text: string): Failure => {
  try {
    parse(text);
  } catch (error) {
    return error as Failure;
  }
  throw new Error(`'${text}' was accepted`);
};

describe("a link in QEMU's words", () => {
  it('is a client by default, as in QEMU', () => {
    expect(parse('stream,addr.type=unix,addr.path=/a')).toMatchObject({
      form: 'stream',
      server: false,
      address: { type: 'unix', path: '/a', isAbstract: false },
      reconnectMs: undefined,
    });
  });
  it('has commas written twice, and the last of two values counts', () => {
    const netdev = parse('type=stream,addr.type=unix,addr.path=/x,addr.path=/a,,b,id=n1');
    expect(netdev).toMatchObject({ id: 'n1', address: { path: '/a,b' } });
  });
  it('may be JSON', () => {
    const text = '{"type":"stream","server":true,"addr":{"type":"inet","host":"::1","port":"5555","ipv6":true}}';
    expect(parse(text)).toMatchObject({
      server: true,
      address: { type: 'inet', host: '::1', port: 5555, ipv4: false, ipv6: true },
    });
  });
  it('names one family and thereby excludes the other', () => {
    const families = (text: string) => {
      const { address } = parse(`stream,addr.type=inet,addr.host=h,addr.port=1${text}`) as {
        address: { ipv4: boolean; ipv6: boolean };
      } & Netdev;
      return [address.ipv4, address.ipv6];
    };
    expect(families('')).toEqual([true, true]);
    expect(families(',addr.ipv4=on')).toEqual([true, false]);
    expect(families(',addr.ipv6=on')).toEqual([false, true]);
    expect(families(',addr.ipv4=off')).toEqual([false, true]);
    expect(families(',addr.ipv4=on,addr.ipv6=on')).toEqual([true, true]);
  });
  it('counts the time between two tries in seconds or milliseconds', () => {
    const reconnect = (text: string) =>
      (parse(`stream,addr.type=unix,addr.path=/a,${text}`) as { reconnectMs?: number }).reconnectMs;
    expect([reconnect('reconnect=5'), reconnect('reconnect-ms=250'), reconnect('reconnect=0')]).toEqual([
      5000,
      250,
      undefined,
    ]);
  });
  it('with a multicast address is a group', () => {
    expect(parse('dgram,remote.type=inet,remote.host=239.1.1.1,remote.port=7')).toMatchObject({
      form: 'multicast',
      group: '239.1.1.1',
      port: 7,
      local: undefined,
    });
    expect(parse('socket,mcast=239.1.1.1:7,localaddr=192.0.2.1')).toMatchObject({
      form: 'multicast',
      local: '192.0.2.1',
    });
  });
  it('in the older words has HOST:PORT, the host left out meaning all', () => {
    expect(parse('socket,listen=:80')).toMatchObject({ server: true, address: { host: '', port: 80, ipv6: false } });
    expect(parse('socket,udp=192.0.2.1:5,localaddr=:6')).toMatchObject({
      local: { host: '', port: 6 },
      remote: { port: 5 },
    });
  });
});

describe('a link that is wrong', () => {
  const UNIX = 'stream,addr.type=unix,addr.path=/a';
  const INET = 'stream,addr.type=inet,addr.host=127.0.0.1';
  const UDP = 'dgram,local.type=inet,local.host=127.0.0.1,local.port=5,remote.type=inet,remote.host=127.0.0.1';
  const CASES: ReadonlyArray<readonly [text: string, key: string, value: string | undefined, expected: RegExp]> = [
    ['', 'type', undefined, /'stream' or 'dgram' or 'socket'/],
    ['tap,ifname=x', 'type', 'tap', /'stream'/],
    ['{"type":', '', '{"type":', /JSON/],
    [`${UNIX},server`, 'server', undefined, /'='/],
    [`${UNIX},server=maybe`, 'server', 'maybe', /'on' or 'off'/],
    [`${UNIX},addr.host=h`, 'addr.host', 'h', /one of .*addr\.path/],
    [`${UNIX},foo=1`, 'foo', '1', /one of/],
    [`${UNIX},addr.tight=off`, 'addr.tight', 'off', /'on'/],
    [`${UNIX},server=on,reconnect=1`, 'reconnect', '1', /client/],
    [`${UNIX},reconnect=1,reconnect-ms=2`, 'reconnect', '1', /one of/],
    ['stream,addr.type=unix', 'addr.path', undefined, /missing/],
    ['stream,addr.type=unix,addr.path=', 'addr.path', '', /a path/],
    ['stream,addr.type=vsock,addr.cid=1', 'addr.type', 'vsock', /'inet' or 'unix' or 'fd'/],
    ['stream,addr.type=fd,addr.str=name', 'addr.str', 'name', /number/],
    ['stream,addr.type=fd,addr.str=2', 'addr.str', '2', /0, or 3/],
    ['stream,server=on,addr.type=fd,addr.str=5', 'server', 'on', /'off'/],
    [INET, 'addr.port', undefined, /missing/],
    [`${INET},addr.port=0`, 'addr.port', '0', /1 to 65535/],
    [`${INET},addr.port=http`, 'addr.port', 'http', /1 to 65535/],
    [`${INET},addr.port=1,addr.to=9`, 'addr.to', '9', /one port/],
    [`${INET},addr.port=1,addr.mptcp=on`, 'addr.mptcp', 'on', /'off'/],
    [`${INET},addr.port=1,addr.ipv6=on`, 'addr.host', '127.0.0.1', /family/],
    [`${INET},addr.port=1,addr.ipv4=off,addr.ipv6=off`, 'addr.ipv6', 'off', /one of/],
    ['stream,addr.type=inet,addr.host=name,addr.port=1,addr.numeric=on', 'addr.host', 'name', /numeric/],
    ['dgram,local.type=unix,local.path=/a', 'remote.type', undefined, /'inet' or 'unix'/],
    [UDP, 'remote.port', undefined, /missing/],
    ['dgram,remote.type=inet,remote.host=127.0.0.1,remote.port=5', 'local.type', undefined, /'inet'/],
    [
      'dgram,local.type=unix,local.path=/a,remote.type=inet,remote.host=h,remote.port=1',
      'local.type',
      'unix',
      /'inet'/,
    ],
    ['dgram,local.type=unix,local.path=/a,remote.type=unix,remote.path=/a', 'remote.path', '/a', /another/],
    [
      'dgram,local.type=unix,local.path=a,local.abstract=on,remote.type=unix,remote.path=/b',
      'local.abstract',
      'on',
      /QEMU/,
    ],
    ['dgram,remote.type=inet,remote.host=ff02::5,remote.port=1', 'remote.host', 'ff02::5', /IPv4/],
    ['dgram,local.type=fd,local.str=5,remote.type=inet', 'remote.type', 'inet', /one of/],
    ['socket', '', '', /exactly one/],
    ['socket,listen=:1,connect=h:1', '', 'listen,connect', /exactly one/],
    ['socket,listen=:1,localaddr=h:1', 'localaddr', 'h:1', /only with/],
    ['socket,listen=1', 'listen', '1', /HOST:PORT/],
    ['socket,listen=[::1]:1', 'listen', '[::1]:1', /IPv4/],
    ['socket,udp=h:1', 'localaddr', undefined, /missing/],
    ['socket,mcast=127.0.0.1:1', 'mcast', '127.0.0.1', /multicast/],
    ['socket,mcast=239.1.1.1:1,localaddr=name', 'localaddr', 'name', /IPv4 address/],
  ];
  for (const [text, key, value, expected] of CASES) {
    it(`is refused with key, value and expectation: ${text}`, () => {
      const found = failure(text);
      expect(found).toBeInstanceOf(Failure);
      expect([found.key, found.value]).toEqual([key, value]);
      expect(found.expected).toMatch(expected);
    });
  }
});

describe('the other end', () => {
  const mirror = (text: string) => mirrorNetdev(parse(text), 'n');
  const PAIRS: ReadonlyArray<readonly [ours: string, theirs: string]> = [
    ['stream,server=on,addr.type=unix,addr.path=/a,,b', 'stream,id=n,server=off,addr.type=unix,addr.path=/a,,b'],
    [
      'stream,addr.type=unix,addr.path=a,addr.abstract=on,reconnect=1',
      'stream,id=n,server=on,addr.type=unix,addr.path=a,addr.abstract=on',
    ],
    [
      'stream,server=on,addr.type=inet,addr.host=,addr.port=5',
      'stream,id=n,server=off,addr.type=inet,addr.host=127.0.0.1,addr.port=5',
    ],
    [
      'stream,server=on,addr.type=inet,addr.host=::,addr.port=5',
      'stream,id=n,server=off,addr.type=inet,addr.host=::1,addr.port=5',
    ],
    [
      'stream,addr.type=inet,addr.host=::1,addr.port=5',
      'stream,id=n,server=on,addr.type=inet,addr.host=::1,addr.port=5',
    ],
    [
      'dgram,local.type=unix,local.path=/a,remote.type=unix,remote.path=/b',
      'dgram,id=n,local.type=unix,local.path=/b,remote.type=unix,remote.path=/a',
    ],
    [
      'dgram,local.type=inet,local.host=,local.port=1,remote.type=inet,remote.host=192.0.2.1,remote.port=2',
      'dgram,id=n,local.type=inet,local.host=192.0.2.1,local.port=2,remote.type=inet,remote.host=127.0.0.1,remote.port=1',
    ],
    [
      'dgram,remote.type=inet,remote.host=239.1.1.1,remote.port=7,local.type=inet,local.host=127.0.0.1,local.port=7',
      'dgram,id=n,remote.type=inet,remote.host=239.1.1.1,remote.port=7,local.type=inet,local.host=127.0.0.1,local.port=7',
    ],
    ['socket,listen=:1', 'socket,id=n,connect=127.0.0.1:1'],
    ['socket,connect=h:1', 'socket,id=n,listen=h:1'],
    ['socket,udp=h:1,localaddr=:2', 'socket,id=n,udp=127.0.0.1:2,localaddr=h:1'],
    ['socket,mcast=239.1.1.1:7,localaddr=192.0.2.1', 'socket,id=n,mcast=239.1.1.1:7,localaddr=192.0.2.1'],
  ];
  for (const [ours, theirs] of PAIRS) {
    it(`of ${ours}`, () => {
      expect(mirror(ours)).toBe(theirs);
      // It is a text of its own, which our side would read too.
      expect(mirrorNetdev(parse(theirs), 'n')).toBeDefined();
    });
  }
  it('of a descriptor is not known', () => {
    for (const text of ['stream,addr.type=fd,addr.str=5', 'dgram,local.type=fd,local.str=5', 'socket,fd=5']) {
      expect(mirror(text)).toBeUndefined();
      expect(inheritedFd(parse(text))).toBe(5);
    }
  });
});

describe('facts about a link', () => {
  it('has relative paths made absolute, abstract names left', () => {
    const path = (text: string) => JSON.stringify(resolvePaths(parse(text), (name) => `/d/${name}`));
    expect(path('stream,addr.type=unix,addr.path=a')).toContain('"/d/a"');
    expect(path('stream,addr.type=unix,addr.path=a,addr.abstract=on')).toContain('"a"');
    expect(path('dgram,local.type=unix,local.path=a,remote.type=unix,remote.path=/b')).toMatch(/"\/d\/a".*"\/b"/);
  });
  it('knows what travels in UDP datagrams', () => {
    expect(isOverUdp(parse('socket,mcast=239.1.1.1:7'))).toBe(true);
    expect(isOverUdp(parse('socket,udp=h:1,localaddr=h:2'))).toBe(true);
    expect(isOverUdp(parse('dgram,local.type=unix,local.path=a,remote.type=unix,remote.path=b'))).toBe(false);
  });
});
