/**
 * The requests of the control socket. Version 1:
 *
 *     GET    /v1/status
 *     GET    /v1/flows?after=N&limit=N&proto=tcp|udp|ping
 *     GET    /v1/splices
 *     GET    /v1/forwards
 *     POST   /v1/forwards          {"proto": "tcp"|"udp", "spec": "8080:80"}
 *     DELETE /v1/forwards/ID
 *     DELETE /v1/forwards?proto=tcp|udp&spec=8080:80
 *     POST   /v1/impair            {"guest": "db"|null, "spec": "delay=20ms"|"off"}
 *     GET    /v1/captures
 *     POST   /v1/captures          {"guest": "db"|null, "name": "/tmp/db.pcapng", "format": "pcap"|"pcapng", "size": N, "snaplen": N}
 *     DELETE /v1/captures/ID
 *     DELETE /v1/captures
 *
 * The file of a new capture comes as a descriptor, with an empty line in front of the request (connections.ts).
 * What is not known is refused, so that nobody believes that it had an effect.
 */
import { PasselError } from '../../base/errors.ts';
import type { OwnedFd } from '../../base/owned-fd.ts';
import type { ForwardProto } from '../../forward/port-spec.ts';
import type { Captures } from '../captures.ts';
import { readCaptureRequest } from './capture-request.ts';
import type { ForwardRules } from './forward-rules.ts';
import { setImpairment } from './impairments.ts';
import { type Answer, type AnswerRequest, checkNames, createAnswerer, type Routes, refuse } from './requests.ts';
import { countPositions, type ViewOptions, viewFlows, viewForward, viewStatus } from './view.ts';
import { type SplicePage, type SpliceViewOptions, viewSplices } from './view-splices.ts';

export interface ControlApi {
  readonly view: ViewOptions;
  readonly forwards: ForwardRules;
  readonly captures: Captures;
  /** Undefined: nothing is joined past the stack. */
  readonly splices: SpliceViewOptions | undefined;
}

const FLOWS_LIMIT_DEFAULT = 100;
const FLOWS_LIMIT_MAX = 1000;
/** No address, range and target need more. */
const SPEC_MAX_LENGTH = 4096;

const ROUTES: Routes<ControlApi> = {
  '/v1/status': { GET: getStatus },
  '/v1/flows': { GET: getFlows },
  '/v1/splices': { GET: getSplices },
  '/v1/forwards': { GET: getForwards, POST: addForward, DELETE: removeBySpec },
  '/v1/forwards/ID': { DELETE: removeById },
  '/v1/impair': { POST: impair },
  '/v1/captures': { GET: getCaptures, POST: startCapture, DELETE: stopCaptures },
  '/v1/captures/ID': { DELETE: stopCapture },
};

/** How a network stack answers. */
export function createNetworkAnswerer(api: ControlApi): AnswerRequest {
  return createAnswerer(api, ROUTES);
}

function getStatus({ view }: ControlApi, query: URLSearchParams): Answer {
  checkNames('parameter', query.keys(), []);
  return { status: 200, body: viewStatus(view) };
}

function getFlows({ view }: ControlApi, query: URLSearchParams): Answer {
  checkNames('parameter', query.keys(), ['after', 'limit', 'proto']);
  const after = readNumber(query, 'after', 0, countPositions(view)) ?? -1;
  const limit = readNumber(query, 'limit', 1, FLOWS_LIMIT_MAX) ?? FLOWS_LIMIT_DEFAULT;
  const proto = query.get('proto') ?? undefined;
  if (proto !== undefined && proto !== 'tcp' && proto !== 'udp' && proto !== 'ping') {
    return refuse("'proto' must be tcp, udp or ping");
  }
  return { status: 200, body: viewFlows(view, after, limit, proto) };
}

function getSplices({ splices }: ControlApi, query: URLSearchParams): Answer {
  checkNames('parameter', query.keys(), []);
  const body: SplicePage = splices === undefined ? { splices: [], total: 0 } : viewSplices(splices);
  return { status: 200, body };
}

