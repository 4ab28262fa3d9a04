/** `--user-net smb=`: a folder of the host's that the guest reads and writes by SMB, with Debian's smbd and smbclient. */
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { needCommand, needRoot, requireOrSkip } from '../../support/netns/capabilities.ts';
import { createHost, type Host } from '../../support/netns/host.ts';
import { waitUntil } from '../../support/netns/namespace.ts';
import { createRig, type Rig } from '../../support/rig.ts';
import { rigSuiteExceptOnDebian } from '../../support/rig-suite.ts';
import { startStack } from '../../support/stack-process.ts';
import { stackCommand } from '../../support/stack-under-test.ts';

const SERVER = '10.0.2.4';
const digest = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

(await requireOrSkip(needCommand('smbclient', 'smbclient'), needCommand('smbd', 'samba'), needRoot))(
  'with samba',
  () => {
    rigSuiteExceptOnDebian('it has no --user-net', 'a folder that is shared', () => {
      let host: Host;
      let rig: Rig;
      let share: string;
      /** Where smbd's own files go. */
      let scratch: string;

      beforeAll(async () => {
        host = await createHost();
        share = join(host.directory, 'the share');
        scratch = join(host.directory, 'scratch');
        await host.sh(`mkdir -m 777 '${share}' '${scratch}'`);
        writeFileSync(join(share, 'hello'), 'hello\n');
        mkdirSync(join(share, 'folder'));
        writeFileSync(join(share, 'folder/inner'), 'inner\n');
        writeFileSync(join(host.directory, 'secret'), 'secret\n');
        symlinkSync('../secret', join(share, 'escape'));
        symlinkSync('/etc', join(share, 'etc'));
        const { command, ...stack } = stackCommand();
        // The stack's environment is that of whoever starts it.
        rig = await createRig({
          stack: { ...stack, command: 'env', args: [`TMPDIR=${scratch}`, command, ...stack.args] },
          args: ['--user-net', `smb=${share}`],
          guest: 'unconfigured',
        });
        await rig.guest.sh(`
        ip addr add 10.0.2.15/24 dev ${rig.pump.tapName}; ip route replace default via 10.0.2.2; ip link set lo up`);
      });

      afterAll(async () => {
        try {
          await rig?.close();
          expect(readdirSync(scratch)).toEqual([]);
        } finally {
          await host.close();
        }
      });

      const client = (commands: string, server = SERVER, port = 445) =>
        rig.guest.run('smbclient', ['-N', '-p', String(port), '-t', '60', `//${server}/qemu`, '-c', commands], {
          check: false,
          timeoutMs: 90_000,
        });

      it('is listed and read', async () => {
        const { stdout, status } = await client('ls; cd folder; ls');
        expect(status).toBe(0);
        for (const name of ['hello', 'folder', 'inner']) expect(stdout).toMatch(new RegExp(`^ *${name} `, 'm'));
        await client(`get hello ${join(host.directory, 'got')}`);
        expect(readFileSync(join(host.directory, 'got'), 'utf8')).toBe('hello\n');
      });

      it('is reached by the old port too', async () => {
        expect((await client('ls', SERVER, 139)).stdout).toMatch(/^ *hello /m);
      });

      it('takes a file of 20 MB and gives it back', async () => {
        const bytes = randomBytes(20_000_000);
        writeFileSync(join(host.directory, 'sent'), bytes);
        const paths = ['sent', 'back'].map((name) => join(host.directory, name)) as [string, string];
        const { status, stdout } = await client(`put ${paths[0]} large; get large ${paths[1]}`);
        expect([status, stdout]).toEqual([0, expect.anything()]);
        expect(digest(readFileSync(join(share, 'large')))).toBe(digest(bytes));
        expect(digest(readFileSync(paths[1]))).toBe(digest(bytes));
      });

      it('lets nobody out', async () => {
        for (const name of ['escape', '../secret', 'etc/passwd', '..\\secret', '/etc/passwd']) {
          const to = join(host.directory, 'stolen');
          const { stdout } = await client(`get ${name} ${to}`);
          expect([name, existsSync(to), stdout]).toEqual([name, false, expect.stringMatching(/NT_STATUS_/)]);
        }
        const other = await rig.guest.run('smbclient', ['-N', `//${SERVER}/nobody`, '-c', 'ls'], { check: false });
        expect(other.stdout).toContain('NT_STATUS_BAD_NETWORK_NAME');
      });

      it('serves on after a server was killed', async () => {
        const slow = rig.guest.spawn('smbclient', ['-N', `//${SERVER}/qemu`], { stdio: ['pipe', 'ignore', 'ignore'] });
        const servers = (): number[] =>
          rig.host.processes().filter((pid) => {
            try {
              return readlinkSync(`/proc/${pid}/exe`).endsWith('/smbd');
            } catch {
              return false;
            }
          });
        await waitUntil('a server for the client', () => servers().length > 0, 20_000);
        await rig.host.sh(`kill -9 ${servers().join(' ')} || true`);
        slow.kill('SIGKILL');
        await waitUntil('it to be gone', () => servers().length === 0, 20_000);
        expect((await client('ls')).stdout).toMatch(/^ *hello /m);
      });

      describe('by another stack', () => {
        const run = (userNet: string, environment: string) => {
          const { command, args } = stackCommand();
          const options = ['-f', '-s', join(host.directory, 'other'), '--user-net', userNet];
          return host.run('env', [environment, command, ...args, ...options], { check: false, timeoutMs: 20_000 });
        };

        it('is refused at the start where it cannot be', async () => {
          const here = `TMPDIR=${scratch}`;
          expect((await run('smb=/nowhere', here)).stderr).toContain("--user-net smb: cannot share '/nowhere': ENOENT");
          expect((await run(`smb=${share}/hello`, here)).stderr).toContain('it is not a folder');
          expect((await run('smb=/tmp/100%', here)).stderr).toContain("its path has a '%'");
          expect((await run(`smb=${share},smbserver=10.0.2.2`, here)).stderr).toContain('smbserver');
          expect((await run(`smb=${share}`, 'TMPDIR=/nowhere')).stderr).toMatch(/cannot share .*ENOENT/);
        });

        it('in the background, leaves nothing behind', async () => {
          const pidPath = join(host.directory, 'pid');
          const own = join(host.directory, 'own');
          await host.sh(`mkdir -m 777 ${own}`);
          const { command, args } = stackCommand();
          const options = ['-s', join(host.directory, 'third'), '--pid', pidPath, '--user-net', `smb=${share}`];
          await host.run('env', [`TMPDIR=${own}`, command, ...args, ...options]);
          expect(readdirSync(own)).toEqual([expect.stringMatching(/^passel-smb-/)]);
          await host.sh(`kill $(cat ${pidPath})`);
          await waitUntil('it to be gone', () => host.processes().length === 0, 30_000);
          expect(readdirSync(own)).toEqual([]);
        });

        it('that is killed in the foreground, leaves nothing behind either', async () => {
          const own = join(host.directory, 'killed');
          await host.sh(`mkdir -m 777 ${own}`);
          const { command, args } = stackCommand();
          const started = { command: 'env', args: [`TMPDIR=${own}`, command, ...args] };
          const stack = startStack(host, started, [
            '-f',
            '-s',
            join(host.directory, 'fourth'),
            '--user-net',
            `smb=${share}`,
          ]);
          await waitUntil('it to listen', () => stack.output().includes('joins'), 20_000);
          expect(readdirSync(own)).toHaveLength(1);
          stack.child.kill('SIGKILL');
          await waitUntil('the folder to be gone', () => readdirSync(own).length === 0, 20_000);
        });
      });
    });
  },
);
