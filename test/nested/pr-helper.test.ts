/**
 * The whole chain of a clustered guest: a guest with `scsi-block` in a real QEMU with `pr-manager-helper`, a helper, a disk
 * of the kernel's target. The QEMU runs inside another guest, since the target needs a kernel of its own. See README.md.
 */
import { expect, it } from 'vitest';
import { requireOrSkip } from '../support/netns/capabilities.ts';
import { waitUntil } from '../support/netns/process.ts';
import { bootPrGuest, HELPERS, type HelperName, needPrGuest } from '../support/pr-guest/guest.ts';
import type { LioDisk } from '../support/pr-guest/in-guest/lio.ts';
import { addQemu, INNER_KEY, innerQemu, makeInnerGuest } from './inner-guest.ts';

const STORY_TIMEOUT_MS = 1_800_000;
const SOCKET = '/run/helper.sock';
const CONSOLE = '/tmp/inner.console';

const describeSuite = await requireOrSkip(...needPrGuest());
const program = (process.env['PASSEL_PR_HELPER'] ?? 'ours') as HelperName;

describeSuite(`a guest in a guest, with the helper ${HELPERS[program]}`, () => {
  it('reserves a disk for itself, and is fenced by another node', async () => {
    const { kernel, initramfs } = await makeInnerGuest();
    const guest = await bootPrGuest({
      memoryMib: 1024,
      tools: { name: 'pr-nested-tools', add: addQemu },
      async addProject(contents) {
        contents.files.set('inner/vmlinuz', kernel.image);
        contents.texts = new Map([['inner/initramfs', initramfs]]);
      },
    });
    try {
      const [disk] = (await guest.runClient('disk', ['2'])) as [LioDisk];
      const other = disk.nexuses[1]!.disk;
      const persist = (args: string): Promise<string> => guest.check(`sg_persist --no-inquiry ${args} ${other} 2>&1`);

      const helper = await guest.start(`exec ${HELPERS[program]} -k ${SOCKET}`);
      await guest.check(`until [ -S ${SOCKET} ]; do sleep 0.05; done`);
      const qemu = await guest.start(
        innerQemu({
          disk: disk.nexuses[0]!.disk,
          socket: SOCKET,
          kernel: '/passel/inner/vmlinuz',
          initramfs: '/passel/inner/initramfs',
          console: CONSOLE,
        }),
      );
      const story = async (): Promise<string[]> =>
        (await guest.exec(`grep -a story: ${CONSOLE}`)).stdout
          .split('\n')
          .map((line) => line.replace(/^.*story: |\r/g, '').replace(/ +/g, ' '));
      const waitFor = async (step: string): Promise<void> => {
        const described = `the inner guest to say "${step}"`;
        await waitUntil(described, async () => (await story()).includes(step), STORY_TIMEOUT_MS, 500).catch(
          async (error) => {
            throw new Error(`${(error as Error).message}\n${(await guest.exec(`cat ${CONSOLE}`)).stdout}`);
          },
        );
      };

      await waitFor('ready');
      expect(await persist('--in --read-keys')).toContain(`0x${INNER_KEY}`);
      expect(await persist('--in --read-reservation')).toContain('Write Exclusive, registrants only');
      await guest.check(`! dd if=/dev/zero of=${other} bs=4096 count=1 oflag=direct 2>/dev/null`);

      await persist('--out --register --param-sark=2');
      await persist(`--out --preempt --param-rk=2 --param-sark=${INNER_KEY} --prout-type=5`);
      await waitFor('end');
      expect(await persist('--in --read-reservation')).toContain('Key=0x2');
      expect(await story()).toEqual(
        expect.arrayContaining([
          'registered',
          'reserved',
          `holder: Key=0x${INNER_KEY}`,
          'written',
          'fenced',
          'keys: 0 of mine',
          'refused: 24',
        ]),
      );
      expect((await qemu.wait({ timeoutMs: 60_000 })).status).toBe(0);
      await guest.check(`kill $(pidof node qemu-pr-helper)`);
      expect(await helper.wait()).toMatchObject({ status: 0 });
    } finally {
      await guest.stop();
    }
  });
});
