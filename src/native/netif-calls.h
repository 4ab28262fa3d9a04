/* Requests about network interfaces, free of Node: the addon and the namespace agent make them. All answer 0 (or a value) or -errno. */
#ifndef PASSEL_NETIF_CALLS_H
#define PASSEL_NETIF_CALLS_H

#include <stdint.h>

/* One ioctl() on a socket of its own, of the calling thread's network namespace. */
int netif_request(int domain, unsigned long request, void *argument);
/* ifindex */
int netif_index(const char *name);
int netif_set_mtu(const char *name, int bytes);
/* IFF_UP ...: some flags on, others off */
int netif_set_flags(const char *name, uint32_t set, uint32_t clear);
int netif_set_hardware_address(const char *name, const uint8_t address[6]);
/* `name` may be an alias, as eth0:1, for a further address. Addresses are in host order. */
int netif_set_address(const char *name, uint32_t address, uint32_t prefix);
int netif_add_address_v6(const char *name, const uint8_t address[16], uint32_t prefix);
/* A gateway of zeros means on link; metric 0 is IPv4's default, IPv6 makes 1024 of it. */
int netif_add_route(const char *name, uint32_t destination, uint32_t prefix, uint32_t gateway, uint32_t metric);
int netif_add_route_v6(const char *name, const uint8_t destination[16], uint32_t prefix, const uint8_t gateway[16],
                       uint32_t metric);

#endif
