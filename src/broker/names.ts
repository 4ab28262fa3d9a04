/** Names of a policy. */

/** A network: none that could be an option or a path. */
export const NETWORK_NAME = /^[A-Za-z0-9_][\w.-]{0,62}$/;
