/** Sockets that were opened by who started us: sd_listen_fds(3). */

/** The first of them. */
export const FIRST_ACTIVATED_FD = 3;

/**
 * How many there are for this process. The variables are removed, so that no child takes them for its own.
 * @returns 0 when we were started otherwise, or the variables say nothing that can be understood
 */
export function takeActivatedCount(env: NodeJS.ProcessEnv, pid: number): number {
  const { LISTEN_PID, LISTEN_FDS } = env;
  if (LISTEN_PID === undefined || !isNumber(LISTEN_PID) || Number(LISTEN_PID) !== pid) return 0;
  if (LISTEN_FDS === undefined || !isNumber(LISTEN_FDS)) return 0;
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) delete env[name];
  return Number(LISTEN_FDS);
}

function isNumber(text: string): boolean {
  return /^\d{1,9}$/.test(text);
}
