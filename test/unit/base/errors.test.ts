import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { ERROR_TABLE, PasselError, printable, reasonOf } from '../../../src/base/errors.ts';
import { createLogGate, type Logger, silentLogger, warnGated } from '../../../src/base/logger.ts';

describe('errors', () => {
  it('carry code, exit status and a filled message', () => {
    const error = new PasselError('PASSEL_E_RUN_NOT_FOUND', { value: 'qemu', reason: 'no such file' });
    expect([error.code, error.exitStatus, error.message]).toEqual([
      'PASSEL_E_RUN_NOT_FOUND',
      127,
      "cannot run 'qemu': no such file",
    ]);
  });
  it('never put control characters of a value on a terminal', () => {
    const error = new PasselError('PASSEL_E_OPTION_UNKNOWN', { option: '--\u001b[2J\n' });
    expect(error.message).toBe("unknown option '--\\x1b[2J\\x0a'");
    expect(printable('a\tb')).toBe('a\\x09b');
  });
  it('have stable, distinct codes', () => {
    for (const code of Object.keys(ERROR_TABLE)) expect(code).toMatch(/^PASSEL_E_[A-Z]+(_[A-Z]+)*$/);
  });
  it('name a system error without the call around it', () => {
    try {
      readFileSync('/no/such/file');
    } catch (error) {
      expect(reasonOf(error)).toBe('ENOENT: no such file or directory');
    }
    expect(reasonOf(new Error('plain'))).toBe('plain');
    expect(reasonOf('text')).toBe('text');
  });
});

describe('a log gate', () => {
  it('passes one line per interval and tells how many it kept back', () => {
    const lines: string[] = [];
    const logger: Logger = { ...silentLogger, warn: (message) => lines.push(message) };
    const gate = createLogGate(1000);
    for (const nowMs of [0, 10, 999, 1000, 1500]) warnGated(logger, gate, nowMs, 'odd frame');
    expect(lines).toEqual(['odd frame', 'odd frame (2 more like this since the last line)']);
  });
  it('with an infinite interval passes one line ever', () => {
    const lines: string[] = [];
    const logger: Logger = { ...silentLogger, warn: (message) => lines.push(message) };
    const gate = createLogGate(Number.POSITIVE_INFINITY);
    for (const nowMs of [0, 1e9]) warnGated(logger, gate, nowMs, 'once');
    expect(lines).toEqual(['once']);
  });
});
