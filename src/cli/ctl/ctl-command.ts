/**
 * `passel ctl`: looks into a running stack and changes its forwards, or into a reservation helper, through the control socket
 * (`--conf-path`). Tables for people, the JSON of whoever answers for programs. Exit status: 0 done, 1 refused or not understood, 2 nobody answers.
 */
import { PasselError } from '../../base/errors.ts';
import type { NamedImpairmentView } from '../control/impairments.ts';
import type { FlowPage, FlowView, ForwardView, StatusView } from '../control/view.ts';
import type { SplicePage } from '../control/view-splices.ts';
import { CTL_OPTIONS, type CtlOptionTable } from '../options/ctl-options.ts';
import type { GivenOptions } from '../options/definition.ts';
import { scanOptions } from '../options/scan.ts';
import type { ClientView, PrStatusView, RequestView, ReservationsView } from '../pr-helper/control-view.ts';
import { type AskStack, createClient } from './client.ts';
import { formatClients, formatPrStatus, formatRequests, formatReservations } from './pr-tables.ts';
import { type CaptureList, startCapture } from './start-capture.ts';
import {
  formatCaptures,
  formatFlows,
  formatForwards,
  formatImpairments,
  formatLeases,
  formatSplices,
  formatStatus,
} from './tables.ts';

const COMMANDS = `
Commands:
  status                      the stack, its guest, its counters; or the reservation helper and its counters
  leases                      addresses that guests were given, by DHCP and DHCPv6
  flows                       connections and other flows
  splices                     loopback connections of a namespace that go past the stack
  forwards                    ports of this host that lead to the guest
  forward add PROTO SPEC      forward more: PROTO tcp or udp, SPEC as for -t and -u
  forward delete ID           close a forward, by its number...
  forward delete PROTO SPEC   ...or by what it was made of
  impair GUEST SPEC           make the link to a guest worse, as --impair does; '-' stands for all guests
  impair GUEST off            make it as good as it is
  pcap start FILE [GUEST]     record the frames of a guest, or of all, in a file that this program opens
  pcap stop [ID]              end a recording, or all
  pcap list                   what is being recorded
of a reservation helper:
  clients                     who is connected, and how that went
  requests                    requests that devices have not answered
  reservations                devices: what was asked for, conflicts, the last change
`;

const EXPECTED =
  'status, leases, flows, splices, forwards, forward add PROTO SPEC, forward delete ID or PROTO SPEC, impair GUEST SPEC, pcap start FILE [GUEST], pcap stop [ID], pcap list, clients, requests or reservations';
/** What the control socket gives in one page at most. */
const PAGE_MAX = 1000;

/** Options that belong to one command. */
const OPTIONS_OF = [
  ['proto', 'flows'],
  ['limit', 'flows'],
  ['size', 'pcap start'],
  ['snaplen', 'pcap start'],
] as const;

type Listed<Name extends string, Row> = { readonly [K in Name]: readonly Row[] } & { readonly total: number };

interface Forwards {
  readonly forwards: readonly ForwardView[];
}

/** @returns exit status; @throws PasselError for the caller to report */
export async function runCtlCommand(argv: readonly string[]): Promise<number> {
  const given = scanOptions(CTL_OPTIONS, argv);
  if (given.has('help')) {
    const { formatHelp } = await import('../options/help.ts');
    process.stdout.write((await formatHelp('passel ctl [OPTION]... COMMAND', CTL_OPTIONS)) + COMMANDS);
    return 0;
  }
  const path = given.last('socket') ?? process.env['PASSEL_CTL_SOCKET'] ?? '';
  const run = chooseCommand(given);
  if (path === '') throw new PasselError('PASSEL_E_CTL_NO_SOCKET', { expected: '--socket PATH' });
  process.stdout.write(await run(createClient(path)));
  return 0;
}

