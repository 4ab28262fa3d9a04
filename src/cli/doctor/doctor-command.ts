/** `passel doctor`: what this machine allows its present user, each finding with its consequence and its remedy. */
import { PasselError, printable } from '../../base/errors.ts';
import { DOCTOR_OPTIONS } from '../options/doctor-options.ts';
import { scanOptions } from '../options/scan.ts';
import { exitStatusOf, formatFindings } from './finding.ts';
import { examineMachine } from './probe.ts';

/** @returns 0 when all that a network for a machine needs is here, else 1 */
export async function runDoctorCommand(argv: readonly string[]): Promise<number> {
  const given = scanOptions(DOCTOR_OPTIONS, argv);
  if (given.has('help')) {
    const { formatHelp } = await import('../options/help.ts');
    process.stdout.write(await formatHelp('passel doctor [OPTION]...', DOCTOR_OPTIONS));
    return 0;
  }
  const [operand] = given.operands;
  if (operand !== undefined) throw new PasselError('PASSEL_E_OPERAND', { value: operand, expected: 'options only' });
  const findings = examineMachine();
  const shown = findings.map((finding) => ({ ...finding, found: printable(finding.found) }));
  process.stdout.write(given.has('json') ? `${JSON.stringify({ findings: shown })}\n` : formatFindings(shown));
  return exitStatusOf(findings);
}
