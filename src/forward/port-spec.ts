/**
 * The port specifications of `--tcp-ports` and `--udp-ports`, complete:
 *
 *     SPEC   = "none" | [ADDRESS[%INTERFACE]/ | %INTERFACE/] ITEM{,ITEM} | "unix:" PATH:[TARGET/]PORT
 *     ITEM   = "all" | "auto" | RANGE[:[TARGET/]RANGE] | ~RANGE
 *     RANGE  = FIRST[-LAST]
 *     TARGET = ADDRESS | GUEST
 *
 * `~` takes ports out, wherever it stands in the list. Nothing but exclusions means every other non-ephemeral port, which is
 * also what `all` means; binds of such sweeping rules may fail one by one, since some port is always taken. `auto` marks the
 * ranges of its specification (or, without any, all ports) as followed: forwarded while something listens there.
 *
 * An IPv6 address may stand in brackets. It must where it is a target, because `22:fd00::1/80` reads as a bound address. GUEST is the
 * name of one of several guests, which begins with a letter.
 *
 * PATH is that of a unix socket, for TCP only; a name in the abstract namespace begins with `@`. It ends at the last colon that can be the
 * one in front of the target, and is taken as it stands: commas and slashes are its own.
 */
import { PasselError } from '../base/errors.ts';
import { isIpv4Text, isIpv6Text, isSameIp, parseIp } from '../base/ip-text.ts';

export type ForwardProto = 'tcp' | 'udp';

/** One contiguous range of host ports, or one unix socket of the host, and where it leads in the guest. */
export interface PortForwardRule {
  readonly proto: ForwardProto;
  /** The unix socket, in place of a port: a path, or a name behind `@`. `first` and `last` are 0 then. */
  readonly bindPath?: string;
  /** Host address to bind, as text; all addresses when absent. */
  readonly bindAddress?: string;
  /** Host interface to bind to (SO_BINDTODEVICE). */
  readonly bindInterface?: string;
  /** Host ports, inclusive, 1..65535. 0 for both: one that the kernel chooses. */
  readonly first: number;
  readonly last: number;
  /** Guest-side destination, as text; the guest's own address when absent. */
  readonly targetAddress?: string;
  /** Which of several guests, by its name; the first, or the one that has `targetAddress`, when absent. */
  readonly targetGuest?: string;
  /** Guest port that `first` leads to; the rest of the range follows in step. */
  readonly targetFirst: number;
  /** Ports that cannot be bound are left out, unless that is all of them. */
  readonly weak: boolean;
  /** Forwarded only while something listens on the target port. */
  readonly scan: boolean;
  /** The option that it comes from, for messages; `--tcp-ports` and its kin when absent. */
  readonly option?: string;
}

/** Inclusive range of ports. */
export interface PortRange {
  readonly first: number;
  readonly last: number;
}

const EXPECTED =
  "'none', or [ADDRESS[%INTERFACE]/] and a list of 'all', 'auto', FIRST[-LAST][:[TARGET/]FIRST[-LAST]] or ~FIRST[-LAST], or unix:PATH:[TARGET/]PORT";
const UNIX = 'unix:';
/** Names of guests, as QEMU's netdevs have them (an `id`): a letter, then letters, digits, '-', '.', '_'. */
const GUEST_NAME = '[A-Za-z][\\w.-]*';
/** Linux: IFNAMSIZ (16) less the terminating zero. */
const INTERFACE_NAME_MAX = 15;

/** Where a mapping leads besides the port. */
type Target = Pick<PortForwardRule, 'targetAddress' | 'targetGuest'>;

interface Mapping extends PortRange {
  readonly targetFirst: number;
  readonly target: Target;
}

const NO_TARGET: Target = {};

/**
 * Parses one specification.
 * @param option - name of the option as the user knows it, for messages
 * @param ephemeral - the host's range of ports for outgoing connections, which sweeping rules leave alone
 * @param guests - names that may stand as targets
 * @returns rules in ascending order of their host ports; empty for `none`
 * @throws PasselError PASSEL_E_PORT_SPEC
 */
