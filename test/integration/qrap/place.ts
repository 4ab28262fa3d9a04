/**
 * Where qrap can be run: a mount namespace in which /tmp is the test's own folder, with a passt to find, or none, and stand-ins for
 * QEMU that tell what they were given.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type ServerOpts, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { buildTool, PROJECT_ROOT } from '../../support/native-tools.ts';
import { needCommand, type Requirement } from '../../support/netns/capabilities.ts';

/** Whose qrap: ours, ours without the front, or Debian's. */
export type Which = 'ours' | 'bundle' | 'c';

/** What the stand-in for QEMU told (test/support/fake-qemu). */
export interface Report {
  readonly argv: string[];
  readonly env: string[];
  readonly fds: Record<string, { kind: string; nonBlocking: boolean }>;
  readonly ignored: number[];
  readonly blocked: number[];
  readonly fileLimit: number;
  readonly pid: number;
  readonly unread?: number;
}

export interface Outcome {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  /** The pid that was started. */
  readonly pid: number;
  /** Undefined when no stand-in ran. */
  readonly report: Report | undefined;
}

export interface RunSettings {
  /** Environment; PATH is the folder of the stand-ins by default. */
  readonly env?: Record<string, string>;
  /** Shell text in front of the program, such as `ulimit -Sn 1000;`. */
  readonly before?: string;
  /** Options of env(1), such as `--ignore-signal=HUP`. */
  readonly envOptions?: readonly string[];
  /** Redirections of the program, such as `9</dev/null`. */
  readonly redirections?: string;
}

/** The answer of passt to the probe: an ARP reply from 9a:55:9a:55:9a:55 to everybody. */
export const ARP_ANSWER = Buffer.from(
  `0000002a${'ff'.repeat(6)}9a559a559a5508060001080006040002${'9a55'.repeat(3)}${'00'.repeat(14)}`,
  'hex',
);

const isRoot = process.getuid?.() === 0;
const UNSHARE = isRoot ? ['-m'] : ['-U', '-r', '-m'];

export const needDebianQrap: Requirement = needCommand('qrap', 'passt');

export const needMounts: Requirement = {
  name: 'mounts',
  probe: () => {
    try {
      execFileSync('unshare', [...UNSHARE, 'mount', '--bind', '/tmp', '/tmp'], { stdio: 'pipe' });
      return '';
    } catch (error) {
      return `mount namespaces are not to be had: ${(error as Error).message}`;
    }
  },
};

/** `PLACE` is the folder, `ROOT` the project, which may itself lie below /tmp. */
const ENTER = 'mount --bind "$ROOT" "$PLACE/root" && mount --rbind "$PLACE" /tmp && cd /tmp &&';

export const EXECUTABLES: Record<Which, readonly string[]> = {
  ours: ['/tmp/root/dist/helpers/passel-qrap'],
  bundle: [process.execPath, '/tmp/root/dist/helpers/passel-qrap.cjs'],
  c: ['/usr/bin/qrap'],
};

export class Place {
  readonly folder = mkdtempSync(join(tmpdir(), 'pq-'));
  readonly #servers: Server[] = [];
  readonly #sockets = new Set<Socket>();
  readonly #children: ChildProcess[] = [];
  readonly #waiting = new Map<number, (outcome: Omit<Outcome, 'report'>) => void>();
  #agent: ChildProcess | undefined;
  #lastId = 0;
  #alien: string[] | undefined;

  /** @param programs names of stand-ins in the folder `bin` */
  constructor(programs: readonly string[] = ['kvm', 'qemu-kvm', 'qemu-system-x86_64']) {
    mkdirSync(join(this.folder, 'root'));
    mkdirSync(join(this.folder, 'bin'));
    for (const name of programs) this.addProgram(`bin/${name}`);
  }

  addProgram(path: string): void {
    copyFileSync(buildTool('fake-qemu'), join(this.folder, path));
  }

