#ifndef PASSEL_CHECKSUM_H
#define PASSEL_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/*
 * The one's complement sum of RFC 1071 over 16-bit words in network order, folded to 16 bits, not inverted. A last odd byte counts
 * as the upper half of a word.
 */
uint32_t sum_bytes(const uint8_t *data, size_t length);

/* Adds with end-around carry until 16 bits hold the sum. */
static inline uint32_t fold_sum(uint64_t sum) {
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return (uint32_t)sum;
}

#endif
