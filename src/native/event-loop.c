/*
 * The data path's wait: where the thread sleeps, in place of libuv.
 *
 * An epoll set inside libuv's, as uv_poll_t would have it, costs two system calls more for each wake-up, and all that the loop looks after in
 * a round. So it is the other way round: libuv's own set (uv_backend_fd) is one member of the data path's. A prepare handle waits
 * in that set and hands the events out, again and again, and goes back to libuv only when that has something to do: its set is
 * ready, uv_backend_timeout() says that a timer is due or that anything else is pending (an immediate, a handle to be closed, a
 * descriptor that its set does not know yet), a signal has come, or the callback threw. An idle handle that is active
 * whenever libuv runs keeps libuv from sleeping.
 *
 * Before it sleeps it may look for events for a while without sleeping, as long as JavaScript has said after the last round: to fall
 * asleep and to be woken takes longer than an answer that is on its way. Between two looks the processor is offered to others. Where
 * looking was in vain some times in a row, it is left until sleeps are short again.
 *
 * One for each environment: a second one would sleep without seeing the first one's events, and is refused.
 *
 * It lives until both its handles are closed and its JavaScript handle is collected.
 */
#include <sched.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <uv.h>

#include "callback.h"
#include "epoll.h"
#include "native.h"

enum {
  /* Looks in vain, one behind the other, after which it sleeps at once. */
  PATIENCE = 4,
  /* What falling asleep and being woken adds to the time until the event, in parts of the time that was to be looked for. */
  SLEEP_TIMES = 2,
};

struct event_loop {
  uv_prepare_t prepare;
  uv_idle_t idle;
  napi_env env;
  struct addon *addon;
  napi_ref callback;
  napi_async_context context;
  napi_async_cleanup_hook_handle hook;
  int set;
  uint32_t offset;
  uint32_t max;
  /* How long to look for events before the next sleep, microseconds, and how often that was in vain. */
  int32_t busy_us;
  int in_vain;
  int holders;
  int open_handles;
  bool closing;
};

static void release_loop(struct event_loop *loop) {
  if (--loop->holders == 0) free(loop);
}

static void on_closed(uv_handle_t *handle) {
  struct event_loop *loop = handle->data;
  if (--loop->open_handles > 0) return;
  napi_remove_async_cleanup_hook(loop->hook);
  release_loop(loop);
}

static void close_loop(struct event_loop *loop) {
  if (loop->closing) return;
  loop->closing = true;
  loop->addon->has_event_loop = false;
  epoll_ctl(loop->set, EPOLL_CTL_DEL, uv_backend_fd(loop->prepare.loop), NULL);
  napi_delete_reference(loop->env, loop->callback);
  napi_async_destroy(loop->env, loop->context);
  uv_close((uv_handle_t *)&loop->prepare, on_closed);
  uv_close((uv_handle_t *)&loop->idle, on_closed);
}

static void on_environment_end(napi_async_cleanup_hook_handle hook, void *data) {
  (void)hook;
  close_loop(data);
}

static void on_collected(napi_env env, void *data, void *hint) {
  (void)env;
  (void)hint;
  release_loop(data);
}

static void on_idle(uv_idle_t *handle) { (void)handle; }

/* As take_events(), but looks a while before it sleeps. */
static int wait_busily(struct event_loop *loop, uint8_t *out, int timeout) {
  int64_t start = monotonic_ns();
  int64_t longest = (int64_t)loop->busy_us * 1000;
  if (loop->in_vain < PATIENCE) {
    do {
      int count = take_events(loop->set, out, loop->max, 0);
      if (count != 0) {
        loop->in_vain = 0;
        return count;
      }
      sched_yield();
    } while (monotonic_ns() - start < longest);
    loop->in_vain++;
    return take_events(loop->set, out, loop->max, timeout);
  }
  int count = take_events(loop->set, out, loop->max, timeout);
  if (monotonic_ns() - start < longest * SLEEP_TIMES) loop->in_vain--;
  return count;
}

