/**
 * Who may do what: the policy file, and the decisions made from it.
 *
 * A policy is a list of rules. Each names users and groups and what these may do; what several rules say of a user adds up. A user of whom no rule
 * speaks may do nothing. Groups are those that the user had when connecting. There are no rules that forbid.
 *
 *     {"version":1, "rules":[
 *       {"users":[1000], "verbs":["put","take","copy","stat","drop","list","open","listen","tap"],
 *        "open":[{"root":"/srv/images","access":"read-write"}],
 *        "listen":[{"family":"unix","root":"/run/vm"},{"family":"tcp","address":"127.0.0.1","ports":"2200-2299"}],
 *        "quota":{"names":32,"fds":64}},
 *       {"users":"all", "verbs":["tap"]}]}
 *
 * A policy may also name networks, for `netdev`: "networks":{"lan":{"passt":["--no-map-gw"]}}, and rules with "networks":["lan"].
 *
 * A tap needs the verb and, besides, the access list of the bridge helper.
 */
import { BlockList, isIP, isIPv4 } from 'node:net';
import { isAbsolute, normalize } from 'node:path';
import { z } from 'zod';
import type { AccessMode } from '../sys/fd-facts.ts';
import { BrokerError, networkNameSchema, type SocketPlace, VERBS, type Verb } from './protocol.ts';
import type { KeptName, Quota } from './registry.ts';

const idList = z.union([z.literal('all'), z.array(z.int().min(0).max(0xffff_fffe)).min(1)]);
const absolutePath = z
  .string()
  .refine((path) => isAbsolute(path) && normalize(path) === path, 'an absolute path without "." and ".."')
  .transform((path) => (path === '/' ? path : path.replace(/\/$/, '')));
const portRange = z
  .string()
  .regex(/^\d{1,5}(-\d{1,5})?$/, 'PORT or FIRST-LAST')
  .transform((text) => text.split('-').map(Number))
  .refine(
    (ports) => ports.every((port) => port <= 65_535) && (ports[1] ?? ports[0]!) >= ports[0]!,
    'ports from 0 to 65535',
  )
  .transform((ports) => ({ first: ports[0]!, last: ports[1] ?? ports[0]! }));
const network = z
  .string()
  .refine((text) => isNetwork(text), 'an address, or ADDRESS/BITS')
  .transform(parseNetwork);

const placeRule = z.union([
  z.strictObject({ family: z.literal('unix'), root: absolutePath }),
  z.strictObject({ family: z.literal('unix'), abstract: z.string().min(1).max(107) }),
  z.strictObject({ family: z.enum(['tcp', 'udp']), address: network, ports: portRange }),
]);
type PlaceRule = z.infer<typeof placeRule>;

/**
 * A network that the verb `netdev` joins a client to: a passel-passt that is started with these arguments for each one who asks, as the user
 * whom passel-passt chooses or as the one who asks; or the socket of a stack that somebody else has started.
 */
const networkSchema = z.union([
  z.strictObject({
    passt: z.array(z.string().regex(/^[^\0]*$/, 'no NUL')).max(256),
    runAs: z.literal('client').optional(),
  }),
  z.strictObject({
    socket: z
      .string()
      .regex(/^(\/|@.)[^\0]*$/, "an absolute path, or '@' and a name")
      .max(108),
  }),
]);
export type Network = z.infer<typeof networkSchema>;

const ruleSchema = z.strictObject({
  users: idList.optional(),
  groups: z.array(z.int().min(0).max(0xffff_fffe)).min(1).optional(),
  verbs: z.union([z.literal('all'), z.array(z.enum(VERBS as [Verb, ...Verb[]]))]),
  /** Files below these folders; no link leads out of them. */
  open: z
    .array(
      z.strictObject({ root: absolutePath, access: z.enum(['read', 'read-write']), create: z.boolean().optional() }),
    )
    .optional(),
  listen: z.array(placeRule).optional(),
  connect: z.array(placeRule).optional(),
  /** Bridges; default: all that the access list allows. */
  bridges: z.array(z.string().min(1).max(15)).optional(),
  /** Networks for `netdev`; default: none. */
  networks: z.union([z.literal('all'), z.array(networkNameSchema)]).optional(),
  /** Names of all users, not only the user's own and shared ones. */
  anyOwner: z.boolean().optional(),
  quota: z
    .strictObject({
      names: z.int().min(0).max(1_000_000),
      fds: z.int().min(0).max(1_000_000),
      networks: z.int().min(0).max(1_000_000).optional(),
    })
    .optional(),
});

