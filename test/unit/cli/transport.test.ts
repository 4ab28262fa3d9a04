import { beforeEach, describe, expect, it } from 'vitest';
import { type Logger, silentLogger } from '../../../src/base/logger.ts';
import { watchStream } from '../../../src/cli/transport.ts';
import type { StreamLink } from '../../../src/link/stream.ts';

describe('watching a stream link', () => {
  let link: Pick<StreamLink, 'onRoom' | 'onGone'>;
  let told: string[];

  beforeEach(() => {
    told = [];
    link = { onRoom() {}, onGone() {} };
    const note = (text: string) => void told.push(text);
    const log: Logger = { ...silentLogger, info: note, warn: note };
    const events = {
      onRoom: () => note('room'),
      onAttach: () => note('attach'),
      onGone: (isSure: boolean) => note(`gone, ${isSure}`),
      onEnd: (status: number) => note(`end ${status}`),
    };
    watchStream(link as StreamLink, events, log, () => note('after'));
  });

  it('tells of room', () => {
    link.onRoom();
    expect(told).toEqual(['room']);
  });

  it.each([
    ['closed', 0, 'guest disconnected'],
    ['error', -104, 'guest disconnected: error 104 on its socket'],
    ['bad-length', -74, 'the guest socket sent a frame of impossible length: connection reset'],
  ] as const)('tells that the guest has gone, and why: %s', (reason, error, line) => {
    link.onGone(reason, error);
    expect(told).toEqual([line, 'gone, true', 'after']);
  });

  it('tells nothing of a link that is given up', () => {
    link.onGone('detached', 0);
    expect(told).toEqual([]);
  });
});
