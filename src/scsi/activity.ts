/**
 * What a helper has done and is doing: for which clients, on which devices, with what result. It is written to with every request and read
 * when somebody asks, so the writing is a few additions, and all that is made for people (names, paths, ages) is made when it is read.
 *
 * What is kept is bounded: clients are those connected, and of devices the {@link DEVICES_MAX} that were used last.
 */
import type { OpenFile } from '../sys/sg.ts';
import type { Peer } from './connection.ts';
import { NOTE_DENIED, type Outcome } from './executor.ts';
import { isReserveOut, REQUEST_BYTES } from './helper-protocol.ts';
import { STATUS_GOOD, STATUS_RESERVATION_CONFLICT } from './status.ts';

const DEVICES_MAX = 1024;
/** Service actions have 5 bits. */
const ACTIONS = 32;
const ACTION_MASK = 0x1f;
/** The CDB and the fixed part of a parameter list: keys and flags. */
const NOTED_BYTES = REQUEST_BYTES + 24;

/** Answers by what they were. */
export class Tally {
  requests = 0;
  good = 0;
  conflicts = 0;
  failures = 0;

  count(status: number): void {
    this.requests++;
    if (status === STATUS_GOOD) this.good++;
    else if (status === STATUS_RESERVATION_CONFLICT) this.conflicts++;
    else this.failures++;
  }
}

/** A request that is kept for its device: the last of its kind. */
export class NotedRequest {
  /** The CDB with its padding, and as much of the parameters as there is. */
  readonly bytes: Uint8Array = new Uint8Array(NOTED_BYTES);
  lengthBytes = 0;
  peer: Peer | undefined;
  atMs = 0;

  note(request: Uint8Array, peer: Peer, nowMs: number): void {
    this.lengthBytes = Math.min(request.length, NOTED_BYTES);
    this.bytes.set(request.length > NOTED_BYTES ? request.subarray(0, NOTED_BYTES) : request);
    this.peer = peer;
    this.atMs = nowMs;
  }
}

export class DeviceRecord extends Tally {
  readonly file: OpenFile;
  lastMs = 0;
  /** Of `failures`, those that a rule made. */
  denied = 0;
  /** Requests by service action. */
  readonly in: Float64Array = new Float64Array(ACTIONS);
  readonly out: Float64Array = new Float64Array(ACTIONS);
  /** The last PERSISTENT RESERVE OUT that was GOOD. */
  readonly lastChange = new NotedRequest();
  readonly lastConflict = new NotedRequest();

  constructor(file: OpenFile) {
    super();
    this.file = file;
  }
}

/** A client, from its connection to its end, which comes after its last answer. */
export class ClientRecord extends Tally {
  readonly id: number;
  readonly peer: Peer;
  readonly sinceMs: number;
  lastMs: number;
  /** What is not answered: the begin of the request, and its device where that can be told. As of when it was last looked. */
  request: Uint8Array | undefined;
  file: OpenFile | undefined;
  requestSinceMs = 0;

  constructor(id: number, peer: Peer, nowMs: number) {
    super();
    this.id = id;
    this.peer = peer;
    this.sinceMs = nowMs;
    this.lastMs = nowMs;
  }
}

export class Activity {
  readonly total = new Tally();
  readonly clients = new Set<ClientRecord>();
  readonly devices = new Map<number, DeviceRecord>();
  clientsTotal = 0;
  /** Connections that broke the protocol. */
  refused = 0;
  /** Requests with a descriptor that was not of a device. */
  withoutDevice = 0;
  private readonly now: () => number;

  /** @param now - in milliseconds, never backwards */
  constructor(now: () => number = () => performance.now()) {
    this.now = now;
  }

  /** The time that ages are counted from. */
  nowMs(): number {
    return this.now();
  }

  connect(peer: Peer): ClientRecord {
    const client = new ClientRecord(++this.clientsTotal, peer, this.now());
    this.clients.add(client);
    return client;
  }

  /** @param brokeProtocol - why it ended */
  disconnect(client: ClientRecord, brokeProtocol: boolean): void {
    if (brokeProtocol) this.refused++;
    this.clients.delete(client);
  }

  /** @param ageMs - how long ago the request came */
  begin(client: ClientRecord, file: OpenFile | undefined, request: Uint8Array, ageMs = 0): void {
    client.request = request;
    client.file = file;
    client.requestSinceMs = this.now() - ageMs;
  }

  finish(client: ClientRecord, request: Uint8Array, answer: Omit<Outcome, 'sense'>): void {
    const nowMs = this.now();
    client.request = undefined;
    client.file = undefined;
    client.lastMs = nowMs;
    client.count(answer.status);
    this.total.count(answer.status);
    const { file } = answer;
    if (file === undefined || file.kind === 'other') {
      this.withoutDevice++;
      return;
    }
    const device = this.deviceOf(file, nowMs);
    const isOut = isReserveOut(request);
    const action = request[1]! & ACTION_MASK;
    const actions = isOut ? device.out : device.in;
    actions[action] = actions[action]! + 1;
    device.count(answer.status);
    if (answer.note === NOTE_DENIED) device.denied++;
    if (isOut && answer.status === STATUS_GOOD) device.lastChange.note(request, client.peer, nowMs);
    else if (answer.status === STATUS_RESERVATION_CONFLICT) device.lastConflict.note(request, client.peer, nowMs);
  }

  private deviceOf(file: OpenFile, nowMs: number): DeviceRecord {
    // Numbers of devices have 12 and 20 bits.
    const key = (file.kind === 'block' ? 0 : 2 ** 32) + file.major * 2 ** 20 + file.minor;
    let device = this.devices.get(key);
    if (device === undefined) {
      if (this.devices.size >= DEVICES_MAX) this.dropOldest();
      device = new DeviceRecord(file);
      this.devices.set(key, device);
    }
    device.lastMs = nowMs;
    return device;
  }

  private dropOldest(): void {
    let oldest: number | undefined;
    let oldestMs = Number.POSITIVE_INFINITY;
    for (const [key, { lastMs }] of this.devices) {
      if (lastMs >= oldestMs) continue;
      oldest = key;
      oldestMs = lastMs;
    }
    if (oldest !== undefined) this.devices.delete(oldest);
  }
}
