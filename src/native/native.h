/*
 * What every file of the addon shares: the instance, reading a call's arguments, and answering it.
 *
 * Conventions. A function takes integers and answers with an integer: a result, or -errno. Offsets are into the arena, a block of
 * memory that JavaScript hands over once with bindArena(); every range is checked against it in 64-bit arithmetic and a
 * range that does not lie inside answers -EFAULT. An argument that is not a number answers -EINVAL. EINTR never reaches JavaScript.
 * There is no mutable state outside struct addon, so each worker thread has an addon of its own.
 */
#ifndef PASSEL_NATIVE_H
#define PASSEL_NATIVE_H

#include <errno.h>
#include <node_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

/* A file that may be removed when the process can name no other: see sandbox.c. */
struct sealed_name {
  int dir;
  /* NULL: the slot is free. */
  const char *name;
};

/* The sockets of 32 guests, as many of forwards, and two files. */
enum { SEALED_SLOTS = 66 };

struct addon {
  uint8_t *arena;
  uint64_t arena_length;
  /* Keeps the ArrayBuffer from being collected while its memory is used here. */
  napi_ref arena_ref;
  /* Memory that is written to and never read: where skipped bytes of a peek go. Allocated on first use. */
  uint8_t *scratch;
  /* One is running: see event-loop.c. */
  bool has_event_loop;
  struct sealed_name sealed[SEALED_SLOTS];
};

enum { SCRATCH_BYTES = 65536 };

/* The scratch area, or NULL when there is no memory. */
uint8_t *take_scratch(struct addon *addon);

struct export_row {
  const char *name;
  napi_callback function;
};

/* One table per file, ended by a row without a name. */
extern const struct export_row ARENA_EXPORTS[];
extern const struct export_row SOCKET_EXPORTS[];
extern const struct export_row STREAM_IO_EXPORTS[];
extern const struct export_row DATAGRAM_IO_EXPORTS[];
extern const struct export_row CHECKSUM_EXPORTS[];
extern const struct export_row EPOLL_EXPORTS[];
extern const struct export_row EVENT_LOOP_EXPORTS[];
extern const struct export_row POLL_EXPORTS[];
extern const struct export_row UNIX_SOCKET_EXPORTS[];
extern const struct export_row SCM_EXPORTS[];
extern const struct export_row DESCRIPTOR_EXPORTS[];
extern const struct export_row OPEN_EXPORTS[];
extern const struct export_row MEMORY_EXPORTS[];
extern const struct export_row TAP_EXPORTS[];
extern const struct export_row TAP_IO_EXPORTS[];
extern const struct export_row NETIF_EXPORTS[];
extern const struct export_row PROCESS_EXPORTS[];
extern const struct export_row EXEC_EXPORTS[];
extern const struct export_row SANDBOX_EXPORTS[];
extern const struct export_row ROOT_EXPORTS[];
extern const struct export_row NAMESPACE_EXPORTS[];
extern const struct export_row SPLICE_EXPORTS[];
extern const struct export_row SG_EXPORTS[];
extern const struct export_row PRIVILEGES_EXPORTS[];
extern const struct export_row PR_SERVER_EXPORTS[];
extern const struct export_row OPEN_FILE_EXPORTS[];
extern const struct export_row FRAME_IO_EXPORTS[];
extern const struct export_row CONNECTOR_EXPORTS[];

/* ------------------------------------------------------------------------------------------------------------------ calls */

enum { MAX_ARGUMENTS = 8 };

/*
 * A call in progress. Arguments are taken in order with next_*(); the first problem is kept in `error` and the function checks it
 * once, after it has taken all of them.
 */
struct call {
  napi_env env;
  struct addon *addon;
  int error;
  uint32_t taken;
  napi_value arguments[MAX_ARGUMENTS];
};