  /** A passt without guest at /tmp/passt_NUMBER.socket. */
  async addPasst(number = 1): Promise<void> {
    const stub = join(import.meta.dirname, 'passt-stub.mjs');
    const child = spawn(process.execPath, [stub, this.pathOf(number), ARP_ANSWER.toString('hex')], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.#children.push(child);
    await once(child.stdout, 'data');
  }

  /** Listens on /tmp/passt_NUMBER.socket with a behaviour of the test's choice. */
  async listen(number: number, onConnection: (socket: Socket) => void, options: ServerOpts = {}): Promise<Server> {
    const server = createServer(options, (socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
      // A peer that goes away is an ordinary thing here.
      socket.on('error', () => {});
      onConnection(socket);
    });
    this.#servers.push(server);
    server.listen(this.pathOf(number));
    await once(server, 'listening');
    return server;
  }

  /** Where /tmp/passt_NUMBER.socket is outside. */
  pathOf(number: number): string {
    return join(this.folder, `passt_${number}.socket`);
  }

  /** Starts a command inside. */
  start(command: readonly string[], settings: RunSettings = {}): ChildProcess {
    const { before = '', envOptions = [], redirections = '', env = {} } = settings;
    const variables = Object.entries({ PATH: '/tmp/bin', ...env }).map(([name, value]) => `${name}=${value}`);
    const script = `${ENTER} { ${before} exec /usr/bin/env -i "$@" ${redirections}; }`;
    return spawn(
      'unshare',
      [...UNSHARE, 'bash', '--norc', '-c', script, 'bash', ...envOptions, ...variables, ...command],
      {
        stdio: ['ignore', 'pipe', 'pipe'],
        env: { PATH: process.env['PATH'] ?? '', PLACE: this.folder, ROOT: PROJECT_ROOT },
      },
    );
  }

  run(which: Which, words: readonly string[], settings: RunSettings = {}): Promise<Outcome> {
    return this.runCommand([...EXECUTABLES[which], ...words], settings);
  }

  /** Runs a command to its end. */
  async runCommand(command: readonly string[], settings: RunSettings = {}): Promise<Outcome> {
    const child = this.start(command, settings);
    const output = { stdout: '', stderr: '' };
    for (const name of ['stdout', 'stderr'] as const) {
      child[name]?.on('data', (chunk: Buffer) => {
        output[name] += chunk.toString();
      });
    }
    const [status, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
    const report = output.stdout.startsWith('{') ? (JSON.parse(output.stdout) as Report) : undefined;
    for (const fd of this.#alien ?? []) delete report?.fds[fd];
    return { status, signal, ...output, pid: child.pid!, report };
  }

  /** Like {@link run}, but from one process that stays inside: quicker, and with nothing special about the caller. */
  async runFromInside(which: Which, words: readonly string[]): Promise<Outcome> {
    this.#agent ??= this.#startAgent();
    const id = ++this.#lastId;
    const answer = new Promise<Omit<Outcome, 'report'>>((resolve) => this.#waiting.set(id, resolve));
    const request = { id, command: [...EXECUTABLES[which], ...words], env: { PATH: '/tmp/bin' } };
    this.#agent.stdin!.write(`${JSON.stringify(request)}\n`);
    const outcome = await answer;
    const { stdout } = outcome;
    return { ...outcome, report: stdout.startsWith('{') ? (JSON.parse(stdout) as Report) : undefined };
  }

  #startAgent(): ChildProcess {
    const script = `${ENTER} exec "$@"`;
    const command = [process.execPath, '/tmp/root/test/integration/qrap/place-agent.mjs'];
    const child = spawn('unshare', [...UNSHARE, 'bash', '--norc', '-c', script, 'bash', ...command], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { PATH: process.env['PATH'] ?? '', PLACE: this.folder, ROOT: PROJECT_ROOT },
    });
    this.#children.push(child);
    createInterface({ input: child.stdout }).on('line', (line) => {
      const { id, ...outcome } = JSON.parse(line) as Omit<Outcome, 'report'> & { id: number };
      this.#waiting.get(id)?.(outcome);
      this.#waiting.delete(id);
    });
    return child;
  }

  /** Leaves out of all reports what the test process itself has inherited from whoever started it. */
  async ignoreInherited(): Promise<void> {
    const { report } = await this.runCommand(['/tmp/bin/kvm']);
    this.#alien = Object.keys(report!.fds).filter((fd) => Number(fd) > 2);
  }

  close(): void {
    for (const child of this.#children) child.stdin?.end();
    for (const server of this.#servers) server.close();
    for (const socket of this.#sockets) socket.destroy();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
