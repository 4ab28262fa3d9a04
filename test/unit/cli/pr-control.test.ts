import { afterEach, describe, expect, it } from 'vitest';
import { formatClients, formatPrStatus, formatRequests, formatReservations } from '../../../src/cli/ctl/pr-tables.ts';
import { createPrAnswerer } from '../../../src/cli/pr-helper/control-routes.ts';
import {
  type PrViewSource,
  viewClients,
  viewPrStatus,
  viewRequests,
  viewReservations,
} from '../../../src/cli/pr-helper/control-view.ts';
import { Activity } from '../../../src/scsi/activity.ts';
import type { Outcome } from '../../../src/scsi/executor.ts';
import { createParameterList } from '../../../src/scsi/parameter-data.ts';
import { createReserveIn, createReserveOut } from '../../../src/scsi/persistent-reserve.ts';
import type { OpenFile } from '../../../src/sys/sg.ts';

const DISK: OpenFile = { kind: 'block', major: 8, minor: 0, isWritable: true };

let nowMs = 0;
afterEach(() => {
  nowMs = 0;
});

const source = (activity: Activity): PrViewSource => ({
  activity,
  socketPath: '/run/pr.sock',
  requestTimeoutMs: 30_000,
  findPath: ({ major, minor }) => (major === 8 && minor === 0 ? '/dev/sda' : undefined),
  startMs: 0,
});

function request(cdb: Uint8Array, parameters: Uint8Array = new Uint8Array(0)): Uint8Array {
  return Uint8Array.from([...cdb, 0, 0, 0, 0, 0, 0, ...parameters]);
}

const READ_KEYS = request(createReserveIn(0, 8192));
const RESERVE = request(createReserveOut(1, 5, 24), createParameterList({ reservationKey: 0xabcdn }));

const answered = (status: number): Outcome => ({
  ...{ sense: new Uint8Array(96), sizeBytes: 0, durationUs: 1, note: undefined },
  ...{ status, file: DISK },
});

/** Two clients, one reservation, one conflict, and one request that a device has since the tenth second. */
function makeActivity(): Activity {
  const activity = new Activity(() => nowMs);
  const [holder, loser] = [activity.connect({ pid: 100, uid: 107 }), activity.connect({ pid: 200, uid: 108 })];
  nowMs = 2000;
  activity.finish(holder, READ_KEYS, answered(0));
  activity.finish(holder, RESERVE, answered(0));
  nowMs = 4000;
  activity.finish(loser, RESERVE, answered(0x18));
  nowMs = 10_000;
  activity.begin(loser, DISK, RESERVE);
  return activity;
}