/* One wait, and its events handed out. False when libuv has to have its turn. */
static bool take_round(struct event_loop *loop) {
  uv_loop_t *uv = loop->prepare.loop;
  struct addon *addon = loop->addon;
  uint64_t length = (uint64_t)loop->max * EVENT_BYTES;
  /* Checked each time: JavaScript may have bound another arena. */
  if (length > addon->arena_length || loop->offset > addon->arena_length - length) return false;
  uint8_t *out = addon->arena + loop->offset;
  uv_update_time(uv);
  int timeout = uv_backend_timeout(uv);
  int count = loop->busy_us > 0 && timeout != 0 ? wait_busily(loop, out, timeout)
                                                : take_events(loop->set, out, loop->max, timeout);
  loop->busy_us = 0;
  if (count <= 0) return false;
  bool is_uv_ready = false;
  for (int i = 0; i < count; i++) is_uv_ready |= get_le32(out + (size_t)i * EVENT_BYTES + 4) == UV_KIND;
  if (count == 1 && is_uv_ready) return false;
  return call_back(loop->env, loop->context, loop->callback, count, &loop->busy_us) && !loop->closing && !is_uv_ready && timeout != 0;
}

static void on_prepare(uv_prepare_t *handle) {
  struct event_loop *loop = handle->data;
  /* While it is active, libuv's time-out is 0. */
  uv_idle_stop(&loop->idle);
  while (take_round(loop)) continue;
  if (!loop->closing) uv_idle_start(&loop->idle, on_idle);
}

/* startEventLoop(epfd, offset, max, callback): a handle, or -errno */
static napi_value native_start_event_loop(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t set = next_int(&call);
  uint32_t offset = next_uint(&call);
  uint32_t max = next_uint(&call);
  napi_value callback = next_value(&call);
  napi_valuetype type = napi_undefined;
  napi_typeof(env, callback, &type);
  arena_range(&call, offset, (uint64_t)max * EVENT_BYTES);
  if (max == 0 || type != napi_function) fail_call(&call, EINVAL);
  if (call.error != 0) return reply_refusal(&call);
  if (call.addon->has_event_loop) return reply(&call, -EBUSY);
  uv_loop_t *uv = NULL;
  napi_value name = NULL;
  if (napi_get_uv_event_loop(env, &uv) != napi_ok ||
      napi_create_string_utf8(env, "passel.loop", NAPI_AUTO_LENGTH, &name) != napi_ok) {
    return reply(&call, -EIO);
  }
  struct event_loop *loop = calloc(1, sizeof *loop);
  if (loop == NULL) return reply(&call, -ENOMEM);
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)UV_KIND << 32};
  if (epoll_ctl(set, EPOLL_CTL_ADD, uv_backend_fd(uv), &event) < 0) {
    int error = errno;
    free(loop);
    return reply(&call, -error);
  }
  loop->env = env;
  loop->addon = call.addon;
  loop->set = set;
  loop->offset = offset;
  loop->max = max;
  loop->holders = 1;
  loop->open_handles = 2;
  loop->prepare.data = loop;
  loop->idle.data = loop;
  uv_prepare_init(uv, &loop->prepare);
  uv_idle_init(uv, &loop->idle);
  napi_value external = NULL;
  napi_create_reference(env, callback, 1, &loop->callback);
  napi_async_init(env, NULL, name, &loop->context);
  napi_add_async_cleanup_hook(env, on_environment_end, loop, &loop->hook);
  call.addon->has_event_loop = true;
  if (napi_create_external(env, loop, on_collected, NULL, &external) != napi_ok) {
    close_loop(loop);
    return reply(&call, -ENOMEM);
  }
  loop->holders++;
  uv_prepare_start(&loop->prepare, on_prepare);
  uv_idle_start(&loop->idle, on_idle);
  return external;
}

/* stopEventLoop(handle) */
static napi_value native_stop_event_loop(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  void *data = NULL;
  if (napi_get_value_external(env, next_value(&call), &data) != napi_ok) fail_call(&call, EINVAL);
  if (call.error != 0) return reply_refusal(&call);
  close_loop(data);
  return reply(&call, 0);
}

const struct export_row EVENT_LOOP_EXPORTS[] = {
    {"startEventLoop", native_start_event_loop},
    {"stopEventLoop", native_stop_event_loop},
    {NULL, NULL},
};
