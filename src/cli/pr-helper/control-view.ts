/** What the helper's control socket tells, as plain objects. These shapes are version 1 of the interface: fields may be added, not changed. */
import type { Activity, ClientRecord, DeviceRecord, NotedRequest, Tally } from '../../scsi/activity.ts';
import { formatDevice, formatKey } from '../../scsi/describe.ts';
import { REQUEST_BYTES } from '../../scsi/helper-protocol.ts';
import { parseParameterList } from '../../scsi/parameter-data.ts';
import { hasType, nameAction, nameType, parseCommand } from '../../scsi/persistent-reserve.ts';
import type { OpenFile } from '../../sys/sg.ts';
import { servingPid } from '../serving-pid.ts';
import { VERSION } from '../version.ts';

/** What the view is made of. */
export interface PrViewSource {
  readonly activity: Activity;
  /** Undefined: a socket of somebody else's. */
  readonly socketPath: string | undefined;
  readonly requestTimeoutMs: number;
  readonly findPath: (file: OpenFile) => string | undefined;
  /** When the process began, as {@link Activity.nowMs} counts. */
  readonly startMs: number;
}

/** Requests since the start, by how they ended. */
export interface TallyView {
  readonly requests: number;
  readonly good: number;
  readonly conflicts: number;
  readonly failures: number;
}

export interface PrStatusView extends TallyView {
  readonly program: 'passel-pr-helper';
  readonly version: string;
  readonly pid: number;
  readonly uptimeSeconds: number;
  readonly socket: string | null;
  /** Connected now. */
  readonly clients: number;
  /** Since the start. */
  readonly clientsTotal: number;
  /** Of those, how many broke the protocol and were cut off. */
  readonly clientsRefused: number;
  readonly devices: number;
  /** Requests of `failures` that had no device to go to. */
  readonly withoutDevice: number;
  readonly inFlight: number;
  /** Of `inFlight`, those that a device has for longer than it may: the kernel is at its error recovery. */
  readonly stuck: number;
  readonly requestTimeoutSeconds: number;
}

export interface PeerView {
  readonly peerPid: number;
  readonly peerUid: number;
}

/** A command, as the access log shows it. */
export interface CommandView {
  readonly action: string;
  readonly type: string | null;
  readonly key: string | null;
  readonly actionKey: string | null;
}

export interface ClientView extends PeerView, TallyView {
  /** Never the same for two clients. */
  readonly id: number;
  readonly ageSeconds: number;
  /** Since its last answer, or its connection. */
  readonly idleSeconds: number;
  /** A device has a request of it. That a client has gone is noticed when it is answered. */
  readonly busy: boolean;
}

export interface RequestView extends PeerView, CommandView {
  readonly client: number;
  readonly kind: OpenFile['kind'];
  readonly device: string;
  readonly path: string | null;
  readonly ageSeconds: number;
  readonly stuck: boolean;
}

export interface NotedView extends PeerView, CommandView {
  readonly secondsAgo: number;
}

export interface ReservationsView extends TallyView {
  readonly kind: OpenFile['kind'];
  readonly device: string;
  readonly path: string | null;
  /** Of `failures`, those that a rule made. */
  readonly denied: number;
  readonly inFlight: number;
  readonly idleSeconds: number;
  /** Requests by service action, without those that nobody has made. */
  readonly actions: Readonly<Record<string, number>>;
  /** The last registration, reservation or the like that succeeded, and the last request that met a conflict. */
  readonly lastChange: NotedView | null;
  readonly lastConflict: NotedView | null;
}

const seconds = (fromMs: number, toMs: number): number => Math.round(toMs - fromMs) / 1000;

export function viewPrStatus(source: PrViewSource): PrStatusView {
  const { activity, requestTimeoutMs } = source;
  const nowMs = activity.nowMs();
  const busy = listBusy(activity);
  const { requests, ...results } = viewTally(activity.total);
  return {
    program: 'passel-pr-helper',
    version: VERSION,
    pid: servingPid(),
    uptimeSeconds: seconds(source.startMs, nowMs),
    socket: source.socketPath ?? null,
    clients: activity.clients.size,
    clientsTotal: activity.clientsTotal,
    clientsRefused: activity.refused,
    devices: activity.devices.size,
    requests: requests + busy.length,
    ...results,
    withoutDevice: activity.withoutDevice,
    inFlight: busy.length,
    stuck: busy.filter((client) => isStuck(client, nowMs, requestTimeoutMs)).length,
    requestTimeoutSeconds: requestTimeoutMs / 1000,
  };
}

