/** What the log of requests is told. */
import type { FdFacts } from '../sys/fd-facts.ts';
import type { Peer } from './policy.ts';
import type { BrokerError, BrokerRequest } from './protocol.ts';

/** What a request came to, for the audit log: told when the answer has left, or cannot. */
export interface AuditRecord {
  readonly peer: Peer;
  readonly verb: string;
  /** Name, path, bridge: what it was about. */
  readonly subject: string | undefined;
  /** Whose name, if it is not the peer's. */
  readonly owner: number | undefined;
  /** Descriptors received and sent. */
  readonly received: number;
  readonly sent: number;
  /** What the descriptors are that were given, made or sent. */
  readonly facts: readonly FdFacts[];
  /** What was made, in a tap's or network's words. */
  readonly made: Readonly<Record<string, unknown>> | undefined;
  /** Undefined: done. */
  readonly error: BrokerError | undefined;
}

/** What an answer came to. */
export type Outcome = Pick<AuditRecord, 'received' | 'sent' | 'facts' | 'made' | 'error'>;

/** @param request - undefined: it could not be read */
export function describeRequest(peer: Peer, request: BrokerRequest | undefined, outcome: Outcome): AuditRecord {
  const owner = request !== undefined && 'owner' in request.asked ? request.asked.owner : undefined;
  return { peer, verb: request?.verb ?? '?', subject: subjectOf(request), owner, ...outcome };
}

function subjectOf(request: BrokerRequest | undefined): string | undefined {
  if (request === undefined) return undefined;
  const { asked } = request;
  if ('path' in asked) return asked.path;
  if ('bridge' in asked) return asked.bridge;
  if ('network' in asked) return asked.network;
  if ('place' in asked)
    return asked.place.family === 'unix' ? asked.place.path : `${asked.place.address} ${asked.place.port}`;
  return 'name' in asked ? asked.name : undefined;
}
