/** What the suites over a rig share. */
import { describe, it } from 'vitest';
import { needNamespaces, needTun, needVeth, requireOrSkip } from './netns/capabilities.ts';
import { HOST_NET } from './netns/host.ts';
import { isDebianStack } from './stack-under-test.ts';

/** `describe` where rigs can be built; says why not elsewhere. */
export const rigSuite = await requireOrSkip(needNamespaces, needVeth, needTun);

/** The two families: a server beyond the gateway, the gateway as the guest knows it, the guest's (and host's) own address. */
export const FAMILIES = [
  {
    family: 'IPv4',
    remote: HOST_NET.remoteV4,
    gateway: HOST_NET.gatewayV4,
    own: HOST_NET.hostV4,
    loopback: '127.0.0.1',
  },
  {
    family: 'IPv6',
    remote: HOST_NET.remoteV6,
    // A link-local address needs the guest's interface with it.
    gateway: `${HOST_NET.gatewayLinkLocal}%tap0`,
    own: HOST_NET.hostV6,
    loopback: '::1',
  },
] as const;

/** A test that Debian's passt, from 2023, is known not to pass: left out there, with the reason in its name. */
export function itExceptOnDebian(reason: string, name: string, body: () => Promise<void>, timeoutMs?: number): void {
  if (isDebianStack()) it.runIf(false)(`${name} (not with Debian's passt: ${reason})`, body, timeoutMs);
  else it(name, body, timeoutMs);
}

/** The same for a whole suite. */
export function rigSuiteExceptOnDebian(reason: string, name: string, body: () => void): void {
  if (isDebianStack()) describe.runIf(false)(`${name} (not with Debian's passt: ${reason})`, body);
  else rigSuite(name, body);
}
