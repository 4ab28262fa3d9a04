/**
 * Unix sockets in the place of ports, both ways: `-t unix:PATH:PORT` leads from a socket of the host into the guest, `--guest-forward` from an
 * address of the guest's to a socket of the host.
 */
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, lstatSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { text as readText } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ForwardView } from '../../../src/cli/control/view.ts';
import { PROJECT_ROOT } from '../../support/native-tools.ts';
import { type Agent, startAgent } from '../../support/netns/agent.ts';
import { needCommand, requireOrSkip } from '../../support/netns/capabilities.ts';
import { createHost, HOST_NET, type Host } from '../../support/netns/host.ts';
import { runProcess, stopChild, waitUntil } from '../../support/netns/process.ts';
import { createRig, type Rig } from '../../support/rig.ts';
import { rigSuiteExceptOnDebian } from '../../support/rig-suite.ts';
import { startStack } from '../../support/stack-process.ts';
import { stackCommand } from '../../support/stack-under-test.ts';

await requireOrSkip(needCommand('socat', 'socat'));

const LENGTH_BYTES = 20_000_000;
const HTTP_PORT = 8080;
const DIGEST_PORT = 6001;
const ECHO_PORT = 6002;
const EARLY_PORT = 6003;
const UNUSED_PORT = 6004;
/** Nobody is there but a forward. */
const SERVICE = '198.51.100.99';
const SERVICE_V6 = '2001:db8:99::1';

const digest = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** One says what it has read, one what it reads, and one has nothing more to say after a word and listens on. */
const GUEST_SERVERS = `
  const { createServer } = require('node:net');
  const { createHash } = require('node:crypto');
  const serve = (port, onSocket) =>
    createServer({ allowHalfOpen: true }, (socket) => onSocket(socket.on('error', () => {}))).listen({ port, backlog: 300 });
  const digest = (socket, onEnd) => {
    const hash = createHash('sha256');
    socket.on('data', (chunk) => hash.update(chunk)).on('end', () => onEnd(hash.digest('hex')));
  };
  serve(${DIGEST_PORT}, (socket) => digest(socket, (hex) => socket.end(hex)));
  serve(${ECHO_PORT}, (socket) => socket.pipe(socket));
  serve(${EARLY_PORT}, (socket) => {
    socket.end('done');
    digest(socket, (hex) => require('node:fs').writeFileSync(process.argv[1], hex));
  });
`;

