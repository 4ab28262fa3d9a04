/** The control socket's answers as text for people. */
import { printable } from '../../base/errors.ts';
import type { Capture } from '../captures.ts';
import type { ImpairmentView, NamedImpairmentView } from '../control/impairments.ts';
import type { EndpointView, FlowView, ForwardView, GuestView, StatusView } from '../control/view.ts';
import type { SpliceView } from '../control/view-splices.ts';

const STATUS_NAME_WIDTH = 'listeners'.length;

/** Lines of aligned columns with a heading; columns named with a leading `>` are aligned to the right. */
export function formatTable(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  const names = headings.map((name) => name.replace(/^>/, ''));
  const widths = names.map((name, i) => Math.max(name.length, ...rows.map((row) => row[i]!.length)));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, i) => (headings[i]!.startsWith('>') ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)))
      .join('  ')
      .trimEnd();
  return `${[names, ...rows].map(line).join('\n')}\n`;
}

export function formatFlows(flows: readonly FlowView[], total: number): string {
  if (flows.length === 0) return 'no flows\n';
  const names = new Set(flows.map(({ guestName }) => guestName));
  const rows = flows.map((flow) => [
    ...(names.size > 1 ? [flow.guestName] : []),
    flow.proto,
    flow.state,
    formatEndpoint(flow.guest),
    flow.startedBy === 'guest' ? '->' : '<-',
    formatEndpoint(flow.peer),
    formatHostSide(flow),
    formatBytes(flow.bytesToHost),
    formatBytes(flow.bytesToGuest),
    formatSeconds(flow.ageSeconds),
  ]);
  const rest = ['PROTO', 'STATE', 'GUEST', '', 'PEER', 'HOST SIDE', '>OUT', '>IN', '>AGE'];
  const headings = names.size > 1 ? ['NAME', ...rest] : rest;
  const shown = flows.length < total ? `${flows.length} of ${total} flows\n` : '';
  return formatTable(headings, rows) + shown;
}

export function formatSplices(splices: readonly SpliceView[], total: number): string {
  if (splices.length === 0) return 'no spliced connections\n';
  const end = (endpoint: EndpointView | null): string => (endpoint === null ? '-' : formatEndpoint(endpoint));
  const rows = splices.map((each) => [
    each.proto,
    each.state,
    each.startedBy === 'host' ? 'host -> namespace' : 'namespace -> host',
    end(each.client),
    end(each.server),
    formatBytes(each.bytesFromClient),
    formatBytes(each.bytesToClient),
    formatSeconds(each.ageSeconds),
  ]);
  const headings = ['PROTO', 'STATE', 'WAY', 'CLIENT', 'SERVER', '>SENT', '>ANSWERED', '>AGE'];
  const shown = splices.length < total ? `${splices.length} of ${total} spliced connections\n` : '';
  return formatTable(headings, rows) + shown;
}

/** Our socket and its remote; the remote only where it is another than the guest believes. */
function formatHostSide({ local, remote, peer, forward }: FlowView): string {
  const from = local === null ? '-' : formatEndpoint(local);
  const isSame = remote === null || formatEndpoint(remote) === formatEndpoint(peer);
  const by = forward === null ? '' : ` (forward ${forward})`;
  return isSame ? `${from}${by}` : `${from} - ${formatEndpoint(remote)}${by}`;
}

export function formatForwards(forwards: readonly ForwardView[]): string {
  if (forwards.length === 0) return 'no forwards\n';
  const rows = forwards.map((forward) => [
    String(forward.id),
    forward.proto,
    forward.spec,
    forward.bindPath ?? formatRange(forward.bindAddress ?? '*', forward.bindInterface, forward.first, forward.last),
    formatRange(
      forward.targetAddress ?? forward.targetGuest ?? 'guest',
      null,
      forward.targetFirst,
      forward.targetFirst + forward.last - forward.first,
    ),
    String(forward.sockets),
  ]);
  return formatTable(['>ID', 'PROTO', 'SPEC', 'HOST', 'GUEST', '>SOCKETS'], rows);
}

function formatRange(address: string, device: string | null, first: number, last: number): string {
  const shown = address.includes(':') ? `[${address}]` : address;
  return `${shown}${device === null ? '' : `%${device}`}:${first === last ? first : `${first}-${last}`}`;
}

export function formatStatus(status: StatusView): string {
  const version = `${status.version}, PID ${status.pid}, running for ${formatSeconds(status.uptimeSeconds)}`;
  const blocks = status.guests.map((guest) => {
    const name: [string, string][] = status.guests.length > 1 ? [['name', guest.name]] : [];
    return formatLines([...name, ...describeGuest(guest)]);
  });
  return [
    formatLines([['version', version], ['listeners', String(status.listeners)], ...describeNames(status.names)]),
    ...blocks,
  ].join(status.guests.length > 1 ? '\n' : '');
}

export function formatLeases(guests: readonly GuestView[]): string {
  const rows = guests.flatMap(({ name, guest }) =>
    [guest.dhcpLease, guest.dhcpv6Lease].flatMap((lease) =>
      lease === null
        ? []
        : [[lease.mac, lease.address, name, guest.connected ? 'connected' : 'gone', formatSeconds(lease.ageSeconds)]],
    ),
  );
  return rows.length === 0 ? 'no leases\n' : formatTable(['MAC', 'ADDRESS', 'GUEST', 'LINK', '>SINCE'], rows);
}

