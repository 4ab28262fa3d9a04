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
  reassembled = 0;
  reassemblyFailed = 0;
  tcpRetransmits = 0;
  tcpOutOfOrder = 0;
}
