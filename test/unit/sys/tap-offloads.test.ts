import { describe, expect, it } from 'vitest';
import { IFF_NO_PI, IFF_TAP, IFF_VNET_HDR, prepareTapOffloads } from '../../../src/sys/tap.ts';

const EINVAL = -22;
const TAP = IFF_TAP | IFF_NO_PI;

/** A tap of a kernel that knows the offloads in `known`. */
function fakeTap(flags: number, known: number, headerStatus = 0) {
  const asked: number[] = [];
  const native = {
    tunGetFlags: () => flags,
    tunSetVnetHeader: () => headerStatus,
    tunSetOffload: (_fd: number, bits: number) => {
      asked.push(bits);
      return (bits & ~known) === 0 ? 0 : EINVAL;
    },
  };
  return { native, asked };
}

describe('the offloads of a tap', () => {
  it('are all taken where the kernel has them', () => {
    const { native, asked } = fakeTap(TAP | IFF_VNET_HDR, 0xff);
    expect(prepareTapOffloads(native, 3)).toEqual({ vnetHeader: true, udpSegmentation: true });
    expect(asked).toEqual([0x67]);
  });

  it('are those without UDP on a kernel before 6.2', () => {
    const { native, asked } = fakeTap(TAP | IFF_VNET_HDR, 0x0f);
    expect(prepareTapOffloads(native, 3)).toEqual({ vnetHeader: true, udpSegmentation: false });
    expect(asked).toEqual([0x67, 0x07]);
  });

  it('are none where every one is refused: frames still carry the header', () => {
    const { native, asked } = fakeTap(TAP | IFF_VNET_HDR, 0);
    expect(prepareTapOffloads(native, 3)).toEqual({ vnetHeader: true, udpSegmentation: false });
    expect(asked).toEqual([0x67, 0x07, 0x01, 0]);
  });

  it('are none, and nothing is asked, on a tap without the header or a descriptor that is none', () => {
    for (const flags of [TAP, -25]) {
      const { native, asked } = fakeTap(flags, 0xff);
      expect(prepareTapOffloads(native, 3)).toEqual({ vnetHeader: false, udpSegmentation: false });
      expect(asked).toEqual([]);
    }
  });

  it('cannot be had from a kernel that has no header of this size', () => {
    expect(() => prepareTapOffloads(fakeTap(TAP | IFF_VNET_HDR, 0xff, EINVAL).native, 3)).toThrow(/TUNSETVNETHDRSZ/);
  });
});
