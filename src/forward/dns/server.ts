/**
 * The name server of a network: what is known here is answered here, and the rest by the resolvers whose domain it is (exchanges.ts).
 *
 * In this order: the network's own names, which nobody else is asked about, the host's list of names, and the route of the longest domain. A query
 * that is malformed, or none, goes nowhere. What a guest may have on its way at once is limited.
 */
import type { NameServer } from '../../stack/ports.ts';
import type { Exchanges } from './exchanges.ts';
import {
  answerUnread,
  answerWithCode,
  fitAnswer,
  type Query,
  RCODE_NAME_ERROR,
  RCODE_REFUSED,
  RCODE_SERVER_FAILURE,
  readQuery,
} from './messages.ts';
import { answerFromList, answerOwnNames, type NameRecords, type OwnRecords } from './own-names.ts';
import { type DnsRoute, pickRoute } from './routes.ts';

/** Questions of one guest on their way at once. Each may have a socket for every resolver. */
const PENDING_PER_GUEST = 64;

/** A list of names that changes now and then. */
export interface NameList {
  /** Calls back when the list is as new as it has to be, perhaps at once. */
  refresh(then: () => void): void;
  readonly records: NameRecords;
}

/** What happened, for those who ask. */
export interface NameCounters {
  queries: number;
  /** Answered from what is known here. */
  answered: number;
  /** Sent on to resolvers. */
  forwarded: number;
  /** Not answered or refused: malformed, too many, or nobody to ask. */
  refused: number;
}

export interface NameServerParts {
  readonly own: OwnRecords;
  /** Undefined: there is no list. */
  readonly list: NameList | undefined;
  /** None: only what is known here is answered. */
  readonly routes: readonly DnsRoute[];
  readonly exchanges: Exchanges;
  readonly counters: NameCounters;
}

/** A guest's way to the names. */
export interface GuestNameServer extends NameServer {
  /** As `ask`, for a question that came by TCP. */
  askByStream(query: Uint8Array, answer: (message: Uint8Array) => void): void;
}

const STREAM_LIMIT_BYTES = 65_535;

/** @param isAt - whether the guest finds the server at an address (4 words) */
export function createNameServer(parts: NameServerParts, isAt: (address: Uint32Array) => boolean): GuestNameServer {
  const { own, list, routes, exchanges, counters } = parts;
  let pending = 0;

  const forward = (
    query: Query,
    limitBytes: number,
    isStream: boolean,
    answer: (message: Uint8Array) => void,
  ): void => {
    const route = pickRoute(routes, query.name);
    let refusal: number | undefined;
    if (route === undefined) refusal = RCODE_REFUSED;
    else if (route.servers.length === 0) refusal = route.domain === '' ? RCODE_SERVER_FAILURE : RCODE_NAME_ERROR;
    else if (pending >= PENDING_PER_GUEST) refusal = RCODE_SERVER_FAILURE;
    if (refusal !== undefined || route === undefined) {
      counters.refused++;
      answer(answerWithCode(query, refusal ?? RCODE_REFUSED));
      return;
    }
    counters.forwarded++;
    pending++;
    exchanges.ask(route, isStream, {
      query,
      limitBytes,
      answer(message) {
        pending--;
        answer(message);
      },
    });
  };

  const take = (
    bytes: Uint8Array,
    limitBytes: number,
    isStream: boolean,
    answer: (message: Uint8Array) => void,
  ): void => {
    counters.queries++;
    // It is kept beyond the call.
    const query = readQuery(Buffer.from(bytes));
    if (typeof query !== 'object') {
      counters.refused++;
      if (query !== undefined) answer(answerUnread(bytes, query));
      return;
    }
    const limit = isStream ? STREAM_LIMIT_BYTES : Math.min(limitBytes, query.udpBytes);
    const settle = (known: Uint8Array | undefined): void => {
      if (known === undefined) {
        forward(query, limit, isStream, answer);
        return;
      }
      counters.answered++;
      answer(fitAnswer(known, query, limit));
    };
    const ours = answerOwnNames(query, own);
    if (ours !== undefined || list === undefined) settle(ours);
    else list.refresh(() => settle(answerFromList(query, list.records)));
  };

  return {
    isAt,
    ask: (query, limitBytes, answer) => take(query, limitBytes, false, answer),
    askByStream: (query, answer) => take(query, STREAM_LIMIT_BYTES, true, answer),
  };
}
