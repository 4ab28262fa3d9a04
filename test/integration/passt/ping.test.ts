/** Echo requests of the guest, by the ping of iputils. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createRig, type Rig } from '../../support/rig.ts';
import { FAMILIES, itExceptOnDebian, rigSuite } from '../../support/rig-suite.ts';

rigSuite('ping from the guest', () => {
  let rig: Rig;
  beforeAll(async () => {
    rig = await createRig({ mtu: 1500 });
  });
  afterAll(() => rig?.close());

  /** Sends `count` echo requests with so much payload; resolves with how many answers came. */
  const ping = async (address: string, count: number, size: number, ...more: string[]): Promise<number> => {
    const args = ['-c', String(count), '-i', '0.05', '-W', '2', '-s', String(size), ...more, address];
    const { stdout } = await rig.guest.run('ping', args, { check: false });
    return Number(/(\d+) received/.exec(stdout)?.[1] ?? -1);
  };

  for (const { family, remote, gateway } of FAMILIES) {
    it(`is answered by a server beyond the gateway, over ${family}`, async () => {
      expect(await ping(remote, 5, 56)).toBe(5);
      expect(await ping(remote, 2, 1400)).toBe(2);
      expect(await ping(remote, 2, 0)).toBe(2);
    });

    it(`is answered under the gateway's address, over ${family}`, async () => {
      expect(await ping(gateway, 2, 56)).toBe(2);
    });

    it(`answers two programs that ping at once, over ${family}`, async () => {
      expect(await Promise.all([ping(remote, 5, 56, '-e', '1001'), ping(remote, 5, 56, '-e', '1002')])).toEqual([5, 5]);
    });

    itExceptOnDebian('it drops fragments', `carries echo requests larger than the MTU, over ${family}`, async () => {
      expect(await ping(remote, 2, 4000)).toBe(2);
    });
  }

  it('gets no answer for an address where nobody is', async () => {
    expect(await ping('192.0.2.77', 1, 56, '-W', '1')).toBe(0);
  });
});
