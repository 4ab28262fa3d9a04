import { describe, expect, it } from 'vitest';
import type { PasselError } from '../../../src/base/errors.ts';
import { parseIp } from '../../../src/base/ip-text.ts';
import { silentLogger } from '../../../src/base/logger.ts';
import { type ListenerOptions, openListeners } from '../../../src/forward/listeners.ts';
import { type PortForwardRule, parsePortSpec } from '../../../src/forward/port-spec.ts';
import { type HostSockets, KIND_TCP_LISTENER, KIND_UDP_LISTENER } from '../../../src/stack/ports.ts';

const EACCES = 13;
const EADDRINUSE = 98;
const EAFNOSUPPORT = 97;
const EPHEMERAL = { first: 3, last: 65533 };

/** Records calls; `refuse` gives an errno for a bind, by family and port. */
function createRecorder(refuse: (family: number, port: number) => number = () => 0) {
  const view = new DataView(new ArrayBuffer(64));
  const calls: string[] = [];
  const families = new Map<number, number>();
  let nextFd = 10;
  const note = (call: string): number => {
    calls.push(call);
    return 0;
  };
  const sockets = {
    open(family: number, type: number) {
      if (family === 6 && refuse(6, -1) !== 0) return -refuse(6, -1);
      calls.push(`open ${family} ${type === 1 ? 'stream' : 'dgram'}`);
      families.set(nextFd, family);
      return nextFd++;
    },
    bind(fd: number, offset: number) {
      const family = view.getUint8(offset);
      const port = view.getUint16(offset + 2);
      const words = [8, 12, 16, 20].map((at) => view.getUint32(offset + at).toString(16));
      calls.push(`bind ${fd} ${family} ${words.join(':')} ${port}`);
      return -refuse(families.get(fd)!, port);
    },
    listen: (fd: number) => note(`listen ${fd}`),
    close: (fd: number) => note(`close ${fd}`),
    setOption: (fd: number, level: number, name: number, value: number) => note(`set ${fd} ${level}/${name}=${value}`),
    setOptionString: (fd: number, _level: number, _name: number, text: string) => note(`device ${fd} ${text}`),
    watch: (fd: number, events: number, kind: number, index: number) => note(`watch ${fd} ${events} ${kind} ${index}`),
  } as unknown as HostSockets;
  const options: ListenerOptions = {
    sockets,
    view,
    scratchOffset: 0,
    logger: silentLogger,
    ipv4: true,
    ipv6: true,
    freebind: false,
  };
  return { calls, options };
}
const tcp = (spec: string): PortForwardRule[] => parsePortSpec('-t', 'tcp', spec, EPHEMERAL);
const udp = (spec: string): PortForwardRule[] => parsePortSpec('-u', 'udp', spec, EPHEMERAL);

describe('listeners of unix sockets', () => {
  it('are opened by somebody else, and their files given back when they are closed', () => {
    const { calls, options } = createRecorder();
    const opened: string[] = [];
    const closed: string[] = [];
    const listeners = openListeners([...tcp('unix:/a:22'), ...tcp('unix:@b:23')], {
      ...options,
      openPath: ({ bindPath }, backlog) => 100 + opened.push(`${bindPath} ${backlog}`),
      onPathClosed: (path) => closed.push(path),
    });
    expect(opened).toEqual(['/a 4096', '@b 4096']);
    expect([listeners.fdOf(0), listeners.targetOf(1)]).toEqual([101, { guestPort: 23 }]);
    listeners.watchAll();
    expect(calls).toEqual([`watch 101 1 ${KIND_TCP_LISTENER} 0`, `watch 102 1 ${KIND_TCP_LISTENER} 1`]);
    listeners.remove(2, () => {});
    expect(closed).toEqual(['@b']);
    listeners.closeAll();
    expect(closed).toEqual(['@b', '/a']);
  });
  it('give their files back when one that comes later cannot be had', () => {
    const { options } = createRecorder(() => EADDRINUSE);
    const closed: string[] = [];
    const paths = { openPath: () => 9, onPathClosed: (path: string) => closed.push(path) };
    expect(() => openListeners([...tcp('unix:/a:22'), ...tcp('80')], { ...options, ...paths })).toThrow(/80/);
    expect(closed).toEqual(['/a']);
  });
});

