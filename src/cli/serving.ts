/** What the commands that serve a guest have in common. */
import { PasselError, reasonOf } from '../base/errors.ts';
import { formatIp, formatIpv4 } from '../base/ip-text.ts';
import type { Logger } from '../base/logger.ts';
import type { NetworkConfig } from './network-config.ts';

/** Said when a process is to keep what it could give up. */
export const NO_SANDBOX_WARNING =
  '--no-sandbox: whoever takes over this process can do all that its user can; this is for debugging only';

/** A fault of ours must not pass unnoticed in the background, and a stack in an unknown state must not go on. */
export function endOnFault(error: unknown, logger: Logger | undefined): never {
  const fault = new PasselError('PASSEL_E_INTERNAL', { reason: reasonOf(error) }, { cause: error });
  logger?.error(fault.message, { code: fault.code, stack: error instanceof Error ? error.stack : undefined });
  logger?.debug(String(error instanceof Error ? error.stack : error));
  process.exit(fault.exitStatus);
}

/** What the guest is given, for people who wonder why it does not work. */
export function describeNetwork(config: NetworkConfig, logger: Logger): void {
  const { ipv4, ipv6 } = config.stack;
  const { templates, addressMap } = config;
  if (ipv4 !== undefined) {
    const from = templates.ipv4 === '' ? 'no interface with a default route' : `from ${templates.ipv4}`;
    logger.info(
      `IPv4 (${from}): ${formatIpv4(ipv4.guestAddress)}/${ipv4.prefixLength}, router ${formatIpv4(ipv4.gateway)}`,
    );
  }
  if (ipv6 !== undefined) {
    const from = templates.ipv6 === '' ? 'no interface with a default route' : `from ${templates.ipv6}`;
    logger.info(
      `IPv6 (${from}): ${formatIp(ipv6.guestAddress)}/${ipv6.prefixLength}, router ${formatIp(ipv6.gateway)}`,
    );
  }
  const resolvers = [...(ipv4?.resolvers ?? []).map(formatIpv4), ...(ipv6?.resolvers ?? []).map(formatIp)];
  if (resolvers.length > 0) logger.info(`resolvers: ${resolvers.join(', ')}`);
  const aliases = [addressMap.ipv4?.loopbackAlias, addressMap.ipv6?.loopbackAlias].filter((a) => a !== undefined);
  if (aliases.length > 0)
    logger.info(`the guest reaches the host's loopback at ${aliases.map(formatIp).join(' and ')}`);
}
