/** Recordings that come and go while guests are at work, read by tcpdump; the sandbox stays as it is. */
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Capture } from '../../../src/cli/captures.ts';
import type { FlowPage } from '../../../src/cli/control/view.ts';
import { createGuestNetwork, type GuestNetwork } from '../../support/guest-network.ts';
import { PROJECT_ROOT } from '../../support/native-tools.ts';
import { needCommand, requireOrSkip } from '../../support/netns/capabilities.ts';
import { HOST_NET } from '../../support/netns/host.ts';
import { type RunResult, runProcess, waitUntil } from '../../support/netns/process.ts';
import { readPcapng } from '../../support/pcapng.ts';
import { createRig, type Rig } from '../../support/rig.ts';
import { rigSuiteExceptOnDebian } from '../../support/rig-suite.ts';

const PASSEL = join(PROJECT_ROOT, 'dist/helpers/passel.cjs');
const withTcpdump = await requireOrSkip(needCommand('tcpdump', 'tcpdump'));

/** What tcpdump makes of a file: one line per frame. */
async function readByTcpdump(path: string): Promise<string[]> {
  const { stdout } = await runProcess('tcpdump', ['-n', '-tt', '-r', path]);
  return stdout.trimEnd().split('\n');
}

/** Lines of echo requests and replies. */
function echoes(lines: readonly string[]): { requests: number; replies: number } {
  const count = (what: string): number => lines.filter((line) => line.includes(`ICMP echo ${what}`)).length;
  return { requests: count('request'), replies: count('reply') };
}