describe('a port that the kernel chooses', () => {
  it('stands in the rule from then on', () => {
    const { options } = createRecorder();
    const sockets = {
      ...options.sockets,
      getName(_fd: number, offset: number) {
        options.view.setUint16(offset + 2, 41_234);
        return 0;
      },
    };
    const rule = { ...tcp('127.0.0.1/1:22')[0]!, first: 0, last: 0 };
    const messages: string[] = [];
    const logger = { ...silentLogger, info: (message: string) => void messages.push(message) };
    const listeners = openListeners([rule], { ...options, sockets, logger });
    expect(listeners.list()[0]!.rule).toMatchObject({ first: 41_234, last: 41_234, targetFirst: 22 });
    expect([listeners.portOf(0), listeners.targetOf(0)]).toEqual([41_234, { guestPort: 22 }]);
    expect(listeners.holdsPort('tcp', 41_234)).toBe(true);
    expect(messages.join()).toContain('41234');
  });
});

describe('listeners', () => {
  it('without an address serve both families with one socket', () => {
    const { calls, options } = createRecorder();
    const listeners = openListeners(tcp('22:2222'), options);
    expect(calls).toEqual(['open 6 stream', 'set 10 41/26=0', 'set 10 1/2=1', 'bind 10 6 0:0:0:0 22', 'listen 10']);
    expect(listeners.fdOf(0)).toBe(10);
    expect(listeners.targetOf(0)).toEqual({ guestPort: 2222 });
    expect(listeners.ruleOf(0)).toMatchObject({ first: 22 });
    expect(listeners.targetOf(1)).toBeUndefined();
  });
  it('serve one family where the guest has one', () => {
    const { calls, options } = createRecorder();
    openListeners(tcp('22'), { ...options, ipv4: false });
    expect(calls).toContain('set 10 41/26=1');
    openListeners(tcp('22'), { ...options, ipv6: false });
    expect(calls).toContain('open 4 stream');
  });
  it('fall back to IPv4 on a kernel without IPv6', () => {
    const { calls, options } = createRecorder((family) => (family === 6 ? EAFNOSUPPORT : 0));
    openListeners(tcp('22'), options);
    expect(calls).toContain('bind 10 4 0:0:0:0 22');
  });
  it('bind the address and interface of their rule and know their target', () => {
    const { calls, options } = createRecorder();
    const listeners = openListeners(tcp('192.0.2.1%eth0/8080:192.0.2.7/80'), { ...options, freebind: true });
    expect(calls.slice(2)).toEqual(['device 10 eth0', 'set 10 0/15=1', 'bind 10 4 c0000201:0:0:0 8080', 'listen 10']);
    expect(listeners.targetOf(0)).toEqual({ guestPort: 80, guestAddress: parseIp('192.0.2.7') });
  });
  it('allow reuse of a UDP port only after their own bind, and ask for the destination address', () => {
    const { calls, options } = createRecorder();
    openListeners(udp('::1/53'), options);
    expect(calls).toEqual(['open 6 dgram', 'set 10 41/26=1', 'bind 10 6 0:0:0:1 53', 'set 10 1/2=1', 'set 10 41/49=1']);
  });
  it('are watched by kind and index', () => {
    const { calls, options } = createRecorder();
    openListeners([...tcp('22-23'), ...udp('53')], options).watchAll();
    expect(calls.filter((c) => c.startsWith('watch'))).toEqual([
      `watch 10 1 ${KIND_TCP_LISTENER} 0`,
      `watch 11 1 ${KIND_TCP_LISTENER} 1`,
      `watch 12 1 ${KIND_UDP_LISTENER} 2`,
    ]);
  });
  it('close all their sockets once', () => {
    const { calls, options } = createRecorder();
    const listeners = openListeners(tcp('22-23'), options);
    listeners.closeAll();
    listeners.closeAll();
    expect(calls.filter((c) => c.startsWith('close'))).toEqual(['close 10', 'close 11']);
    expect(listeners.fdOf(0)).toBe(-1);
  });
});

