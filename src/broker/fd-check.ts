/** What the broker looks for in a descriptor before it keeps or hands it out. */
import type { FdFacts } from '../sys/fd-facts.ts';
import { BrokerError, type FdExpectation } from './protocol.ts';

/**
 * @param which - the descriptor's place in the message, for the message of the error
 * @throws BrokerError `fd-kind`
 */
export function checkExpectation(facts: FdFacts, expected: FdExpectation, which: number): void {
  const { kind, access, family, type, listening } = expected;
  const refuse = (what: string, found: unknown, wanted: unknown): never => {
    throw new BrokerError('fd-kind', `descriptor ${which}: ${what} is ${found}, expected ${wanted}`);
  };
  if (kind !== undefined && facts.kind !== kind) refuse('kind', facts.kind, kind);
  if (access !== undefined && facts.access !== access && facts.access !== 'read-write') {
    refuse('access', facts.access, access);
  }
  if (family !== undefined && facts.family !== family) refuse('family', facts.family ?? 'none', family);
  if (type !== undefined && facts.type !== type) refuse('type', facts.type ?? 'none', type);
  if (listening !== undefined && (facts.listening ?? false) !== listening) {
    refuse('listening', facts.listening ?? false, listening);
  }
}

/**
 * Descriptors that are never taken: a folder lets its holder leave a confined place (openat of `..`), and one that only names a file
 * (O_PATH) has its rights decided elsewhere.
 * @throws BrokerError `fd-kind`
 */
export function checkKeepable(facts: FdFacts, which: number): void {
  if (facts.pathOnly) throw new BrokerError('fd-kind', `descriptor ${which} only names a file (O_PATH)`);
  if (facts.kind === 'directory') throw new BrokerError('fd-kind', `descriptor ${which} is a directory`);
}
