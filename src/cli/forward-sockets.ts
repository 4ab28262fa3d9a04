/** The unix sockets of forwards: made before the process gives up what that takes, and so never later. */
import { PasselError } from '../base/errors.ts';
import { describeBadPath, type PortForwardRule } from '../forward/port-spec.ts';
import type { NativeAddon } from '../sys/native-addon.ts';
import { claimSocketPath } from './socket-path.ts';
import { listenAt } from './transport.ts';

const DEFAULT_OPTION = '--tcp-ports';

/** As many files can be removed from inside the sandbox, see src/native/native.h. */
const MAX_PATHS = 32;

/** A name in the abstract namespace has no file. */
export function isAbstract(bindPath: string): boolean {
  return bindPath.startsWith('@');
}

/**
 * Sees that all of them can be listened on, and removes what processes that are gone have left there.
 * @throws PasselError
 */
export async function claimForwardPaths(rules: readonly PortForwardRule[]): Promise<void> {
  const files = rules.filter(({ bindPath }) => bindPath !== undefined && !isAbstract(bindPath));
  for (const [number, { bindPath = '', option = DEFAULT_OPTION }] of files.entries()) {
    const problem = number < MAX_PATHS ? describeBadPath(bindPath) : `there are more than ${MAX_PATHS} of them`;
    if (problem !== undefined) {
      throw new PasselError('PASSEL_E_SOCKET_PATH', { option, value: bindPath, reason: problem });
    }
    await claimSocketPath(bindPath, option);
  }
}

/** @returns the fd, the caller's, as is the file; non-blocking @throws PasselError */
export function openForwardPath(native: NativeAddon, rule: PortForwardRule, backlog: number): number {
  const { bindPath = '', option = DEFAULT_OPTION } = rule;
  const name = isAbstract(bindPath) ? `\0${bindPath.slice(1)}` : bindPath;
  return listenAt(native, name, option, { backlog, shown: bindPath });
}
