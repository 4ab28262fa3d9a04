/*
 * Requests to the namespace agent (agent/agent.c), which answers within microseconds: the calling thread waits for it. Passing
 * descriptors: unix(7).
 */
#include <string.h>
#include <sys/uio.h>

#include "agent/protocol.h"
#include "endpoint.h"
#include "native.h"

union agent_control {
  struct cmsghdr align;
  uint8_t bytes[CMSG_SPACE(SOCKETS_MAX * sizeof(int))];
};

/* Sends a request, with a descriptor if it is not negative, and receives the answer's descriptors. @returns the answer or -errno */
static int64_t ask(int agent, struct request *request, int with, int32_t *fds) {
  union agent_control control;
  memset(&control, 0, sizeof control);
  struct iovec out = {.iov_base = request, .iov_len = sizeof *request};
  struct msghdr message = {.msg_iov = &out, .msg_iovlen = 1};
  if (with >= 0) {
    message.msg_control = &control;
    message.msg_controllen = CMSG_SPACE(sizeof(int));
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &with, sizeof(int));
  }
  if (RETRY(sendmsg(agent, &message, MSG_NOSIGNAL)) < 0) return -errno;
  int32_t status = 0;
  struct iovec in = {.iov_base = &status, .iov_len = sizeof status};
  message = (struct msghdr){
      .msg_iov = &in, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  ssize_t received = RETRY(recvmsg(agent, &message, MSG_CMSG_CLOEXEC));
  if (received < 0) return -errno;
  if (received != (ssize_t)sizeof status) return -EPIPE;
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  size_t count = 0;
  if (header != NULL && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
    count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    /* The control buffer has room for no more than SOCKETS_MAX, and so has the array. */
    if (fds != NULL) memcpy(fds, CMSG_DATA(header), count * sizeof(int));
  }
  /* Out of descriptors here: the kernel gave those that it could. */
  if (fds != NULL && status > 0) return count > 0 ? (int64_t)count : -EMFILE;
  return status;
}

/* namespaceSockets(agent, family, type, count, fds): so many new sockets of the namespace in fds, or -errno */
static napi_value native_namespace_sockets(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t agent = next_int(&call);
  struct request request;
  memset(&request, 0, sizeof request);
  request.kind = REQUEST_SOCKETS;
  request.family = (uint8_t)next_uint(&call);
  request.type = (uint8_t)next_uint(&call);
  uint32_t count = next_uint(&call);
  int32_t *fds = next_int_array(&call, SOCKETS_MAX);
  if (count == 0 || count > SOCKETS_MAX) fail_call(&call, EINVAL);
  if (call.error != 0) return reply_refusal(&call);
  request.count = (uint8_t)count;
  return reply(&call, ask(agent, &request, -1, fds));
}

/* namespaceBind(agent, fd, endpoint): bind(2) by the agent. 0 or -errno */
static napi_value native_namespace_bind(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t agent = next_int(&call);
  int32_t fd = next_int(&call);
  const uint8_t *record = arena_range(&call, next_uint(&call), ENDPOINT_BYTES);
  if (fd < 0) fail_call(&call, EBADF);
  if (call.error != 0) return reply_refusal(&call);
  union socket_address address;
  struct request request;
  memset(&request, 0, sizeof request);
  request.kind = REQUEST_BIND;
  request.address_length = read_endpoint(record, &address);
  if (request.address_length == 0) return reply(&call, -EINVAL);
  memcpy(&request.address, &address, request.address_length);
  return reply(&call, ask(agent, &request, fd, NULL));
}

const struct export_row NAMESPACE_EXPORTS[] = {
    {"namespaceSockets", native_namespace_sockets},
    {"namespaceBind", native_namespace_bind},
    {NULL, NULL},
};
