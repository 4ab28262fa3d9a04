/** The places that messages go to: the file that keeps its size, and the system's logger. */
import { mkdtempSync, readFileSync, rmSync, statSync, unlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openLogger } from '../../../src/cli/logging.ts';
import { openLogFile } from '../../../src/cli/logging-file.ts';
import { formatSyslogMessage, openSyslog } from '../../../src/cli/logging-syslog.ts';
import { waitUntil } from '../../support/netns/process.ts';
import { openSystemLogger, type SystemLogger } from '../../support/system-logger.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'passel-logging-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

describe('a log file', () => {
  it('has its first line and the newest one at all times, and never more than its limit', () => {
    const path = join(folder, 'log');
    const file = openLogFile('passel-passt', path, 4096);
    const [header] = readFileSync(path, 'utf8').split('\n');
    let shrunk = 0;
    let sizeBefore = 0;
    for (let i = 0; i < 1000; i++) {
      file.write(`line ${i}, which is so long\n`);
      const text = readFileSync(path, 'utf8');
      expect(text.length).toBeLessThanOrEqual(4096);
      expect(text.startsWith(`${header}\nline `)).toBe(true);
      expect(text.endsWith(`line ${i}, which is so long\n`)).toBe(true);
      if (text.length < sizeBefore) shrunk++;
      sizeBefore = text.length;
    }
    file.close();
    expect(shrunk).toBeGreaterThan(5);
    const numbers = readFileSync(path, 'utf8')
      .match(/(?<=^line )\d+/gm)!
      .map(Number);
    // Nothing between the oldest and the newest that are kept is missing.
    expect(numbers).toEqual(numbers.map((_number, i) => numbers[0]! + i));
    expect(numbers.length).toBeGreaterThan(50);
  });
  it('replaces what an earlier run left, and is for its owner only', () => {
    const path = join(folder, 'log');
    const first = openLogFile('one', path, 4096);
    first.write('of the first\n');
    first.close();
    openLogFile('two', path, 4096).close();
    expect(readFileSync(path, 'utf8')).toMatch(/^two [^\n]*\n$/);
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });
  it('leaves out a line that is longer than all of it', () => {
    const path = join(folder, 'log');
    const file = openLogFile('passel-passt', path, 4096);
    file.write('first\n');
    file.write(`${'x'.repeat(5000)}\n`);
    file.write('last\n');
    file.close();
    expect(readFileSync(path, 'utf8')).not.toContain('xxx');
    expect(readFileSync(path, 'utf8')).toMatch(/\nlast\n$/);
  });
});

describe("a message for the system's logger", () => {
  it('has facility and severity, local time, program, PID and text, as RFC 3164 wants them', () => {
    const time = new Date(2026, 1, 3, 4, 5, 6);
    const message = (level: 'error' | 'warn' | 'info' | 'debug'): string =>
      formatSyslogMessage('passel-passt', level, 'a text', time).toString();
    expect(message('info')).toBe(`<30>Feb  3 04:05:06 passel-passt[${process.pid}]: a text`);
    expect(message('warn')).toMatch(/^<28>/);
    expect(message('error')).toMatch(/^<27>/);
    expect(message('debug')).toMatch(/^<31>/);
    expect(formatSyslogMessage('p', 'info', '', new Date(2026, 11, 31, 23, 59, 58)).toString()).toMatch(
      /^<30>Dec 31 23:59:58 p\[/,
    );
  });
});

describe("the system's logger", () => {
  let path: string;
  let logger: SystemLogger | undefined;
  beforeEach(() => {
    path = join(folder, 'socket');
  });
  afterEach(() => {
    logger?.close();
    logger = undefined;
  });
  const texts = (): string[] => logger!.messages.map((message) => message.replace(/^.*?\]: /, ''));

  it('is not there where nobody listens, be there a socket or not', () => {
    expect(openSyslog('p', path)).toBeUndefined();
    openSystemLogger(path).close();
    expect(openSyslog('p', path)).toBeUndefined();
  });
  it('gets every message by itself', async () => {
    logger = openSystemLogger(path);
    const syslog = openSyslog('p', path)!;
    syslog.send('info', 'one');
    syslog.send('warn', 'two');
    await waitUntil('both', () => logger!.messages.length === 2);
    expect(texts()).toEqual(['one', 'two']);
    syslog.close();
  });
  it('that does not read holds up nobody, and hears how much it missed', async () => {
    logger = openSystemLogger(path);
    const syslog = openSyslog('p', path)!;
    // It reads in this process, so not before the loop turns; the kernel keeps some hundred datagrams.
    const SENT = 5000;
    for (let i = 0; i < SENT; i++) syslog.send('info', `message ${i}`);
    const arrived = await waitForQuiet(logger);
    expect(arrived).toBeGreaterThan(0);
    expect(arrived).toBeLessThan(SENT);
    syslog.send('info', 'afterwards');
    await waitUntil('the last', () => texts().at(-1) === 'afterwards');
    const told = texts().at(-2)!;
    expect(told).toBe(`messages lost before this one, which the system's logger did not take: ${SENT - arrived}`);
    expect(logger.messages.at(-2)).toMatch(/^<28>/);
    syslog.close();
  });
  it('is found again when it was started anew, and what was said meanwhile is counted', async () => {
    logger = openSystemLogger(path);
    const syslog = openSyslog('p', path)!;
    logger.close();
    unlinkSync(path);
    syslog.send('info', 'to nobody');
    logger = openSystemLogger(path);
    syslog.send('info', 'to the new one');
    await waitUntil('the last', () => texts().at(-1) === 'to the new one');
    expect(texts()[0]).toMatch(/^messages lost before this one.*: 1$/);
    syslog.close();
  });
});

describe('a logger in the background', () => {
  it('does without the file that it was not given, and writes to standard error too', () => {
    const lines: string[] = [];
    const config = { level: 'info', format: 'text', filePath: undefined, fileMaxBytes: 4096 } as const;
    const logger = openLogger('p', config, (line) => lines.push(line), true);
    logger.warn('a warning');
    logger.close();
    logger.warn('after its end');
    expect(lines).toEqual(['warn: a warning\n']);
  });
});

/** Waits until nothing more arrives. @returns how many did */
async function waitForQuiet(logger: SystemLogger): Promise<number> {
  let before = -1;
  await waitUntil(
    'quiet',
    async () => {
      const now = logger.messages.length;
      const quiet = now > 0 && now === before;
      before = now;
      return quiet;
    },
    5_000,
    100,
  );
  return before;
}