export function parsePortSpec(
  option: string,
  proto: ForwardProto,
  spec: string,
  ephemeral: PortRange,
  guests: readonly string[] = [],
): PortForwardRule[] {
  if (spec === 'none') return [];
  const fail = (problem: string): never => {
    throw new PasselError('PASSEL_E_PORT_SPEC', { option, value: spec, problem, expected: EXPECTED });
  };
  if (spec === '') fail('nothing given');
  if (spec.startsWith(UNIX)) return [parseUnixSocket(proto, spec, guests, fail)];

  const { prefix, list } = splitPrefix(spec);
  const bind = prefix === undefined ? {} : parseBind(prefix, fail);
  const mappings: Mapping[] = [];
  const exclusions: PortRange[] = [];
  let sweeping = false;
  let scan = false;
  for (const item of list.split(',')) {
    if (item === '') fail('empty list item');
    else if (item === 'none') fail("'none' cannot be combined with anything");
    else if (item === 'all') sweeping = true;
    else if (item === 'auto') scan = true;
    else if (item.startsWith('~')) exclusions.push(parseRange(item.slice(1), item, fail));
    else mappings.push(parseMapping(item, guests, fail));
  }
  if (mappings.length === 0) sweeping = true;
  const named = [...mappings].sort((a, b) => a.first - b.first);
  for (const [index, mapping] of named.entries()) {
    const next = named[index + 1];
    if (next !== undefined && next.first <= mapping.last) fail(`port ${next.first} is given twice`);
  }

  const rules: PortForwardRule[] = [];
  const addRange = (mapping: Mapping, weak: boolean): void => {
    rules.push({
      proto,
      ...bind,
      first: mapping.first,
      last: mapping.last,
      ...mapping.target,
      targetFirst: mapping.targetFirst,
      weak,
      scan,
    });
  };
  for (const mapping of named) for (const part of subtractFrom(mapping, exclusions)) addRange(part, false);
  if (sweeping) {
    // Where somebody listens is no port for outgoing connections, whatever its number.
    const taken = [...exclusions, ...named, ...(scan ? [] : [ephemeral])];
    const whole = { first: 1, last: 65535, targetFirst: 1, target: NO_TARGET };
    for (const part of subtractFrom(whole, taken)) addRange(part, true);
  }
  if (rules.length === 0) fail('the exclusions leave no port');
  return rules.sort((a, b) => a.first - b.first);
}

function parseUnixSocket(proto: ForwardProto, spec: string, guests: readonly string[], fail: Fail): PortForwardRule {
  if (proto === 'udp') fail('a unix socket takes connections, which UDP has none of');
  const [, bindPath = '', target = ''] = UNIX_SOCKET.exec(spec) ?? fail('no port of the guest behind the path');
  const problem = describeBadPath(bindPath);
  if (problem !== undefined) fail(problem);
  // The mapping of a port, whose number nobody sees.
  const { targetFirst, target: to } = parseMapping(`1:${target}`, guests, fail);
  return { proto, bindPath, first: 0, last: 0, ...to, targetFirst, weak: false, scan: false };
}

const UNIX_SOCKET = /^unix:(.*):((?:\[[^\]]*\]\/|[^:/\]]*\/)?\d+)$/s;
/** sockaddr_un holds 108 bytes, the zero behind a path or in front of an abstract name among them (unix(7)). */
const UNIX_PATH_MAX_BYTES = 107;

/** What is wrong with the path of a unix socket, or a name behind `@`; undefined: nothing. */
export function describeBadPath(path: string): string | undefined {
  if (path === '' || path === '@') return 'no path of a socket';
  if (path.includes('\0')) return 'a path with a zero byte';
  const lengthBytes = Buffer.byteLength(path) - (path.startsWith('@') ? 1 : 0);
  if (lengthBytes <= UNIX_PATH_MAX_BYTES) return undefined;
  return `the path has ${lengthBytes} bytes, unix sockets allow ${UNIX_PATH_MAX_BYTES}`;
}

/**
 * The text before the first slash is a bound address or interface if it can be one; otherwise the slash belongs to a target
 * further on (`8080:192.0.2.1/80`).
 */
function splitPrefix(spec: string): { prefix: string | undefined; list: string } {
  const slash = spec.indexOf('/');
  if (slash < 0) return { prefix: undefined, list: spec };
  const before = spec.slice(0, slash);
  const isTarget = BEFORE_TARGET.test(before) && !isIpv6Text(before);
  const isListWithTarget = before.includes(',');
  return isTarget || isListWithTarget
    ? { prefix: undefined, list: spec }
    : { prefix: before, list: spec.slice(slash + 1) };
}

