/*
 * Hooks a descriptor into Node's event loop with one uv_poll_t.
 *
 * A poll lives until both its libuv handle is closed and its JavaScript handle is collected: stopPoll() may be called twice, and
 * JavaScript may forget a running poll. When the environment ends, a cleanup hook closes the handle and lets the
 * environment wait until libuv has let go of it.
 */
#include <stdlib.h>
#include <uv.h>

#include "callback.h"
#include "native.h"

struct poll {
  uv_poll_t handle;
  napi_env env;
  napi_ref callback;
  napi_async_context context;
  napi_async_cleanup_hook_handle hook;
  int holders;
  bool closing;
};

static void release_poll(struct poll *poll) {
  if (--poll->holders == 0) free(poll);
}

static void on_closed(uv_handle_t *handle) {
  struct poll *poll = handle->data;
  napi_remove_async_cleanup_hook(poll->hook);
  release_poll(poll);
}

static void close_poll(struct poll *poll) {
  if (poll->closing) return;
  poll->closing = true;
  napi_delete_reference(poll->env, poll->callback);
  napi_async_destroy(poll->env, poll->context);
  uv_close((uv_handle_t *)&poll->handle, on_closed);
}

static void on_environment_end(napi_async_cleanup_hook_handle hook, void *data) {
  (void)hook;
  close_poll(data);
}

static void on_collected(napi_env env, void *data, void *hint) {
  (void)env;
  (void)hint;
  release_poll(data);
}

static void on_event(uv_poll_t *handle, int status, int events) {
  struct poll *poll = handle->data;
  (void)status;
  (void)events;
  call_back(poll->env, poll->context, poll->callback, 0, NULL);
}

/* startPoll(fd, callback): a handle, or -errno */
static napi_value native_start_poll(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  napi_value callback = next_value(&call);
  napi_valuetype type = napi_undefined;
  napi_typeof(env, callback, &type);
  if (type != napi_function) fail_call(&call, EINVAL);
  if (call.error != 0) return reply_refusal(&call);
  uv_loop_t *loop = NULL;
  napi_value name = NULL;
  if (napi_get_uv_event_loop(env, &loop) != napi_ok ||
      napi_create_string_utf8(env, "passel.poll", NAPI_AUTO_LENGTH, &name) != napi_ok) {
    return reply(&call, -EIO);
  }
  struct poll *poll = calloc(1, sizeof *poll);
  if (poll == NULL) return reply(&call, -ENOMEM);
  int result = uv_poll_init(loop, &poll->handle, fd);
  if (result < 0) {
    free(poll);
    return reply(&call, result);
  }
  poll->env = env;
  poll->holders = 1;
  poll->handle.data = poll;
  napi_value external = NULL;
  napi_create_reference(env, callback, 1, &poll->callback);
  napi_async_init(env, NULL, name, &poll->context);
  napi_add_async_cleanup_hook(env, on_environment_end, poll, &poll->hook);
  if (napi_create_external(env, poll, on_collected, NULL, &external) == napi_ok) {
    poll->holders++;
    result = uv_poll_start(&poll->handle, UV_READABLE, on_event);
  } else {
    result = -ENOMEM;
  }
  if (result < 0) {
    close_poll(poll);
    return reply(&call, result);
  }
  return external;
}

static struct poll *next_poll(struct call *call) {
  void *data = NULL;
  if (napi_get_value_external(call->env, next_value(call), &data) != napi_ok) fail_call(call, EINVAL);
  return data;
}

/* stopPoll(handle) */
static napi_value native_stop_poll(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct poll *poll = next_poll(&call);
  if (call.error != 0) return reply_refusal(&call);
  close_poll(poll);
  return reply(&call, 0);
}

/* refPoll(handle): the loop stays alive while the poll runs, as it does at the start */
static napi_value native_ref_poll(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct poll *poll = next_poll(&call);
  if (call.error != 0) return reply_refusal(&call);
  if (!poll->closing) uv_ref((uv_handle_t *)&poll->handle);
  return reply(&call, 0);
}

/* unrefPoll(handle) */
static napi_value native_unref_poll(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct poll *poll = next_poll(&call);
  if (call.error != 0) return reply_refusal(&call);
  if (!poll->closing) uv_unref((uv_handle_t *)&poll->handle);
  return reply(&call, 0);
}

const struct export_row POLL_EXPORTS[] = {
    {"startPoll", native_start_poll},
    {"stopPoll", native_stop_poll},
    {"refPoll", native_ref_poll},
    {"unrefPoll", native_unref_poll},
    {NULL, NULL},
};
