/** Socket options of Linux that datagram and echo sockets need: socket(7), ip(7), ipv6(7). And the errno values met there. */
export const SOL_SOCKET = 1;
export const SO_REUSEADDR = 2;
export const SO_SNDBUF = 7;
export const SO_RCVBUF = 8;
export const SO_BINDTODEVICE = 25;

export const SOL_IP = 0;
export const IP_TTL = 2;
export const IP_RECVERR = 11;

export const SOL_IPV6 = 41;
export const IPV6_UNICAST_HOPS = 16;
export const IPV6_RECVERR = 25;
export const IPV6_V6ONLY = 26;

export const EPERM = 1;
export const EIO = 5;
export const EAGAIN = 11;
export const EACCES = 13;
export const EINVAL = 22;
export const EMSGSIZE = 90;
export const ENOBUFS = 105;