describe('rules at run time', () => {
  const rest = async (): Promise<void> => {};
  const noop = (): void => {};

  it('are added and watched, and listed with numbers that are never given twice', async () => {
    const { calls, options } = createRecorder();
    const listeners = openListeners(tcp('22'), options);
    const added = await listeners.add([...tcp('80-81:8080-8081'), ...udp('53')], rest);
    expect(added.map(({ id, sockets }) => [id, sockets])).toEqual([
      [2, 2],
      [3, 1],
    ]);
    expect(calls.filter((c) => c.startsWith('watch'))).toEqual([
      `watch 11 1 ${KIND_TCP_LISTENER} 1`,
      `watch 12 1 ${KIND_TCP_LISTENER} 2`,
      `watch 13 1 ${KIND_UDP_LISTENER} 3`,
    ]);
    expect(listeners.targetOf(2)).toEqual({ guestPort: 8081 });
    expect(listeners.idOf(3)).toBe(3);
    expect(listeners.remove(3, noop)).toBe(true);
    expect((await listeners.add(udp('53'), rest)).map(({ id }) => id)).toEqual([4]);
    expect(listeners.list().map(({ id }) => id)).toEqual([1, 2, 4]);
    expect(listeners.count).toBe(4);
  });
  it('are removed with all their sockets, each announced while it is open', async () => {
    const { calls, options } = createRecorder();
    const listeners = openListeners([...udp('53-54'), ...tcp('22')], options);
    const announced: [number, string, number][] = [];
    listeners.remove(1, (index, proto) => announced.push([index, proto, listeners.fdOf(index)]));
    expect(announced).toEqual([
      [0, 'udp', 10],
      [1, 'udp', 11],
    ]);
    expect(calls.filter((c) => c.startsWith('close'))).toEqual(['close 10', 'close 11']);
    expect([listeners.fdOf(0), listeners.targetOf(1), listeners.udpListenerAt?.(53), listeners.count]).toEqual([
      -1,
      undefined,
      -1,
      1,
    ]);
    expect(listeners.remove(1, noop)).toBe(false);
  });
  it('do not lose a UDP port that another rule has on another address', async () => {
    const { options } = createRecorder();
    const listeners = openListeners([...udp('127.0.0.1/53'), ...udp('127.0.0.2/53')], options);
    expect(listeners.udpListenerAt?.(53)).toBe(1);
    listeners.remove(2, noop);
    expect(listeners.udpListenerAt?.(53)).toBe(0);
  });
  it('that cannot be bound change nothing', async () => {
    const { calls, options } = createRecorder((_family, port) => (port === 82 ? EADDRINUSE : 0));
    const listeners = openListeners(tcp('22'), options);
    await expect(listeners.add(tcp('79,80-83'), rest)).rejects.toThrow('cannot listen on *:82/tcp');
    expect(calls.filter((c) => c.startsWith('watch'))).toEqual([]);
    expect(calls.filter((c) => c.startsWith('close')).length).toBe(4);
    expect(listeners.list().map(({ id }) => id)).toEqual([1]);
    expect(listeners.count).toBe(1);
  });
  it('with many ports let others work in between', async () => {
    const { options } = createRecorder();
    const listeners = openListeners([], options);
    let rests = 0;
    await listeners.add(tcp('1001-2000'), async () => {
      rests++;
    });
    expect(rests).toBeGreaterThan(5);
    expect(listeners.count).toBe(1000);
  });
});

describe('a port that cannot be bound', () => {
  it('is an error that says which and why, and leaves nothing open', () => {
    const { calls, options } = createRecorder((_family, port) => (port === 23 ? EADDRINUSE : 0));
    expect(() => openListeners(tcp('22-24'), options)).toThrow(
      '--tcp-ports: cannot listen on *:23/tcp: EADDRINUSE: address already in use',
    );
    expect(calls.filter((c) => c.startsWith('close'))).toEqual(['close 11', 'close 10']);
  });
  it('below 1024 comes with the hint that helps', () => {
    const { options } = createRecorder(() => EACCES);
    try {
      openListeners(udp('[::1]/53'), options);
      expect.unreachable();
    } catch (error) {
      expect((error as PasselError).code).toBe('PASSEL_E_PORT_BIND');
      expect((error as PasselError).message).toContain('--udp-ports: cannot listen on [::1]:53/udp: EACCES');
      expect((error as PasselError).hint).toContain('CAP_NET_BIND_SERVICE');
    }
  });
  it('is left out of a sweeping rule', () => {
    const { options } = createRecorder((_family, port) => (port === 1 ? EADDRINUSE : 0));
    // Everything but 3..65533 is 1, 2, 65534 and 65535.
    expect(openListeners(tcp('all'), options).count).toBe(3);
  });
  it('is an error of a sweeping rule when no port could be bound', () => {
    const { options } = createRecorder(() => EACCES);
    expect(() => openListeners(tcp('all'), options)).toThrow('cannot listen on *:1/tcp');
  });
});