const BEFORE_TARGET = new RegExp(`^[~\\d][^%[]*:(\\[.*\\]|[\\d.]+|${GUEST_NAME})$`);
const ONLY_GUEST_NAME = new RegExp(`^${GUEST_NAME}$`);

type Fail = (problem: string) => never;

function parseBind(prefix: string, fail: Fail): { bindAddress?: string; bindInterface?: string } {
  const percent = prefix.indexOf('%');
  const addressText = percent < 0 ? prefix : prefix.slice(0, percent);
  const interfaceText = percent < 0 ? undefined : prefix.slice(percent + 1);
  if (interfaceText !== undefined) {
    const valid =
      interfaceText.length > 0 && interfaceText.length <= INTERFACE_NAME_MAX && !/[\s/]/.test(interfaceText);
    if (!valid) fail(`'${interfaceText}' is not an interface name`);
  }
  if (addressText === '' && interfaceText === undefined) fail("nothing before '/'");
  return {
    ...(addressText === '' ? {} : { bindAddress: parseAddress(addressText, fail) }),
    ...(interfaceText === undefined ? {} : { bindInterface: interfaceText }),
  };
}

function parseAddress(text: string, fail: Fail): string {
  const bare = text.startsWith('[') && text.endsWith(']') ? text.slice(1, -1) : text;
  const inBrackets = bare !== text;
  if (!(isIpv4Text(bare) && !inBrackets) && !isIpv6Text(bare)) fail(`'${text}' is not an address`);
  return bare;
}

function parseMapping(item: string, guests: readonly string[], fail: Fail): Mapping {
  const colon = item.indexOf(':');
  if (colon < 0) {
    const { first, last } = parseRange(item, item, fail);
    return { first, last, targetFirst: first, target: NO_TARGET };
  }
  const { first, last } = parseRange(item.slice(0, colon), item, fail);
  let ports = item.slice(colon + 1);
  let target = NO_TARGET;
  const slash = ports.indexOf('/');
  if (slash >= 0) {
    const text = ports.slice(0, slash);
    const isName = guests.length > 0 && ONLY_GUEST_NAME.test(text);
    if (isName && !guests.includes(text)) fail(`no guest is called '${text}', but ${guests.join(', ')}`);
    target = isName ? { targetGuest: text } : { targetAddress: parseAddress(text, fail) };
    ports = ports.slice(slash + 1);
  }
  const to = parseRange(ports, item, fail);
  // A single target port for a range would be one port for many: refused, as in C, rather than guessed at.
  if (to.last - to.first !== last - first)
    fail(`'${item}' maps ${last - first + 1} ports to ${to.last - to.first + 1}`);
  return { first, last, targetFirst: to.first, target };
}

function parseRange(text: string, item: string, fail: Fail): PortRange {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text);
  if (match === null) return fail(`'${item}' is not a port or a range of ports`);
  const first = Number(match[1]);
  const last = match[2] === undefined ? first : Number(match[2]);
  if (first === 0) fail(`'${item}': port 0 cannot be forwarded`);
  if (first > 65535 || last > 65535) fail(`'${item}': ports end at 65535`);
  if (last < first) fail(`'${item}': the range ends before it begins`);
  return { first, last };
}

/** The parts of a mapping that no exclusion covers; targets keep step with their host ports. */
function subtractFrom(mapping: Mapping, exclusions: readonly PortRange[]): Mapping[] {
  const sorted = [...exclusions].sort((a, b) => a.first - b.first);
  const parts: Mapping[] = [];
  let from = mapping.first;
  const addUpTo = (last: number): void => {
    if (last < from) return;
    parts.push({ ...mapping, first: from, last, targetFirst: mapping.targetFirst + (from - mapping.first) });
  };
  for (const hole of sorted) {
    if (hole.last < from) continue;
    if (hole.first > mapping.last) break;
    addUpTo(hole.first - 1);
    from = hole.last + 1;
  }
  addUpTo(mapping.last);
  return parts;
}

/**
 * Joins the rules of a repeated option. `none` is only allowed alone; two rules for one host port must not disagree about
 * where it leads.
 * @throws PasselError PASSEL_E_PORT_SPEC
 */