function getForwards({ forwards }: ControlApi, query: URLSearchParams): Answer {
  checkNames('parameter', query.keys(), []);
  return { status: 200, body: { forwards: forwards.list().map(viewForward) } };
}

async function addForward({ forwards }: ControlApi, query: URLSearchParams, body: string): Promise<Answer> {
  checkNames('parameter', query.keys(), []);
  const request = parseObject(body);
  checkNames('field', Object.keys(request), ['proto', 'spec']);
  const added = await forwards.add(checkProto(request['proto']), checkSpec(request['spec']));
  return { status: 201, body: { forwards: added.map(viewForward) } };
}

async function removeById(
  { forwards }: ControlApi,
  query: URLSearchParams,
  _body: string,
  id: number,
): Promise<Answer> {
  checkNames('parameter', query.keys(), []);
  return { status: 200, body: { forwards: (await forwards.removeById(id)).map(viewForward) } };
}

async function removeBySpec({ forwards }: ControlApi, query: URLSearchParams): Promise<Answer> {
  checkNames('parameter', query.keys(), ['proto', 'spec']);
  const removed = await forwards.removeBySpec(checkProto(query.get('proto')), checkSpec(query.get('spec')));
  return { status: 200, body: { forwards: removed.map(viewForward) } };
}

function impair({ view }: ControlApi, query: URLSearchParams, body: string): Answer {
  checkNames('parameter', query.keys(), []);
  const request = parseObject(body);
  checkNames('field', Object.keys(request), ['guest', 'spec']);
  const guests = setImpairment(view.guests, request['guest'], checkSpec(request['spec'], 'delay=20ms'));
  return { status: 200, body: { guests } };
}

function getCaptures({ captures }: ControlApi, query: URLSearchParams): Answer {
  checkNames('parameter', query.keys(), []);
  return { status: 200, body: { captures: captures.list() } };
}

function startCapture(
  { captures, view }: ControlApi,
  query: URLSearchParams,
  body: string,
  _id: number,
  fds: readonly OwnedFd[],
): Answer {
  checkNames('parameter', query.keys(), []);
  const request = readCaptureRequest(parseObject(body), view.guests, fds);
  return { status: 201, body: { captures: [captures.start(request)] } };
}

function stopCaptures({ captures }: ControlApi, query: URLSearchParams): Answer {
  checkNames('parameter', query.keys(), []);
  return { status: 200, body: { captures: captures.stop() } };
}

function stopCapture({ captures }: ControlApi, query: URLSearchParams, _body: string, id: number): Answer {
  checkNames('parameter', query.keys(), []);
  const stopped = captures.stop(id);
  if (stopped.length === 0) throw new PasselError('PASSEL_E_CAPTURE_UNKNOWN', { value: id });
  return { status: 200, body: { captures: stopped } };
}

function readNumber(query: URLSearchParams, name: string, min: number, max: number): number | undefined {
  const text = query.get(name);
  if (text === null) return undefined;
  const number = /^\d{1,9}$/.test(text) ? Number(text) : -1;
  return number < min || number > max ? refuse(`'${name}' must be a number from ${min} to ${max}`) : number;
}

function parseObject(body: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch (error) {
    refuse(`it is not JSON: ${(error as Error).message}`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) refuse('it must be a JSON object');
  return value as Record<string, unknown>;
}

function checkProto(value: unknown): ForwardProto {
  return value === 'tcp' || value === 'udp' ? value : refuse("'proto' must be tcp or udp");
}

function checkSpec(value: unknown, example = '8080:80'): string {
  if (typeof value !== 'string' || value === '') return refuse(`'spec' must be a text such as ${example}`);
  return value.length > SPEC_MAX_LENGTH ? refuse(`'spec' must have at most ${SPEC_MAX_LENGTH} characters`) : value;
}
