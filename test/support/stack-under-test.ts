/**
 * Which passt the integration suites and the benchmark run: ours, or Debian's as the oracle that tells a fault of a test
 * from a fault of the stack. `PASSEL_STACK=debian npx vitest run test/integration/passt`.
 */
import { join } from 'node:path';
import { PROJECT_ROOT } from './native-tools.ts';

/** Names that PASSEL_STACK may have. */
export type StackName = 'ours' | 'debian';

/** How to start a stack: `command`, then `args`, then the options of passt(1). */
export interface StackCommand {
  readonly name: StackName;
  readonly command: string;
  readonly args: readonly string[];
}

/** The stack that `name` stands for; by default the one PASSEL_STACK names, which by default is ours. */
export function stackCommand(name: string = process.env['PASSEL_STACK'] ?? 'ours'): StackCommand {
  switch (name) {
    case 'ours':
      return { name, command: join(PROJECT_ROOT, 'dist/helpers/passel-passt'), args: [] };
    case 'debian':
      return { name, command: process.env['PASSEL_DEBIAN_PASST'] ?? 'passt', args: [] };
    default:
      throw new Error(`PASSEL_STACK is '${name}': use 'ours' or 'debian'`);
  }
}

/** True when the stack under test is Debian's, which is from 2023: newer options and fixes are not in it. */
export function isDebianStack(): boolean {
  return stackCommand().name === 'debian';
}
