/* The data path's own epoll set: epoll(7). Its data word holds a kind (upper half) and an index (lower half). */
#include "epoll.h"

#include <sys/epoll.h>

#include "native.h"

enum { EVENTS_PER_CALL = 256 };

int take_events(int set, uint8_t *out, uint32_t max, int timeout_ms) {
  struct epoll_event events[EVENTS_PER_CALL];
  int count = epoll_wait(set, events, max < EVENTS_PER_CALL ? (int)max : EVENTS_PER_CALL, timeout_ms);
  if (count < 0) return errno == EINTR ? 0 : -errno;
  for (int i = 0; i < count; i++, out += EVENT_BYTES) {
    put_le32(out, events[i].events);
    put_le32(out + 4, (uint32_t)(events[i].data.u64 >> 32));
    put_le32(out + 8, (uint32_t)events[i].data.u64);
  }
  return count;
}

/* epollCreate() */
static napi_value native_epoll_create(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  return reply_result(&call, epoll_create1(EPOLL_CLOEXEC));
}

/* epollControl(epfd, op, fd, events, kind, index) */
static napi_value native_epoll_control(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t set = next_int(&call);
  int32_t operation = next_int(&call);
  int32_t fd = next_int(&call);
  uint32_t events = next_uint(&call);
  uint32_t kind = next_uint(&call);
  uint32_t index = next_uint(&call);
  if (call.error != 0) return reply_refusal(&call);
  struct epoll_event event = {.events = events, .data.u64 = (uint64_t)kind << 32 | index};
  return reply_result(&call, epoll_ctl(set, operation, fd, &event));
}

/* epollWait(epfd, offset, max, timeoutMs). A signal ends a wait early, with no events: JavaScript has to see it. */
static napi_value native_epoll_wait(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t set = next_int(&call);
  uint32_t offset = next_uint(&call);
  uint32_t max = next_uint(&call);
  int32_t timeout = next_int(&call);
  uint8_t *out = arena_range(&call, offset, (uint64_t)max * EVENT_BYTES);
  if (max == 0) fail_call(&call, EINVAL);
  if (call.error != 0) return reply_refusal(&call);
  return reply(&call, take_events(set, out, max, timeout));
}

const struct export_row EPOLL_EXPORTS[] = {
    {"epollCreate", native_epoll_create},
    {"epollControl", native_epoll_control},
    {"epollWait", native_epoll_wait},
    {NULL, NULL},
};
