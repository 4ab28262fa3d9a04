/**
 * What the guest meets at addresses of its own network: commands, sockets of the host, and the files of the TFTP server. A process of its
 * own opens them, started while that can still be done.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Arena } from '../../base/arena.ts';
import { PasselError, reasonOf } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import type { GuestServices } from '../../stack/ports.ts';
import type { NativeAddon } from '../../sys/native-addon.ts';
import { type AgentService, type AnswerHandler, type ServicesAgent, startServicesAgent } from '../../sys/services.ts';
import type { ServicesConfig } from '../network-config.ts';

const EIO = -5;

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
  close(): void;
}

/** @throws PasselError when the TFTP server's folder cannot be opened, or the process cannot be started */
export function openServices(config: ServicesConfig, options: ServicesOptions): OpenServices {
  const { native, arena, log, user, ownMounts, isQuiet } = options;
  const { guestForwards, tftpFolder } = config;
  // A process is asked for what is no address; numbers are those of the rules.
  const services: AgentService[] = guestForwards.map(({ to }) => {
    if (to.kind === 'command') return to;
    // Addresses are never asked for; something has to have their number.
    return { kind: 'unix', path: to.kind === 'unix' ? resolve(to.path) : '/' };
  });
  const folderFd = tftpFolder === '' ? -1 : openFolder(resolve(tftpFolder));
  let agent: ServicesAgent;
  try {
    agent = startServicesAgent(native, { services, folderFd, user, ownMounts, isQuiet });
  } catch (error) {
    throw new PasselError('PASSEL_E_SERVICES', { reason: reasonOf(error) }, { cause: error });
  } finally {
    if (folderFd >= 0) closeSync(folderFd);
  }
  const numbers = new Map(
    guestForwards.map(({ address, port }, number) => [address * 65536 + port, number]).reverse() as [number, number][],
  );
  return {
    fd: agent.fd,
    find(address, port) {
      if (address[0] !== 0 || address[1] !== 0 || address[2] !== 0xffff) return -1;
      return numbers.get(address[3]! * 65536 + port) ?? -1;
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
        agent.close();
      }
    },
    close: () => agent.close(),
  };
}

function openFolder(path: string): number {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  } catch (error) {
    const values = { option: '--user-net tftp', value: path, reason: reasonOf(error) };
    throw new PasselError('PASSEL_E_FILE', values, { cause: error });
  }
}
