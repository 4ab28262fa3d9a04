import { describe, expect, it } from 'vitest';
import { createHarness, decodeUdp, GUEST_MAC, OUR_MAC, udpFrame } from './config-harness.ts';

const GUEST6 = '2001:0db8:0000:0001:0000:0000:0000:0002';
const RESOLVER6 = '2001:0db8:0000:0001:0000:0000:0000:0053';

/** Answers "ours" with "yes"; what was asked is kept. */
function setUp() {
  const asked: string[] = [];
  const harness = createHarness(
    {},
    () => 0.5,
    (query) => {
      const text = Buffer.from(query).toString('latin1');
      asked.push(text);
      return text === 'ours' ? Buffer.from('yes') : undefined;
    },
  );
  return { harness, asked };
}

const ask = (from: string, to: string, text: string, port = 53): Buffer =>
  udpFrame(from, 4000, to, port, Buffer.from(text), OUR_MAC);

describe('queries to the resolver that the guest was given', () => {
  it.each([
    ['192.0.2.2', '192.0.2.3'],
    ['192.0.2.2', '8.8.8.8'],
    [GUEST6, RESOLVER6],
  ])('from %s to %s are answered from there when the name is ours', (guest, resolver) => {
    const { harness } = setUp();
    const [answer, ...others] = harness.exchange(ask(guest, resolver, 'ours'));
    expect(others).toEqual([]);
    expect(decodeUdp(answer!)).toMatchObject({
      source: resolver,
      destination: guest,
      destinationMac: GUEST_MAC,
      fromPort: 53,
      toPort: 4000,
      payload: Buffer.from('yes'),
    });
    expect(harness.passedOn).toEqual([]);
  });
  it('go on when it is not', () => {
    const { harness, asked } = setUp();
    expect(harness.exchange(ask('192.0.2.2', '192.0.2.3', 'another'))).toEqual([]);
    expect([asked, harness.passedOn]).toEqual([['another'], [15]]);
  });
  it('are not looked at when they are for another resolver, or another port', () => {
    const { harness, asked } = setUp();
    harness.exchange(ask('192.0.2.2', '192.0.2.4', 'ours'));
    harness.exchange(ask('192.0.2.2', '192.0.2.3', 'ours', 5353));
    harness.exchange(ask(GUEST6, GUEST6.replace(/2$/, '3'), 'ours'));
    expect(asked).toEqual([]);
    expect(harness.passedOn).toHaveLength(3);
  });
  it('are lost when there is no room, as datagrams are', () => {
    const { harness } = setUp();
    harness.link.limitRoom(60);
    expect(harness.exchange(ask('192.0.2.2', '192.0.2.3', 'ours'))).toEqual([]);
    harness.link.limitRoom(1000);
    expect(harness.exchange(ask('192.0.2.2', '192.0.2.3', 'ours'))).toHaveLength(1);
  });
});
