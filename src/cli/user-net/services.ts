/**
 * What the guest meets at addresses of its own network: commands, sockets of the host, and the files of the TFTP server. A process of its
 * own opens them, started while that can still be done.
 */

import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Arena } from '../../base/arena.ts';
import { EIO } from '../../base/errno.ts';
import { PasselError, reasonOf } from '../../base/errors.ts';
import { isSameIp } from '../../base/ip-text.ts';
import type { Logger } from '../../base/logger.ts';
import { describeBadPath } from '../../forward/port-spec.ts';
import type { GuestForward } from '../../qemu/user-net/guest-forward.ts';
import type { GuestServices } from '../../stack/ports.ts';
import type { NativeAddon } from '../../sys/native-addon.ts';
import { type AgentService, type AnswerHandler, type ServicesAgent, startServicesAgent } from '../../sys/services.ts';
import type { ServicesConfig } from '../network-config.ts';
import { prepareSmb, type SmbServer } from './smb.ts';

export interface ServicesParts {
  readonly native: NativeAddon;
  readonly arena: Arena;
  readonly log: Logger;
}

export interface ServicesOptions extends ServicesParts {
  /** Whom this process is going to become; undefined: nobody else. */
  readonly user: { readonly uid: number; readonly gid: number } | undefined;
  /** This process is going to leave its file systems. */
  readonly ownMounts: boolean;
  /** What commands say on standard error is nobody's to read. */
  readonly isQuiet: boolean;
}

export interface OpenServices extends GuestServices {
  /** Readable when there are answers. */
  readonly fd: number;
  takeAnswers(onAnswer: AnswerHandler): void;
  /** Resolves when nothing is left of them. */
  close(): Promise<void>;
}

/** The ports of SMB: over NetBIOS's session service, and directly. */
const SMB_PORTS = [139, 445];

/** @throws PasselError when a folder cannot be opened, there is no SMB server, or the process cannot be started */
export function openServices(config: ServicesConfig, options: ServicesOptions): OpenServices {
  const { native, arena, log, user, ownMounts, isQuiet } = options;
  const { tftpFolder } = config;
  const folderFd = tftpFolder === '' ? -1 : openFolder(resolve(tftpFolder));
  let smb: SmbServer | undefined;
  let agent: ServicesAgent;
  let guestForwards: readonly ServiceForward[];
  try {
    smb = config.smb === undefined ? undefined : prepareSmb(config.smb.folder, user);
    guestForwards = [...config.guestForwards, ...smbForwards(config, smb)];
    const services = guestForwards.map(({ to }) => toAgentService(to));
    agent = startServicesAgent(native, { services, folderFd, ownFolder: smb?.folder, user, ownMounts, isQuiet });
  } catch (error) {
    smb?.abandon();
    if (error instanceof PasselError) throw error;
    throw new PasselError('PASSEL_E_SERVICES', { reason: reasonOf(error) }, { cause: error });
  } finally {
    if (folderFd >= 0) closeSync(folderFd);
  }
  return {
    fd: agent.fd,
    find(address, port) {
      // The first of several counts. They are few, and asked for once for each connection.
      for (let number = 0; number < guestForwards.length; number++) {
        const forward = guestForwards[number]!;
        if (forward.port === port && isSameIp(forward.address, address)) return number;
      }
      return -1;
    },
    targetOf(service) {
      const to = guestForwards[service]?.to;
      return to?.kind === 'tcp' ? to : undefined;
    },
    connect: (service, index, generation) => agent.connect(service, index, generation),
    openFile: folderFd < 0 ? undefined : (path, index, generation) => agent.openFile(path, index, generation),
    fileBytes(fd) {
      try {
        return fstatSync(fd).size;
      } catch {
        return EIO;
      }
    },
    readFile(fd, offset, lengthBytes, position) {
      try {
        return readSync(fd, arena.bytes, offset, lengthBytes, position);
      } catch {
        return EIO;
      }
    },
    takeAnswers(onAnswer) {
      try {
        agent.takeAnswers(onAnswer);
      } catch (error) {
        log.error(`services of the guest's network are gone: ${reasonOf(error)}`);
        void agent.close();
      }
    },
    close: () => agent.close(),
  };
}

/** Also with what no rule of the user's says. */
interface ServiceForward extends Omit<GuestForward, 'to'> {
  readonly to: GuestForward['to'] | AgentService;
}

function smbForwards({ smb }: ServicesConfig, server: SmbServer | undefined): ServiceForward[] {
  if (smb === undefined || server === undefined) return [];
  const to: AgentService = { kind: 'command', words: server.words, wantsTcp: true };
  return SMB_PORTS.map((port) => ({ address: smb.server, port, to }));
}

/** A process is asked for what is no address; numbers are those of the rules. */
function toAgentService(to: ServiceForward['to']): AgentService {
  if (to.kind === 'command') return to;
  // Addresses are never asked for; something has to have their number.
  if (to.kind === 'tcp') return { kind: 'unix', path: '/' };
  const path = to.path.startsWith('@') ? to.path : resolve(to.path);
  const problem = describeBadPath(path);
  if (problem === undefined) return { kind: 'unix', path };
  throw new PasselError('PASSEL_E_GUEST_FORWARD', { value: path, reason: problem });
}

function openFolder(path: string): number {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  } catch (error) {
    const values = { option: '--user-net tftp', value: path, reason: reasonOf(error) };
    throw new PasselError('PASSEL_E_FILE', values, { cause: error });
  }
}
