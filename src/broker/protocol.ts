/**
 * The broker's protocol, version 1: requests and answers on a SOCK_SEQPACKET unix socket.
 *
 * One message is one JSON object in UTF-8, at most {@link MAX_MESSAGE_BYTES}, with 0 to 253 descriptors (SCM_RIGHTS). The client asks, the broker
 * answers each request once, in order; the `id` that the client chose comes back. The member `fds` says how many descriptors go with a
 * message, so that a lost one is noticed; a message whose count is wrong is refused and its descriptors are closed.
 *
 *     {"version":1,"id":7,"verb":"take","name":"disk","fds":0}
 *     {"version":1,"id":7,"result":{"name":"disk"},"fds":1}          + 1 descriptor
 *     {"version":1,"id":7,"error":{"code":"no-such-name","message":"…"},"fds":0}
 *
 * Members that a request does not have are errors: a misspelt limit must not be no limit.
 */
import { z } from 'zod';
import { ACCESS_MODES, FD_KINDS, SOCKET_FAMILIES, SOCKET_TYPES } from '../sys/fd-facts.ts';
import { BrokerError } from './broker-error.ts';
import { NETWORK_NAME } from './names.ts';

export { BROKER_ERROR_CODES, BrokerError, type BrokerErrorCode } from './broker-error.ts';

export const PROTOCOL_VERSION = 1;
export const MAX_MESSAGE_BYTES = 65_536;

// ------------------------------------------------------------------------------------------------------------------ parts of requests

/** 1 to 128 characters without blanks, control characters and slashes. */
const nameSchema = z
  .string()
  .min(1)
  .max(128)
  .regex(/^[!-.0-~]+$/, 'printable ASCII without blanks and slashes');

const uidSchema = z.int().min(0).max(0xffff_fffe);

const expectSchema = z.strictObject({
  kind: z.enum(FD_KINDS).optional(),
  /** At least this access. */
  access: z.enum(ACCESS_MODES).optional(),
  family: z.enum(SOCKET_FAMILIES).optional(),
  type: z.enum(SOCKET_TYPES).optional(),
  listening: z.boolean().optional(),
});
/** What a descriptor must be; members left out may be anything. */
export type FdExpectation = z.infer<typeof expectSchema>;

/** How a name is kept. */
const keepMembers = {
  /** Seconds until it is dropped. */
  ttl: z.number().positive().max(31_536_000).optional(),
  /** `copy` and `take` this many times, then it is dropped. */
  uses: z.int().min(1).max(1_000_000).optional(),
  /** Who else may `take`, `copy` and `stat` it: user ids, or everybody. */
  share: z.union([z.literal('all'), z.array(uidSchema).max(64)]).optional(),
  /** Drop it when the other end of a socket or pipe has gone. */
  dropOnHangup: z.boolean().optional(),
  /** Drop it when the process that asked for this has ended. */
  dropOnExit: z.boolean().optional(),
} as const;

/** For verbs that make descriptors: keep them under this name in place of sending them. */
const makeMembers = { name: nameSchema.optional(), ...keepMembers } as const;

const pathSchema = z
  .string()
  .min(1)
  .max(4095)
  .regex(/^[^\0]*$/, 'no NUL');
/** A network's name in the policy: none that could be an option or a path. */
export const networkNameSchema = z.string().regex(NETWORK_NAME, 'letters, digits, _, . and -, at most 63');
const portSchema = z.int().min(0).max(65_535);

const unixPlace = z.strictObject({
  family: z.literal('unix'),
  /** A path, or an abstract name after '@'. */
  path: z
    .string()
    .min(2)
    .max(108)
    .regex(/^[^\0]*$/, 'no NUL'),
  type: z.enum(['stream', 'dgram', 'seqpacket']).optional(),
});
const inetPlace = z.strictObject({
  family: z.enum(['tcp', 'udp']),
  /** Numeric, IPv4 or IPv6. */
  address: z.string().min(2).max(64),
  port: portSchema,
});
const placeSchema = z.union([unixPlace, inetPlace]);
export type SocketPlace = z.infer<typeof placeSchema>;

const ownerMember = { /** Whose name; default: the asking user's. */ owner: uidSchema.optional() } as const;

/** Members of each verb's request, beyond version, id, verb and fds. */
export const VERB_SCHEMAS = {
  put: z.strictObject({
    name: nameSchema,
    expect: expectSchema.optional(),
    replace: z.boolean().optional(),
    ...keepMembers,
  }),
  take: z.strictObject({ name: nameSchema, expect: expectSchema.optional(), ...ownerMember }),
  copy: z.strictObject({ name: nameSchema, expect: expectSchema.optional(), ...ownerMember }),
  stat: z.strictObject({ name: nameSchema, ...ownerMember }),
  drop: z.strictObject({ name: nameSchema, ...ownerMember }),
  list: z.strictObject({}),
  open: z.strictObject({
    path: pathSchema,
    access: z.enum(ACCESS_MODES),
    create: z.boolean().optional(),
    /** Permissions of a file that is made, less nothing. */
    mode: z.int().min(0).max(0o777).optional(),
    append: z.boolean().optional(),
    ...makeMembers,
  }),
  listen: z.strictObject({
    place: placeSchema,
    backlog: z.int().min(1).max(4096).optional(),
    /** Permissions of a unix socket's file. */
    mode: z.int().min(0).max(0o777).optional(),
    ...makeMembers,
  }),
  connect: z.strictObject({ place: placeSchema, ...makeMembers }),
  socketpair: z.strictObject({
    type: z.enum(['stream', 'dgram', 'seqpacket']).optional(),
    /** Keep the second end under this name; the first one is sent. */
    ...makeMembers,
  }),
  tap: z.strictObject({
    bridge: z.string().min(1).max(15),
    vnetHeader: z.boolean().optional(),
    tapName: z.string().min(1).max(15).optional(),
    isolated: z.boolean().optional(),
    queues: z.int().min(1).max(253).optional(),
    ...makeMembers,
  }),
  /** The connected end of a socket whose other end is a network of the policy. */
  netdev: z.strictObject({ network: networkNameSchema, ...makeMembers }),
} as const;

