// Runs commands inside a place (place.ts) for tests that run many: entering a namespace costs more than C's qrap. Reads lines of
// JSON `{ id, command, env }`, answers lines `{ id, status, signal, stdout, stderr, pid }`. Ends with its standard input.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

createInterface({ input: process.stdin }).on('line', (line) => {
  const { id, command, env } = JSON.parse(line);
  const child = spawn(command[0], command.slice(1), { env, stdio: ['ignore', 'pipe', 'pipe'] });
  const output = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr']) {
    child[name].setEncoding('utf8').on('data', (text) => {
      output[name] += text;
    });
  }
  child.on('error', (error) => {
    output.stderr += error.message;
  });
  child.on('close', (status, signal) => {
    process.stdout.write(`${JSON.stringify({ id, status, signal, ...output, pid: child.pid })}\n`);
  });
});