export function viewClients({ activity }: PrViewSource): ClientView[] {
  const nowMs = activity.nowMs();
  return [...activity.clients].map((client) => ({
    id: client.id,
    ...viewPeer(client.peer),
    ageSeconds: seconds(client.sinceMs, nowMs),
    idleSeconds: seconds(client.lastMs, nowMs),
    ...viewTally(client),
    busy: client.request !== undefined,
  }));
}

/** Those that devices have now, the oldest first. */
export function viewRequests(source: PrViewSource): RequestView[] {
  const { activity, findPath } = source;
  const nowMs = activity.nowMs();
  const oldestFirst = listBusy(activity).sort((a, b) => a.requestSinceMs - b.requestSinceMs);
  return oldestFirst.map((client) => {
    const { file } = client;
    return {
      client: client.id,
      ...viewPeer(client.peer),
      kind: file?.kind ?? 'other',
      device: formatDevice(file),
      path: (file === undefined ? undefined : findPath(file)) ?? null,
      ...viewCommand(client.request!),
      ageSeconds: seconds(client.requestSinceMs, nowMs),
      stuck: isStuck(client, nowMs, source.requestTimeoutMs),
    };
  });
}

/** One row for each device, the one that was used last first. */
export function viewReservations(source: PrViewSource): ReservationsView[] {
  const { activity, findPath } = source;
  const nowMs = activity.nowMs();
  const busy = viewRequests(source);
  return [...activity.devices.values()]
    .sort((a, b) => b.lastMs - a.lastMs)
    .map((record) => {
      const { kind } = record.file;
      const device = formatDevice(record.file);
      return {
        kind,
        device,
        path: findPath(record.file) ?? null,
        ...viewTally(record),
        denied: record.denied,
        inFlight: busy.filter((request) => request.kind === kind && request.device === device).length,
        idleSeconds: seconds(record.lastMs, nowMs),
        actions: viewActions(record),
        lastChange: viewNoted(record.lastChange, nowMs),
        lastConflict: viewNoted(record.lastConflict, nowMs),
      };
    });
}

function listBusy({ clients }: Activity): ClientRecord[] {
  return [...clients].filter(({ request }) => request !== undefined);
}

function isStuck(client: ClientRecord, nowMs: number, requestTimeoutMs: number): boolean {
  return nowMs - client.requestSinceMs > requestTimeoutMs;
}

function viewTally({ requests, good, conflicts, failures }: Tally): TallyView {
  return { requests, good, conflicts, failures };
}

function viewPeer({ pid: peerPid, uid: peerUid }: { readonly pid: number; readonly uid: number }): PeerView {
  return { peerPid, peerUid };
}

function viewActions(record: DeviceRecord): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const [isOut, actions] of [
    [false, record.in],
    [true, record.out],
  ] as const) {
    for (const [action, count] of actions.entries()) {
      if (count > 0) counts[`${isOut ? 'out' : 'in'}: ${nameAction(isOut, action)}`] = count;
    }
  }
  return counts;
}

function viewCommand(request: Uint8Array): CommandView {
  const command = parseCommand(request)!;
  const list = command.isOut ? parseParameterList(request.subarray(REQUEST_BYTES)) : undefined;
  return {
    action: nameAction(command.isOut, command.serviceAction),
    type: command.isOut && hasType(command.serviceAction) ? nameType(command.type) : null,
    key: list === undefined ? null : formatKey(list.reservationKey),
    actionKey: list === undefined ? null : formatKey(list.actionKey),
  };
}

function viewNoted({ bytes, lengthBytes, peer, atMs }: NotedRequest, nowMs: number): NotedView | null {
  if (peer === undefined) return null;
  return { ...viewCommand(bytes.subarray(0, lengthBytes)), ...viewPeer(peer), secondsAgo: seconds(atMs, nowMs) };
}