/** Names in one column as wide for all, texts in the other. */
function formatLines(lines: readonly (readonly [string, string])[]): string {
  return lines.map(([name, text]) => `${name.padEnd(STATUS_NAME_WIDTH)}  ${printable(text)}\n`).join('');
}

function describeNames(names: StatusView['names']): [string, string][] {
  if (names === null) return [];
  const { queries, answered, forwarded, refused } = names;
  return [
    [
      'names',
      `${queries} questions: ${answered} answered here, ${forwarded} passed on to resolvers, ${refused} refused`,
    ],
  ];
}

function describeGuest(status: GuestView): [string, string][] {
  const { guest, network, flows, exchange } = status;
  const lines: [string, string][] = [
    ['socket', status.socket ?? 'a descriptor'],
    ['guest', guest.connected ? `connected${guest.mac === null ? '' : `, MAC ${guest.mac}`}` : 'not connected'],
    ['MTU', String(network.mtu)],
  ];
  for (const [name, family, seen, lease] of [
    ['IPv4', network.ipv4, guest.ipv4, guest.dhcpLease],
    ['IPv6', network.ipv6, guest.ipv6, guest.dhcpv6Lease],
  ] as const) {
    if (family === null) {
      lines.push([name, 'none']);
      continue;
    }
    const leased = lease === null ? 'not leased yet' : `leased ${formatSeconds(lease.ageSeconds)} ago`;
    lines.push([name, `${family.address}/${family.prefixLength}, router ${family.gateway}, ${leased}`]);
    if (seen !== null && seen !== family.address) lines.push(['', `the guest uses ${seen}`]);
    if (family.resolvers.length > 0) lines.push(['', `resolvers ${family.resolvers.join(', ')}`]);
  }
  if (guest.linkLocal !== null) lines.push(['', `link-local ${guest.linkLocal}`]);
  if (network.searchDomains.length > 0) lines.push(['search', network.searchDomains.join(' ')]);
  const kinds = `${flows.tcp} TCP, ${flows.udp} UDP, ${flows.ping} ping`;
  lines.push(['flows', `${kinds}, room for ${flows.capacity}`]);
  if (exchange !== null) {
    const { forwarded, dropped, spoofed } = exchange;
    lines.push(['switch', `${forwarded} frames to other guests, ${dropped} from them dropped, ${spoofed} in our name`]);
  }
  for (const [i, line] of describeImpairment(status.impairment).entries())
    lines.push([i === 0 ? 'impaired' : '', line]);
  const counted = Object.entries(status.counters).filter(([, count]) => count !== 0);
  for (const [i, [name, count]] of counted.entries()) lines.push([i === 0 ? 'counters' : '', `${name} ${count}`]);
  return lines;
}

export function formatCaptures(captures: readonly Capture[]): string {
  if (captures.length === 0) return 'nothing is recorded\n';
  const rows = captures.map(({ id, format, guests, frames, bytes, name }) => [
    String(id),
    format,
    guests.join(' '),
    String(frames),
    formatBytes(bytes),
    printable(name),
  ]);
  return formatTable(['>ID', 'FORMAT', 'GUESTS', '>FRAMES', '>SIZE', 'FILE'], rows);
}

function describeImpairment(impairment: ImpairmentView | null): string[] {
  const ways = [
    ['to it', impairment?.toGuest],
    ['from it', impairment?.fromGuest],
  ] as const;
  return ways.flatMap(([name, way]) => {
    if (way === null || way === undefined) return [];
    const { spec, passed, lost, dropped, duplicated, reordered, queuedFrames } = way;
    const rare = [
      ...(duplicated > 0 ? [`${duplicated} doubled`] : []),
      ...(reordered > 0 ? [`${reordered} sent ahead`] : []),
    ];
    const counts = [`${passed} frames`, `${lost} lost`, `${dropped} dropped`, ...rare, `${queuedFrames} under way`];
    return [`${name}: ${spec}; ${counts.join(', ')}`];
  });
}

export function formatImpairments(guests: readonly NamedImpairmentView[]): string {
  return guests
    .map(({ name, impairment }) => {
      const lines = describeImpairment(impairment);
      return `${name}: ${lines.length === 0 ? 'as good as it is' : lines.join(`\n${' '.repeat(name.length + 2)}`)}\n`;
    })
    .join('');
}

export function formatEndpoint({ address, port }: EndpointView): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

/** Binary multiples, three digits or so. */
export function formatBytes(bytes: number): string {
  if (bytes < 1024) return String(bytes);
  let value = bytes;
  let unit = -1;
  while (value >= 1024 && unit < 4) {
    value /= 1024;
    unit++;
  }
  return `${value.toFixed(value < 10 ? 1 : 0)}${'KMGTP'[unit]}`;
}

export function formatSeconds(seconds: number): string {
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)}s`;
  const whole = Math.floor(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)}m${whole % 60}s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)}h${Math.floor((whole % 3600) / 60)}m`;
  return `${Math.floor(whole / 86_400)}d${Math.floor((whole % 86_400) / 3600)}h`;
}
