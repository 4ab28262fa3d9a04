/**
 * What this machine can do, for suites that need more than Node: each probe answers with a reason when it cannot.
 *
 * A suite that cannot run says why and is left out. With CI=true it fails instead, since a suite nobody runs protects
 * nobody; PASSEL_MAY_SKIP names, separated by commas, the requirements that a CI machine is known not to have.
 */
import { execFileSync } from 'node:child_process';
import { accessSync, closeSync, constants, openSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { describe, it } from 'vitest';

/** Why a requirement is not met, or '' when it is. */
export type Reason = string;

/** A probe: cheap enough to run when a test file is loaded; may be asynchronous (fetching a kernel). */
export interface Requirement {
  /** Stable name, for PASSEL_MAY_SKIP. */
  readonly name: string;
  probe(): Reason | Promise<Reason>;
}

/** Path of `command` in PATH and the system's sbin folders (which an ordinary user's PATH often lacks), or ''. */
export function findCommand(command: string): string {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin', '/usr/local/sbin'];
  for (const folder of folders) {
    const path = join(folder, command);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // Not here.
    }
  }
  return '';
}

/** The command can be found; `packageName` is what Debian calls the package that has it. */
export function needCommand(command: string, packageName: string): Requirement {
  return {
    name: command,
    probe: () => (findCommand(command) === '' ? `${command} is not installed (Debian: ${packageName})` : ''),
  };
}

/** The user is root. */
export const needRoot: Requirement = {
  name: 'root',
  probe: () => (process.getuid?.() === 0 ? '' : 'needs root'),
};

/** Network namespaces can be made, as root or through a user namespace. */
export const needNamespaces: Requirement = {
  name: 'namespaces',
  probe: () => {
    for (const [command, packageName] of [
      ['unshare', 'util-linux'],
      ['nsenter', 'util-linux'],
      ['ip', 'iproute2'],
    ] as const) {
      if (findCommand(command) === '') return `${command} is not installed (Debian: ${packageName})`;
    }
    const options = process.getuid?.() === 0 ? ['-n', '-m'] : ['-U', '-r', '-n', '-m'];
    return probeByRunning('unshare', [...options, '--', 'ip', 'link', 'set', 'lo', 'up'], 'network namespaces');
  },
};

/** Veth pairs can be made in a namespace. */
export const needVeth: Requirement = {
  name: 'veth',
  probe: () => {
    const options = process.getuid?.() === 0 ? ['-n'] : ['-U', '-r', '-n'];
    return probeByRunning('unshare', [...options, '--', 'ip', 'link', 'add', 'type', 'veth'], 'veth pairs');
  },
};

/** /dev/net/tun can be opened. */
export const needTun: Requirement = {
  name: 'tun',
  probe: () => {
    try {
      closeSync(openSync('/dev/net/tun', constants.O_RDWR));
      return '';
    } catch (error) {
      return `/dev/net/tun cannot be opened: ${(error as Error).message}`;
    }
  },
};

/** QEMU for this machine's guests. */
export const needQemu: Requirement = needCommand('qemu-system-x86_64', 'qemu-system-x86');

function probeByRunning(command: string, args: string[], what: string): Reason {
  try {
    execFileSync(command, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    return '';
  } catch (error) {
    const { stderr, message } = error as Error & { stderr?: Buffer };
    return `${what} cannot be made: ${stderr?.toString().trim() || message}`;
  }
}

/** A `describe` that knows whether its requirements are met. */
export type SuiteFunction = (name: string, body: () => void) => void;

/**
 * Answers with a `describe` for suites with these requirements: the real one; one that leaves the suite out with the
 * reason in its name; or, with CI=true, one whose only test fails with the reason. Use with top-level await.
 */
export async function requireOrSkip(...requirements: Requirement[]): Promise<SuiteFunction> {
  const mayBeMissing = (process.env['PASSEL_MAY_SKIP'] ?? '').split(',');
  const reasons: string[] = [];
  let mustFail = false;
  for (const requirement of requirements) {
    const reason = await requirement.probe();
    if (reason === '') continue;
    reasons.push(reason);
    if (process.env['CI'] === 'true' && !mayBeMissing.includes(requirement.name)) mustFail = true;
  }
  if (reasons.length === 0) return describe;
  const text = reasons.join('; ');
  if (mustFail) {
    return (name) => {
      describe(name, () => {
        it('has what it needs to run', () => {
          throw new Error(`cannot run on this machine, and CI=true: ${text}`);
        });
      });
    };
  }
  return (name, body) => {
    // The default reporter does not show the names of suites that are left out.
    console.warn(`left out: ${name}: ${text}`);
    describe.runIf(false)(`${name} (cannot run here: ${text})`, body);
  };
}
