#ifndef PASSEL_ENDPOINT_H
#define PASSEL_ENDPOINT_H

#include <netinet/in.h>
#include <stdint.h>
#include <sys/socket.h>

/*
 * Endpoint records: an address and port as they lie in the arena, 24 bytes.
 * 0: family 4, 6 or 0; 2: port, big-endian; 4: scope id, little-endian; 8: address in network order.
 */
enum {
  ENDPOINT_BYTES = 24,
  ENDPOINT_FAMILY = 0,
  ENDPOINT_PORT = 2,
  ENDPOINT_SCOPE = 4,
  ENDPOINT_ADDRESS = 8,
};

union socket_address {
  struct sockaddr any;
  struct sockaddr_in v4;
  struct sockaddr_in6 v6;
  struct sockaddr_storage storage;
};

/* Fills `address` from a record. Returns its length; 0 for a family that is neither 4, 6 nor 0 (family 0: AF_UNSPEC). */
socklen_t read_endpoint(const uint8_t *record, union socket_address *address);

/*
 * Writes all 24 bytes of a record. A v4-mapped IPv6 address, as sockets for both families give it, becomes family 4; a family that
 * is neither IPv4 nor IPv6 becomes 0.
 */
void write_endpoint(uint8_t *record, const struct sockaddr *address);

void write_endpoint_v4(uint8_t *record, const struct in_addr *address, uint32_t scope);
void write_endpoint_v6(uint8_t *record, const struct in6_addr *address, uint32_t scope);

#endif
