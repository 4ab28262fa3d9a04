/** The host's resolver configuration, resolv.conf(5): what the guest is told unless options say otherwise. */
import { parseIp } from '../base/ip-text.ts';

export interface ResolverConfig {
  /** Name servers in order, 4 words each; loopback ones included, since only the caller knows whether they can be mapped. */
  readonly resolvers: readonly Uint32Array[];
  readonly searchDomains: readonly string[];
}

/** Parses resolv.conf text. The last of `search` and `domain` counts, as for the C library. */
export function parseResolvConf(text: string): ResolverConfig {
  const resolvers: Uint32Array[] = [];
  let searchDomains: string[] = [];
  for (const rawLine of text.split('\n')) {
    const [keyword, ...values] = rawLine
      .replace(/[#;].*$/, '')
      .trim()
      .split(/\s+/);
    if (keyword === 'nameserver' && values[0] !== undefined) {
      // A zone names an interface of the host and means nothing in the guest.
      const address = parseIp(values[0].replace(/%.*$/, ''));
      if (address !== undefined) resolvers.push(address);
    } else if (keyword === 'search' || keyword === 'domain') {
      searchDomains = keyword === 'domain' ? values.slice(0, 1) : values;
    }
  }
  return { resolvers, searchDomains: searchDomains.map((d) => d.replace(/\.$/, '')).filter((d) => d !== '') };
}
