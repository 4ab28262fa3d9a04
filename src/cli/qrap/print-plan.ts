/** What --print shows: the command line, ready for a shell, and behind it as comments what was changed and why. */
import type { QrapPlan } from '../../qemu/qrap/plan.ts';

/** @param name - the program's name, @param found - where it is, or why it is not */
export function formatPlan(plan: QrapPlan, name: string, found: string): string {
  const lines = [
    [name, ...plan.args].map(quote).join(' '),
    `# QEMU: ${found}`,
    `# descriptor of the passt socket: ${plan.fd}`,
  ];
  for (const { kind, words, reason } of plan.changes) {
    lines.push(`# ${kind}: ${words.length === 0 ? reason : `${words.map(quote).join(' ')} (${reason})`}`);
  }
  return `${lines.map((line) => line.replaceAll('\n', '\n# ')).join('\n')}\n`;
}

/** A word as a POSIX shell reads it back. */
function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
