/** What --print shows: the command line, ready for a shell, and behind it as comments what was changed and why. */
import type { QrapPlan } from '../../qemu/qrap/plan.ts';

/** @param name - the program's name, @param found - where it is, or why it is not */
export function formatPlan(plan: QrapPlan, name: string, found: string): string {
  const comments = [`QEMU: ${found}`, `descriptor of the passt socket: ${plan.fd}`];
  for (const { kind, words, reason } of plan.changes) {
    comments.push(`${kind}: ${words.length === 0 ? reason : `${formatWords(words)} (${reason})`}`);
  }
  // A word may hold a line break.
  const lines = comments.flatMap((comment) => comment.split('\n'));
  return `${formatWords([name, ...plan.args])}\n${lines.map((line) => `# ${line}\n`).join('')}`;
}

function formatWords(words: readonly string[]): string {
  return words.map(quote).join(' ');
}

/** A word as a POSIX shell reads it back. */
function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
