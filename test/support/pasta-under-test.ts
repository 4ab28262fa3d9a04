/**
 * Which pasta the suites in test/integration/pasta run: ours, or Debian's as the oracle, by PASSEL_STACK as for passt.
 * `PASSEL_STACK=debian npx vitest run test/integration/pasta`.
 */
import { join } from 'node:path';
import { PROJECT_ROOT } from './native-tools.ts';
import { isDebianStack, type StackCommand } from './stack-under-test.ts';

/** The pasta that PASSEL_STACK stands for. */
export function pastaCommand(): StackCommand {
  if (isDebianStack()) return { name: 'debian', command: process.env['PASSEL_DEBIAN_PASTA'] ?? 'pasta', args: [] };
  return { name: 'ours', command: process.execPath, args: [join(PROJECT_ROOT, 'dist/helpers/passel-pasta.cjs')] };
}
