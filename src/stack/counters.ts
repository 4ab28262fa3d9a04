/** What happened since the start: plain numbers, incremented in place. */
export class Counters {
  guestFrames = 0;
  guestBytes = 0;
  hostFrames = 0;
  hostBytes = 0;
  /** Frames from the guest that were not understood, by reason. */
  badEthernet = 0;
  /** Frames to a MAC that is not ours. */
  overheard = 0;
  badIpv4 = 0;
  badIpv6 = 0;
  badTcp = 0;
  badUdp = 0;
  badIcmp = 0;
  badDhcp = 0;
  unknownProtocol = 0;
  /** Frames for the guest that found no room on the link (never TCP data). */
  droppedNoRoom = 0;
  flowTableFull = 0;
  /** Datagrams of the guest to addresses that are no single host's, or that nothing may be sent to, or for which there is no socket. */
  udpUndeliverable = 0;
  /** Datagrams of the guest that the host's socket did not take. */
  udpDropped = 0;
  /** Echo requests that no socket could be had for, or to what is no single host. */
  echoUndeliverable = 0;
  /** ICMP errors not sent to the guest because there were too many. */
  icmpErrorsSuppressed = 0;
  reassembled = 0;
  reassemblyFailed = 0;
  tcpRetransmits = 0;
  tcpOutOfOrder = 0;
}
