/* Ethernet frames that are a datagram each, received in batches and looked at by where they came from: recvmmsg(2), unix(7), udp(7). */
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

#include "endpoint.h"
#include "native.h"

enum {
  FRAMES_PER_CALL = 64,

  /*
   * Who may send: a record in the arena. Byte 0: 0 anybody, 1 the unix socket whose path follows, 2 anybody but the endpoint record that follows.
   * Bytes 4-7: length of the path, little-endian; from 8 on: path or record.
   */
  SENDER_BYTES = 8 + 108,
  SENDER_LENGTH = 4,
  SENDER_ADDRESS = 8,
  SENDER_ANY = 0,
  SENDER_ONLY = 1,
  SENDER_EXCEPT = 2,
};

union sender {
  struct sockaddr any;
  struct sockaddr_un local;
  union socket_address inet;
};

static bool is_welcome(const uint8_t *record, const struct msghdr *header, const union sender *sender) {
  if (record[0] == SENDER_ONLY) {
    uint32_t length = get_le32(record + SENDER_LENGTH);
    size_t begin = offsetof(struct sockaddr_un, sun_path);
    if (header->msg_namelen <= begin || sender->any.sa_family != AF_UNIX) return false;
    /* The kernel may count the NUL behind a path, or not. */
    size_t size = strnlen(sender->local.sun_path, header->msg_namelen - begin);
    return size == length && memcmp(sender->local.sun_path, record + SENDER_ADDRESS, size) == 0;
  }
  if (record[0] == SENDER_EXCEPT) {
    uint8_t source[ENDPOINT_BYTES];
    write_endpoint(source, &sender->any);
    return memcmp(source, record + SENDER_ADDRESS, ENDPOINT_BYTES) != 0;
  }
  return true;
}

/*
 * receiveFrames(fd, offset, length, slot, pairs, sender): as many datagrams as there are, the i-th at `offset + i * slot`, at most `slot` bytes
 * of it; pairs get offset and length, or -EMSGSIZE for one that was cut and -EPERM for one from whoever must not send. The number of them, or -errno.
 */
static napi_value native_receive_frames(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  uint32_t offset = next_uint(&call);
  uint32_t length = next_uint(&call);
  uint32_t slot = next_uint(&call);
  size_t room = 0;
  int32_t *pairs = next_ints(&call, &room);
  const uint8_t *sender_record = arena_range(&call, next_uint(&call), SENDER_BYTES);
  if (slot == 0 || slot > length || room < 2) fail_call(&call, EINVAL);
  if (call.error != 0) return reply_refusal(&call);
  uint8_t *data = arena_range(&call, offset, length);
  if (call.error != 0) return reply_refusal(&call);
  uint32_t most = length / slot;
  if (most > room / 2) most = (uint32_t)(room / 2);

  struct mmsghdr messages[FRAMES_PER_CALL];
  struct iovec iovecs[FRAMES_PER_CALL];
  union sender senders[FRAMES_PER_CALL];
  bool looks = sender_record[0] != SENDER_ANY;
  uint32_t done = 0;
  while (done < most) {
    uint32_t batch = most - done < FRAMES_PER_CALL ? most - done : FRAMES_PER_CALL;
    for (uint32_t i = 0; i < batch; i++) {
      iovecs[i] = (struct iovec){.iov_base = data + (size_t)slot * (done + i), .iov_len = slot};
      messages[i].msg_hdr = (struct msghdr){.msg_iov = &iovecs[i], .msg_iovlen = 1};
      if (!looks) continue;
      senders[i].any.sa_family = AF_UNSPEC;
      messages[i].msg_hdr.msg_name = &senders[i];
      messages[i].msg_hdr.msg_namelen = sizeof senders[i];
    }
    ssize_t received = RETRY(recvmmsg(fd, messages, batch, MSG_DONTWAIT, NULL));
    if (received < 0) return done > 0 ? reply(&call, done) : reply(&call, -errno);
    for (uint32_t i = 0; i < (uint32_t)received; i++) {
      int32_t *pair = pairs + 2 * (size_t)(done + i);
      const struct msghdr *header = &messages[i].msg_hdr;
      pair[0] = (int32_t)(offset + slot * (done + i));
      pair[1] = (int32_t)messages[i].msg_len;
      if ((header->msg_flags & MSG_TRUNC) != 0) pair[1] = -EMSGSIZE;
      if (looks && !is_welcome(sender_record, header, &senders[i])) pair[1] = -EPERM;
    }
    done += (uint32_t)received;
    if ((uint32_t)received < batch) break;
  }
  return reply(&call, done);
}

/*
 * joinGroup(fd, group, local): IP_ADD_MEMBERSHIP, IPv4, on the interface that has the address of the record `local`; family 0 there: the kernel's
 * choice.
 */
static napi_value native_join_group(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  const uint8_t *group_record = arena_range(&call, next_uint(&call), ENDPOINT_BYTES);
  const uint8_t *local_record = arena_range(&call, next_uint(&call), ENDPOINT_BYTES);
  if (call.error != 0) return reply_refusal(&call);
  union socket_address group;
  union socket_address local;
  read_endpoint(group_record, &group);
  read_endpoint(local_record, &local);
  if (group.any.sa_family != AF_INET) return reply(&call, -EAFNOSUPPORT);
  struct ip_mreqn request = {.imr_multiaddr = group.v4.sin_addr};
  if (local.any.sa_family == AF_INET) request.imr_address = local.v4.sin_addr;
  return reply_result(&call, setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &request, sizeof request));
}

/* sendToGroupFrom(fd, local): IP_MULTICAST_IF, the interface by its address */
static napi_value native_send_to_group_from(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  const uint8_t *record = arena_range(&call, next_uint(&call), ENDPOINT_BYTES);
  if (call.error != 0) return reply_refusal(&call);
  union socket_address local;
  read_endpoint(record, &local);
  if (local.any.sa_family != AF_INET) return reply(&call, -EAFNOSUPPORT);
  struct ip_mreqn request = {.imr_address = local.v4.sin_addr};
  return reply_result(&call, setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &request, sizeof request));
}

const struct export_row FRAME_IO_EXPORTS[] = {
    {"receiveFrames", native_receive_frames},
    {"joinGroup", native_join_group},
    {"sendToGroupFrom", native_send_to_group_from},
    {NULL, NULL},
};
