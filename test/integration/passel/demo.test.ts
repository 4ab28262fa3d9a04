/** `passel demo` with the guest that needs nothing of the machine, so that this runs wherever the project is built. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';

const PASSEL = join(resolve(import.meta.dirname, '../../..'), 'dist/helpers/passel.cjs');
const SCENES = [
  'DHCP lease',
  'router advertisement',
  'name resolution',
  'web page over IPv4',
  'web page over IPv6',
  'connection into the guest',
  'host to guest',
  'guest to host',
];

async function runDemo(kind: string): Promise<{ status: number | null; output: string }> {
  const child = spawn(process.execPath, [PASSEL, 'demo', '--guest', kind], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => {
      output += chunk.toString();
    });
  }
  const [status] = (await once(child, 'close')) as [number | null];
  return { status, output };
}

function expectAllShown(output: string, title: RegExp): void {
  expect(output).toMatch(title);
  expect(output).not.toContain('FAIL');
  for (const scene of SCENES) expect(output).toMatch(new RegExp(`^ {2}(ok|- ) +${scene} `, 'm'));
  expect(output).toMatch(/host to guest +\d+\.\d\d Gbit\/s/);
  expect(output).toMatch(/guest to host +\d+\.\d\d Gbit\/s/);
}

describe('the demo on any machine', () => {
  it('shows everything with the built-in guest', async () => {
    const { status, output } = await runDemo('built-in');
    expectAllShown(output, /The guest is a small network host inside this program/);
    expect(status).toBe(0);
  });
});
