/* Descriptors of any kind: their flags and duplicates, eventfd(2), timerfd_create(2), and the limit on their number. */
#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "native.h"

/* setCloseOnExec(fd, on) */
static napi_value native_set_close_on_exec(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  int32_t on = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  return reply_result(&call, fcntl(fd, F_SETFD, on != 0 ? FD_CLOEXEC : 0));
}

/* setNonBlocking(fd, on). The flag belongs to the open file: everybody who shares it sees the change. */
static napi_value native_set_non_blocking(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  int32_t on = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0) return reply(&call, -errno);
  return reply_result(&call, fcntl(fd, F_SETFL, on != 0 ? flags | O_NONBLOCK : flags & ~O_NONBLOCK));
}

/* statusFlags(fd): F_GETFL */
static napi_value native_status_flags(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  return reply_result(&call, fcntl(fd, F_GETFL));
}

/* duplicate(fd, lowest): the new descriptor is the first free one from `lowest` and is close-on-exec */
static napi_value native_duplicate(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  int32_t lowest = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  return reply_result(&call, fcntl(fd, F_DUPFD_CLOEXEC, lowest));
}

/* duplicateTo(fd, target): replaces `target`, close-on-exec */
static napi_value native_duplicate_to(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  int32_t target = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  return reply_result(&call, RETRY(dup3(fd, target, O_CLOEXEC)));
}

/* closeOnExecFrom(lowest): no descriptor from `lowest` on survives an exec. Closing them would take Node's own away. */
static napi_value native_close_on_exec_from(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  uint32_t lowest = next_uint(&call);
  if (call.error != 0) return reply_refusal(&call);
  return reply_result(&call, syscall(SYS_close_range, lowest, ~0U, CLOSE_RANGE_CLOEXEC));
}

/* eventfdCreate(initial) */
static napi_value native_eventfd_create(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  uint32_t initial = next_uint(&call);
  if (call.error != 0) return reply_refusal(&call);
  return reply_result(&call, eventfd(initial, EFD_CLOEXEC | EFD_NONBLOCK));
}

/* timerfdCreate(): monotonic */
static napi_value native_timerfd_create(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  return reply_result(&call, timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
}

static struct timespec from_microseconds(uint32_t microseconds) {
  return (struct timespec){.tv_sec = microseconds / 1000000, .tv_nsec = (long)(microseconds % 1000000) * 1000};
}

/* timerfdSet(fd, firstUs, intervalUs): firstUs 0 stops it, intervalUs 0 makes it fire once */
static napi_value native_timerfd_set(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  uint32_t first = next_uint(&call);
  uint32_t interval = next_uint(&call);
  if (call.error != 0) return reply_refusal(&call);
  struct itimerspec setting = {.it_value = from_microseconds(first), .it_interval = from_microseconds(interval)};
  return reply_result(&call, timerfd_settime(fd, 0, &setting, NULL));
}

/* counterRead(fd): the count of an eventfd or the expirations of a timerfd, which reading resets */
static napi_value native_counter_read(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  uint64_t value = 0;
  if (RETRY(read(fd, &value, sizeof value)) < 0) return reply(&call, -errno);
  return reply(&call, (int64_t)value);
}

/* counterWrite(fd, value): adds to an eventfd */
static napi_value native_counter_write(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  uint64_t value = next_uint(&call);
  if (call.error != 0) return reply_refusal(&call);
  if (RETRY(write(fd, &value, sizeof value)) < 0) return reply(&call, -errno);
  return reply(&call, 0);
}

/* getFileLimit(hard): RLIMIT_NOFILE; "no limit" comes as the largest 32-bit integer */
static napi_value native_get_file_limit(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t hard = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return reply(&call, -errno);
  rlim_t value = hard != 0 ? limit.rlim_max : limit.rlim_cur;
  return reply(&call, value < INT32_MAX ? (int64_t)value : INT32_MAX);
}

/* setFileLimit(soft): RLIMIT_NOFILE, its hard limit unchanged */
static napi_value native_set_file_limit(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  uint32_t soft = next_uint(&call);
  if (call.error != 0) return reply_refusal(&call);
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return reply(&call, -errno);
  limit.rlim_cur = soft;
  return reply_result(&call, setrlimit(RLIMIT_NOFILE, &limit));
}

const struct export_row DESCRIPTOR_EXPORTS[] = {
    {"setCloseOnExec", native_set_close_on_exec},
    {"setNonBlocking", native_set_non_blocking},
    {"statusFlags", native_status_flags},
    {"duplicate", native_duplicate},
    {"duplicateTo", native_duplicate_to},
    {"closeOnExecFrom", native_close_on_exec_from},
    {"eventfdCreate", native_eventfd_create},
    {"timerfdCreate", native_timerfd_create},
    {"timerfdSet", native_timerfd_set},
    {"counterRead", native_counter_read},
    {"counterWrite", native_counter_write},
    {"getFileLimit", native_get_file_limit},
    {"setFileLimit", native_set_file_limit},
    {NULL, NULL},
};