rigSuiteExceptOnDebian('it has none', 'unix sockets', () => {
  let host: Host;
  let rig: Rig;
  let onGuest: Agent;
  let service: Server;
  let at: (name: string) => string;
  const abstract = `passel-test-${process.pid}`;
  const serve = (socket: Socket): void => {
    socket.on('error', () => {});
    socket.pipe(socket);
  };

  beforeAll(async () => {
    // A folder of its own, and long-lived: what is in it when the stack has ended is what it leaves behind.
    host = await createHost();
    at = (name) => join(host.directory, name);
    service = createServer({ allowHalfOpen: true }, serve);
    await new Promise<void>((resolve) => service.listen(at('service'), resolve));
    // Whatever user the stack becomes.
    await host.sh(`chmod 777 ${at('service')}`);
    // Left over from a process that was killed.
    const stale = createServer();
    await new Promise<void>((resolve) => stale.listen(at('stale'), resolve));
    await host.sh(`ln ${at('stale')} ${at('http')}`);
    await new Promise((resolve) => stale.close(resolve));
    expect(lstatSync(at('http')).isSocket()).toBe(true);
    const forwards = {
      http: HTTP_PORT,
      digest: DIGEST_PORT,
      echo: ECHO_PORT,
      early: EARLY_PORT,
      unused: UNUSED_PORT,
      'a:b,c': ECHO_PORT,
    };
    const args = Object.entries(forwards).flatMap(([name, port]) => ['-t', `unix:${at(name)}:${port}`]);
    args.push('-t', `unix:@${abstract}:${HOST_NET.hostV4}/${ECHO_PORT}`);
    args.push('-t', `unix:${at('v6')}:[${HOST_NET.hostV6}]/${HTTP_PORT}`);
    for (const [server, path] of [
      [`${SERVICE}:80`, at('service')],
      [`${SERVICE}:81`, at('nobody')],
      [`${SERVICE}:82`, `@${abstract}-service`],
      [`[${SERVICE_V6}]:80`, at('service')],
    ]) {
      args.push('--guest-forward', `tcp:${server}-unix:${path}`);
    }
    rig = await createRig({ args: [...args, '--conf-path', at('control')] });
    onGuest = await startAgent(rig.guest);
    for (const address of [HOST_NET.hostV4, HOST_NET.hostV6])
      await onGuest.serveHttp({ host: address, port: HTTP_PORT });
    rig.guest.spawn(process.execPath, ['-e', GUEST_SERVERS, at('early.digest')], { stdio: 'ignore' });
    await rig.guest.sh(
      `for port in ${DIGEST_PORT} ${ECHO_PORT} ${EARLY_PORT}; do until ss -ltn | grep -q ":$port "; do sleep 0.05; done; done`,
    );
  });

  afterAll(async () => {
    const paths = ['http', 'digest', 'echo', 'early', 'unused', 'a:b,c', 'v6', 'control'].map(at);
    try {
      await rig?.close();
      expect(paths.filter((path) => existsSync(path))).toEqual([]);
    } finally {
      await new Promise((resolve) => service.close(resolve));
      await host.close();
    }
  });

  const connectTo = (path: string): Socket => connect({ path, allowHalfOpen: true });
  /** Sends all, says that this was it, and reads to the end. */
  const exchange = (path: string, bytes: Uint8Array): Promise<string> => {
    const socket = connectTo(path);
    socket.end(bytes);
    return readText(socket);
  };
  const fetchAt = (path: string, target: string, body?: Buffer): Promise<Buffer> =>
    new Promise((resolve, reject) => {
      const method = body === undefined ? 'GET' : 'POST';
      const asked = request({ socketPath: path, path: target, method, agent: false }, (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('end', () => resolve(Buffer.concat(chunks)));
        response.on('error', reject);
      });
      asked.on('error', reject);
      asked.end(body);
    });
  const ctl = (...args: string[]) =>
    runProcess(process.execPath, [join(PROJECT_ROOT, 'dist/helpers/passel.cjs'), 'ctl', '-s', at('control'), ...args]);
  const listForwards = async (): Promise<ForwardView[]> =>
    (JSON.parse((await fetchAt(at('control'), '/v1/forwards')).toString()) as { forwards: ForwardView[] }).forwards;

  it('of the host carry 20 MB into the guest, and 20 MB out of it', async () => {
    const sent = randomBytes(LENGTH_BYTES);
    expect((await fetchAt(at('http'), '/', sent)).toString()).toContain(`${digest(sent)} ${LENGTH_BYTES}`);
    const received = await fetchAt(at('http'), `/bytes/${LENGTH_BYTES}/7`);
    expect(digest(received)).toBe(await onGuest.hashPattern({ lengthBytes: LENGTH_BYTES, seed: 7 }));
  });

  it('show their clients to the guest as the loopback of the host, by either family', async () => {
    expect((await fetchAt(at('http'), '/from')).toString()).toContain(HOST_NET.gatewayV4);
    expect((await fetchAt(at('v6'), '/from')).toString()).toMatch(/^fe80::1|2001:db8/);
  });

  it('pass on that the client has nothing more to say', async () => {
    const sent = randomBytes(1_000_000);
    expect(await exchange(at('digest'), sent)).toBe(digest(sent));
  });

  it('pass on that the guest has nothing more to say, and take what the client has', async () => {
    const sent = randomBytes(1_000_000);
    const socket = connectTo(at('early'));
    let received = '';
    socket.on('data', (chunk: Buffer) => {
      received += chunk;
    });
    await once(socket, 'end');
    expect(received).toBe('done');
    socket.end(sent);
    await waitUntil(
      'the guest to have read all',
      async () => {
        return (await host.sh(`cat ${at('early.digest')} 2>/dev/null || true`)).stdout === digest(sent);
      },
      20_000,
    );
  });

  it('carry 200 connections at once', async () => {
    const texts = Array.from({ length: 200 }, (_, i) => `client ${i} `.repeat(100));
    const answers = await Promise.all(texts.map((each) => exchange(at('echo'), Buffer.from(each))));
    expect(answers).toEqual(texts);
  });

  it('lose nothing to a client that is slow to read', async () => {
    const socket = connectTo(at('http'));
    const received = new Promise<Buffer>((resolve, reject) => {
      const chunks: Buffer[] = [];
      let pauses = 0;
      socket.on('error', reject);
      socket.on('data', (chunk: Buffer) => {
        chunks.push(chunk);
        if (++pauses > 20) return;
        socket.pause();
        setTimeout(() => socket.resume(), 20);
      });
      socket.on('end', () => resolve(Buffer.concat(chunks)));
    });
    socket.write(`GET /bytes/${LENGTH_BYTES}/8 HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n\r\n`);
    const body = (await received).subarray(-LENGTH_BYTES);
    expect(digest(body)).toBe(await onGuest.hashPattern({ lengthBytes: LENGTH_BYTES, seed: 8 }));
    socket.destroy();
  });

  it('end their connections where nobody listens in the guest', async () => {
    expect(await exchange(at('unused'), Buffer.from('anybody?')).catch((error: Error) => error.message)).toMatch(
      /^$|ECONNRESET|EPIPE/,
    );
  });

  it('have names with colons and commas, or abstract ones', async () => {
    expect(await exchange(at('a:b,c'), Buffer.from('colon'))).toBe('colon');
    // Abstract names belong to a network namespace.
    const { stdout } = await rig.host.sh(`echo abstract | socat -t 30 - ABSTRACT-CONNECT:${abstract}`);
    expect(stdout).toBe('abstract\n');
  });

  it('are listed by passel ctl, and removed by it with their files', async () => {
    const forward = (await listForwards()).find(({ bindPath }) => bindPath === at('unused'));
    expect(forward).toMatchObject({ proto: 'tcp', spec: `unix:${at('unused')}:${UNUSED_PORT}`, sockets: 1, first: 0 });
    expect((await ctl('forwards')).stdout).toContain(at('unused'));
    expect((await listForwards()).map(({ bindPath }) => bindPath)).toContain(`@${abstract}`);
    await ctl('forward', 'delete', 'tcp', forward!.spec);
    expect(existsSync(at('unused'))).toBe(false);
    expect((await listForwards()).map(({ bindPath }) => bindPath)).not.toContain(at('unused'));
    const refused = await ctl('forward', 'add', 'tcp', `unix:${at('late')}:1`).catch((error: Error) => error);
    expect(String(refused)).toContain('unix sockets are made when the program starts');
  });

  describe('that the guest reaches', () => {
    const talk = (server: string, script: string) =>
      rig.guest.sh(`${script} | socat -t 30 - TCP:${server}`, { check: false, timeoutMs: 60_000 });

    it.each([`${SERVICE}:80`, `[${SERVICE_V6}]:80`])('carry 20 MB both ways, at %s', async (server) => {
      const file = at('sent');
      writeFileSync(file, randomBytes(LENGTH_BYTES));
      const { stdout, status } = await rig.guest.sh(
        `socat -t 60 - TCP:${server} < ${file} | cmp - ${file} && echo equal`,
        { timeoutMs: 60_000 },
      );
      expect([status, stdout]).toEqual([0, 'equal\n']);
    });

    it('carry 200 connections at once', async () => {
      const { stdout } = await rig.guest.sh(
        `for i in $(seq 200); do (echo "client $i" | socat -t 60 - TCP:${SERVICE}:80) & done; wait`,
        { timeoutMs: 60_000 },
      );
      const lines = stdout.trim().split('\n').sort();
      expect(lines).toEqual(Array.from({ length: 200 }, (_, i) => `client ${i + 1}`).sort());
    });

    it('refuse where nobody listens, and connect once somebody does', async () => {
      const refused = await talk(`${SERVICE}:81`, 'echo anybody?');
      expect(refused.stderr).toMatch(/refused/i);
      const late = createServer({ allowHalfOpen: true }, serve);
      await new Promise<void>((resolve) => late.listen(at('nobody'), resolve));
      await host.sh(`chmod 777 ${at('nobody')}`);
      expect((await talk(`${SERVICE}:81`, 'echo somebody')).stdout).toBe('somebody\n');
      await new Promise((resolve) => late.close(resolve));
    });

    it('may be abstract', async () => {
      const listener = rig.host.spawn('socat', ['-t', '60', `ABSTRACT-LISTEN:${abstract}-service,fork`, 'EXEC:cat'], {
        stdio: 'ignore',
      });
      await rig.host.sh(`until grep -q '@${abstract}-service' /proc/net/unix; do sleep 0.05; done`);
      expect((await talk(`${SERVICE}:82`, 'echo abstract')).stdout).toBe('abstract\n');
      await stopChild(listener);
    });
  });

  describe('that cannot be had', () => {
    const start = async (spec: string): Promise<string> => {
      const { command, args } = stackCommand();
      const { status, stderr } = await host.run(command, [...args, '-f', '-s', at('other'), '-t', spec], {
        check: false,
      });
      expect(status).toBe(1);
      expect(existsSync(at('other'))).toBe(false);
      return stderr;
    };

    it('are refused: in use, no socket, too long, in no folder', async () => {
      expect(await start(`unix:${at('service')}:1`)).toContain('is in use by another process');
      expect(existsSync(at('service'))).toBe(true);
      writeFileSync(at('file'), 'precious');
      expect(await start(`unix:${at('file')}:1`)).toContain('there is something else than a socket');
      symlinkSync(at('service'), at('link'));
      expect(await start(`unix:${at('link')}:1`)).toContain('there is something else than a socket');
      unlinkSync(at('link'));
      expect(await start(`unix:${at('x'.repeat(120))}:1`)).toContain('unix sockets allow 107');
      expect(await start(`unix:${at('nowhere/socket')}:1`)).toMatch(/cannot listen on .*ENOENT/);
    });

    it('leave nothing of the others behind', async () => {
      expect(await start(`unix:${at('nowhere/socket')}:1`)).toContain('ENOENT');
      const { command, args } = stackCommand();
      const specs = [`unix:${at('fine')}:1`, `${HTTP_PORT}`, '203.0.113.1/81'].flatMap((spec) => ['-t', spec]);
      const { status } = await host.run(command, [...args, '-f', '-s', at('other'), ...specs], { check: false });
      expect(status).toBe(1);
      expect(existsSync(at('fine'))).toBe(false);
    });

    it('are taken over from a stack that was killed', async () => {
      const options = ['--foreground', '-s', at('second'), '-t', `unix:${at('taken')}:1`];
      for (let round = 0; round < 2; round++) {
        const stack = startStack(host, stackCommand(), options);
        await waitUntil(
          'the stack to listen',
          () => existsSync(at('second')) && stack.output().includes('joins'),
          20_000,
        );
        expect(lstatSync(at('taken')).isSocket()).toBe(true);
        if (round === 0) {
          stack.child.kill('SIGKILL');
          await stack.exited();
          expect(existsSync(at('taken'))).toBe(true);
        } else {
          expect(await stack.stop()).toBe(0);
          expect(existsSync(at('taken'))).toBe(false);
        }
      }
    });
  });
});
