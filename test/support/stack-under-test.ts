/**
 * Which stack the system tests run against: ours, or Debian's passt as the oracle (PASSEL_STACK=debian).
 */
import { fileURLToPath } from 'node:url';

/** Names of the stacks that the tests know. */
export type StackName = 'ours' | 'debian';

/** How to start the stack: `args` come before the test's own arguments. */
export interface StackCommand {
  command: string;
  args: string[];
  name: StackName;
}

/** The stack chosen by PASSEL_STACK; ours unless it says `debian`. */
export function stackCommand(): StackCommand {
  if (process.env['PASSEL_STACK'] === 'debian') return { command: 'passt', args: [], name: 'debian' };
  const helper = fileURLToPath(new URL('../../dist/helpers/passel-passt.cjs', import.meta.url));
  return { command: process.execPath, args: [helper], name: 'ours' };
}
