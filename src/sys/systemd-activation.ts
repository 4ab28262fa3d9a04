/** Descriptors that who started us has opened, or kept for us: sd_listen_fds_with_names(3). */

/** The first of them. */
export const FIRST_ACTIVATED_FD = 3;

export interface ActivatedFd {
  readonly fd: number;
  /** As FDNAME= or FileDescriptorName= said; 'unknown' when the starter gives no names. */
  readonly name: string;
}

/**
 * How many there are for this process. The variables are removed, so that no child takes them for its own.
 * @returns 0 when we were started otherwise, or the variables say nothing that can be understood
 */
export function takeActivatedCount(env: NodeJS.ProcessEnv, pid: number): number {
  return takeActivated(env, pid).length;
}

/** As {@link takeActivatedCount}, with their names. */
export function takeActivated(env: NodeJS.ProcessEnv, pid: number): ActivatedFd[] {
  const { LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES } = env;
  if (LISTEN_PID === undefined || !isNumber(LISTEN_PID) || Number(LISTEN_PID) !== pid) return [];
  if (LISTEN_FDS === undefined || !isNumber(LISTEN_FDS)) return [];
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) delete env[name];
  const names = LISTEN_FDNAMES?.split(':') ?? [];
  return Array.from({ length: Number(LISTEN_FDS) }, (_, i) => ({
    fd: FIRST_ACTIVATED_FD + i,
    name: names[i] ?? 'unknown',
  }));
}

function isNumber(text: string): boolean {
  return /^\d{1,6}$/.test(text);
}
