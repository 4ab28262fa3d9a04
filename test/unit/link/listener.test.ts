import { describe, expect, it } from 'vitest';
import { createArena } from '../../../src/base/arena.ts';
import { silentLogger } from '../../../src/base/logger.ts';
import { createLinkListener, type LinkListenerOptions } from '../../../src/link/listener.ts';
import { KIND_LINK_LISTENER } from '../../../src/stack/ports.ts';
import { createFakeStream } from './fake-stream.ts';

function setUp(options: Partial<LinkListenerOptions> = {}) {
  const arena = createArena(1 << 16);
  const fake = createFakeStream(arena);
  const link = {
    connected: false,
    attached: [] as number[],
    attach(fd: number) {
      this.connected = true;
      this.attached.push(fd);
      return 0;
    },
  };
  const warnings: string[] = [];
  const log = { ...silentLogger, warn: (message: string) => void warnings.push(message) };
  const seen: string[] = [];
  const listener = createLinkListener({
    sockets: fake.sockets,
    link,
    fd: 5,
    endpoint: 64,
    log,
    onAttach: () => seen.push('attach'),
    onEnd: () => seen.push('end'),
    ...options,
  });
  return { fake, link, listener, warnings, seen };
}

describe('link listener', () => {
  it('takes the first client as the guest and closes every further one at once', () => {
    const { fake, link, listener, warnings, seen } = setUp();
    expect(fake.watched).toEqual([{ fd: 5, events: 0x80000001, kind: KIND_LINK_LISTENER, index: 0 }]);
    fake.clients = [10, 11, 12];
    listener.onHostEvent();
    expect(link.attached).toEqual([10]);
    expect(fake.closed).toEqual([11, 12]);
    expect(warnings).toHaveLength(1);
    expect(seen).toEqual(['attach']);
  });

  it('takes the next client after the guest has gone, also one that waits already', () => {
    const { fake, link, listener } = setUp();
    fake.clients = [10];
    listener.onHostEvent();
    link.connected = false;
    fake.clients = [11];
    listener.guestGone();
    expect(link.attached).toEqual([10, 11]);
  });

  it('goes on after a client that left before it was accepted, and stops at a lack of descriptors', () => {
    const { fake, link, listener, warnings } = setUp();
    fake.clients = [-103, 10];
    listener.onHostEvent();
    expect(link.attached).toEqual([10]);
    fake.clients = [-24, 11];
    listener.onHostEvent();
    expect(warnings).toHaveLength(1);
    expect(fake.closed).toEqual([]);
  });

  it('ends with its guest when it is for one only', () => {
    const { fake, listener, seen, link } = setUp({ oneOff: true });
    fake.clients = [10];
    listener.onHostEvent();
    link.connected = false;
    fake.clients = [11];
    listener.guestGone();
    expect(seen).toEqual(['attach', 'end']);
    expect(fake.closed).toEqual([5]);
    listener.onHostEvent();
    expect(link.attached).toEqual([10]);
    listener.close();
    expect(fake.closed).toEqual([5]);
  });

  it('says so when it cannot listen', () => {
    const arena = createArena(1 << 16);
    const fake = createFakeStream(arena);
    fake.watchResult = -9;
    const link = { connected: false, attach: () => 0 };
    expect(() => createLinkListener({ sockets: fake.sockets, link, fd: 5, endpoint: 64, log: silentLogger })).toThrow(
      /errno 9/,
    );
  });
});
