/** The stream that frames travel in: cut anywhere, with lengths that cannot be, from more than one client. */
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { createHost, type Host } from '../../support/netns/host.ts';
import { itExceptOnDebian, rigSuite } from '../../support/rig-suite.ts';
import { ScriptedGuest, sleep, withLength } from '../../support/scripted-guest.ts';
import { type StackProcess, startStack } from '../../support/stack-process.ts';
import { stackCommand } from '../../support/stack-under-test.ts';

rigSuite('the stream of frames', () => {
  let host: Host;
  let stack: StackProcess;
  let path: string;
  let guest: ScriptedGuest;

  beforeAll(async () => {
    host = await createHost();
    path = `${host.directory}/passt.socket`;
    stack = startStack(host, stackCommand(), ['--foreground', '--socket', path]);
  });
  afterEach(() => guest?.close());
  afterAll(async () => {
    const status = await stack?.stop();
    await host?.close();
    expect(status).toBe(0);
  });

  const connect = async (): Promise<void> => {
    guest = await ScriptedGuest.connect(path);
    await guest.checkAlive();
    guest.received.length = 0;
  };

  itExceptOnDebian('it gives up on a cut length', 'may be cut at every byte', async () => {
    await connect();
    const bytes = withLength(guest.arpRequest());
    for (let cut = 1; cut < bytes.length; cut++) {
      const answer = guest.nextFrame(`answer to a frame cut at ${cut}`, () => true);
      await guest.sendBytes(bytes.subarray(0, cut));
      await sleep(1);
      await guest.sendBytes(bytes.subarray(cut));
      await answer;
    }
  });

  itExceptOnDebian('it gives up on a cut length', 'may come byte by byte', async () => {
    await connect();
    const answer = guest.nextFrame('answer', () => true);
    for (const byte of withLength(guest.arpRequest())) {
      await guest.sendBytes(Uint8Array.of(byte));
      await sleep(0);
    }
    await answer;
  });

  itExceptOnDebian('it gives up on a cut frame', 'may bring many frames at once, and a part of one more', async () => {
    await connect();
    const one = withLength(guest.arpRequest());
    const count = 500;
    await guest.sendBytes(Buffer.concat([...new Array<Buffer>(count).fill(one), one.subarray(0, 20)]));
    const deadlineMs = performance.now() + 5_000;
    while (guest.received.length < count && performance.now() < deadlineMs) await sleep(10);
    expect(guest.received.length).toBe(count);
    const answer = guest.nextFrame('answer to the last one', () => true);
    await guest.sendBytes(one.subarray(20));
    await answer;
  });

  it('may end in the middle of a frame: the next client starts afresh', async () => {
    await connect();
    await guest.sendBytes(withLength(guest.arpRequest()).subarray(0, 30));
    await sleep(20);
    await guest.close();
    await connect();
  });

  it('carries the largest frame', async () => {
    await connect();
    // An ARP request with a tail of zeros: padding, as far as Ethernet is concerned.
    const answer = guest.nextFrame('answer', () => true);
    await guest.sendFrame(Buffer.concat([guest.arpRequest(), Buffer.alloc(65_535 - 42)]));
    await answer;
  });

  for (const [name, length] of [
    ['zero', 0],
    ['less than an Ethernet header', 13],
    ['more than any frame', 65_536],
    ['the largest there is', 0xffff_ffff],
  ] as const) {
    itExceptOnDebian(
      'it reads past a bad length',
      `with a length of ${name} (${length}) loses its client; the next one is served`,
      async () => {
        await connect();
        await guest.sendBytes(Buffer.concat([withLength(guest.arpRequest()), withLength(Buffer.alloc(60), length)]));
        await Promise.race([guest.closed, sleep(3_000)]);
        expect(guest.isClosed).toBe(true);
        await connect();
        expect(stack.running()).toBe(true);
      },
    );
  }

  it('of a second client is refused, the first one stays', async () => {
    await connect();
    const second = await ScriptedGuest.connect(path);
    await Promise.race([second.closed, sleep(3_000)]);
    expect(second.isClosed).toBe(true);
    await guest.checkAlive();
  });

  it('may start and end a hundred times; nothing is left of the clients', async () => {
    await connect();
    await guest.close();
    await sleep(50);
    const before = stack.fdCount();
    for (let i = 0; i < 100; i++) {
      await connect();
      await guest.close();
    }
    await sleep(50);
    expect(stack.fdCount()).toBeLessThanOrEqual(before + 1);
  });

  itExceptOnDebian(
    'it loses its place in the stream',
    'that is not read by the guest does not make the stack grow',
    async () => {
      await connect();
      guest.pauseReading();
      const before = stack.rssBytes();
      const block = Buffer.concat(new Array<Buffer>(500).fill(withLength(guest.arpRequest())));
      const sending = (async () => {
        for (let i = 0; i < 200 && !guest.isClosed; i++) await guest.sendBytes(block);
      })();
      await Promise.race([sending, sleep(2_000)]);
      expect(stack.rssBytes() - before).toBeLessThan(64 << 20);
      guest.resumeReading();
      await sending;
      await guest.checkAlive(10_000);
    },
  );
});
