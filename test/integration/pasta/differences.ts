/**
 * Where our pasta and Debian's (passt 0.0~git20230309) are known to differ. The suites hold both to their side of a row, or
 * leave out what the older program does not have. The manual page tells users the same.
 */
export const DIFFERENCES = {
  hostRoutes: {
    debian: 'it sets a default route only',
    ours: 'with --config-net the namespace has the other routes of the host interface too',
    reason: 'later versions of the C program copy them: hosts behind a second router are unreachable without',
  },
  commandBeforeNetwork: {
    debian: 'it may start the command before the namespace is configured',
    ours: 'with --config-net the command starts in a namespace that is configured',
    reason: 'a command that uses the network at once would fail now and then',
  },
  mapOptions: {
    debian: 'it has no --map-host-loopback, --map-guest-addr and --dns-host',
    ours: 'these options map the addresses they name',
    reason: 'later options',
  },
  dnsForwardTcp: {
    debian: 'it forwards the UDP queries to --dns-forward only',
    ours: '--dns-forward is for TCP as well',
    reason: 'answers that are too long for a datagram come over TCP',
  },
  outboundInterface: {
    debian: '--outbound-if4 does not bind the sockets of datagrams',
    ours: '--outbound-if4 and --outbound-if6 bind every socket that goes out',
    reason: 'the option is there to keep traffic off other interfaces',
  },
  serverSendsFirst: {
    debian: 'a server in the namespace that sends megabytes at once, over the tap, stands still for half a minute',
    ours: 'it makes no difference who sends first',
    reason: 'our stack does not drop what the socket of the host cannot take yet',
  },
  signalStatus: {
    debian: 'it ends with status 0 when its command was ended by a signal',
    ours: 'the status is then 128 and the number of the signal, as in a shell',
    reason: 'a command that was killed has not succeeded; later versions of the C program do the same',
  },
  pidGone: {
    debian: 'it stays when the process whose namespace it joined has ended',
    ours: 'it ends as that process does',
    reason: 'nothing can use the namespace any more; later versions of the C program do the same',
  },
  strictMac: {
    debian: 'it takes any text for a MAC address',
    ours: 'a MAC address that is none is an error',
    reason: 'later versions of the C program refuse it too',
  },
  helpStatus: {
    debian: '--help ends with status 1',
    ours: '--help ends with status 0',
    reason: 'who asked for help got it; later versions of the C program do the same',
  },
  leftBehind: {
    debian:
      'an error that it finds after it made the namespace leaves a process there, which keeps standard output open',
    ours: 'after an error nothing is left',
    reason: 'a caller that reads the output to its end would wait for ever',
  },
  noneAndPorts: {
    debian: 'it refuses none beside ports, for -t, -u, -T and -U',
    ours: 'none beside ports means those ports and no others',
    reason: 'callers append it to what their users give',
  },
  dhcpv6Search: {
    debian: 'by DHCPv6 it tells search domains in a form that clients drop when there are several',
    ours: 'search domains are told by DHCPv6 as RFC 3646 wants them',
    reason: 'a fault of the older program',
  },
  loopbackTarget: {
    debian: "what comes from the host's loopback goes to the namespace's loopback",
    ours: "what comes from the host's loopback goes to the namespace's own address, and to its loopback with --host-lo-to-ns-lo",
    reason: 'services that listen on loopback only stay private; later versions of the C program do the same',
  },
  addressPrefix: {
    debian: 'it takes an address without prefix length only',
    ours: '--address takes ADDRESS/LENGTH',
    reason: 'a later form of the option',
  },
} as const satisfies Record<string, { debian: string; ours: string; reason: string }>;

/** Name of a row. */
export type Difference = keyof typeof DIFFERENCES;