const policySchema = z
  .strictObject({
    version: z.literal(1),
    networks: z.record(networkNameSchema, networkSchema).optional(),
    rules: z.array(ruleSchema).max(1000),
  })
  .superRefine(({ networks = {}, rules }, context) => {
    for (const [index, rule] of rules.entries()) {
      for (const name of rule.networks === 'all' ? [] : (rule.networks ?? [])) {
        if (Object.hasOwn(networks, name)) continue;
        context.addIssue({
          code: 'custom',
          path: ['rules', index, 'networks'],
          message: `no network is called '${name}'`,
        });
      }
    }
  });
export type Policy = z.infer<typeof policySchema>;
type Rule = Policy['rules'][number];

/** Who asks. */
export interface Peer {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
  /** Supplementary groups. */
  readonly groups: readonly number[];
  /** Name of the program, and when the process started, in clock ticks since the machine did; undefined: cannot be known for sure. */
  readonly program?: string | undefined;
  readonly startTicks?: number | undefined;
}

export const DEFAULT_QUOTA: Quota = { names: 64, fds: 256 };
/** Each one is a process. */
export const DEFAULT_NETWORKS = 8;

/** @throws Error whose message says where the text is wrong */
export function parsePolicy(text: string): Policy {
  const policy = policySchema.safeParse(JSON.parse(text));
  if (policy.success) return policy.data;
  const issue = policy.error.issues[0];
  throw new Error(`${issue?.path.join('.') || 'the policy'}: ${issue?.message}`);
}

/**
 * Without a file: root and the user of the broker may do everything, all others may ask for a tap, which the access list decides.
 * @param uid - the broker's own
 */
export function defaultPolicy(uid: number): Policy {
  const everywhere: PlaceRule[] = [
    { family: 'unix', root: '/' },
    { family: 'unix', abstract: '*' },
    ...(['tcp', 'udp'] as const).flatMap((family) =>
      ['0.0.0.0/0', '::/0'].map((text) => ({ family, address: parseNetwork(text), ports: { first: 0, last: 65_535 } })),
    ),
  ];
  const all: Rule = {
    users: [...new Set([0, uid])],
    verbs: 'all',
    open: [{ root: '/', access: 'read-write', create: true }],
    listen: everywhere,
    connect: everywhere,
    networks: 'all',
    anyOwner: true,
    quota: { names: 1024, fds: 4096 },
  };
  return { version: 1, networks: { default: { passt: [] } }, rules: [all, { users: 'all', verbs: ['tap'] }] };
}

/** What one user may do. */
export class Permissions {
  readonly peer: Peer;
  readonly quota: Quota;
  /** Stacks that may run for the user at a time. */
  readonly maxNetworks: number;
  private readonly rules: readonly Rule[];
  private readonly verbs: ReadonlySet<Verb>;
  private readonly networks: Readonly<Record<string, Network>>;

  constructor(policy: Policy, peer: Peer) {
    this.peer = peer;
    this.rules = policy.rules.filter((rule) => appliesTo(rule, peer));
    this.networks = policy.networks ?? {};
    this.verbs = new Set(VERBS.filter((verb) => this.withVerb(verb).length > 0));
    this.maxNetworks = Math.max(
      ...this.rules.map(({ quota }) => quota?.networks ?? -1),
      this.rules.some(({ quota }) => quota?.networks !== undefined) ? -1 : DEFAULT_NETWORKS,
    );
    const quotas = this.rules.map(({ quota }) => quota).filter((quota) => quota !== undefined);
    this.quota =
      quotas.length === 0
        ? DEFAULT_QUOTA
        : { names: Math.max(...quotas.map(({ names }) => names)), fds: Math.max(...quotas.map(({ fds }) => fds)) };
  }

  /** @throws BrokerError `denied`, as all that follow */
  checkVerb(verb: Verb): void {
    if (!this.verbs.has(verb)) this.deny(`may not '${verb}'`);
  }

  /** @param access - whether the user may `take`, `copy` and `stat` it, or also `drop` it */
  mayUse(entry: KeptName, access: 'use' | 'drop'): boolean {
    const { uid } = this.peer;
    if (entry.owner === uid || this.rules.some(({ anyOwner }) => anyOwner === true)) return true;
    return access === 'use' && (entry.share === 'all' || entry.share.includes(uid));
  }

