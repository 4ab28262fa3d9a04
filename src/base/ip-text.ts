/**
 * Addresses between their text form and the four 32-bit words that all parts of passel pass around (IPv4 v4-mapped: 0, 0, 0xffff,
 * address). Control path only: the data path never sees text.
 */
const IPV4_PART = '(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)';
const IPV4_TEXT = new RegExp(`^(?:${IPV4_PART}\\.){3}${IPV4_PART}$`);
const IPV6_CHARACTERS = /^[\da-f:.]+$/i;
const ZONE = /%[\da-z.:-]+$/i;

/** `isIPv4` of node:net, which takes 2 ms to load with all that it needs: much of a short start. */
export function isIpv4Text(text: string): boolean {
  return IPV4_TEXT.test(text);
}

/** `isIPv6` of node:net. A zone may follow the address. */
export function isIpv6Text(text: string): boolean {
  const address = text.replace(ZONE, '');
  return IPV6_CHARACTERS.test(address) && URL.canParse(`http://[${address}]`);
}

/** Third word of a v4-mapped address (RFC 4291, 2.5.5.2). */
const V4_MAPPED_WORD = 0xffff;

/** IPv4 text → uint32, or undefined if it is not dotted decimal with four parts. */
export function parseIpv4(text: string): number | undefined {
  if (!isIpv4Text(text)) return undefined;
  let value = 0;
  for (const part of text.split('.')) value = value * 256 + Number(part);
  return value;
}

/** IPv6 text (RFC 4291, 2.2, without zone) → 4 words, or undefined. */
export function parseIpv6(text: string): Uint32Array | undefined {
  if (text.includes('%') || !isIpv6Text(text)) return undefined;
  const tail = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text);
  let hex = text;
  if (tail !== null) {
    const v4 = parseIpv4(tail[2]!)!;
    hex = `${tail[1]}${(v4 >>> 16).toString(16)}:${(v4 & 0xffff).toString(16)}`;
  }
  const [left = '', right] = hex.split('::');
  const head = left === '' ? [] : left.split(':');
  const end = right === undefined || right === '' ? [] : right.split(':');
  const groups = [...head, ...Array<string>(8 - head.length - end.length).fill('0'), ...end].map((g) =>
    Number.parseInt(g, 16),
  );
  const words = new Uint32Array(4);
  for (let i = 0; i < 4; i++) words[i] = groups[2 * i]! * 0x10000 + groups[2 * i + 1]!;
  return words;
}

/** Text of either family → 4 words, or undefined. */
export function parseIp(text: string): Uint32Array | undefined {
  const v4 = parseIpv4(text);
  return v4 === undefined ? parseIpv6(text) : mapIpv4(v4);
}

/** uint32 → its v4-mapped words. */
export function mapIpv4(address: number): Uint32Array {
  return Uint32Array.of(0, 0, V4_MAPPED_WORD, address);
}

/** Whether four words hold an IPv4 address in v4-mapped form. */
export function isMappedIpv4(words: Uint32Array): boolean {
  return words[0] === 0 && words[1] === 0 && words[2] === V4_MAPPED_WORD;
}

/** uint32 → dotted decimal. */
export function formatIpv4(address: number): string {
  return `${address >>> 24}.${(address >>> 16) & 255}.${(address >>> 8) & 255}.${address & 255}`;
}

/** 4 words → text; IPv6 as RFC 5952 asks (lower case, the longest run of zero groups as `::`). */
export function formatIp(words: Uint32Array): string {
  if (isMappedIpv4(words)) return formatIpv4(words[3]!);
  const groups: number[] = [];
  for (const word of words) groups.push(word >>> 16, word & 0xffff);
  let bestStart = -1;
  let bestLength = 1;
  for (let start = 0; start < 8; start++) {
    let end = start;
    while (end < 8 && groups[end] === 0) end++;
    if (end - start > bestLength) {
      bestStart = start;
      bestLength = end - start;
    }
  }
  const hex = (from: number, to: number): string =>
    groups
      .slice(from, to)
      .map((g) => g.toString(16))
      .join(':');
  if (bestStart < 0) return hex(0, 8);
  return `${hex(0, bestStart)}::${hex(bestStart + bestLength, 8)}`;
}

/** Whether two addresses are the same. */
export function isSameIp(a: Uint32Array, b: Uint32Array): boolean {
  return a[0] === b[0] && a[1] === b[1] && a[2] === b[2] && a[3] === b[3];
}

/** fe80::/10 (RFC 4291, 2.5.6). */
export function isLinkLocalIpv6(words: Uint32Array): boolean {
  return words[0]! >>> 22 === 0x3fa;
}

/** 127.0.0.0/8 or ::1. */
export function isLoopbackIp(words: Uint32Array): boolean {
  if (isMappedIpv4(words)) return words[3]! >>> 24 === 127;
  return words[0] === 0 && words[1] === 0 && words[2] === 0 && words[3] === 1;
}

/** 0.0.0.0 or ::. */
export function isUnspecifiedIp(words: Uint32Array): boolean {
  return words[0] === 0 && words[1] === 0 && words[3] === 0 && (words[2] === 0 || words[2] === V4_MAPPED_WORD);
}

/** 224.0.0.0/4 or ff00::/8. */
export function isMulticastIp(words: Uint32Array): boolean {
  return isMappedIpv4(words) ? words[3]! >>> 28 === 0xe : words[0]! >>> 24 === 0xff;
}
