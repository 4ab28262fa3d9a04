/* Local sockets by path or abstract name, pairs, and who is at the other end: unix(7). */
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "native.h"
#include "unix-address.h"

socklen_t next_unix_address(struct call *call, struct sockaddr_un *address) {
  size_t length = 0;
  memset(address, 0, sizeof *address);
  address->sun_family = AF_UNIX;
  next_string(call, address->sun_path, sizeof address->sun_path, &length);
  /* The empty name would make the kernel choose one. */
  if (call->error == 0 && length == 0) fail_call(call, EINVAL);
  bool abstract = length > 0 && address->sun_path[0] == '\0';
  if (!abstract && strlen(address->sun_path) != length) fail_call(call, EINVAL);
  return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + (abstract ? 0 : 1));
}

/*
 * unixBind(fd, path, mode). A mode that is not negative is given to the socket before it gets its name, so there is no moment at
 * which the name is open to others; the umask takes its bits away as usual.
 */
static napi_value native_unix_bind(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  struct sockaddr_un address;
  socklen_t length = next_unix_address(&call, &address);
  int32_t mode = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  if (mode >= 0 && fchmod(fd, (mode_t)mode) < 0) return reply(&call, -errno);
  return reply_result(&call, bind(fd, (const struct sockaddr *)&address, length));
}

/* unixConnect(fd, path) */
static napi_value native_unix_connect(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  struct sockaddr_un address;
  socklen_t length = next_unix_address(&call, &address);
  if (call.error != 0) return reply_refusal(&call);
  return reply_result(&call, RETRY(connect(fd, (const struct sockaddr *)&address, length)));
}

/* unixAccept(fd): accept4(2), non-blocking and close-on-exec; who connected is peerCredentials()'s to tell */
static napi_value native_unix_accept(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  return reply_result(&call, RETRY(accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)));
}

/* socketPair(type, fds) */
static napi_value native_socket_pair(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t type = next_int(&call);
  int32_t *fds = next_int_array(&call, 2);
  if (call.error != 0) return reply_refusal(&call);
  int pair[2];
  if (socketpair(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0) return reply(&call, -errno);
  fds[0] = pair[0];
  fds[1] = pair[1];
  return reply(&call, 0);
}

/* peerCredentials(fd, out): pid, uid, gid of the peer when the connection was made */
static napi_value native_peer_credentials(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  int32_t *out = next_int_array(&call, 3);
  if (call.error != 0) return reply_refusal(&call);
  struct ucred credentials;
  socklen_t length = sizeof credentials;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) < 0) return reply(&call, -errno);
  out[0] = credentials.pid;
  out[1] = (int32_t)credentials.uid;
  out[2] = (int32_t)credentials.gid;
  return reply(&call, 0);
}

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

/* peerPidfd(fd): a pidfd of the process that connected; the kernel sets close-on-exec itself */
static napi_value native_peer_pidfd(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  int pidfd = -1;
  socklen_t length = sizeof pidfd;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &length) < 0) return reply(&call, -errno);
  return reply(&call, pidfd);
}

/* peerGroups(fd, out): supplementary groups of the peer when the connection was made; their number, or -ERANGE for too many */
static napi_value native_peer_groups(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  size_t length = 0;
  if (napi_get_typedarray_info(env, call.arguments[1], NULL, &length, NULL, NULL, NULL) != napi_ok) fail_call(&call, EINVAL);
  int32_t *out = next_int_array(&call, 0);
  if (call.error != 0) return reply_refusal(&call);
  socklen_t size = (socklen_t)(length * sizeof *out);
  if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, out, &size) < 0) return reply(&call, -errno);
  return reply(&call, (int64_t)(size / sizeof *out));
}

/* unixName(fd, peer): the address of this end (0) or the other (1), a string of bytes, '' for none; abstract names start with NUL */
static napi_value native_unix_name(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  int32_t peer = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  struct sockaddr_un address;
  memset(&address, 0, sizeof address);
  socklen_t length = sizeof address;
  struct sockaddr *out = (struct sockaddr *)&address;
  if ((peer != 0 ? getpeername(fd, out, &length) : getsockname(fd, out, &length)) < 0) return reply(&call, -errno);
  if (address.sun_family != AF_UNIX) return reply(&call, -EAFNOSUPPORT);
  size_t size = length > offsetof(struct sockaddr_un, sun_path) ? length - offsetof(struct sockaddr_un, sun_path) : 0;
  if (size > sizeof address.sun_path) size = sizeof address.sun_path;
  /* A path may or may not have its NUL counted. */
  if (size > 0 && address.sun_path[0] != '\0') size = strnlen(address.sun_path, size);
  napi_value name = NULL;
  napi_create_string_latin1(env, address.sun_path, size, &name);
  return name;
}

const struct export_row UNIX_SOCKET_EXPORTS[] = {
    {"unixBind", native_unix_bind},
    {"unixConnect", native_unix_connect},
    {"unixAccept", native_unix_accept},
    {"socketPair", native_socket_pair},
    {"peerCredentials", native_peer_credentials},
    {"peerPidfd", native_peer_pidfd},
    {"peerGroups", native_peer_groups},
    {"unixName", native_unix_name},
    {NULL, NULL},
};
