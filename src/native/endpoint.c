#include "endpoint.h"

#include <string.h>

#include "native.h"

socklen_t read_endpoint(const uint8_t *record, union socket_address *address) {
  memset(address, 0, sizeof *address);
  switch (record[ENDPOINT_FAMILY]) {
    case 4:
      address->v4.sin_family = AF_INET;
      memcpy(&address->v4.sin_port, record + ENDPOINT_PORT, 2);
      memcpy(&address->v4.sin_addr, record + ENDPOINT_ADDRESS, 4);
      return sizeof address->v4;
    case 6:
      address->v6.sin6_family = AF_INET6;
      memcpy(&address->v6.sin6_port, record + ENDPOINT_PORT, 2);
      memcpy(&address->v6.sin6_addr, record + ENDPOINT_ADDRESS, 16);
      address->v6.sin6_scope_id = get_le32(record + ENDPOINT_SCOPE);
      return sizeof address->v6;
    case 0:
      address->any.sa_family = AF_UNSPEC;
      return sizeof address->v4;
    default:
      return 0;
  }
}

void write_endpoint_v4(uint8_t *record, const struct in_addr *address, uint32_t scope) {
  memset(record, 0, ENDPOINT_BYTES);
  record[ENDPOINT_FAMILY] = 4;
  put_le32(record + ENDPOINT_SCOPE, scope);
  memcpy(record + ENDPOINT_ADDRESS, address, 4);
}

void write_endpoint_v6(uint8_t *record, const struct in6_addr *address, uint32_t scope) {
  memset(record, 0, ENDPOINT_BYTES);
  put_le32(record + ENDPOINT_SCOPE, scope);
  if (IN6_IS_ADDR_V4MAPPED(address)) {
    record[ENDPOINT_FAMILY] = 4;
    memcpy(record + ENDPOINT_ADDRESS, address->s6_addr + 12, 4);
  } else {
    record[ENDPOINT_FAMILY] = 6;
    memcpy(record + ENDPOINT_ADDRESS, address->s6_addr, 16);
  }
}

void write_endpoint(uint8_t *record, const struct sockaddr *address) {
  /* The caller's storage may hold any family; copying keeps the accesses within the type that the family promises. */
  if (address->sa_family == AF_INET) {
    struct sockaddr_in v4;
    memcpy(&v4, address, sizeof v4);
    write_endpoint_v4(record, &v4.sin_addr, 0);
    memcpy(record + ENDPOINT_PORT, &v4.sin_port, 2);
  } else if (address->sa_family == AF_INET6) {
    struct sockaddr_in6 v6;
    memcpy(&v6, address, sizeof v6);
    write_endpoint_v6(record, &v6.sin6_addr, v6.sin6_scope_id);
    memcpy(record + ENDPOINT_PORT, &v6.sin6_port, 2);
  } else {
    memset(record, 0, ENDPOINT_BYTES);
  }
}
