/** The log of `passel-fd-broker serve`: who asked for what, who got what, what became of names. */
import { printable } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import type { AuditRecord } from '../../broker/audit.ts';
import type { Restored } from '../../broker/fd-store.ts';
import type { EndReason, KeptName } from '../../broker/registry.ts';
import type { FdFacts } from '../../sys/fd-facts.ts';

/** One line a request. */
export function logRequest(log: Logger, record: AuditRecord): void {
  const { peer, verb, subject, owner, received, sent, facts, made, error } = record;
  const about = subject === undefined ? '' : ` '${printable(subject)}'`;
  const whose = owner === undefined || owner === peer.uid ? '' : ` of user ${owner}`;
  const program = peer.program === undefined ? '' : ` (${printable(peer.program)})`;
  const what = `user ${peer.uid}, process ${peer.pid}${program}: ${verb}${about}${whose}`;
  const kinds = facts.map(describeFacts);
  const fields = {
    uid: peer.uid,
    gid: peer.gid,
    pid: peer.pid,
    program: peer.program,
    startTicks: peer.startTicks,
    verb,
    subject,
    owner,
    received,
    sent,
    kinds,
    made,
    code: error?.code ?? 'ok',
    errno: error?.errno,
  };
  if (error !== undefined) log.warn(`${what}: ${error.code}: ${error.message}`, fields);
  else log.info(`${what}: ${received} in, ${sent} out${kinds.length === 0 ? '' : ` (${summarize(kinds)})`}`, fields);
}

/** A name that ended by itself; what clients end is in their requests. */
export function logEnd(log: Logger, { name, owner }: KeptName, ended: EndReason | undefined): void {
  if (ended === undefined || ended === 'taken' || ended === 'dropped') return;
  log.info(`'${name}' of user ${owner} ended: ${ended}`, { name, owner, ended });
}

/** What a restart brought back. */
export function logRestored(log: Logger, { names, lost }: Pick<Restored, 'names' | 'lost'>): void {
  for (const { owner, name, way, fds } of names) {
    log.info(`'${name}' of user ${owner} is kept again`, { name, owner, kept: fds.length });
    if (way === undefined) continue;
    const whom = `process ${way.pid} of user ${way.uid}`;
    log.warn(`'${name}' of user ${owner} may be with ${whom} already: the broker ended while it was sent`, {
      name,
      owner,
      way,
    });
  }
  for (const { owner, name } of lost) {
    log.warn(`'${name}' of user ${owner} is lost: the service manager did not give all of it back`, { name, owner });
  }
}

function describeFacts({ kind, family, type, listening, access }: FdFacts): string {
  if (kind !== 'socket') return `${kind} ${access}`;
  return `${family} ${type}${listening === true ? ' listening' : ''}`;
}

/** Equal ones counted. */
function summarize(kinds: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const kind of kinds) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  return [...counts].map(([kind, count]) => (count === 1 ? kind : `${count} × ${kind}`)).join(', ');
}
