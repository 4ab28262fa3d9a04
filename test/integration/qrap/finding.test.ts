/** How qrap finds a passt, what it makes of peers that are none, and what it says when it cannot go on. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { requireOrSkip } from '../../support/netns/capabilities.ts';
import { ARP_ANSWER, EXECUTABLES, needDebianQrap, needMounts, Place } from './place.ts';

const describePlaces = await requireOrSkip(needMounts, needDebianQrap);

let place: Place;
const makePlace = (): void => {
  place = new Place();
};
const closePlace = (): void => place.close();

/** The bytes of C's probe, as strace shows them. */
const PROBE_HEX = [
  `0000002a${'ff'.repeat(12)}08060001080006040001${'00'.repeat(20)}`,
  `0000004e${'ff'.repeat(12)}86dd6000000000183aff${'00'.repeat(15)}01${'00'.repeat(16)}87${'00'.repeat(23)}`,
].join('');

/** Closing with our probe unread is a reset. */
function resetLater(socket: Socket): void {
  setTimeout(() => socket.destroy(), 5);
}

describePlaces('the search for passt', () => {
  beforeEach(makePlace);
  afterEach(closePlace);

  it("asks as C's does, byte by byte, and once", async () => {
    const probes: string[] = [];
    await place.listen(1, (socket) => {
      socket.on('data', (bytes: Buffer) => {
        probes.push(bytes.toString('hex'));
        socket.write(ARP_ANSWER);
      });
    });
    for (const which of ['ours', 'c'] as const) expect((await place.run(which, ['5', 'kvm'])).status).toBe(0);
    expect(probes).toEqual([PROBE_HEX, PROBE_HEX]);
  });

  it('takes the first that answers', async () => {
    await place.addPasst(3);
    await place.addPasst(4);
    for (const which of ['ours', 'c'] as const) {
      const { status, stderr } = await place.run(which, ['5', 'kvm']);
      expect(status).toBe(0);
      expect(stderr).toContain('onnected to /tmp/passt_3.socket\n');
    }
  });

  it('goes as far as number 99', async () => {
    await place.addPasst(99);
    expect((await place.run('ours', ['5', 'kvm'])).stderr).toBe('passel-qrap: connected to /tmp/passt_99.socket\n');
  });

  it('goes on behind peers that are no passt, and says what each did when there is none', async () => {
    await place.listen(1, () => {});
    await place.listen(2, (socket) => socket.end());
    await place.listen(3, (socket) => socket.write('hello, what do you want?'));
    await place.listen(4, (socket) => socket.write(ARP_ANSWER.subarray(0, 20)));
    await place.listen(5, (socket) => socket.once('data', () => socket.end()));
    writeFileSync(join(place.folder, 'passt_6.socket'), '');
    const without = await place.run('ours', ['5', 'kvm']);
    expect(without.status).toBe(1);
    expect(without.stderr).toMatch(
      /^passel-qrap: no passt socket answered: \/tmp\/passt_1\.socket: no answer within 500 ms; \/tmp\/passt_2\.socket: it .*; \/tmp\/passt_3\.socket: what it sends is not a frame; \/tmp\/passt_4\.socket: half an answer within 500 ms; \/tmp\/passt_5\.socket: it closed the connection; \/tmp\/passt_6\.socket: connection refused; \/tmp\/passt_7\.socket to \/tmp\/passt_99\.socket: no such file or directory\n$/,
    );
    await place.addPasst(9);
    expect((await place.run('ours', ['5', 'kvm'])).report?.argv).toEqual(['kvm']);
  });

  it('takes a peer that says something else first, and reads up to the answer', async () => {
    const advertisement = Buffer.concat([Buffer.from('00000020', 'hex'), Buffer.alloc(32, 0x86)]);
    await place.listen(1, (socket) =>
      socket.once('data', () => socket.write(Buffer.concat([advertisement, ARP_ANSWER]))),
    );
    const { report } = await place.run('ours', ['5', 'kvm'], { env: { FAKE_QEMU_READ: '5' } });
    expect(report?.unread).toBe(0);
  });

  it('leaves what comes behind the answer to QEMU', async () => {
    await place.listen(1, (socket) => socket.once('data', () => socket.write(Buffer.concat([ARP_ANSWER, ARP_ANSWER]))));
    const { report } = await place.run('ours', ['5', 'kvm'], { env: { FAKE_QEMU_READ: '5' } });
    expect(report?.unread).toBe(46);
  });

  it('puts an answer together from pieces', async () => {
    await place.listen(1, (socket) =>
      socket.once('data', () => {
        socket.write(ARP_ANSWER.subarray(0, 3));
        setTimeout(() => socket.write(ARP_ANSWER.subarray(3, 30)), 40);
        setTimeout(() => socket.write(ARP_ANSWER.subarray(30)), 80);
      }),
    );
    expect((await place.run('ours', ['5', 'kvm'])).status).toBe(0);
  });

  it('takes a peer that sends frames, but not that answer, when its time is up, as C does', async () => {
    const frame = Buffer.concat([Buffer.from('00000020', 'hex'), Buffer.alloc(32, 0x86)]);
    await place.listen(1, (socket) => socket.once('data', () => socket.write(frame)));
    expect((await place.run('ours', ['5', 'kvm'])).status).toBe(0);
  });

  it('tries again while passt still has its last guest, and leaves no socket of these tries to QEMU', async () => {
    await place.ignoreInherited();
    let connections = 0;
    await place.listen(
      1,
      (socket) => {
        connections++;
        if (connections <= 4) return resetLater(socket);
        socket.once('data', () => socket.write(ARP_ANSWER));
        socket.resume();
      },
      { pauseOnConnect: true },
    );
    const { report, status } = await place.run('ours', ['5', 'kvm']);
    expect(status).toBe(0);
    expect(connections).toBe(5);
    expect(Object.keys(report!.fds)).toEqual(['0', '1', '2', '5']);
  });

  it('gives up on a passt that keeps its guest after 51 tries', async () => {
    let connections = 0;
    const onConnection = (socket: Socket): void => {
      connections++;
      resetLater(socket);
    };
    await place.listen(1, onConnection, { pauseOnConnect: true });
    const startMs = performance.now();
    const { status, stderr } = await place.run('ours', ['5', 'kvm']);
    expect(status).toBe(1);
    expect(stderr).toContain('/tmp/passt_1.socket: it has a guest already (connection reset);');
    expect(connections).toBe(51);
    expect(performance.now() - startMs).toBeGreaterThan(2500);
  });
});

