/** Which resolvers are asked about which names: the longest domain that a name lies in decides. */

/** A resolver as the host reaches it. */
export interface DnsServer {
  /** 4 words. */
  readonly address: Uint32Array;
  readonly port: number;
}

export interface DnsRoute {
  /** In lower case; empty: all names. */
  readonly domain: string;
  /** In the order in which they are asked; none: nobody knows these names. */
  readonly servers: readonly DnsServer[];
}

/** @param name - in lower case, without a dot at the end. @returns undefined when no route has it */
export function pickRoute(routes: readonly DnsRoute[], name: string): DnsRoute | undefined {
  let best: DnsRoute | undefined;
  for (const route of routes) {
    const { domain } = route;
    if (domain !== '' && name !== domain && !name.endsWith(`.${domain}`)) continue;
    if (best === undefined || domain.length > best.domain.length) best = route;
  }
  return best;
}
