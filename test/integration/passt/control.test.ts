/** The control socket of a stack at work, by HTTP and by passel ctl: what it tells, what it changes, and what it leaves alone. */
import { chmodSync, existsSync, mkdtempSync, readdirSync, rmdirSync, statSync } from 'node:fs';
import { request } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { FlowPage, FlowView, ForwardView, StatusView } from '../../../src/cli/control/view.ts';
import { PROJECT_ROOT } from '../../support/native-tools.ts';
import { runProcess, waitUntil } from '../../support/netns/process.ts';
import { runPeer, startListener } from '../../support/peer.ts';
import { createRig, type Rig } from '../../support/rig.ts';
import { FAMILIES, rigSuite } from '../../support/rig-suite.ts';
import { sleep } from '../../support/scripted-guest.ts';
import { startStack } from '../../support/stack-process.ts';
import { isDebianStack, stackCommand } from '../../support/stack-under-test.ts';

interface Answer<T = unknown> {
  status: number;
  body: T & { error?: { code: string; message: string } };
}

const { own, remote } = FAMILIES[0];
/** A client's side of a short exchange with an echo server. */
const EXCHANGE = { send: 100, 'finish-after-recv': 100, timeout: 3 };
const REFUSED = { received: 0, errors: { ECONNREFUSED: 1 } };

