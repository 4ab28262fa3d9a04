import { describe, expect, it } from 'vitest';
import { parseIp } from '../../../src/base/ip-text.ts';
import { createHarness, decodeUdp, GUEST_MAC, OUR_MAC, udpFrame } from './config-harness.ts';

const GUEST6 = '2001:0db8:0000:0001:0000:0000:0000:0002';
const RESOLVER6 = '2001:0db8:0000:0001:0000:0000:0000:0053';

/** A server at the addresses that the guest was told, which answers "ours" with "yes", and everything later with `answerLater`. */
function setUp() {
  const asked: { text: string; limitBytes: number }[] = [];
  const answers: ((message: Uint8Array) => void)[] = [];
  const told = ['192.0.2.3', '8.8.8.8', RESOLVER6].map((text) => [...parseIp(text)!].join());
  const harness = createHarness({}, () => 0.5, {
    isAt: (address) => told.includes([...address].join()),
    ask(query, limitBytes, answer) {
      const text = Buffer.from(query).toString('latin1');
      asked.push({ text, limitBytes });
      if (text === 'ours') answer(Buffer.from('yes'));
      else answers.push(answer);
    },
  });
  return { harness, asked, answers };
}

const ask = (from: string, to: string, text: string, port = 53): Buffer =>
  udpFrame(from, 4000, to, port, Buffer.from(text), OUR_MAC);

describe('queries to the name server', () => {
  it.each([
    ['192.0.2.2', '192.0.2.3'],
    ['192.0.2.2', '8.8.8.8'],
    [GUEST6, RESOLVER6],
  ])('from %s to %s are answered from there', (guest, resolver) => {
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
  it('are answered later, whatever has come meanwhile, by who was asked to who asked', () => {
    const { harness, answers } = setUp();
    expect(harness.exchange(ask('192.0.2.2', '192.0.2.3', 'another'))).toEqual([]);
    harness.exchange(ask(GUEST6, RESOLVER6, 'ours'));
    answers[0]!(Buffer.from('an answer'));
    const [frame, ...others] = harness.taken();
    expect(others).toEqual([]);
    expect(decodeUdp(frame!)).toMatchObject({
      source: '192.0.2.3',
      destination: '192.0.2.2',
      destinationMac: GUEST_MAC,
      toPort: 4000,
      payload: Buffer.from('an answer'),
    });
    expect(harness.passedOn).toEqual([]);
  });
  it('may have answers as long as what the guest takes in a packet', () => {
    const { harness, asked } = setUp();
    const { mtu } = harness.config;
    harness.exchange(ask('192.0.2.2', '192.0.2.3', 'ours'));
    harness.exchange(ask(GUEST6, RESOLVER6, 'ours'));
    expect(asked.map(({ limitBytes }) => limitBytes)).toEqual([mtu - 28, mtu - 48]);
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
