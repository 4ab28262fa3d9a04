/* Calling JavaScript from Node's event loop. */
#ifndef PASSEL_CALLBACK_H
#define PASSEL_CALLBACK_H

#include <node_api.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * Calls the function with one number, as Node's own events do: process.nextTick and microtasks run on return, and an exception goes to
 * `uncaughtException`. False when it threw, or cannot be called any more because the environment ends.
 *
 * `answer`: what it returned, 0 when that is no number; or NULL.
 */
bool call_back(napi_env env, napi_async_context context, napi_ref function, int32_t value, int32_t *answer);

#endif
