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
 *
 * What is not known is refused, so that nobody believes that it had an effect.
 */
import { type ErrorCode, PasselError } from '../../base/errors.ts';
import type { ForwardProto } from '../../forward/port-spec.ts';
import type { ForwardRules } from './forward-rules.ts';
import { countPositions, type ViewOptions, viewFlows, viewForward, viewStatus } from './view.ts';
import { type SplicePage, type SpliceViewOptions, viewSplices } from './view-splices.ts';

export interface ControlApi {
  readonly view: ViewOptions;
  readonly forwards: ForwardRules;
  /** Undefined: nothing is joined past the stack. */
  readonly splices: SpliceViewOptions | undefined;
}

/** An answer: JSON and its HTTP status. */
export interface Answer {
  readonly status: number;
  readonly body: unknown;
  /** Methods that the path has, for a 405. */
  readonly allow?: string;
}

const FLOWS_LIMIT_DEFAULT = 100;
const FLOWS_LIMIT_MAX = 1000;
/** No address, range and target need more. */
const SPEC_MAX_LENGTH = 4096;

const STATUS_OF_CODE: Partial<Record<ErrorCode, number>> = {
  PASSEL_E_CONTROL_REQUEST: 400,
  PASSEL_E_PORT_SPEC: 400,
  PASSEL_E_OPTION_VALUE: 400,
  PASSEL_E_CONTROL_PATH: 404,
  PASSEL_E_FORWARD_UNKNOWN: 404,
  PASSEL_E_CONTROL_METHOD: 405,
  PASSEL_E_OPTION_CONFLICT: 409,
  PASSEL_E_PORT_BIND: 409,
  PASSEL_E_CONTROL_SIZE: 413,
};

type Handler = (api: ControlApi, query: URLSearchParams, body: string, id: number) => Answer | Promise<Answer>;

const ROUTES: Readonly<Record<string, Readonly<Record<string, Handler>>>> = {
  '/v1/status': { GET: getStatus },
  '/v1/flows': { GET: getFlows },
  '/v1/splices': { GET: getSplices },
  '/v1/forwards': { GET: getForwards, POST: addForward, DELETE: removeBySpec },
  '/v1/forwards/ID': { DELETE: removeById },
};

/** Answers one request. Never rejects: what goes wrong is an answer too. */
export async function answerRequest(api: ControlApi, method: string, target: string, body: string): Promise<Answer> {
  try {
    const { path, query } = parseTarget(target);
    const numbered = /^\/v1\/forwards\/(\d{1,15})$/.exec(path);
    const route = ROUTES[numbered === null ? path : '/v1/forwards/ID'];
    if (route === undefined || path.endsWith('/ID')) throw new PasselError('PASSEL_E_CONTROL_PATH', { value: path });
    const handler = Object.hasOwn(route, method) ? route[method] : undefined;
    if (handler === undefined) {
      const expected = Object.keys(route).join(', ');
      const error = new PasselError('PASSEL_E_CONTROL_METHOD', { value: method, path, expected });
      return { ...answerError(error), allow: expected };
    }
    if (method !== 'POST' && body !== '') refuse(`${method} takes no body`);
    return await handler(api, query, body, Number(numbered?.[1]));
  } catch (error) {
    return answerError(error);
  }
}

/** The answer to something that went wrong. */
export function answerError(error: unknown): Answer {
  const known =
    error instanceof PasselError
      ? error
      : new PasselError('PASSEL_E_INTERNAL', { reason: error instanceof Error ? error.message : String(error) });
  const { code, message, hint } = known;
  const status = STATUS_OF_CODE[code as ErrorCode] ?? 500;
  return { status, body: { error: { code, message, ...(hint === undefined ? {} : { hint }) } } };
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

function refuse(reason: string): never {
  throw new PasselError('PASSEL_E_CONTROL_REQUEST', { reason });
}

function parseTarget(target: string): { path: string; query: URLSearchParams } {
  const mark = target.indexOf('?');
  const path = mark < 0 ? target : target.slice(0, mark);
  return { path, query: new URLSearchParams(mark < 0 ? '' : target.slice(mark + 1)) };
}

function checkNames(what: string, names: Iterable<string>, known: readonly string[]): void {
  const seen = new Set<string>();
  for (const name of names) {
    const expected = known.length === 0 ? 'none' : known.join(', ');
    if (!known.includes(name)) refuse(`unknown ${what} '${name}': expected ${expected}`);
    if (seen.has(name)) refuse(`${what} '${name}' is given twice`);
    seen.add(name);
  }
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

function checkSpec(value: unknown): string {
  if (typeof value !== 'string' || value === '') return refuse("'spec' must be a text such as 8080:80");
  return value.length > SPEC_MAX_LENGTH ? refuse(`'spec' must have at most ${SPEC_MAX_LENGTH} characters`) : value;
}
