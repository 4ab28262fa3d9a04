#include "callback.h"

bool call_back(napi_env env, napi_async_context context, napi_ref function, int32_t value, int32_t *answer) {
  napi_handle_scope scope = NULL;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return false;
  napi_value receiver = NULL;
  napi_value callee = NULL;
  napi_value argument = NULL;
  napi_value result = NULL;
  napi_status status = napi_get_global(env, &receiver);
  if (status == napi_ok) status = napi_get_reference_value(env, function, &callee);
  if (status == napi_ok) status = napi_create_int32(env, value, &argument);
  if (status == napi_ok) status = napi_make_callback(env, context, receiver, callee, 1, &argument, &result);
  if (status == napi_ok && answer != NULL && napi_get_value_int32(env, result, answer) != napi_ok) *answer = 0;
  if (status == napi_pending_exception) {
    napi_value error = NULL;
    if (napi_get_and_clear_last_exception(env, &error) == napi_ok) napi_fatal_exception(env, error);
  }
  napi_close_handle_scope(env, scope);
  return status == napi_ok;
}
