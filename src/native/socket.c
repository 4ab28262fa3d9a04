/* Making, naming, connecting and closing sockets, and their options: socket(7), ip(7), ipv6(7), tcp(7), unix(7). */
#include <net/if.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "endpoint.h"
#include "native.h"

static int domain_of(int32_t family) {
  switch (family) {
    case 4:
      return AF_INET;
    case 6:
      return AF_INET6;
    case 1:
      return AF_UNIX;
    default:
      return -1;
  }
}

/* open(family, type, protocol) */
static napi_value native_open(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int domain = domain_of(next_int(&call));
  int32_t type = next_int(&call);
  int32_t protocol = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  if (domain < 0) return reply(&call, -EAFNOSUPPORT);
  return reply_result(&call, socket(domain, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol));
}

/* The record at the next argument as a socket address; its length, or 0 with the call failed. */
static socklen_t next_endpoint(struct call *call, union socket_address *address) {
  const uint8_t *record = arena_range(call, next_uint(call), ENDPOINT_BYTES);
  if (call->error != 0) return 0;
  socklen_t length = read_endpoint(record, address);
  if (length == 0) fail_call(call, EAFNOSUPPORT);
  return length;
}

/* bind(fd, endpoint) */
static napi_value native_bind(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  union socket_address address;
  socklen_t length = next_endpoint(&call, &address);
  /* AF_UNSPEC would bind to the wildcard address, which nobody asked for. */
  if (call.error == 0 && address.any.sa_family == AF_UNSPEC) fail_call(&call, EAFNOSUPPORT);
  if (call.error != 0) return reply_refusal(&call);
  return reply_result(&call, bind(fd, &address.any, length));
}

/*
 * On this machine and in its namespaces a handshake is over when a non-blocking connect(2) returns, only that it could not see that: the answer
 * waits until the call lets go of the socket. A second call sees it, and costs less than to be woken for it.
 */
static int connect_now(int fd, const union socket_address *address, socklen_t length) {
  int result = (int)RETRY(connect(fd, &address->any, length));
  if (result == 0 || errno != EINPROGRESS) return result;
  result = (int)RETRY(connect(fd, &address->any, length));
  if (result < 0 && errno == EALREADY) errno = EINPROGRESS;
  return result;
}

/* connect(fd, endpoint). Family 0 takes a datagram socket's peer away and resets a TCP connection. */
static napi_value native_connect(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  union socket_address address;
  socklen_t length = next_endpoint(&call, &address);
  if (call.error != 0) return reply_refusal(&call);
  return reply_result(&call, connect_now(fd, &address, length));
}

/* listen(fd, backlog) */
static napi_value native_listen(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  int32_t backlog = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  return reply_result(&call, listen(fd, backlog));
}

/* accept(fd, endpoint) */
static napi_value native_accept(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  uint8_t *record = arena_range(&call, next_uint(&call), ENDPOINT_BYTES);
  if (call.error != 0) return reply_refusal(&call);
  union socket_address address = {0};
  socklen_t length = sizeof address;
  int accepted = (int)RETRY(accept4(fd, &address.any, &length, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (accepted < 0) return reply(&call, -errno);
  write_endpoint(record, &address.any);
  return reply(&call, accepted);
}

/* getName(fd, endpoint) and getPeer(fd, endpoint) */
static napi_value reply_name(napi_env env, napi_callback_info info, bool peer) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  uint8_t *record = arena_range(&call, next_uint(&call), ENDPOINT_BYTES);
  if (call.error != 0) return reply_refusal(&call);
  union socket_address address = {0};
  socklen_t length = sizeof address;
  int result = peer ? getpeername(fd, &address.any, &length) : getsockname(fd, &address.any, &length);
  if (result < 0) return reply(&call, -errno);
  write_endpoint(record, &address.any);
  return reply(&call, 0);
}

static napi_value native_get_name(napi_env env, napi_callback_info info) { return reply_name(env, info, false); }

static napi_value native_get_peer(napi_env env, napi_callback_info info) { return reply_name(env, info, true); }

/* shutdown(fd, how) */
static napi_value native_shutdown(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  int32_t how = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  return reply_result(&call, shutdown(fd, how));
}

/* close(fd). Never repeated: on Linux the descriptor is gone even when the call was interrupted. */
static napi_value native_close(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  if (close(fd) < 0 && errno != EINTR) return reply(&call, -errno);
  return reply(&call, 0);
}

/* takeError(fd): the pending error as a positive number */
static napi_value native_take_error(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  int value = 0;
  socklen_t length = sizeof value;
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &value, &length) < 0) return reply(&call, -errno);
  return reply(&call, value);
}

/* getOption(fd, level, name) */
static napi_value native_get_option(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  int32_t level = next_int(&call);
  int32_t name = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  int value = 0;
  socklen_t length = sizeof value;
  if (getsockopt(fd, level, name, &value, &length) < 0) return reply(&call, -errno);
  return reply(&call, value);
}

/* setOption(fd, level, name, value). SO_LINGER, the one common option that is no int: seconds, or negative to switch it off. */
static napi_value native_set_option(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  int32_t level = next_int(&call);
  int32_t name = next_int(&call);
  int32_t value = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  if (level == SOL_SOCKET && name == SO_LINGER) {
    struct linger linger = {.l_onoff = value >= 0, .l_linger = value >= 0 ? value : 0};
    return reply_result(&call, setsockopt(fd, level, name, &linger, sizeof linger));
  }
  return reply_result(&call, setsockopt(fd, level, name, &value, sizeof value));
}

/* setOptionString(fd, level, name, value) */
static napi_value native_set_option_string(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  int32_t level = next_int(&call);
  int32_t name = next_int(&call);
  char value[256];
  next_string(&call, value, sizeof value, NULL);
  if (call.error != 0) return reply_refusal(&call);
  return reply_result(&call, setsockopt(fd, level, name, value, (socklen_t)strlen(value) + 1));
}

/* getTcpInfo(fd, offset, length) */
static napi_value native_get_tcp_info(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  uint32_t offset = next_uint(&call);
  uint32_t length = next_uint(&call);
  uint8_t *data = arena_range(&call, offset, length);
  if (length > INT32_MAX) fail_call(&call, EFAULT);
  if (call.error != 0) return reply_refusal(&call);
  socklen_t copied = length;
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, data, &copied) < 0) return reply(&call, -errno);
  return reply(&call, copied);
}

const struct export_row SOCKET_EXPORTS[] = {
    {"open", native_open},
    {"bind", native_bind},
    {"connect", native_connect},
    {"listen", native_listen},
    {"accept", native_accept},
    {"getName", native_get_name},
    {"getPeer", native_get_peer},
    {"shutdown", native_shutdown},
    {"close", native_close},
    {"takeError", native_take_error},
    {"getOption", native_get_option},
    {"setOption", native_set_option},
    {"setOptionString", native_set_option_string},
    {"getTcpInfo", native_get_tcp_info},
    {NULL, NULL},
};