describe.runIf(!isDebianStack())("what Debian's passt does not have", () => {
  rigSuite('the control socket', () => {
    let rig: Rig;
    let directory: string;
    let path: string;
    beforeAll(async () => {
      directory = mkdtempSync(join(tmpdir(), 'passel-control-'));
      // The stack changes its user and has to remove the socket as that one.
      chmodSync(directory, 0o777);
      path = join(directory, 'control');
      rig = await createRig({ args: ['--conf-path', path, '-t', '6001', '-u', '6001:6002'] });
    });
    afterAll(async () => {
      await rig?.close();
      expect(readdirSync(directory)).toEqual([]);
      rmdirSync(directory);
    });

    const ask = <T = unknown>(method: string, target: string, body?: unknown): Promise<Answer<T>> =>
      askAt(path, method, target, body === undefined ? undefined : JSON.stringify(body));
    const listForwards = async (): Promise<ForwardView[]> =>
      (await ask<{ forwards: ForwardView[] }>('GET', '/v1/forwards')).body.forwards;
    const listFlows = async (query = ''): Promise<readonly FlowView[]> =>
      (await ask<FlowPage>('GET', `/v1/flows${query}`)).body.flows;
    const ctl = (...args: string[]) =>
      runProcess(process.execPath, [join(PROJECT_ROOT, 'dist/helpers/passel.cjs'), 'ctl', '-s', path, ...args], {
        check: false,
      });
    /** What a client beyond the host finds at a port. */
    const exchange = (port: number) => runPeer(rig.wan, 'connect', { addr: own, port, bind: remote, ...EXCHANGE });

    it('is for its owner only', () => {
      const { mode } = statSync(path);
      expect((mode & 0o777).toString(8)).toBe('600');
    });

    it('tells what the guest has been given', async () => {
      const { status, body } = await ask<StatusView>('GET', '/v1/status');
      expect(status).toBe(200);
      expect(body).toMatchObject({
        pid: rig.stack.pid,
        socket: rig.socketPath,
        guest: { connected: true, dhcpLease: null },
        network: {
          mtu: 65520,
          ipv4: { address: own, prefixLength: 24 },
          ipv6: { address: FAMILIES[1].own },
          searchDomains: ['passel.test'],
        },
        listeners: 2,
      });
    });

    it('opens and closes forwards while a transfer goes on, and shows the flow of the transfer', async () => {
      const server = await startListener(rig.wan, 'listen', { addr: remote, port: 5001, send: '300m', accept: 1 });
      const transfer = runPeer(rig.guest, 'connect', { addr: remote, port: 5001, send: '300m' }, 60_000);
      let flow: FlowView | undefined;
      await waitUntil('the transfer to be under way', async () => {
        flow = (await listFlows('?proto=tcp')).find((each) => each.peer.port === 5001);
        return flow !== undefined && flow.bytesToHost > 1e6 && flow.bytesToGuest > 1e6;
      });
      expect(flow).toMatchObject({
        state: 'established',
        startedBy: 'guest',
        guest: { address: own },
        peer: { address: remote, port: 5001 },
        remote: { address: remote, port: 5001 },
        local: { address: own },
        forward: null,
      });
      const echo = await startListener(rig.guest, 'listen', { port: 6101, echo: true });
      expect(await exchange(6100)).toMatchObject(REFUSED);
      const added = await ask<{ forwards: ForwardView[] }>('POST', '/v1/forwards', { proto: 'tcp', spec: '6100:6101' });
      expect(added.status).toBe(201);
      const [forward] = added.body.forwards;
      expect(forward).toMatchObject({ proto: 'tcp', spec: '6100:6101', first: 6100, targetFirst: 6101, sockets: 1 });
      expect(await exchange(6100)).toMatchObject({ received: 100, mismatches: 0, errors: {} });
      expect((await ask('DELETE', `/v1/forwards/${forward!.id}`)).status).toBe(200);
      expect(await exchange(6100)).toMatchObject(REFUSED);
      await echo.stop();
      const expected = { clean: 1, mismatches: 0, received: 300 << 20, errors: {} };
      expect(await transfer).toMatchObject(expected);
      expect(await server.result()).toMatchObject(expected);
    });

    it('leaves a connection alone whose forward is closed', async () => {
      await ask('POST', '/v1/forwards', { proto: 'tcp', spec: '6110' });
      const server = await startListener(rig.guest, 'listen', { port: 6110, send: '60m', accept: 1 });
      const client = runPeer(rig.wan, 'connect', { addr: own, port: 6110, bind: remote, send: '60m' }, 60_000);
      const find = async () => (await listFlows('?proto=tcp')).find((flow) => flow.guest.port === 6110);
      await waitUntil('the connection', async () => (await find()) !== undefined);
      expect(await find()).toMatchObject({ startedBy: 'host', peer: { address: remote } });
      expect((await ask('DELETE', '/v1/forwards?proto=tcp&spec=6110')).status).toBe(200);
      expect(await client).toMatchObject({ clean: 1, mismatches: 0, received: 60 << 20, errors: {} });
      expect(await server.result()).toMatchObject({ clean: 1, mismatches: 0, errors: {} });
    });

    it('ends UDP flows with their forward', async () => {
      const echo = await startListener(rig.guest, 'udp-listen', { port: 6121, echo: true });
      const send = () =>
        runPeer(rig.wan, 'udp-send', { addr: own, port: 6120, bind: remote, 'expect-echo': true, 'wait-ms': 1000 });
      const { body } = await ask<{ forwards: ForwardView[] }>('POST', '/v1/forwards', {
        proto: 'udp',
        spec: '6120:6121',
      });
      const id = body.forwards[0]!.id;
      expect(await send()).toMatchObject({ echoed: 1, bad: 0 });
      const [flow] = (await listFlows('?proto=udp')).filter((each) => each.guest.port === 6121);
      expect(flow).toMatchObject({
        state: 'replied',
        startedBy: 'host',
        peer: { address: remote },
        local: { address: own, port: 6120 },
        forward: id,
      });
      expect(flow!.bytesToGuest).toBe(flow!.bytesToHost);
      await ask('DELETE', `/v1/forwards/${id}`);
      expect((await listFlows('?proto=udp')).filter((each) => each.guest.port === 6121)).toEqual([]);
      expect(await send()).toMatchObject({ echoed: 0 });
      await ask('POST', '/v1/forwards', { proto: 'udp', spec: '6120:6121' });
      expect(await send()).toMatchObject({ echoed: 1, bad: 0 });
      expect((await ask('DELETE', '/v1/forwards?proto=udp&spec=6120%3A6121')).status).toBe(200);
      await echo.stop();
    });

    it('changes nothing when a port of several cannot be bound, and says which and why', async () => {
      const taken = await startListener(rig.host, 'listen', { addr: '127.0.0.1', port: 6132 });
      const before = await listForwards();
      const answer = await ask('POST', '/v1/forwards', { proto: 'tcp', spec: '6130-6133' });
      expect(answer).toMatchObject({
        status: 409,
        body: { error: { code: 'PASSEL_E_PORT_BIND', message: expect.stringMatching(/6132\/tcp: EADDRINUSE/) } },
      });
      expect(await listForwards()).toEqual(before);
      expect(await exchange(6130)).toMatchObject(REFUSED);
      await taken.stop();
    });

    const BAD: [
      name: string,
      method: string,
      target: string,
      body: string | undefined,
      status: number,
      code: string,
    ][] = [
      ['no JSON', 'POST', '/v1/forwards', '{"proto":', 400, 'PASSEL_E_CONTROL_REQUEST'],
      ['another type', 'POST', '/v1/forwards', '[]', 400, 'PASSEL_E_CONTROL_REQUEST'],
      ['nothing', 'POST', '/v1/forwards', '', 400, 'PASSEL_E_CONTROL_REQUEST'],
      ['an unknown field', 'POST', '/v1/forwards', '{"proto":"tcp","spec":"1","x":1}', 400, 'PASSEL_E_CONTROL_REQUEST'],
      ['an unknown protocol', 'POST', '/v1/forwards', '{"proto":"sctp","spec":"1"}', 400, 'PASSEL_E_CONTROL_REQUEST'],
      ['no forward', 'POST', '/v1/forwards', '{"proto":"tcp","spec":"none"}', 400, 'PASSEL_E_CONTROL_REQUEST'],
      ['a bad specification', 'POST', '/v1/forwards', '{"proto":"tcp","spec":"0"}', 400, 'PASSEL_E_PORT_SPEC'],
      ['what needs a namespace', 'POST', '/v1/forwards', '{"proto":"tcp","spec":"auto"}', 400, 'PASSEL_E_OPTION_VALUE'],
      ['too much', 'POST', '/v1/forwards', ' '.repeat(20_000), 413, 'PASSEL_E_CONTROL_SIZE'],
      ['an unknown path', 'GET', '/v2/status', undefined, 404, 'PASSEL_E_CONTROL_PATH'],
      ['a path of ours that is none', 'GET', '/v1/forwards/ID', undefined, 404, 'PASSEL_E_CONTROL_PATH'],
      ['a property of every object', 'GET', '/constructor', undefined, 404, 'PASSEL_E_CONTROL_PATH'],
      ['an unknown parameter', 'GET', '/v1/flows?x=1', undefined, 400, 'PASSEL_E_CONTROL_REQUEST'],
      ['a parameter twice', 'GET', '/v1/flows?limit=1&limit=2', undefined, 400, 'PASSEL_E_CONTROL_REQUEST'],
      ['a limit too high', 'GET', '/v1/flows?limit=1001', undefined, 400, 'PASSEL_E_CONTROL_REQUEST'],
      ['another method', 'PUT', '/v1/forwards', undefined, 405, 'PASSEL_E_CONTROL_METHOD'],
      ['a forward that is not there', 'DELETE', '/v1/forwards/999', undefined, 404, 'PASSEL_E_FORWARD_UNKNOWN'],
      ['ports that are not', 'DELETE', '/v1/forwards?proto=tcp&spec=9', undefined, 404, 'PASSEL_E_FORWARD_UNKNOWN'],
    ];
    it.each(BAD)('refuses %s', async (_name, method, target, body, status, code) => {
      const answer = await askAt(path, method, target, body);
      expect([answer.status, answer.body.error?.code]).toEqual([status, code]);
      expect((await listForwards()).map(({ id }) => id)).toEqual([1, 2]);
    });

    it('refuses what is not HTTP', async () => {
      const socket = connect({ path });
      let text = '';
      socket.on('data', (bytes) => {
        text += bytes.toString();
      });
      socket.on('error', () => {});
      socket.write('\x00\x01\x02\r\n\r\n');
      await new Promise((resolve) => socket.once('close', resolve));
      expect(text).toMatch(/^HTTP\/1\.1 400 /);
    });

    it('answers many at once', async () => {
      const requests = Array.from({ length: 50 }, (_, i) =>
        i % 2 === 0
          ? ask('GET', '/v1/status').then(({ status }) => status)
          : ask('POST', '/v1/forwards', { proto: 'tcp', spec: `${6200 + i}` }).then(({ status }) => status),
      );
      const statuses = await Promise.all(requests);
      expect(new Set(statuses)).toEqual(new Set([200, 201]));
      const added = (await listForwards()).filter(({ first }) => first >= 6200 && first < 6300);
      expect(added.length).toBe(25);
      await Promise.all(added.map(({ id }) => ask('DELETE', `/v1/forwards/${id}`)));
      expect((await listForwards()).length).toBe(2);
    });

    it('does not let clients who send or take nothing hold up the guest or others', async () => {
      const slow = Array.from({ length: 20 }, (_, i) => {
        const socket = connect({ path });
        socket.on('error', () => {});
        socket.pause();
        socket.write(i % 2 === 0 ? 'GET /v1/sta' : 'GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(200));
        return socket;
      });
      await sleep(100);
      const server = await startListener(rig.guest, 'listen', { port: 6001, echo: true });
      expect(await exchange(6001)).toMatchObject({ received: 100, errors: {} });
      await server.stop();
      expect((await ask('GET', '/v1/status')).status).toBe(200);
      for (const socket of slow) socket.destroy();
    });

    it('leaves no descriptor open', async () => {
      await rig.waitUntilIdle();
    });

    it('gives flows in pages, each flow once', async () => {
      const server = await startListener(rig.wan, 'udp-listen', { addr: remote, port: 5300 });
      await Promise.all(
        Array.from({ length: 6 }, () => runPeer(rig.guest, 'udp-send', { addr: remote, port: 5300, 'wait-ms': 10 })),
      );
      const seen: string[] = [];
      let next: number | null = null;
      do {
        const query: string = next === null ? '' : `&after=${next}`;
        const { body }: Answer<FlowPage> = await ask<FlowPage>('GET', `/v1/flows?limit=2&proto=udp${query}`);
        expect(body.flows.length).toBeLessThanOrEqual(2);
        seen.push(...body.flows.map(({ id }) => id));
        next = body.next;
      } while (next !== null);
      expect(seen.length).toBeGreaterThanOrEqual(6);
      expect(new Set(seen).size).toBe(seen.length);
      await server.stop();
    });

    it('is what passel ctl speaks: tables for people, JSON for programs', async () => {
      const status = await ctl('status');
      expect(status).toMatchObject({ status: 0, stderr: '' });
      expect(status.stdout).toMatch(/^guest +connected, MAC 52:54:00:12:34:56$/m);
      const forwards = await ctl('forwards');
      expect(
        forwards.stdout
          .split('\n')
          .slice(0, 3)
          .map((line) => line.trim().split(/ {2,}/)),
      ).toEqual([
        ['ID', 'PROTO', 'SPEC', 'HOST', 'GUEST', 'SOCKETS'],
        ['1', 'tcp', '6001', '*:6001', 'guest:6001', '1'],
        ['2', 'udp', '6001:6002', '*:6001', 'guest:6002', '1'],
      ]);
      const added = await ctl('--json', 'forward', 'add', 'tcp', '127.0.0.1/6300-6301:63-64');
      expect(JSON.parse(added.stdout)).toMatchObject({ forwards: [{ spec: '127.0.0.1/6300-6301:63-64', sockets: 2 }] });
      const again = await ctl('forward', 'add', 'tcp', '127.0.0.1/6300');
      expect(again).toMatchObject({ status: 1, stdout: '' });
      expect(again.stderr).toContain('cannot listen on 127.0.0.1:6300/tcp: EADDRINUSE');
      expect(await ctl('forward', 'delete', 'tcp', '127.0.0.1/6300-6301:63-64')).toMatchObject({ status: 0 });
      expect((await ctl('flows')).stdout).toMatch(/^PROTO +STATE/);
    });

    it('belongs to passel run too, and goes with it', async () => {
      const own = join(directory, 'run');
      const script = `passel_ctl() { ${process.execPath} ${join(PROJECT_ROOT, 'dist/helpers/passel.cjs')} ctl -s ${own} "$@"; }
        passel_ctl forward add tcp 127.0.0.1/6400 && passel_ctl -j status`;
      const passel = [join(PROJECT_ROOT, 'dist/helpers/passel.cjs'), 'run', '-c', own, '--', 'sh', '-c', script];
      const answer = await rig.host.run(process.execPath, passel);
      const [heading, , json] = answer.stdout.split('\n');
      expect(heading).toMatch(/ID +PROTO/);
      expect(JSON.parse(json!)).toMatchObject({ socket: null, listeners: 1, guest: { connected: true } });
      expect(existsSync(own)).toBe(false);
    });

    it('is missed by passel ctl with status 2', async () => {
      const answer = await ctl('-s', `${path}.not`, 'status');
      expect(answer.status).toBe(2);
      expect(answer.stderr).toContain('ENOENT: no such file or directory');
    });

    it('is beside a table of event counts, with --stats', async () => {
      const other = startStack(rig.host, stackCommand(), [
        '-f',
        '-s',
        `${rig.socketPath}.3`,
        '--stats',
        '1',
        '-t',
        '6410',
      ]);
      await waitUntil('the stack', () => existsSync(`${rig.socketPath}.3`));
      await runPeer(rig.wan, 'connect', { addr: own, port: 6410, bind: remote, send: 1, timeout: 1 });
      await waitUntil('a line', () => /\n *0 +0 +\d+ +[1-9]\d* +0 +0 +0\n/.test(other.output()));
      expect(await other.stop()).toBe(0);
      const without = startStack(rig.host, stackCommand(), ['-s', `${rig.socketPath}.3`, '--stats', '1']);
      expect(await without.exited()).toBe(1);
      expect(without.output()).toContain('--stats needs --foreground');
    });

    it('is not taken from a stack that has it', async () => {
      const other = startStack(rig.host, stackCommand(), ['-f', '-s', `${rig.socketPath}.2`, '-c', path]);
      expect(await other.exited()).toBe(1);
      expect(other.output()).toContain(`--conf-path: '${path}' is in use by another process`);
      expect((await ask('GET', '/v1/status')).status).toBe(200);
    });
  });
});

function askAt<T>(path: string, method: string, target: string, body?: string): Promise<Answer<T>> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath: path, method, path: target, agent: false }, (response) => {
      const parts: Buffer[] = [];
      response.on('data', (part: Buffer) => parts.push(part));
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, body: JSON.parse(Buffer.concat(parts).toString()) }),
      );
      response.on('error', reject);
    });
    asked.setTimeout(10_000, () => asked.destroy(new Error('no answer')));
    asked.on('error', reject);
    asked.end(body);
  });
}
