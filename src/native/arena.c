/* The arena, and arguments that are more than a number. */
#include <stdlib.h>
#include <string.h>

#include "native.h"

uint8_t *take_scratch(struct addon *addon) {
  if (addon->scratch == NULL) addon->scratch = malloc(SCRATCH_BYTES);
  return addon->scratch;
}

uint8_t *next_bytes(struct call *call, uint32_t *length) {
  napi_typedarray_type type;
  size_t count = 0;
  void *data = NULL;
  *length = 0;
  if (napi_get_typedarray_info(call->env, next_value(call), &type, &count, &data, NULL, NULL) != napi_ok ||
      type != napi_uint8_array) {
    fail_call(call, EINVAL);
    return NULL;
  }
  if (count > UINT32_MAX) {
    fail_call(call, EFAULT);
    return NULL;
  }
  *length = (uint32_t)count;
  return data;
}

int32_t *next_ints(struct call *call, size_t *count) {
  napi_typedarray_type type;
  void *data = NULL;
  *count = 0;
  if (napi_get_typedarray_info(call->env, next_value(call), &type, count, &data, NULL, NULL) != napi_ok ||
      type != napi_int32_array) {
    fail_call(call, EINVAL);
    return NULL;
  }
  return data;
}

int32_t *next_int_array(struct call *call, size_t count) {
  size_t available = 0;
  int32_t *data = next_ints(call, &available);
  if (available < count) fail_call(call, EFAULT);
  return data;
}

void next_string(struct call *call, char *buffer, size_t size, size_t *length) {
  napi_value value = next_value(call);
  size_t full = 0;
  size_t copied = 0;
  buffer[0] = '\0';
  if (length != NULL) *length = 0;
  if (napi_get_value_string_utf8(call->env, value, NULL, 0, &full) != napi_ok) {
    fail_call(call, EINVAL);
    return;
  }
  if (full >= size) {
    fail_call(call, ENAMETOOLONG);
    return;
  }
  napi_get_value_string_utf8(call->env, value, buffer, size, &copied);
  if (length != NULL) {
    *length = copied;
  } else if (strlen(buffer) != copied) {
    /* What the kernel would see is not what the caller named. */
    fail_call(call, EINVAL);
  }
}

/* bindArena(arrayBuffer): 0 or -errno. A second call moves to another buffer. */
static napi_value native_bind_arena(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  napi_value buffer = next_value(&call);
  bool is_buffer = false;
  napi_is_arraybuffer(env, buffer, &is_buffer);
  if (!is_buffer) fail_call(&call, EINVAL);
  if (call.error != 0) return reply_refusal(&call);
  void *data = NULL;
  size_t length = 0;
  napi_ref ref = NULL;
  if (napi_get_arraybuffer_info(env, buffer, &data, &length) != napi_ok ||
      napi_create_reference(env, buffer, 1, &ref) != napi_ok) {
    return reply(&call, -EINVAL);
  }
  struct addon *addon = call.addon;
  if (addon->arena_ref != NULL) napi_delete_reference(env, addon->arena_ref);
  addon->arena = data;
  addon->arena_length = length;
  addon->arena_ref = ref;
  return reply(&call, 0);
}

const struct export_row ARENA_EXPORTS[] = {
    {"bindArena", native_bind_arena},
    {NULL, NULL},
};
