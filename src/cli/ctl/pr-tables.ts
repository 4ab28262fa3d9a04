/** The answers of a reservation helper's control socket as text for people. */
import { printable } from '../../base/errors.ts';
import type {
  ClientView,
  CommandView,
  NotedView,
  PrStatusView,
  RequestView,
  ReservationsView,
} from '../pr-helper/control-view.ts';
import { formatSeconds, formatTable } from './tables.ts';

export function formatPrStatus(status: PrStatusView): string {
  const lines: [string, string][] = [
    [
      'program',
      `${status.program} ${status.version}, PID ${status.pid}, running for ${formatSeconds(status.uptimeSeconds)}`,
    ],
    ['socket', status.socket ?? 'a descriptor'],
    ['clients', `${status.clients} now, ${status.clientsTotal} in all, ${status.clientsRefused} cut off`],
    ['devices', String(status.devices)],
    ['requests', `${status.requests}: ${status.good} good, ${status.conflicts} conflicts, ${status.failures} failed`],
    ['in flight', `${status.inFlight}, ${status.stuck} for more than ${formatSeconds(status.requestTimeoutSeconds)}`],
  ];
  if (status.withoutDevice > 0) lines.push(['no device', `${status.withoutDevice} requests`]);
  const width = Math.max(...lines.map(([name]) => name.length));
  return `${lines.map(([name, text]) => `${name.padEnd(width)}  ${printable(text)}`).join('\n')}\n`;
}

export function formatClients(clients: readonly ClientView[], total: number): string {
  if (clients.length === 0) return 'no clients\n';
  const rows = clients.map((client) => [
    String(client.id),
    String(client.peerPid),
    String(client.peerUid),
    formatSeconds(client.ageSeconds),
    formatSeconds(client.idleSeconds),
    String(client.requests),
    String(client.conflicts),
    String(client.failures),
    client.busy ? 'waits for a device' : 'idle',
  ]);
  const headings = ['>ID', '>PID', '>UID', '>SINCE', '>IDLE', '>REQUESTS', '>CONFLICTS', '>FAILED', 'STATE'];
  return formatTable(headings, rows) + formatRest(clients.length, total, 'clients');
}

export function formatRequests(requests: readonly RequestView[], total: number): string {
  if (requests.length === 0) return 'no requests in flight\n';
  const rows = requests.map((request) => [
    String(request.client),
    String(request.peerPid),
    printable(request.path ?? request.device),
    formatCommand(request),
    formatSeconds(request.ageSeconds),
    request.stuck ? 'stuck' : '',
  ]);
  const headings = ['>CLIENT', '>PID', 'DEVICE', 'REQUEST', '>SINCE', ''];
  return formatTable(headings, rows) + formatRest(requests.length, total, 'requests');
}

/** A row for each device, and below it what was asked for and what happened last. */
export function formatReservations(devices: readonly ReservationsView[], total: number): string {
  if (devices.length === 0) return 'no devices\n';
  const rows = devices.map((each) => [
    each.device,
    printable(each.path ?? '-'),
    String(each.requests),
    String(each.good),
    String(each.conflicts),
    String(each.failures),
    String(each.denied),
    String(each.inFlight),
    formatSeconds(each.idleSeconds),
  ]);
  const headings = ['DEVICE', 'PATH', '>REQUESTS', '>GOOD', '>CONFLICTS', '>FAILED', '>DENIED', '>IN FLIGHT', '>IDLE'];
  const details = devices.map((each) => {
    const counts = Object.entries(each.actions).map(([action, count]) => `  ${action}  ${count}\n`);
    const last = [
      each.lastChange === null ? '' : `  last change: ${formatNoted(each.lastChange)}\n`,
      each.lastConflict === null ? '' : `  last conflict: ${formatNoted(each.lastConflict)}\n`,
    ];
    return `\n${printable(each.path ?? each.device)}\n${[...counts, ...last].join('')}`;
  });
  return formatTable(headings, rows) + formatRest(devices.length, total, 'devices') + details.join('');
}

function formatNoted(noted: NotedView): string {
  return `${formatCommand(noted)} by pid ${noted.peerPid} uid ${noted.peerUid}, ${formatSeconds(noted.secondsAgo)} ago`;
}

function formatCommand({ action, type, key, actionKey }: CommandView): string {
  const typed = type === null ? '' : ` (${type})`;
  const keys = key === null ? '' : ` key ${key} action key ${actionKey}`;
  return `${action}${typed}${keys}`;
}

function formatRest(shown: number, total: number, what: string): string {
  return shown < total ? `${shown} of ${total} ${what}\n` : '';
}
