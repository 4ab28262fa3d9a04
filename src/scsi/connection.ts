/** Clients of the helper: who they are, and how they leave. */

/** Why a connection ended, in the words of the log and the order of the addon's list (enum pr_end). */
export const CONNECTION_ENDS = [
  'closed by the client',
  'end of stream in a request',
  'features that do not exist were asked for',
  'no descriptor in a request',
  'more than one descriptor in a request',
  'not a PERSISTENT RESERVE command',
  'more than 8192 bytes',
  'socket error',
  'server stopped',
] as const;

export type ConnectionEnd = (typeof CONNECTION_ENDS)[number];

export interface Peer {
  readonly pid: number;
  readonly uid: number;
}
