import { constants } from 'node:os';
import { describe, expect, it } from 'vitest';
import * as errno from '../../../src/base/errno.ts';

/** Of Linux's, those that Node has no name for (asm-generic/errno.h). */
const WITHOUT_NAME = { ENOEXEC: 8, EBADFD: 77, ETOOMANYREFS: 109 };

describe('errno values', () => {
  it.each(Object.entries(errno))('%s is that of this machine, negated', (name, value) => {
    const known: Record<string, number> = { ...WITHOUT_NAME, ...constants.errno };
    expect(value).toBe(-known[name]!);
  });
});