describePlaces('qrap that cannot go on', () => {
  beforeEach(makePlace);
  afterEach(closePlace);

  const messageOf = async (words: readonly string[], env: Record<string, string> = {}): Promise<string> => {
    const { status, stderr, stdout } = await place.run('ours', words, { env });
    expect([status, stdout]).toEqual([1, '']);
    return stderr;
  };

  it('says which paths it tried', async () => {
    expect(await messageOf(['-m', '1'])).toBe(
      'passel-qrap: no passt socket answered: /tmp/passt_1.socket to /tmp/passt_99.socket: no such file or directory\n',
    );
  });

  it('says which programs it tried, and uses up no connection of passt', async () => {
    let connections = 0;
    await place.listen(1, () => connections++);
    writeFileSync(join(place.folder, 'none-kvm'), '');
    const { status, stderr } = await place.run('ours', ['-m', '1'], { env: { PATH: '/tmp' } });
    expect(status).toBe(1);
    expect(stderr).toBe(
      'passel-qrap: no QEMU found: kvm is not there, qemu-kvm is not there, qemu-system-x86_64 is not there, ' +
        '/usr/libexec/qemu-kvm is not there\n  PATH is /tmp\n',
    );
    chmodSync(join(place.folder, 'bin/kvm'), 0o644);
    expect(connections).toBe(0);
  });

  it.each(['{bad', '{"driver":"x",}', "{'driver':'x'", '{"driver":"x"} '.repeat(2)])(
    'refuses a device in JSON that is none: %s',
    async (device) => {
      let connections = 0;
      await place.listen(1, () => connections++);
      expect(await messageOf(['-device', device])).toMatch(
        /^passel-qrap: -device: '\{.*' is not JSON that QEMU could read: .*\n$/,
      );
      expect(connections).toBe(0);
    },
  );

  it('refuses a number beyond the limit of open files', async () => {
    await place.addPasst();
    expect(await messageOf(['100000000', 'kvm'])).toMatch(
      /^passel-qrap: descriptor 100000000 cannot be had: the limit of open files is \d+\n$/,
    );
  });

  it('says why a program could not be executed', async () => {
    await place.addPasst();
    writeFileSync(join(place.folder, 'bin/kvm'), '#!/nowhere/interpreter\n');
    const message = await messageOf(['-m', '1']);
    expect(message).toContain("passel-qrap: cannot become '/tmp/bin/kvm': ENOENT");
  });

  it('ends by the signal that it is sent while it waits', async () => {
    await place.listen(1, () => {});
    const child: ChildProcess = place.start([...EXECUTABLES.ours, '5', 'kvm']);
    // Until it is ours: unshare and the shell come first.
    while (!readFileSync(`/proc/${child.pid}/cmdline`, 'latin1').includes('passel-qrap.cjs')) {
      await new Promise((done) => setTimeout(done, 5));
    }
    child.kill('SIGTERM');
    const [, signal] = await once(child, 'exit');
    expect(signal).toBe('SIGTERM');
  });
});

