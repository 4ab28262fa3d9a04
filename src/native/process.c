/* Children, this process's privileges, random numbers: waitpid(2), pidfd_open(2), prctl(2), getrandom(2). */
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "native.h"

/* waitProcess(pid, status): the pid with the wait status in status[0], 0 while it runs, or -errno (-ECHILD: not ours, or waited for) */
static napi_value native_wait_process(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t pid = next_int(&call);
  int32_t *out = next_int_array(&call, 1);
  /* 0 and negative numbers would take children that belong to Node. */
  if (pid <= 0) fail_call(&call, EINVAL);
  if (call.error != 0) return reply_refusal(&call);
  int status = 0;
  ssize_t result = RETRY(waitpid(pid, &status, WNOHANG));
  if (result > 0) out[0] = status;
  return reply_result(&call, result);
}

/* pidfdOpen(pid): readable when the process has ended */
static napi_value native_pidfd_open(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t pid = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  /* The kernel sets close-on-exec itself. */
  return reply_result(&call, syscall(SYS_pidfd_open, pid, 0U));
}

/* setNoNewPrivileges(): for the calling thread and those it starts later; no exec gives privileges any more */
static napi_value native_set_no_new_privileges(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  return reply_result(&call, prctl(PR_SET_NO_NEW_PRIVS, 1UL, 0UL, 0UL, 0UL));
}

/* setDumpable(on): whether others of the same user may look into this process (ptrace, /proc/PID) */
static napi_value native_set_dumpable(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t on = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  return reply_result(&call, prctl(PR_SET_DUMPABLE, on != 0 ? 1UL : 0UL));
}

/* fillRandom(bytes): 256 bytes at most, which the kernel gives at once or not at all */
static napi_value native_fill_random(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  uint32_t length = 0;
  uint8_t *bytes = next_bytes(&call, &length);
  if (length > 256) fail_call(&call, EINVAL);
  if (call.error != 0) return reply_refusal(&call);
  return reply_result(&call, RETRY(getrandom(bytes, length, 0)));
}

const struct export_row PROCESS_EXPORTS[] = {
    {"waitProcess", native_wait_process},
    {"pidfdOpen", native_pidfd_open},
    {"setNoNewPrivileges", native_set_no_new_privileges},
    {"setDumpable", native_set_dumpable},
    {"fillRandom", native_fill_random},
    {NULL, NULL},
};