export type Verb = keyof typeof VERB_SCHEMAS;
export const VERBS = Object.keys(VERB_SCHEMAS) as readonly Verb[];
/** What a verb is asked. */
export type VerbRequest<V extends Verb> = z.infer<(typeof VERB_SCHEMAS)[V]>;
/** How a name is kept, as requests say it. */
export type KeepRequest = Pick<VerbRequest<'put'>, 'ttl' | 'uses' | 'share' | 'dropOnHangup' | 'dropOnExit'>;

export type RequestId = number | string;

// ------------------------------------------------------------------------------------------------------------------------- envelopes

const envelopeSchema = z.looseObject({
  version: z.int(),
  id: z.union([z.int(), z.string().max(128)]),
  verb: z.string(),
  fds: z.int().min(0).max(253),
});

const decoder = new TextDecoder('utf-8', { fatal: true });

/** A request whose syntax is right. */
export type BrokerRequest = {
  [V in Verb]: { readonly id: RequestId; readonly verb: V; readonly fds: number; readonly asked: VerbRequest<V> };
}[Verb];

/**
 * @param bytes - one message
 * @throws BrokerError; `requestId` gives what id it had, if that could be read
 */
export function parseRequest(bytes: Uint8Array, onId: (id: RequestId) => void): BrokerRequest {
  let value: unknown;
  try {
    value = JSON.parse(decoder.decode(bytes));
  } catch (error) {
    throw new BrokerError('bad-request', `not JSON: ${error instanceof Error ? error.message : error}`);
  }
  const envelope = envelopeSchema.safeParse(value);
  if (!envelope.success) throw new BrokerError('bad-request', describeIssue(envelope.error));
  const { version, id, verb, fds, ...members } = envelope.data;
  onId(id);
  if (version !== PROTOCOL_VERSION) {
    throw new BrokerError('unsupported-version', `version ${version}: this broker speaks ${PROTOCOL_VERSION}`);
  }
  if (!Object.hasOwn(VERB_SCHEMAS, verb)) {
    throw new BrokerError('unknown-verb', `'${verb.slice(0, 32)}': expected one of ${VERBS.join(', ')}`);
  }
  const asked = VERB_SCHEMAS[verb as Verb].safeParse(members);
  if (!asked.success) throw new BrokerError('bad-request', describeIssue(asked.error));
  return { id, verb, fds, asked: asked.data } as BrokerRequest;
}

function describeIssue(error: z.ZodError): string {
  const issue = error.issues[0];
  const path = issue?.path.join('.') ?? '';
  return path === '' ? (issue?.message ?? 'not valid') : `${path}: ${issue?.message}`;
}

const answerSchema = z.union([
  z.strictObject({
    version: z.literal(PROTOCOL_VERSION),
    id: z.union([z.int(), z.string()]),
    result: z.record(z.string(), z.unknown()),
    fds: z.int().min(0).max(253),
  }),
  z.strictObject({
    version: z.literal(PROTOCOL_VERSION),
    id: z.union([z.int(), z.string(), z.null()]),
    error: z.strictObject({ code: z.string(), message: z.string(), errno: z.string().optional() }),
    fds: z.literal(0),
  }),
]);
export type BrokerAnswer = z.infer<typeof answerSchema>;

/** @throws BrokerError `bad-request` for what is no answer */
export function parseAnswer(bytes: Uint8Array): BrokerAnswer {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(bytes).toString());
  } catch {
    throw new BrokerError('bad-request', 'the answer is not JSON');
  }
  const answer = answerSchema.safeParse(value);
  if (!answer.success)
    throw new BrokerError('bad-request', `the answer is not of this protocol: ${describeIssue(answer.error)}`);
  return answer.data;
}

export function formatResult(id: RequestId, result: Readonly<Record<string, unknown>>, fds: number): Uint8Array {
  return Buffer.from(JSON.stringify({ version: PROTOCOL_VERSION, id, result, fds }));
}

export function formatError(id: RequestId | null, { code, message, errno }: BrokerError): Uint8Array {
  const error = errno === undefined ? { code, message } : { code, message, errno };
  return Buffer.from(JSON.stringify({ version: PROTOCOL_VERSION, id, error, fds: 0 }));
}

export function formatRequest(id: RequestId, verb: Verb, asked: object, fds: number): Uint8Array {
  return Buffer.from(JSON.stringify({ version: PROTOCOL_VERSION, id, verb, ...asked, fds }));
}