describePlaces("qrap's own words", () => {
  beforeEach(makePlace);
  afterEach(closePlace);

  it('--print shows the line and the reason of each change, and touches nothing', async () => {
    let connections = 0;
    await place.listen(1, () => connections++);
    const words = [
      '-machine',
      'pc-q35-7.2',
      '-netdev',
      'user,id=n',
      '-name',
      "it's a",
      '-device',
      'pcie-root-port,id=pci.3',
    ];
    const { status, stdout, stderr } = await place.run('ours', ['--print', ...words]);
    expect([status, stderr]).toEqual([0, '']);
    expect(stdout).toBe(
      [
        `kvm -machine pc-q35-7.2 -name 'it'\\''s a' -device pcie-root-port,id=pci.3 -device virtio-net-pci,bus=pci.3,addr=0x0,netdev=hostnet0,x-txburst=4096 -netdev socket,fd=5,id=hostnet0`,
        '# QEMU: /tmp/bin/kvm',
        '# descriptor of the passt socket: 5',
        '# removed: -netdev user,id=n (a network beside the one that is added)',
        "# added: -device virtio-net-pci,bus=pci.3,addr=0x0,netdev=hostnet0,x-txburst=4096 (the guest's network card, at the first free port)",
        '# added: -netdev socket,fd=5,id=hostnet0 (the passt socket, which QEMU inherits as 5)',
        '',
      ].join('\n'),
    );
    expect(connections).toBe(0);
  });

  it('--print shows the line that a shell would run as it is', async () => {
    await place.addPasst();
    const words = ['-m', '1', 'a b', "c'd", 'new\nline', '$x', '', 'ü'];
    const { stdout } = await place.run('ours', ['--print', '5', 'kvm', ...words]);
    const { report } = await place.runCommand(['/bin/sh', '-c', stdout]);
    expect(report?.argv.slice(1).map((word) => Buffer.from(word, 'latin1').toString())).toEqual(words);
  });

  it('--print works without QEMU', async () => {
    const { status, stdout } = await place.run('ours', ['--print'], { env: { PATH: '/nowhere' } });
    expect(status).toBe(0);
    expect(stdout).toMatch(/^kvm -device virtio-net-pci,netdev=hostnet0.*\n# QEMU: no QEMU found: kvm is not there,/);
  });

  it("--help and --version are ours in front, and QEMU's behind", async () => {
    await place.addPasst();
    expect((await place.run('ours', ['--version'])).stdout).toMatch(/^passel-qrap \d+\.\d+\.\d+\n$/);
    expect((await place.run('ours', ['--help'])).stdout).toMatch(/^Usage: passel-qrap \[FDNUM QEMU_CMD\]/);
    expect((await place.run('ours', ['-S', '--version'])).report?.argv).toContain('--version');
    expect((await place.run('ours', ['5', 'kvm', '--print'])).report?.argv).toEqual(['kvm', '--print']);
  });

  it('are understood by `passel qrap` too', async () => {
    const child = spawn(process.execPath, [
      join(import.meta.dirname, '../../../dist/helpers/passel.cjs'),
      'qrap',
      '--print',
      '-m',
      '1',
    ]);
    let text = '';
    child.stdout.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    await once(child, 'close');
    expect(text).toContain('kvm -m 1 -device virtio-net-pci,netdev=hostnet0');
    expect(existsSync(join(import.meta.dirname, '../../../dist/helpers/passel-qrap'))).toBe(true);
  });
});