export function parsePortSpecs(
  option: string,
  proto: ForwardProto,
  specs: readonly string[],
  ephemeral: PortRange,
  guests: readonly string[] = [],
): PortForwardRule[] {
  const rules: PortForwardRule[] = [];
  // Callers append `none` to what a user gave to say "nothing besides"; passt takes it where nothing was forwarded before.
  for (const spec of specs) {
    for (const rule of parsePortSpec(option, proto, spec, ephemeral, guests)) {
      const other = rules.find((r) => clash(r, rule));
      if (other === undefined) rules.push(rule);
      else if (!isSameMapping(other, rule) && !(other.weak || rule.weak)) {
        const what = rule.bindPath ?? `port ${Math.max(other.first, rule.first)}`;
        const problem = `${what} was forwarded elsewhere by an earlier ${option}`;
        throw new PasselError('PASSEL_E_PORT_SPEC', { option, value: spec, problem, expected: 'each port once' });
      } else if (other.weak !== rule.weak) rules.push(rule);
    }
  }
  // Exact rules bind first, so that a sweeping rule finds those ports taken and not the other way round.
  return rules.sort((a, b) => Number(a.weak) - Number(b.weak));
}

function clash(a: PortForwardRule, b: PortForwardRule): boolean {
  const sameEndpoint =
    a.bindAddress === b.bindAddress && a.bindInterface === b.bindInterface && a.bindPath === b.bindPath;
  return sameEndpoint && a.first <= b.last && b.first <= a.last;
}

function isSameMapping(a: PortForwardRule, b: PortForwardRule): boolean {
  return (
    a.first === b.first &&
    a.last === b.last &&
    a.targetFirst === b.targetFirst &&
    a.targetAddress === b.targetAddress &&
    a.targetGuest === b.targetGuest
  );
}

/** Whether two rules are the same in every respect; addresses count by their value. */
export function isSameForward(a: PortForwardRule, b: PortForwardRule): boolean {
  return (
    a.proto === b.proto &&
    a.first === b.first &&
    a.last === b.last &&
    a.targetFirst === b.targetFirst &&
    a.bindInterface === b.bindInterface &&
    a.bindPath === b.bindPath &&
    a.targetGuest === b.targetGuest &&
    a.weak === b.weak &&
    a.scan === b.scan &&
    isSameAddressText(a.bindAddress, b.bindAddress) &&
    isSameAddressText(a.targetAddress, b.targetAddress)
  );
}

function isSameAddressText(a: string | undefined, b: string | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  const [wordsA, wordsB] = [parseIp(a), parseIp(b)];
  return wordsA !== undefined && wordsB !== undefined && isSameIp(wordsA, wordsB);
}

/** A rule in the words of a specification that gives this rule. A sweeping rule gives the range that it came to. */
export function formatPortForward(rule: PortForwardRule): string {
  const device = rule.bindInterface === undefined ? '' : `%${rule.bindInterface}`;
  const bind = rule.bindAddress === undefined && device === '' ? '' : `${rule.bindAddress ?? ''}${device}/`;
  const range = (first: number, last: number): string => (first === last ? `${first}` : `${first}-${last}`);
  const from = range(rule.first, rule.last);
  const { bindPath, targetAddress, targetGuest, targetFirst } = rule;
  const named = targetAddress ?? targetGuest;
  if (named === undefined && targetFirst === rule.first) return `${bind}${from}`;
  const shown = named?.includes(':') ? `[${named}]` : named;
  const address = shown === undefined ? '' : `${shown}/`;
  if (bindPath !== undefined) return `${UNIX}${bindPath}:${address}${targetFirst}`;
  return `${bind}${from}:${address}${range(targetFirst, targetFirst + rule.last - rule.first)}`;
}

/** Linux's default, for hosts without /proc. */
export const DEFAULT_EPHEMERAL: PortRange = { first: 32768, last: 60999 };

/** Parses /proc/sys/net/ipv4/ip_local_port_range (two numbers between white space). */
export function parseEphemeralRange(text: string): PortRange {
  const match = /^\s*(\d+)\s+(\d+)\s*$/.exec(text);
  if (match === null) return DEFAULT_EPHEMERAL;
  const first = Number(match[1]);
  const last = Number(match[2]);
  return first >= 1 && first <= last && last <= 65535 ? { first, last } : DEFAULT_EPHEMERAL;
}