/** Understands the command before anything is asked. */
function chooseCommand(given: GivenOptions<CtlOptionTable>): (ask: AskStack) => Promise<string> {
  const asJson = given.has('json');
  const show = <T>(answer: T, format: (answer: T) => string): string =>
    asJson ? `${JSON.stringify(answer)}\n` : format(answer);
  const [command, verb, ...operands] = given.operands;
  const named = verb === undefined ? (command ?? '') : `${command} ${verb}`;
  for (const [option, other] of OPTIONS_OF) {
    if (given.gave(option) && command !== other && named !== other) {
      throw new PasselError('PASSEL_E_OPTION_REQUIRES', { option: given.typed(option), other });
    }
  }
  if (command === 'impair' && verb !== undefined && operands.length === 1) {
    const request = { guest: verb === '-' ? null : verb, spec: operands[0] };
    return async (ask) =>
      show((await ask('POST', '/v1/impair', request)) as { guests: NamedImpairmentView[] }, ({ guests }) =>
        formatImpairments(guests),
      );
  }
  switch (named) {
    case 'status':
      return async (ask) =>
        show((await ask('GET', '/v1/status')) as StatusView | PrStatusView, (status) =>
          'program' in status ? formatPrStatus(status) : formatStatus(status),
        );
    case 'leases':
      return async (ask) => show((await ask('GET', '/v1/status')) as StatusView, ({ guests }) => formatLeases(guests));
    case 'clients':
      return async (ask) =>
        show((await ask('GET', '/v1/clients')) as Listed<'clients', ClientView>, ({ clients, total }) =>
          formatClients(clients, total),
        );
    case 'requests':
      return async (ask) =>
        show((await ask('GET', '/v1/requests')) as Listed<'requests', RequestView>, ({ requests, total }) =>
          formatRequests(requests, total),
        );
    case 'reservations':
      return async (ask) =>
        show(
          (await ask('GET', '/v1/reservations')) as Listed<'reservations', ReservationsView>,
          ({ reservations, total }) => formatReservations(reservations, total),
        );
    case 'flows':
      return async (ask) => {
        const page = await askForFlows(ask, given.last('proto'), given.last('limit') ?? Number.POSITIVE_INFINITY);
        return show(page, ({ flows, next }) => formatFlows(flows, next === null ? flows.length : page.total));
      };
    case 'splices':
      return async (ask) =>
        show((await ask('GET', '/v1/splices')) as SplicePage, ({ splices, total }) => formatSplices(splices, total));
    case 'forwards':
      return async (ask) =>
        show((await ask('GET', '/v1/forwards')) as Forwards, ({ forwards }) => formatForwards(forwards));
    case 'pcap list':
      if (operands.length > 0) break;
      return async (ask) =>
        show((await ask('GET', '/v1/captures')) as CaptureList, ({ captures }) => formatCaptures(captures));
    case 'pcap start': {
      const [file, guest = '-'] = operands;
      if (file === undefined || file === '' || operands.length > 2) break;
      const limits = { size: given.last('size'), snaplen: given.last('snaplen') };
      const request = { guest: guest === '-' ? null : guest, ...limits };
      return async (ask) => show(await startCapture(ask, file, request), ({ captures }) => formatCaptures(captures));
    }
    case 'pcap stop': {
      const [id, more] = operands;
      if (more !== undefined || (id !== undefined && !/^\d{1,15}$/.test(id))) break;
      return async (ask) => {
        const stopped = (await ask('DELETE', `/v1/captures${id === undefined ? '' : `/${id}`}`)) as CaptureList;
        return show(stopped, ({ captures }) =>
          captures.length === 0 ? 'nothing was recorded\n' : formatCaptures(captures),
        );
      };
    }
    case 'forward add':
      if (operands.length !== 2) break;
      return async (ask) => {
        const [proto, spec] = operands;
        const added = (await ask('POST', '/v1/forwards', { proto, spec })) as Forwards;
        return show(added, ({ forwards }) => formatForwards(forwards));
      };
    case 'forward delete':
      if (operands.length !== 1 && operands.length !== 2) break;
      if (operands.length === 1 && !/^\d{1,15}$/.test(operands[0]!)) break;
      return async (ask) => {
        const [first, spec] = operands;
        const query = spec === undefined ? `/${first}` : `?${new URLSearchParams({ proto: first!, spec })}`;
        const removed = (await ask('DELETE', `/v1/forwards${query}`)) as Forwards;
        return show(removed, ({ forwards }) => `deleted:\n${formatForwards(forwards)}`);
      };
  }
  throw new PasselError('PASSEL_E_COMMAND_UNKNOWN', { value: given.operands.join(' '), expected: EXPECTED });
}

/** Page by page; flows that come and go in between may be missing, none comes twice. */
async function askForFlows(ask: AskStack, proto: FlowView['proto'] | undefined, limit: number): Promise<FlowPage> {
  const flows: FlowView[] = [];
  let after: number | null = null;
  for (;;) {
    const query = new URLSearchParams({ limit: String(Math.min(PAGE_MAX, limit - flows.length)) });
    if (after !== null) query.set('after', String(after));
    if (proto !== undefined) query.set('proto', proto);
    const page = (await ask('GET', `/v1/flows?${query}`)) as FlowPage;
    flows.push(...page.flows);
    after = page.next;
    if (after === null || flows.length >= limit) return { flows, total: page.total, next: after };
  }
}
