/**
 * IP protocol numbers, shared by the protocol field of IPv4 and the next-header field of IPv6.
 * IANA "Assigned Internet Protocol Numbers"; only those that the stack tells apart.
 */

/** RFC 8200 §4.3; legal only directly after the IPv6 header. */
export const IP_PROTOCOL_HOP_BY_HOP = 0;
/** RFC 792. */
export const IP_PROTOCOL_ICMP = 1;
/** RFC 9293. */
export const IP_PROTOCOL_TCP = 6;
/** RFC 768. */
export const IP_PROTOCOL_UDP = 17;
/** RFC 8200 §4.4. */
export const IP_PROTOCOL_ROUTING = 43;
/** RFC 8200 §4.5. */
export const IP_PROTOCOL_FRAGMENT = 44;
/** RFC 4443. */
export const IP_PROTOCOL_ICMPV6 = 58;
/** RFC 8200 §4.7: nothing follows. */
export const IP_PROTOCOL_NONE = 59;
/** RFC 8200 §4.6. */
export const IP_PROTOCOL_DESTINATION_OPTIONS = 60;