describe('the control socket of a reservation helper', () => {
  it('tells numbers of the whole', () => {
    const from = source(makeActivity());
    nowMs = 12_000;
    expect(viewPrStatus(from)).toMatchObject({
      ...{ program: 'passel-pr-helper', pid: process.pid, uptimeSeconds: 12, socket: '/run/pr.sock' },
      ...{ clients: 2, clientsTotal: 2, clientsRefused: 0, devices: 1, withoutDevice: 0 },
      ...{ requests: 4, good: 2, conflicts: 1, failures: 0, inFlight: 1, stuck: 0, requestTimeoutSeconds: 30 },
    });
  });

  it('calls a request stuck that a device has for longer than it may', () => {
    const from = source(makeActivity());
    nowMs = 40_000;
    expect(viewPrStatus(from).stuck).toBe(0);
    expect(viewRequests(from)).toMatchObject([{ stuck: false, ageSeconds: 30 }]);
    nowMs = 40_001;
    expect(viewPrStatus(from).stuck).toBe(1);
    expect(viewRequests(from)).toMatchObject([{ stuck: true }]);
    expect(formatRequests(viewRequests(from), 1)).toMatch(/ 200 {2}\/dev\/sda {2}RESERVE .*30s {2}stuck\n/);
  });

  it('tells who is connected, and who waits for a device', () => {
    const activity = makeActivity();
    const [holder] = activity.clients;
    nowMs = 12_000;
    expect(viewClients(source(activity))).toEqual([
      {
        ...{ id: 1, peerPid: 100, peerUid: 107, ageSeconds: 12, idleSeconds: 10, busy: false },
        ...{ requests: 2, good: 2, conflicts: 0, failures: 0 },
      },
      {
        ...{ id: 2, peerPid: 200, peerUid: 108, ageSeconds: 12, idleSeconds: 8, busy: true },
        ...{ requests: 1, good: 0, conflicts: 1, failures: 0 },
      },
    ]);
    activity.disconnect(holder!, false);
    expect(viewPrStatus(source(activity))).toMatchObject({ clients: 1, inFlight: 1 });
    expect(formatClients(viewClients(source(activity)), 1)).toMatch(/^ID +PID.*\n 2 +200 .* waits for a device\n$/);
  });

  it('tells for each device what was asked, the last change and the last conflict', () => {
    const from = source(makeActivity());
    nowMs = 12_000;
    const command = { action: 'RESERVE', type: 'write exclusive, registrants only' };
    const keys = { key: '0x000000000000abcd', actionKey: '0x0000000000000000' };
    expect(viewReservations(from)).toEqual([
      {
        ...{ kind: 'block', device: '8:0', path: '/dev/sda', idleSeconds: 8, inFlight: 1, denied: 0 },
        ...{ requests: 3, good: 2, conflicts: 1, failures: 0 },
        actions: { 'in: READ KEYS': 1, 'out: RESERVE': 2 },
        lastChange: { ...command, ...keys, peerPid: 100, peerUid: 107, secondsAgo: 10 },
        lastConflict: { ...command, ...keys, peerPid: 200, peerUid: 108, secondsAgo: 8 },
      },
    ]);
    const text = formatReservations(viewReservations(from), 2);
    expect(text).toMatch(/^8:0 +\/dev\/sda +3 +2 +1 +0 +0 +1 +8\.0s$/m);
    expect(text).toContain('1 of 2 devices\n');
    expect(text).toContain('  out: RESERVE  2\n');
    expect(text).toMatch(
      /last conflict: RESERVE \(write .*\) key 0x0+abcd action key 0x0+ by pid 200 uid 108, 8\.0s ago/,
    );
  });

  it('answers what it knows and refuses the rest', async () => {
    const answer = createPrAnswerer(source(makeActivity()));
    expect(await answer('GET', '/v1/clients', '')).toMatchObject({
      status: 200,
      body: { total: 2, clients: [{}, {}] },
    });
    expect(await answer('GET', '/v1/requests', '')).toMatchObject({ status: 200, body: { total: 1, requests: [{}] } });
    expect(await answer('GET', '/v1/reservations', '')).toMatchObject({ status: 200, body: { total: 1 } });
    expect(await answer('GET', '/v1/status', '')).toMatchObject({ status: 200, body: { requests: 4 } });
    expect(await answer('GET', '/v1/status?x=1', '')).toMatchObject({ status: 400 });
    expect(await answer('GET', '/v1/status', 'body')).toMatchObject({ status: 400 });
    expect(await answer('GET', '/v1/flows', '')).toMatchObject({ status: 404 });
    expect(await answer('GET', '/v1/status/1', '')).toMatchObject({ status: 404 });
    expect(await answer('GET', '/constructor', '')).toMatchObject({ status: 404 });
    expect(await answer('DELETE', '/v1/clients', '')).toMatchObject({ status: 405, allow: 'GET' });
  });

  it('gives 1000 rows of a list at most, and says how many there are', async () => {
    const activity = new Activity(() => nowMs);
    for (let pid = 1; pid <= 1001; pid++) activity.connect({ pid, uid: 0 });
    const { body } = await createPrAnswerer(source(activity))('GET', '/v1/clients', '');
    expect((body as { clients: unknown[] }).clients).toHaveLength(1000);
    expect(body).toMatchObject({ total: 1001 });
  });

  it('is shown as a table for people', () => {
    const from = source(makeActivity());
    nowMs = 12_000;
    expect(formatPrStatus({ ...viewPrStatus(from), version: '1', pid: 7, withoutDevice: 3 }).split('\n')).toEqual([
      'program    passel-pr-helper 1, PID 7, running for 12s',
      'socket     /run/pr.sock',
      'clients    2 now, 2 in all, 0 cut off',
      'devices    1',
      'requests   4: 2 good, 1 conflicts, 0 failed',
      'in flight  1, 0 for more than 30s',
      'no device  3 requests',
      '',
    ]);
    expect([formatClients([], 0), formatRequests([], 0), formatReservations([], 0)]).toEqual([
      'no clients\n',
      'no requests in flight\n',
      'no devices\n',
    ]);
  });
});
