/**
 * The forwarding matrix of passt, from beyond the host: {TCP, UDP} × {IPv4, IPv6} × every form of a port specification, by the
 * cases that pasta is held to. Every byte is compared by position.
 */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { exchangeTcp, exchangeUdp, goodTcp, goodUdp, REFUSED_TCP, REFUSED_UDP } from '../../support/exchange.ts';
import { FORWARD_FORMS, ONE } from '../../support/forward-forms.ts';
import { createRig, type Rig } from '../../support/rig.ts';
import { FAMILIES, rigSuite } from '../../support/rig-suite.ts';

for (const { family, own, loopback, remote } of FAMILIES) {
  rigSuite(`ports of the host that lead to the guest, over ${family}`, () => {
    let rig: Rig;
    beforeAll(async () => {
      const specs = [...new Set(FORWARD_FORMS.map(({ spec }) => spec(own, loopback)))];
      rig = await createRig({ args: specs.flatMap((spec) => ['-t', spec, '-u', spec]) });
    });
    afterAll(() => rig?.close());

    for (const { name, port, guestPort, only } of FORWARD_FORMS) {
      const leads = guestPort !== undefined && only !== 'loopback';
      const what = leads ? `leads to ${guestPort}` : 'leads nowhere';
      const sides = () =>
        [
          { in: rig.guest, port: guestPort ?? port },
          { in: rig.wan, addr: own, bind: remote, port },
        ] as const;

      it(`${name} ${what}, for TCP`, async () => {
        expect(await exchangeTcp(...sides())).toMatchObject(leads ? goodTcp() : REFUSED_TCP);
      });

      it(`${name} ${what}, for UDP`, async () => {
        const { client } = await exchangeUdp(...sides(), leads ? undefined : ONE);
        expect(client).toMatchObject(leads ? goodUdp() : REFUSED_UDP);
      });
    }
  });
}
