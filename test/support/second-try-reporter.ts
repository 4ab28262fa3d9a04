// Lists, at the end of a run, the tests that passed only at a second try: a race to look for, not a success to forget.
import type { Reporter, TestCase } from 'vitest/node';

export default class SecondTryReporter implements Reporter {
  readonly #lines: string[] = [];

  onTestCaseResult(test: TestCase): void {
    if (!test.diagnostic()?.flaky) return;
    const reasons = test.result().errors?.map((error) => error.message.split('\n')[0]) ?? [];
    this.#lines.push(
      `  ${test.module.moduleId.replace(`${process.cwd()}/`, '')} > ${test.fullName}: ${reasons.join('; ')}`,
    );
  }

  onTestRunEnd(): void {
    if (this.#lines.length === 0) return;
    process.stdout.write(`Passed at the second try only:\n${this.#lines.join('\n')}\n`);
  }
}