  /** @returns the allowed folder that the path lies in, and the rest of the path */
  checkOpen(path: string, access: AccessMode, create: boolean): { root: string; rest: string } {
    if (!isAbsolute(path)) throw new BrokerError('bad-request', `path: '${path}' is not absolute`);
    const roots = this.withVerb('open').flatMap(({ open }) => open ?? []);
    const fitting = roots.filter((rule) => restBelow(rule.root, path) !== undefined);
    const granting = fitting.find(
      (rule) => (access === 'read' || rule.access === 'read-write') && (!create || rule.create === true),
    );
    if (granting !== undefined) return { root: granting.root, rest: restBelow(granting.root, path)! };
    const what = fitting.length === 0 ? '' : create ? ' making it' : ` with access '${access}'`;
    return this.deny(`may not open '${path}'${what}`);
  }

  /** A unix path must also be reached without leaving `root`; see `places.ts`. @returns the rule's folder for a unix path */
  checkPlace(verb: 'listen' | 'connect', place: SocketPlace): { root: string; rest: string } | undefined {
    for (const rule of this.withVerb(verb).flatMap((each) => each[verb] ?? [])) {
      const fit = fitsPlace(rule, place);
      if (fit !== undefined) return fit === true ? undefined : fit;
    }
    const where = place.family === 'unix' ? `'${place.path}'` : `${place.address} port ${place.port} (${place.family})`;
    return this.deny(`may not ${verb} ${verb === 'listen' ? 'on' : 'to'} ${where}`);
  }

  checkBridge(bridge: string): void {
    if (this.withVerb('tap').some(({ bridges }) => bridges === undefined || bridges.includes(bridge))) return;
    this.deny(`may not use bridge '${bridge}'`);
  }

  /** What one may not have is the same as what there is not. */
  checkNetwork(name: string): Network {
    const network = Object.hasOwn(this.networks, name) ? this.networks[name] : undefined;
    const allowed = this.withVerb('netdev').some(({ networks = [] }) => networks === 'all' || networks.includes(name));
    return network !== undefined && allowed ? network : this.deny(`has no network '${name}'`);
  }

  private withVerb(verb: Verb): Rule[] {
    return this.rules.filter(({ verbs }) => verbs === 'all' || verbs.includes(verb));
  }

  private deny(what: string): never {
    throw new BrokerError('denied', `the policy: user ${this.peer.uid} ${what}`);
  }
}

function appliesTo({ users, groups }: Rule, { uid, gid, groups: more }: Peer): boolean {
  if (users === 'all' || users?.includes(uid) === true) return true;
  return groups?.some((group) => group === gid || more.includes(group)) === true;
}

/** What of an absolute `path` follows `root`; undefined: it does not lie below it. Only text: links are the kernel's business. */
function restBelow(root: string, path: string): string | undefined {
  const clean = normalize(path);
  const prefix = root === '/' ? '/' : `${root}/`;
  return clean.startsWith(prefix) && clean !== prefix ? clean.slice(prefix.length) : undefined;
}

function fitsPlace(rule: PlaceRule, place: SocketPlace): true | { root: string; rest: string } | undefined {
  if (place.family === 'unix') {
    if (rule.family !== 'unix') return undefined;
    if (place.path.startsWith('@')) {
      const name = place.path.slice(1);
      return 'abstract' in rule && (rule.abstract === '*' || rule.abstract === name) ? true : undefined;
    }
    if (!('root' in rule) || !isAbsolute(place.path)) return undefined;
    const rest = restBelow(rule.root, place.path);
    return rest === undefined ? undefined : { root: rule.root, rest };
  }
  if (rule.family !== place.family || isIP(place.address) === 0) return undefined;
  const within = rule.address.check(place.address, isIPv4(place.address) ? 'ipv4' : 'ipv6');
  return within && place.port >= rule.ports.first && place.port <= rule.ports.last ? true : undefined;
}

function isNetwork(text: string): boolean {
  const [address = '', bits, more] = text.split('/');
  const most = isIP(address) === 4 ? 32 : 128;
  return (
    isIP(address) !== 0 &&
    more === undefined &&
    (bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= most))
  );
}

function parseNetwork(text: string): BlockList {
  const list = new BlockList();
  const [address = '', bits] = text.split('/');
  const family = isIPv4(address) ? 'ipv4' : 'ipv6';
  list.addSubnet(address, bits === undefined ? (family === 'ipv4' ? 32 : 128) : Number(bits), family);
  return list;
}
