/*
 * An addon for tests: any system call with any arguments, to see what a sandbox makes of it. Numbers are passed as they are, buffers as
 * their addresses. The few declarations of Node-API that it needs are its own, so that it compiles without Node's headers.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

typedef struct napi_env__ *napi_env;
typedef struct napi_value__ *napi_value;
typedef struct napi_callback_info__ *napi_callback_info;
typedef napi_value (*napi_callback)(napi_env, napi_callback_info);

extern int napi_get_cb_info(napi_env, napi_callback_info, size_t *, napi_value *, napi_value *, void **);
extern int napi_get_value_int64(napi_env, napi_value, int64_t *);
extern int napi_get_buffer_info(napi_env, napi_value, void **, size_t *);
extern int napi_is_buffer(napi_env, napi_value, bool *);
extern int napi_create_int64(napi_env, int64_t, napi_value *);
extern int napi_create_function(napi_env, const char *, size_t, napi_callback, void *, napi_value *);

enum { ARGUMENTS = 7 };

/* (number, up to six arguments): the result, or -errno */
static napi_value call(napi_env env, napi_callback_info info) {
  size_t count = ARGUMENTS;
  napi_value values[ARGUMENTS];
  int64_t numbers[ARGUMENTS] = {0};
  napi_get_cb_info(env, info, &count, values, NULL, NULL);
  for (size_t i = 0; i < count && i < ARGUMENTS; i++) {
    bool is_buffer = false;
    napi_is_buffer(env, values[i], &is_buffer);
    if (is_buffer) {
      void *data = NULL;
      size_t length = 0;
      napi_get_buffer_info(env, values[i], &data, &length);
      numbers[i] = (int64_t)(intptr_t)data;
    } else {
      napi_get_value_int64(env, values[i], &numbers[i]);
    }
  }
  long result = syscall(numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], numbers[6]);
  napi_value answer = NULL;
  napi_create_int64(env, result < 0 ? -(int64_t)errno : (int64_t)result, &answer);
  return answer;
}

__attribute__((visibility("default"))) napi_value napi_register_module_v1(napi_env env, napi_value exports) {
  (void)exports;
  napi_value function = NULL;
  napi_create_function(env, "call", SIZE_MAX, call, NULL, &function);
  return function;
}
