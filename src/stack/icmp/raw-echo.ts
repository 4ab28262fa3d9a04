/**
 * Echo requests by raw socket, for hosts that refuse ping sockets to this user (net.ipv4.ping_group_range) but where the process
 * holds CAP_NET_RAW. Declared here, implemented where the `raw-socket` package may be used.
 */
export interface RawEcho {
  /**
   * Opens the raw socket of a family, at the first call for it.
   * @returns false when that is not permitted: this is asked again for the next session, so it must be cheap then
   */
  open(family: number): boolean;

  /**
   * Sends one echo request; what becomes of it is not reported.
   * @param message ICMP(v6) message from its type on, the checksum in place (for ICMPv6 the kernel makes it anew); valid during the
   * call only
   * @param destination 4 words as the host knows them
   * @param scopeId interface index for a link-local destination, else 0
   * @param hopLimit TTL or hop limit, 1 … 255
   */
  send(family: number, message: Uint8Array, destination: Uint32Array, scopeId: number, hopLimit: number): void;

  /**
   * Set by the stack. The implementation calls it for every ICMP(v6) message that its sockets hear, IP header removed, and then ends the
   * stack's turn (`NetworkStack.endTurn`). Messages that answer none of our requests are ignored.
   */
  onMessage: ((family: number, source: Uint32Array, message: Uint8Array) => void) | undefined;
}
