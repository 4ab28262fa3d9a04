/** Where the broker and those who ask it meet, if nobody says otherwise. */

/** Environment variable with the socket's path for clients; '@' in front: an abstract name. */
export const BROKER_VARIABLE = 'PASSEL_BROKER';

const SYSTEM_PATH = '/run/passel/fd-broker.sock';

/** The path to serve on: root's is the system's. */
export function defaultServePath(): string {
  return process.getuid?.() === 0 ? SYSTEM_PATH : userPath();
}

/** The path to ask at: what the environment names, else the system's. */
export function defaultAskPath(): string {
  const named = process.env[BROKER_VARIABLE];
  return named === undefined || named === '' ? SYSTEM_PATH : named;
}

function userPath(): string {
  return `${process.env['XDG_RUNTIME_DIR'] ?? `/run/user/${process.getuid?.() ?? 0}`}/passel/fd-broker.sock`;
}
