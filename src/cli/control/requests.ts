/**
 * Requests and answers of a control socket, whoever it belongs to: which path and method lead where, checks of what a request says, and
 * errors as answers. What is not known is refused, so that nobody believes that it had an effect.
 */
import { type ErrorCode, PasselError } from '../../base/errors.ts';
import type { OwnedFd } from '../../base/owned-fd.ts';

/** An answer: JSON and its HTTP status. */
export interface Answer {
  readonly status: number;
  readonly body: unknown;
  /** Methods that the path has, for a 405. */
  readonly allow?: string;
}

/** Answers one request. Never rejects: what goes wrong is an answer too. */
export type AnswerRequest = (method: string, target: string, body: string, fds?: readonly OwnedFd[]) => Promise<Answer>;

/**
 * @param id - the number at the end of a path that has one
 * @param fds - descriptors that came with the request; those that it does not take are closed
 */
export type Handler<Api> = (
  api: Api,
  query: URLSearchParams,
  body: string,
  id: number,
  fds: readonly OwnedFd[],
) => Answer | Promise<Answer>;

/** By path and method; `ID` as the last part of a path stands for a number. */
export type Routes<Api> = Readonly<Record<string, Readonly<Record<string, Handler<Api>>>>>;

const STATUS_OF_CODE: Partial<Record<ErrorCode, number>> = {
  PASSEL_E_CONTROL_REQUEST: 400,
  PASSEL_E_PORT_SPEC: 400,
  PASSEL_E_OPTION_VALUE: 400,
  PASSEL_E_CONTROL_PATH: 404,
  PASSEL_E_FORWARD_UNKNOWN: 404,
  PASSEL_E_CAPTURE_UNKNOWN: 404,
  PASSEL_E_CAPTURE_FILE: 409,
  PASSEL_E_CONTROL_METHOD: 405,
  PASSEL_E_OPTION_CONFLICT: 409,
  PASSEL_E_PORT_BIND: 409,
  PASSEL_E_CONTROL_SIZE: 413,
};

export function createAnswerer<Api>(api: Api, routes: Routes<Api>): AnswerRequest {
  return async (method, target, body, fds = []) => {
    try {
      const { path, query } = parseTarget(target);
      const numbered = /^(.*)\/(\d{1,15})$/.exec(path);
      const name = numbered === null ? path : `${numbered[1]}/ID`;
      const route = Object.hasOwn(routes, name) ? routes[name] : undefined;
      if (route === undefined || path.endsWith('/ID')) throw new PasselError('PASSEL_E_CONTROL_PATH', { value: path });
      const handler = Object.hasOwn(route, method) ? route[method] : undefined;
      if (handler === undefined) {
        const expected = Object.keys(route).join(', ');
        const error = new PasselError('PASSEL_E_CONTROL_METHOD', { value: method, path, expected });
        return { ...answerError(error), allow: expected };
      }
      if (method !== 'POST' && body !== '') refuse(`${method} takes no body`);
      return await handler(api, query, body, Number(numbered?.[2]), fds);
    } catch (error) {
      return answerError(error);
    }
  };
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

/** @throws PasselError PASSEL_E_CONTROL_REQUEST */
export function refuse(reason: string): never {
  throw new PasselError('PASSEL_E_CONTROL_REQUEST', { reason });
}

function parseTarget(target: string): { path: string; query: URLSearchParams } {
  const mark = target.indexOf('?');
  const path = mark < 0 ? target : target.slice(0, mark);
  return { path, query: new URLSearchParams(mark < 0 ? '' : target.slice(mark + 1)) };
}

/** Every name is known, and there once. @param what - in messages. @throws PasselError PASSEL_E_CONTROL_REQUEST */
export function checkNames(what: string, names: Iterable<string>, known: readonly string[]): void {
  const seen = new Set<string>();
  for (const name of names) {
    const expected = known.length === 0 ? 'none' : known.join(', ');
    if (!known.includes(name)) refuse(`unknown ${what} '${name}': expected ${expected}`);
    if (seen.has(name)) refuse(`${what} '${name}' is given twice`);
    seen.add(name);
  }
}