static inline struct call begin_call(napi_env env, napi_callback_info info) {
  struct call call;
  call.env = env;
  call.error = 0;
  call.taken = 0;
  size_t count = MAX_ARGUMENTS;
  void *data = NULL;
  /* Arguments that were not given become undefined, which no next_*() accepts. */
  if (napi_get_cb_info(env, info, &count, call.arguments, NULL, &data) != napi_ok) call.error = EINVAL;
  call.addon = data;
  return call;
}

static inline void fail_call(struct call *call, int error) {
  if (call->error == 0) call->error = error;
}

static inline napi_value next_value(struct call *call) { return call->arguments[call->taken++]; }

static inline int32_t next_int(struct call *call) {
  int32_t value = 0;
  if (napi_get_value_int32(call->env, next_value(call), &value) != napi_ok) fail_call(call, EINVAL);
  return value;
}

static inline uint32_t next_uint(struct call *call) {
  uint32_t value = 0;
  if (napi_get_value_uint32(call->env, next_value(call), &value) != napi_ok) fail_call(call, EINVAL);
  return value;
}

static inline int64_t next_int64(struct call *call) {
  int64_t value = 0;
  if (napi_get_value_int64(call->env, next_value(call), &value) != napi_ok) fail_call(call, EINVAL);
  return value;
}

/* The memory of the arena range, or NULL and -EFAULT. Lengths come in as 64-bit so that a product of two counts is exact. */
static inline uint8_t *arena_range(struct call *call, uint32_t offset, uint64_t length) {
  struct addon *addon = call->addon;
  if (length > addon->arena_length || (uint64_t)offset > addon->arena_length - length || addon->arena == NULL) {
    fail_call(call, EFAULT);
    return NULL;
  }
  return addon->arena + offset;
}

/* The memory of a range of the next argument, a Uint8Array or Buffer; NULL and -EINVAL or -EFAULT. */
uint8_t *next_bytes(struct call *call, uint32_t *length);
/* The memory of the next argument, an Int32Array of at least `count` elements. */
int32_t *next_int_array(struct call *call, size_t count);
/* The memory of the next argument, an Int32Array, and its number of elements. */
int32_t *next_ints(struct call *call, size_t *count);
/*
 * Copies the next argument, a string, with a NUL behind it. A string that does not fit fails the call with ENAMETOOLONG, one that
 * holds a NUL with EINVAL unless `length` is asked for.
 */
void next_string(struct call *call, char *buffer, size_t size, size_t *length);

static inline napi_value reply(const struct call *call, int64_t value) {
  napi_value result = NULL;
  if (value >= INT32_MIN && value <= INT32_MAX) {
    napi_create_int32(call->env, (int32_t)value, &result);
  } else {
    napi_create_int64(call->env, value, &result);
  }
  return result;
}

/* Answers with the result of a system call: `value`, or -errno when it is negative. */
static inline napi_value reply_result(const struct call *call, int64_t value) {
  return reply(call, value < 0 ? -(int64_t)errno : value);
}

/* Answers a call whose arguments were not acceptable. */
static inline napi_value reply_refusal(const struct call *call) { return reply(call, -(int64_t)call->error); }

/* Repeats a system call while a signal interrupts it. */
#define RETRY(expression)                                   \
  __extension__({                                           \
    ssize_t retry_result;                                   \
    do {                                                    \
      retry_result = (ssize_t)(expression);                 \
    } while (retry_result < 0 && errno == EINTR);           \
    retry_result;                                           \
  })

/* ------------------------------------------------------------------------------------------------------------- byte order */

/* Records in the arena are little-endian whatever the machine is. */
static inline void put_le32(uint8_t *at, uint32_t value) {
  at[0] = (uint8_t)value;
  at[1] = (uint8_t)(value >> 8);
  at[2] = (uint8_t)(value >> 16);
  at[3] = (uint8_t)(value >> 24);
}

static inline uint32_t get_le32(const uint8_t *at) {
  return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* CLOCK_MONOTONIC in nanoseconds. */
static inline int64_t monotonic_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

#endif
