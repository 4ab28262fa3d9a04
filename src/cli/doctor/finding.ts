/** One thing that the doctor has looked at. */
export interface Finding {
  /** Stable name, for programs. */
  readonly id: string;
  /** `missing`: passel-passt cannot work without; `limited`: something works less well, or not at all. */
  readonly state: 'ok' | 'limited' | 'missing';
  /** What was found. */
  readonly found: string;
  /** What that means and what to do about it; empty where all is well. */
  readonly consequence: string;
  readonly remedy: string;
}

export function fine(id: string, found: string): Finding {
  return { id, state: 'ok', found, consequence: '', remedy: '' };
}

export function limited(id: string, found: string, consequence: string, remedy: string): Finding {
  return { id, state: 'limited', found, consequence, remedy };
}

export function missing(id: string, found: string, consequence: string, remedy: string): Finding {
  return { id, state: 'missing', found, consequence, remedy };
}

/** 0: all that a network for a machine needs is here; 1: something is missing. */
export function exitStatusOf(findings: readonly Finding[]): number {
  return findings.some(({ state }) => state === 'missing') ? 1 : 0;
}

export function formatFindings(findings: readonly Finding[]): string {
  const width = Math.max(...findings.map(({ id }) => id.length));
  const lines: string[] = [];
  for (const { id, state, found, consequence, remedy } of findings) {
    const mark = { ok: 'ok      ', limited: 'limited ', missing: 'MISSING ' }[state];
    const indent = ' '.repeat(mark.length + width + 2);
    lines.push(`${mark}${id.padEnd(width)}  ${found}`);
    if (consequence !== '') lines.push(`${indent}${consequence}`);
    if (remedy !== '') lines.push(`${indent}-> ${remedy}`);
  }
  return `${lines.join('\n')}\n`;
}
