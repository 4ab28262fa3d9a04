/**
 * The isolated host of netns/host.ts for pasta, which is the program of an ordinary user: a root test runner starts it as
 * `nobody`, whom /dev/net/tun of this host lets in; another runner is an ordinary user already.
 */
import { type ChildProcess, execFileSync } from 'node:child_process';
import { once } from 'node:events';
import type { Readable } from 'node:stream';
import { needCommand, needNamespaces, needTun, needVeth, type Requirement } from './netns/capabilities.ts';
import { createHost, type Host, type HostOptions } from './netns/host.ts';
import type { Namespace } from './netns/namespace.ts';
import { stopChild, waitForExit } from './netns/process.ts';
import { pastaCommand } from './pasta-under-test.ts';

const IS_ROOT = process.getuid?.() === 0;

/** The user whose program pasta is: `nobody` for a root runner. */
export const PASTA_UID = IS_ROOT ? 65534 : (process.getuid?.() ?? 0);

const AS_USER = IS_ROOT ? ['setpriv', `--reuid=${PASTA_UID}`, `--regid=${PASTA_UID}`, '--clear-groups', '--'] : [];

/** That user can run the pasta under test: not so when the project is in a folder that only root may enter. */
const needPasta: Requirement = {
  name: 'pasta',
  probe: () => {
    const { command, args } = pastaCommand();
    const line = [...AS_USER, command, ...args, '--version'];
    try {
      execFileSync(line[0] as string, line.slice(1), { stdio: ['ignore', 'ignore', 'pipe'] });
      return '';
    } catch (error) {
      const { stderr, message } = error as Error & { stderr?: Buffer };
      return `an ordinary user cannot run ${[command, ...args].join(' ')}: ${stderr?.toString().trim() || message}`;
    }
  },
};

/** What a suite over {@link createPastaHost} needs. */
export const PASTA_REQUIREMENTS: readonly Requirement[] = [
  needNamespaces,
  needVeth,
  needTun,
  needCommand('setpriv', 'util-linux'),
  needPasta,
];

/** What a guest of pasta is to a test: the part of a namespace that somebody else owns. */
export type Guest = Pick<Namespace, 'name' | 'pid' | 'enter' | 'run' | 'sh' | 'spawn'>;

/** A host and the ways to be its ordinary user. */
export interface PastaHost extends Host {
  /** The host as its ordinary user sees it: what runs there runs as that user. */
  readonly user: Guest;
  /** A network namespace that belongs to a user namespace of the ordinary user, known by a process in both. */
  adopt(name: string, pid: number): Guest;
  /**
   * A network namespace of the ordinary user with loopback up and nothing else, for a pasta that joins it. It lives until
   * {@link OwnGuest.close}, or the host's end.
   */
  createGuest(name?: string): Promise<OwnGuest>;
}

/** A guest that no pasta made. */
export interface OwnGuest extends Guest {
  /** Ends the process that holds the namespace; what else has it open keeps it. */
  close(): Promise<void>;
}

/** Builds the host. */
export async function createPastaHost(options?: HostOptions): Promise<PastaHost> {
  const host = await createHost(options);
  try {
    if (IS_ROOT) {
      const device = `${host.directory}/dev`;
      await host.sh(
        [
          `mkdir ${device}`,
          `mount -t tmpfs tmpfs ${device}`,
          `mknod -m 666 ${device}/tun c 10 200`,
          `mount --bind ${device}/tun /dev/net/tun`,
        ].join('\n'),
      );
    }
  } catch (error) {
    await host.close();
    throw error;
  }
  const user = wrapNamespace(host, 'user', host.pid, AS_USER);
  const adopt = (name: string, pid: number): Guest =>
    wrapNamespace(host, name, pid, [
      ...AS_USER,
      ...['nsenter', '--preserve-credentials', '-t', String(pid), '-U', '-n', '--'],
    ]);
  const createGuest = async (name = 'guest'): Promise<OwnGuest> => {
    const child = user.spawn('unshare', ['-U', '-r', '-n', '--', 'cat'], { stdio: ['pipe', 'pipe', 'inherit'] });
    await awaitEcho(child);
    const guest = adopt(name, child.pid as number);
    await guest.sh('ip link set lo up');
    const close = async (): Promise<void> => {
      await stopChild(child);
    };
    return { ...guest, close };
  };
  return { ...host, user, adopt, createGuest };
}

/** Runs things in `host` behind `prefix`. */
function wrapNamespace(host: Host, name: string, pid: number, prefix: readonly string[]): Guest {
  const wrap = (command: string, args: readonly string[]): [string, string[]] => {
    const [program, ...rest] = [...prefix, command, ...args];
    return [program as string, rest];
  };
  const run: Guest['run'] = (command, args, options) => host.run(...wrap(command, args), options);
  return {
    name,
    pid,
    enter: (command, args, cwd) => host.enter(...wrap(command, args), cwd),
    run,
    sh: (script, options) => run('sh', ['-e', '-c', script], options),
    spawn: (command, args, options) => host.spawn(...wrap(command, args), options),
  };
}

/** Waits until `child`, a `cat` or something around one, sends back what it is sent. */
export async function awaitEcho(child: ChildProcess): Promise<void> {
  const answered = once(child.stdout as Readable, 'data').then(() => true);
  child.stdin?.on('error', () => {});
  child.stdin?.write('ready\n');
  if (!(await Promise.race([answered, waitForExit(child).then(() => false)]))) {
    throw new Error(`it ended with status ${await waitForExit(child)} before its command ran`);
  }
}
