/*
 * The Internet checksum (RFC 1071) of large blocks.
 *
 * The sum does not depend on the width of the words it is taken in, nor on their byte order until the end, so it is taken over 64-bit
 * words in the machine's order, each split into halves that go to two 64-bit accumulators: no carries to look after, and the
 * compiler turns the loop into vector instructions. Half a gigabyte would be needed to overflow an accumulator; 2^32 words fit.
 */
#include "checksum.h"

#include <string.h>

#include "native.h"

/* Function variants are chosen at load time, by code that would run before the sanitizers are ready. */
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)
#define VECTOR_VARIANTS __attribute__((target_clones("avx2", "default")))
#else
#define VECTOR_VARIANTS
#endif

VECTOR_VARIANTS
static uint64_t sum_words(const uint8_t *data, size_t words) {
  uint64_t low = 0;
  uint64_t high = 0;
  for (size_t i = 0; i < words; i++) {
    uint64_t word;
    memcpy(&word, data + i * sizeof word, sizeof word);
    low += word & 0xffffffff;
    high += word >> 32;
  }
  return low + high;
}

uint32_t sum_bytes(const uint8_t *data, size_t length) {
  size_t words = length / sizeof(uint64_t);
  size_t rest = length % sizeof(uint64_t);
  uint64_t sum = sum_words(data, words);
  if (rest != 0) {
    /* Zeros behind the end add nothing, in either byte order. */
    uint64_t word = 0;
    memcpy(&word, data + length - rest, rest);
    sum += (word & 0xffffffff) + (word >> 32);
  }
  uint32_t folded = fold_sum(sum);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
  folded = __builtin_bswap16((uint16_t)folded);
#endif
  return folded;
}

/* sum(offset, length, initial) */
static napi_value native_sum(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  uint32_t offset = next_uint(&call);
  uint32_t length = next_uint(&call);
  uint32_t initial = next_uint(&call);
  const uint8_t *data = arena_range(&call, offset, length);
  if (call.error != 0) return reply_refusal(&call);
  return reply(&call, fold_sum((uint64_t)sum_bytes(data, length) + initial));
}

/* checksumBuffer(bytes, offset, length, initial) */
static napi_value native_checksum_buffer(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  uint32_t available = 0;
  const uint8_t *data = next_bytes(&call, &available);
  uint32_t offset = next_uint(&call);
  uint32_t length = next_uint(&call);
  uint32_t initial = next_uint(&call);
  if ((uint64_t)offset + length > available) fail_call(&call, EFAULT);
  if (call.error != 0) return reply_refusal(&call);
  return reply(&call, fold_sum((uint64_t)sum_bytes(data + offset, length) + initial));
}

const struct export_row CHECKSUM_EXPORTS[] = {
    {"sum", native_sum},
    {"checksumBuffer", native_checksum_buffer},
    {NULL, NULL},
};
