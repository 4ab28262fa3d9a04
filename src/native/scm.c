/*
 * Passing descriptors and credentials over local sockets: unix(7), cmsg(3).
 *
 * The kernel installs received descriptors before it says that some did not fit, and a control buffer for one has room for two by
 * its alignment. So the buffer here holds the most that a message can carry, every control message is walked by its length,
 * and when anything is amiss all that came is closed: the caller gets either what was sent or nothing.
 */
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "native.h"
#include "scm.h"

#ifndef SCM_PIDFD
#define SCM_PIDFD 4
#endif

union fd_control {
  struct cmsghdr align;
  /* Descriptors, credentials, and what else a socket may have been told to deliver: a pidfd, a security label. */
  uint8_t bytes[CMSG_SPACE(MAX_FDS * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(sizeof(int)) + 256];
};

/* sendFds(fd, bytes, offset, length, fds, count): bytes taken. At least one byte has to go with descriptors on a stream. */
static napi_value native_send_fds(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  uint32_t available = 0;
  uint8_t *data = next_bytes(&call, &available);
  uint32_t offset = next_uint(&call);
  uint32_t length = next_uint(&call);
  /* How long the array has to be is the argument behind it. */
  uint32_t count = 0;
  if (napi_get_value_uint32(env, call.arguments[5], &count) != napi_ok) fail_call(&call, EINVAL);
  if ((uint64_t)offset + length > available) fail_call(&call, EFAULT);
  if (count > MAX_FDS || (count > 0 && length == 0)) fail_call(&call, EINVAL);
  const int32_t *fds = next_int_array(&call, count);
  if (call.error != 0) return reply_refusal(&call);

  union fd_control control;
  memset(&control, 0, sizeof control);
  struct iovec iovec = {.iov_base = data + offset, .iov_len = length};
  struct msghdr message = {.msg_iov = &iovec, .msg_iovlen = 1};
  if (count > 0) {
    message.msg_control = &control;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(header), fds, count * sizeof(int));
  }
  return reply_result(&call, RETRY(sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL)));
}

ssize_t receive_message(int fd, void *data, size_t length, struct received *received) {
  union fd_control control;
  struct iovec iovec = {.iov_base = data, .iov_len = length};
  struct msghdr message = {
      .msg_iov = &iovec, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  received->count = 0;
  memset(received->credentials, 0xff, sizeof received->credentials);
  ssize_t taken = RETRY(recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC));
  if (taken < 0) return -errno;

  bool cut = (message.msg_flags & (MSG_CTRUNC | MSG_TRUNC)) != 0;
  for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header != NULL; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET) continue;
    const uint8_t *payload = CMSG_DATA(header);
    size_t size = header->cmsg_len - CMSG_LEN(0);
    if (header->cmsg_type == SCM_RIGHTS) {
      for (; size >= sizeof(int); size -= sizeof(int), payload += sizeof(int)) {
        int received_fd;
        memcpy(&received_fd, payload, sizeof received_fd);
        if (received->count < MAX_FDS) {
          received->fds[received->count++] = received_fd;
        } else {
          close(received_fd);
          cut = true;
        }
      }
    } else if (header->cmsg_type == SCM_CREDENTIALS && size >= sizeof(struct ucred)) {
      struct ucred sender;
      memcpy(&sender, payload, sizeof sender);
      received->credentials[0] = sender.pid;
      received->credentials[1] = (int32_t)sender.uid;
      received->credentials[2] = (int32_t)sender.gid;
    } else if (header->cmsg_type == SCM_PIDFD && size >= sizeof(int)) {
      /* Nobody here asks for it; left alone it would leak. */
      int pidfd;
      memcpy(&pidfd, payload, sizeof pidfd);
      if (pidfd >= 0) close(pidfd);
    }
  }
  if (!cut) return taken;
  for (size_t i = 0; i < received->count; i++) close(received->fds[i]);
  received->count = 0;
  return -EMSGSIZE;
}

/*
 * receiveFds(fd, bytes, offset, length, fds, credentials): bytes received, 0 at the end of a stream. fds[0] becomes the number of
 * descriptors, which follow it; credentials become pid, uid, gid, or -1 when none came. -EMSGSIZE: descriptors or payload were
 * cut, or `fds` is too small; everything that came is closed and lost.
 */
static napi_value native_receive_fds(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  uint32_t available = 0;
  uint8_t *data = next_bytes(&call, &available);
  uint32_t offset = next_uint(&call);
  uint32_t length = next_uint(&call);
  size_t fds_length = 0;
  int32_t *fds = next_int_array(&call, 1);
  /* How many descriptors the array has room for. */
  if (call.error == 0) napi_get_typedarray_info(env, call.arguments[4], NULL, &fds_length, NULL, NULL, NULL);
  int32_t *credentials = next_int_array(&call, 3);
  if ((uint64_t)offset + length > available) fail_call(&call, EFAULT);
  if (call.error != 0) return reply_refusal(&call);

  struct received received;
  ssize_t taken = receive_message(fd, data + offset, length, &received);
  fds[0] = 0;
  memcpy(credentials, received.credentials, sizeof received.credentials);
  if (taken < 0) return reply(&call, taken);
  if (received.count > fds_length - 1) {
    for (size_t i = 0; i < received.count; i++) close(received.fds[i]);
    return reply(&call, -EMSGSIZE);
  }
  fds[0] = (int32_t)received.count;
  memcpy(fds + 1, received.fds, received.count * sizeof(int));
  return reply(&call, taken);
}

const struct export_row SCM_EXPORTS[] = {
    {"sendFds", native_send_fds},
    {"receiveFds", native_receive_fds},
    {NULL, NULL},
};