rigSuiteExceptOnDebian('it has no such recordings', 'recordings', () => {
  let directory: string;
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'passel-captures-'));
  });
  afterAll(() => rmSync(directory, { recursive: true }));

  withTcpdump('of one guest', () => {
    let rig: Rig;
    let control: string;
    beforeAll(async () => {
      rig = await createRig({ mtu: 1500, args: ['--conf-path', join(directory, 'control')] });
      control = join(directory, 'control');
    });
    afterAll(() => rig?.close());

    const ctl = (...args: string[]): Promise<RunResult> =>
      runProcess(process.execPath, [PASSEL, 'ctl', '-s', control, ...args], { check: false });
    const ask = async (...args: string[]): Promise<Capture[]> => {
      const { status, stdout, stderr } = await ctl('--json', ...args);
      expect([status, stderr]).toEqual([0, '']);
      return (JSON.parse(stdout) as { captures: Capture[] }).captures;
    };
    const ping = async (count: number, size = 56): Promise<void> => {
      const args = ['-n', '-c', String(count), '-i', '0.01', '-W', '5', '-s', String(size), HOST_NET.remoteV4];
      await rig.guest.run('ping', args);
    };

    it.each(['pcap', 'pcapng'] as const)(
      'begins and ends on request, in a file that the stack could not open: %s',
      async (format) => {
        const path = join(directory, `one.${format}`);
        await ping(2);
        const [begun] = await ask('pcap', 'start', path);
        expect(begun).toMatchObject({ name: path, format, guests: ['guest'], frames: 0 });
        expect(statSync(path)).toMatchObject({ uid: process.getuid!(), mode: 0o100600 });
        await ping(5);
        expect(await ask('pcap', 'list')).toMatchObject([{ id: begun!.id }]);
        const [ended] = await ask('pcap', 'stop', String(begun!.id));
        await ping(2);
        expect(await ask('pcap', 'list')).toEqual([]);
        const lines = await readByTcpdump(path);
        expect(echoes(lines)).toEqual({ requests: 5, replies: 5 });
        expect(lines).toHaveLength(ended!.frames);
        expect(statSync(path).size).toBe(ended!.bytes);
        // The time of the wall clock.
        for (const line of lines) expect(Math.abs(Number(line.split(' ')[0]) - Date.now() / 1000)).toBeLessThan(60);
      },
    );

    it('says in pcapng which way frames went, of which guest, and that it was stopped', async () => {
      const path = join(directory, 'directions.pcapng');
      await ask('pcap', 'start', path, 'guest');
      await ping(3);
      await ask('pcap', 'stop');
      const { section, interfaces, frames, statistics } = readPcapng(readFileSync(path));
      expect(section.application).toMatch(/^passel \d/);
      expect(interfaces).toMatchObject([{ name: 'guest', resolution: 9 }]);
      const icmp = frames.filter(({ data }) => data.readUInt16BE(12) === 0x0800 && data[23] === 1);
      const seen = icmp.map(({ direction, data }) => `${direction} ${data[34]}`).sort();
      expect(seen).toEqual([...Array(3).fill('inbound 8'), ...Array(3).fill('outbound 0')]);
      expect(statistics).toMatchObject([
        { received: BigInt(frames.length), comment: expect.stringContaining('stopped') },
      ]);
    });

    it('takes the place of what is in a file, and keeps to a size and a length of frames', async () => {
      const path = join(directory, 'limited.pcap');
      writeFileSync(path, 'x'.repeat(100_000));
      await ask('--size', '4K', '--snaplen', '60', 'pcap', 'start', path);
      const limit = 'recording of .* ended after .* frames: the file has its 4096 bytes';
      for (let tries = 0; !new RegExp(limit).test(rig.stack.output()) && tries < 20; tries++) await ping(20);
      expect(rig.stack.output()).toMatch(new RegExp(limit));
      expect(await ask('pcap', 'list')).toEqual([]);
      expect(statSync(path).size).toBeLessThanOrEqual(4096);
      expect((await readByTcpdump(path)).length).toBeGreaterThan(40);
    });

    it('leaves the network alone when the disk is full, and says so once', async () => {
      const disk = join(rig.host.directory, 'disk');
      await rig.host.sh(`mkdir ${disk} && mount -t tmpfs -o size=64k none ${disk}`);
      const run = ['ctl', '-s', control, 'pcap', 'start', join(disk, 'full.pcapng')];
      await rig.host.run(process.execPath, [PASSEL, ...run]);
      const isSaid = () => /recording of '.*full\.pcapng' ended after \d+ frames: ENOSPC/.test(rig.stack.output());
      for (let tries = 0; !isSaid() && tries < 50; tries++) await ping(30, 1400);
      expect(rig.stack.output().match(/full\.pcapng' ended/g)).toHaveLength(1);
      await ping(5);
      expect(await ask('pcap', 'list')).toEqual([]);
    }, 90_000);

    it('refuses what it cannot record in, and leaves no file behind', async () => {
      for (const [args, message] of [
        [['pcap', 'start', join(directory, 'new.pcap'), 'nobody'], "'guest' must be one of guest"],
        [['pcap', 'start', '/dev/null'], "cannot record in '/dev/null': it is not a regular file"],
        [['pcap', 'start', join(directory, 'no', 'folder.pcap')], "pcap start: cannot open '"],
        [['pcap', 'stop', '999'], 'there is no recording 999'],
        [['--size', '100', 'pcap', 'start', 'x'], 'expected a number of bytes, at least 4096'],
        [['--size', '1M', 'pcap', 'list'], '--size needs pcap start'],
      ] as const) {
        const { status, stderr } = await ctl(...args);
        expect(status).toBe(1);
        expect(stderr).toContain(message);
      }
      expect(existsSync(join(directory, 'new.pcap'))).toBe(false);
    });

    it('refuses a request without a file', async () => {
      const body = JSON.stringify({ guest: null, name: 'x', format: 'pcap' });
      const answer = await new Promise<string>((resolve, reject) => {
        const asked = request({ socketPath: control, method: 'POST', path: '/v1/captures' }, (response) => {
          let text = `${response.statusCode} `;
          response.on('data', (chunk: Buffer) => {
            text += chunk.toString();
          });
          response.on('end', () => resolve(text));
        });
        asked.on('error', reject);
        asked.end(body);
      });
      expect(answer).toMatch(/^400 .*the file to record in must come with it, as one descriptor/);
    });

    it('holds on to no descriptor of a recording', async () => {
      const isFile = (target: string): boolean => /\.pcap(ng)?( \(deleted\))?$/.test(target);
      await waitUntil('files to be closed', () => rig.stack.fdTargets().every((each) => !isFile(each)));
      const answer = JSON.parse((await ctl('--json', 'flows')).stdout) as FlowPage;
      expect(answer.total).toBeGreaterThan(0);
    });
  });

  describe('of several guests', () => {
    withTcpdump('in one file from the start, and one more on request', () => {
      let network: GuestNetwork;
      let lan: string;
      beforeAll(async () => {
        lan = join(directory, 'lan.pcapng');
        network = await createGuestNetwork(['web', 'db'], ['--pcap', lan, '--pcap-snaplen', '80']);
        for (const name of ['web', 'db']) await network.lease(name);
      }, 120_000);
      afterAll(() => network?.close());

      it('has each link under the name of its guest, and both have what they say to each other', async () => {
        const own = join(directory, 'db.pcap');
        const ctl = [PASSEL, 'ctl', '-s', network.controlPath, 'pcap'];
        const refused = await runProcess(process.execPath, [...ctl, 'start', own], { check: false });
        expect(refused.stderr).toContain('name one of web, db, or let it be pcapng');
        await runProcess(process.execPath, [...ctl, 'start', own, 'db']);
        const ping = ['-n', '-c', '4', '-i', '0.05', '-W', '5', '10.0.2.16'];
        await network.guest('web').namespace.run('ping', ping);
        await network.guest('web').namespace.run('ping', [...ping.slice(0, -1), HOST_NET.remoteV4]);
        await runProcess(process.execPath, [...ctl, 'stop']);
        expect(echoes(await readByTcpdump(own))).toEqual({ requests: 4, replies: 4 });
        // To the world by one link, to each other by two.
        expect(echoes(await readByTcpdump(lan))).toEqual({ requests: 12, replies: 12 });
        const { interfaces, frames } = readPcapng(readFileSync(lan));
        expect(interfaces.map(({ name }) => name)).toEqual(['web', 'db']);
        expect(new Set(frames.map(({ link }) => link))).toEqual(new Set([0, 1]));
        for (const { data, lengthBytes } of frames) expect(data.length).toBe(Math.min(80, lengthBytes));
      });
    });
  });
});
