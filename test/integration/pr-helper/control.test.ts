/** The control socket of a helper at work, by passel ctl and by HTTP, after it has given up its privileges. */
import { chmodSync, closeSync, existsSync, mkdtempSync, openSync, rmSync, statSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { connectPrManager, type PrManagerClient } from '../../../src/scsi/client.ts';
import { createParameterList } from '../../../src/scsi/parameter-data.ts';
import { loadNative } from '../../../src/sys/native.ts';
import { PROJECT_ROOT } from '../../support/native-tools.ts';
import { needCommand, needRoot, requireOrSkip } from '../../support/netns/capabilities.ts';
import { runProcess, waitUntil } from '../../support/netns/process.ts';
import { type HelperProcess, PROGRAMS } from '../../support/pr-helper/programs.ts';
import { startHelper } from '../../support/pr-helper/start.ts';
import { needRawIo } from './need-raw-io.ts';

const describeSuite = await requireOrSkip(needRoot, needRawIo, needCommand('setpriv', 'util-linux'));
const PASSEL = join(PROJECT_ROOT, 'dist/helpers/passel.cjs');

let folder: string;
let socket: string;
let control: string;
let helper: HelperProcess | undefined;
const clients: PrManagerClient[] = [];
const fds: number[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'passel-pr-'));
  chmodSync(folder, 0o777);
  socket = join(folder, 'pr.sock');
  control = join(folder, 'pr.ctl');
});
afterEach(async () => {
  for (const client of clients.splice(0)) client.close();
  for (const fd of fds.splice(0)) closeSync(fd);
  await helper?.end('SIGKILL');
  helper = undefined;
  rmSync(folder, { recursive: true, force: true });
});

async function start(...args: string[]): Promise<HelperProcess> {
  helper = await startHelper('ours', socket, ['--conf-path', control, ...args]);
  expect(helper.stderr()).toBe('');
  return helper;
}

const ctl = (...args: string[]) =>
  runProcess(process.execPath, [PASSEL, 'ctl', '-s', control, ...args], { check: false });

async function ask<T>(command: string): Promise<T> {
  const { status, stdout, stderr } = await ctl('--json', command);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return JSON.parse(stdout) as T;
}

async function connect(): Promise<PrManagerClient> {
  const client = await connectPrManager(loadNative(), socket);
  clients.push(client);
  return client;
}

function openDevice(path: string): number {
  const fd = openSync(path, 'r+');
  fds.push(fd);
  return fd;
}

const getOverHttp = (path: string): Promise<number> =>
  new Promise((resolve, reject) => {
    request({ socketPath: control, path, agent: false }, (response) => {
      response.resume();
      response.on('end', () => resolve(response.statusCode ?? 0));
    })
      .on('error', reject)
      .end();
  });

describeSuite('the control socket of passel-pr-helper', () => {
  describe.each([
    ['root', []],
    ['another user', ['-u', 'nobody', '-g', 'nogroup']],
  ])('as %s', (_name, args) => {
    it('tells clients, devices and results', async () => {
      const { pid } = await start(...args, '--deny-device', '1:5');
      const [one, two] = [await connect(), await connect()];
      const device = openDevice('/dev/null');
      await one.reserveIn(device, 0);
      await one.reserveOut(device, 6, 0, createParameterList({ actionKey: 1n }));
      await two.reserveIn(openDevice('/dev/zero'), 1);

      // The first client asked whether the helper serves; that it has gone may not have been noticed yet.
      const countClients = async (): Promise<number> => (await ask<{ clients: number }>('status')).clients;
      await waitUntil('two clients to be left', async () => (await countClients()) === 2);
      const status = await ask<Record<string, number>>('status');
      expect(status).toMatchObject({
        program: 'passel-pr-helper',
        pid,
        socket,
        clientsRefused: 0,
        inFlight: 0,
        stuck: 0,
      });
      expect(status).toMatchObject({ good: 0, conflicts: 0 });
      expect(status['requests']).toBe(status['failures']);
      const { clients: connected } = await ask<{ clients: Record<string, number>[] }>('clients');
      expect(connected).toMatchObject([
        { peerPid: process.pid, peerUid: 0, requests: 2, busy: false },
        { peerPid: process.pid, peerUid: 0, requests: 1, busy: false },
      ]);
      const { reservations } = await ask<{ reservations: Record<string, unknown>[] }>('reservations');
      expect(reservations).toEqual([
        expect.objectContaining({ device: '1:5', path: '/dev/zero', requests: 1, denied: 1, lastChange: null }),
        expect.objectContaining({ device: '1:3', path: '/dev/null', denied: 0, lastChange: null, lastConflict: null }),
      ]);
      expect(reservations[1]!['actions']).toMatchObject({ 'out: REGISTER AND IGNORE EXISTING KEY': 1 });
      expect(await ask('requests')).toEqual({ requests: [], total: 0 });

      expect((await ctl('status')).stdout).toMatch(/^program {4}passel-pr-helper .*PID \d+.*\nsocket .*pr\.sock\n/);
      expect((await ctl('reservations')).stdout).toMatch(/^DEVICE .*\n1:5 +\/dev\/zero +1 +0 +0 +1 +1 +0 /);
      expect((await ctl('clients')).stdout).toMatch(/^ID .*\n.* idle\n.* idle\n$/);
      expect((await ctl('requests')).stdout).toBe('no requests in flight\n');
    });

    it('goes with the helper', async () => {
      const started = await start(...args);
      expect(await started.end()).toBe(0);
      expect(existsSync(control)).toBe(false);
      helper = undefined;
    });
  });

  it('is for its owner and root, whatever the mode of the other', async () => {
    await start('--socket-mode', '0666', '-u', 'nobody');
    expect(statSync(control).mode & 0o777).toBe(0o600);
    const args = [
      '--reuid',
      '4242',
      '--regid',
      '4242',
      '--clear-groups',
      process.execPath,
      PASSEL,
      'ctl',
      '-s',
      control,
    ];
    const { status, stderr } = await runProcess('setpriv', [...args, 'status'], { check: false });
    expect(status).toBe(2);
    expect(stderr).toMatch(/EACCES: permission denied\n.*only the user who started it/);
  });

  it('forgets clients that have gone', async () => {
    await start();
    const client = await connect();
    const count = async (): Promise<number> => (await ask<{ clients: number }>('status')).clients;
    await waitUntil('the client to be seen', async () => (await count()) === 1);
    client.close();
    await waitUntil('its end to be seen', async () => (await count()) === 0);
  });

  it('changes nothing, and has nothing of a network', async () => {
    await start();
    const { status, stderr } = await ctl('flows');
    expect(status).toBe(1);
    expect(stderr).toContain("there is nothing at '/v1/flows'");
    expect((await ctl('forward', 'add', 'tcp', '80')).status).toBe(1);
    expect(await getOverHttp('/v1/status')).toBe(200);
    expect(await getOverHttp('/v1/nothing')).toBe(404);
  });

  it('is not taken from another, and no helper is left when it cannot be had', async () => {
    await start();
    const { status, stderr } = await runProcess(
      PROGRAMS.ours,
      ['-k', join(folder, 'other.sock'), '--conf-path', control],
      { check: false },
    );
    expect(status).toBe(1);
    expect(stderr).toContain(`--conf-path: '${control}' is in use by another process`);
    expect(existsSync(join(folder, 'other.sock'))).toBe(false);
    expect((await ctl('status')).status).toBe(0);
  });
});
