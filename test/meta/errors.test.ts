import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { expect, it } from 'vitest';
import { ERROR_TABLE } from '../../src/base/errors.ts';

const src = resolve(import.meta.dirname, '../../src');

it('every code of the error table is used somewhere, and no message is made beside it', () => {
  const files = readdirSync(src, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'));
  const text = files
    .filter((name) => name !== 'base/errors.ts')
    .map((name) => readFileSync(join(src, name), 'utf8'))
    .join('\n');
  const used = new Set(text.match(/PASSEL_E_[A-Z_]*[A-Z]/g));
  expect([...used].sort()).toEqual(Object.keys(ERROR_TABLE).sort());
});
