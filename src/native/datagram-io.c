/* Datagrams in batches with their addresses, and the error queue: recvmmsg(2), sendmmsg(2), ip(7), ipv6(7), udp(7). */
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
/* Needs struct timespec and does not ask for it. */
#include <linux/errqueue.h>

#include "checksum.h"
#include "endpoint.h"
#include "native.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum {
  DATAGRAMS_PER_CALL = 256,
  /* As long as a datagram can be. */
  DATAGRAM_BYTES = 65535,
  /* What udp(7) lets one send be cut into (UDP_MAX_SEGMENTS of kernels before 6.9). */
  SEGMENTS_PER_SEND = 64,
  /* Room for IP_PKTINFO, IPV6_PKTINFO and UDP_GRO together, with some to spare. */
  CONTROL_BYTES = 128,
  ERROR_CONTROL_BYTES = 512,

  META_BYTES = 64,
  META_SOURCE = 0,
  META_LOCAL = 24,
  META_LENGTH = 48,
  META_FLAGS = 52,
  META_SUM = 56,
  META_SEGMENT = 60,
  FLAG_TRUNCATED = 1,

  ERROR_BYTES = 64,
  ERROR_ERRNO = 0,
  ERROR_ORIGIN = 4,
  ERROR_TYPE = 5,
  ERROR_CODE = 6,
  ERROR_INFO = 8,
  ERROR_OFFENDER = 12,
  ERROR_DESTINATION = 36,
};

union control {
  struct cmsghdr align;
  uint8_t bytes[CONTROL_BYTES];
};

/* Local address and segment size from the ancillary data of one datagram. */
static void read_control(struct msghdr *message, uint8_t *meta) {
  for (struct cmsghdr *control = CMSG_FIRSTHDR(message); control != NULL; control = CMSG_NXTHDR(message, control)) {
    if (control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_PKTINFO) {
      struct in_pktinfo packet;
      memcpy(&packet, CMSG_DATA(control), sizeof packet);
      write_endpoint_v4(meta + META_LOCAL, &packet.ipi_addr, (uint32_t)packet.ipi_ifindex);
    } else if (control->cmsg_level == IPPROTO_IPV6 && control->cmsg_type == IPV6_PKTINFO) {
      struct in6_pktinfo packet;
      memcpy(&packet, CMSG_DATA(control), sizeof packet);
      write_endpoint_v6(meta + META_LOCAL, &packet.ipi6_addr, (uint32_t)packet.ipi6_ifindex);
    } else if (control->cmsg_level == IPPROTO_UDP && control->cmsg_type == UDP_GRO) {
      int segment = 0;
      memcpy(&segment, CMSG_DATA(control), sizeof segment);
      put_le32(meta + META_SEGMENT, (uint32_t)segment);
    }
  }
}

/* The sum of a datagram that lies in two pieces, the second of which may begin at an odd position. */
static uint32_t sum_pieces(const struct iovec pieces[2], size_t length) {
  size_t first = length < pieces[0].iov_len ? length : pieces[0].iov_len;
  uint32_t sum = sum_bytes(pieces[0].iov_base, first);
  if (first == length) return sum;
  uint32_t rest = sum_bytes(pieces[1].iov_base, length - first);
  if (first % 2 != 0) rest = __builtin_bswap16((uint16_t)rest);
  return fold_sum((uint64_t)sum + rest);
}

/* All calls that receive. The arguments up to `meta` are still to be taken; `split`: so are those behind it. */
static napi_value receive_batches(struct call *call, bool split, bool summed) {
  int32_t fd = next_int(call);
  uint32_t offset = next_uint(call);
  uint32_t stride = next_uint(call);
  uint32_t max = next_uint(call);
  uint32_t count = next_uint(call);
  uint32_t meta_offset = next_uint(call);
  uint32_t tail_offset = split ? next_uint(call) : 0;
  uint32_t tail_stride = split ? next_uint(call) : 0;
  if (count == 0 || (split && max > DATAGRAM_BYTES)) fail_call(call, EINVAL);
  if (call->error != 0) return reply_refusal(call);
  uint32_t tail_bytes = split ? DATAGRAM_BYTES - max : 0;
  uint8_t *data = arena_range(call, offset, (uint64_t)stride * (count - 1) + max);
  uint8_t *tails = arena_range(call, tail_offset, (uint64_t)tail_stride * (count - 1) + tail_bytes);
  uint8_t *metas = arena_range(call, meta_offset, (uint64_t)count * META_BYTES);
  if (call->error != 0) return reply_refusal(call);

  struct mmsghdr messages[DATAGRAMS_PER_CALL];
  struct iovec iovecs[DATAGRAMS_PER_CALL][2];
  struct sockaddr_in6 sources[DATAGRAMS_PER_CALL];
  union control controls[DATAGRAMS_PER_CALL];
  uint32_t done = 0;
  while (done < count) {
    uint32_t batch = count - done < DATAGRAMS_PER_CALL ? count - done : DATAGRAMS_PER_CALL;
    for (uint32_t i = 0; i < batch; i++) {
      iovecs[i][0].iov_base = data + (size_t)stride * (done + i);
      iovecs[i][0].iov_len = max;
      iovecs[i][1].iov_base = tails + (size_t)tail_stride * (done + i);
      iovecs[i][1].iov_len = tail_bytes;
      sources[i].sin6_family = AF_UNSPEC;
      struct msghdr *header = &messages[i].msg_hdr;
      header->msg_name = &sources[i];
      header->msg_namelen = sizeof sources[i];
      header->msg_iov = iovecs[i];
      header->msg_iovlen = split ? 2 : 1;
      header->msg_control = &controls[i];
      header->msg_controllen = sizeof controls[i];
      header->msg_flags = 0;
    }
    ssize_t received = RETRY(recvmmsg(fd, messages, batch, MSG_DONTWAIT, NULL));
    if (received < 0) return done > 0 ? reply(call, done) : reply(call, -errno);
    for (uint32_t i = 0; i < (uint32_t)received; i++) {
      struct msghdr *header = &messages[i].msg_hdr;
      uint8_t *meta = metas + (size_t)(done + i) * META_BYTES;
      uint32_t length = messages[i].msg_len;
      memset(meta, 0, META_BYTES);
      if (header->msg_namelen > 0) write_endpoint(meta + META_SOURCE, (const struct sockaddr *)&sources[i]);
      put_le32(meta + META_LENGTH, length);
      put_le32(meta + META_FLAGS, (header->msg_flags & MSG_TRUNC) != 0 ? FLAG_TRUNCATED : 0);
      if (summed) put_le32(meta + META_SUM, sum_pieces(iovecs[i], length));
      read_control(header, meta);
    }
    done += (uint32_t)received;
    if ((uint32_t)received < batch) break;
  }
  return reply(call, done);
}

/* receiveDatagrams(fd, offset, stride, max, count, meta) */
static napi_value native_receive_datagrams(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  return receive_batches(&call, false, true);
}

/* receiveUnsummed(fd, offset, stride, max, count, meta): for those who pass datagrams on as they are */
static napi_value native_receive_unsummed(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  return receive_batches(&call, false, false);
}

/* receiveSplitDatagrams(fd, offset, stride, max, count, meta, tail, tailStride) */
static napi_value native_receive_split_datagrams(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  return receive_batches(&call, true, true);
}

/* Sends `count` datagrams, `list` holding their (offset, length) pairs, each with the address and ancillary data of `pattern`. */
static napi_value send_list(struct call *call, int32_t fd, const uint8_t *list, uint32_t count,
                            const struct msghdr *pattern) {
  struct mmsghdr messages[DATAGRAMS_PER_CALL];
  struct iovec iovecs[DATAGRAMS_PER_CALL];
  uint32_t done = 0;
  while (done < count) {
    uint32_t batch = count - done < DATAGRAMS_PER_CALL ? count - done : DATAGRAMS_PER_CALL;
    for (uint32_t i = 0; i < batch; i++) {
      const uint8_t *pair = list + (size_t)(done + i) * 8;
      uint32_t length = get_le32(pair + 4);
      iovecs[i].iov_base = arena_range(call, get_le32(pair), length);
      iovecs[i].iov_len = length;
      messages[i].msg_hdr = *pattern;
      messages[i].msg_hdr.msg_iov = &iovecs[i];
      messages[i].msg_hdr.msg_iovlen = 1;
      messages[i].msg_len = 0;
    }
    if (call->error != 0) return done > 0 ? reply(call, done) : reply_refusal(call);
    ssize_t sent = RETRY(sendmmsg(fd, messages, batch, MSG_DONTWAIT | MSG_NOSIGNAL));
    if (sent < 0) return done > 0 ? reply(call, done) : reply(call, -errno);
    done += (uint32_t)sent;
    if ((uint32_t)sent < batch) break;
  }
  return reply(call, done);
}

/* sendDatagrams(fd, list, count) */
static napi_value native_send_datagrams(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  uint32_t list_offset = next_uint(&call);
  uint32_t count = next_uint(&call);
  const uint8_t *list = arena_range(&call, list_offset, (uint64_t)count * 8);
  if (call.error != 0) return reply_refusal(&call);
  struct msghdr pattern = {0};
  return send_list(&call, fd, list, count, &pattern);
}

/* sendEqualDatagrams(fd, list, count, length) */
static napi_value native_send_equal_datagrams(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  uint32_t list_offset = next_uint(&call);
  uint32_t count = next_uint(&call);
  uint32_t length = next_uint(&call);
  if (count == 0 || count > SEGMENTS_PER_SEND || length == 0 || length > UINT16_MAX) fail_call(&call, EINVAL);
  if (call.error != 0) return reply_refusal(&call);
  const uint8_t *list = arena_range(&call, list_offset, (uint64_t)count * 8);
  if (call.error != 0) return reply_refusal(&call);
  struct iovec iovecs[SEGMENTS_PER_SEND];
  for (uint32_t i = 0; i < count; i++) {
    const uint8_t *pair = list + (size_t)i * 8;
    uint32_t piece = get_le32(pair + 4);
    /* The kernel cuts by length alone: any other piece would shift all that follow. */
    if (piece > length || (piece < length && i + 1 < count)) fail_call(&call, EINVAL);
    iovecs[i].iov_base = arena_range(&call, get_le32(pair), piece);
    iovecs[i].iov_len = piece;
  }
  if (call.error != 0) return reply_refusal(&call);
  union control control;
  memset(&control, 0, sizeof control);
  uint16_t segment = (uint16_t)length;
  struct msghdr message = {
      .msg_iov = iovecs,
      .msg_iovlen = count,
      .msg_control = &control,
      .msg_controllen = CMSG_SPACE(sizeof segment),
  };
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = IPPROTO_UDP;
  header->cmsg_type = UDP_SEGMENT;
  header->cmsg_len = CMSG_LEN(sizeof segment);
  memcpy(CMSG_DATA(header), &segment, sizeof segment);
  ssize_t sent = RETRY(sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL));
  return sent < 0 ? reply(&call, -errno) : reply(&call, count);
}

/*
 * Makes the packet leave from the address of an endpoint record; a record of family 0 leaves the choice to the kernel.
 * The record's scope goes along for IPv6 only, where a link-local address says nothing without it: for IPv4 it would
 * override the route.
 */
static void write_source_control(struct msghdr *message, union control *control, const uint8_t *record) {
  union socket_address local;
  if (read_endpoint(record, &local) == 0 || local.any.sa_family == AF_UNSPEC) return;
  memset(control, 0, sizeof *control);
  message->msg_control = control;
  message->msg_controllen = sizeof *control;
  struct cmsghdr *header = CMSG_FIRSTHDR(message);
  if (local.any.sa_family == AF_INET) {
    struct in_pktinfo packet = {.ipi_spec_dst = local.v4.sin_addr};
    header->cmsg_level = IPPROTO_IP;
    header->cmsg_type = IP_PKTINFO;
    header->cmsg_len = CMSG_LEN(sizeof packet);
    memcpy(CMSG_DATA(header), &packet, sizeof packet);
    message->msg_controllen = CMSG_SPACE(sizeof packet);
  } else {
    struct in6_pktinfo packet = {.ipi6_addr = local.v6.sin6_addr, .ipi6_ifindex = local.v6.sin6_scope_id};
    header->cmsg_level = IPPROTO_IPV6;
    header->cmsg_type = IPV6_PKTINFO;
    header->cmsg_len = CMSG_LEN(sizeof packet);
    memcpy(CMSG_DATA(header), &packet, sizeof packet);
    message->msg_controllen = CMSG_SPACE(sizeof packet);
  }
}

/* sendDatagramsTo(fd, list, count, remote, local) */
static napi_value native_send_datagrams_to(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  uint32_t list_offset = next_uint(&call);
  uint32_t count = next_uint(&call);
  uint32_t remote_offset = next_uint(&call);
  uint32_t local_offset = next_uint(&call);
  const uint8_t *list = arena_range(&call, list_offset, (uint64_t)count * 8);
  const uint8_t *remote_record = arena_range(&call, remote_offset, ENDPOINT_BYTES);
  const uint8_t *local_record = arena_range(&call, local_offset, ENDPOINT_BYTES);
  if (call.error != 0) return reply_refusal(&call);
  union socket_address remote;
  union control control;
  socklen_t remote_length = read_endpoint(remote_record, &remote);
  if (remote_length == 0 || remote.any.sa_family == AF_UNSPEC) return reply(&call, -EAFNOSUPPORT);
  struct msghdr pattern = {.msg_name = &remote, .msg_namelen = remote_length};
  write_source_control(&pattern, &control, local_record);
  return send_list(&call, fd, list, count, &pattern);
}

/* sendTo(fd, offset, length, endpoint) */
static napi_value native_send_to(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  uint32_t offset = next_uint(&call);
  uint32_t length = next_uint(&call);
  uint32_t endpoint_offset = next_uint(&call);
  const uint8_t *data = arena_range(&call, offset, length);
  const uint8_t *record = arena_range(&call, endpoint_offset, ENDPOINT_BYTES);
  if (call.error != 0) return reply_refusal(&call);
  union socket_address address;
  socklen_t address_length = read_endpoint(record, &address);
  if (address_length == 0 || address.any.sa_family == AF_UNSPEC) return reply(&call, -EAFNOSUPPORT);
  return reply_result(&call, RETRY(sendto(fd, data, length, MSG_DONTWAIT | MSG_NOSIGNAL, &address.any, address_length)));
}

/* receiveError(fd, record, offset, length) */
static napi_value native_receive_error(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  uint32_t record_offset = next_uint(&call);
  uint32_t offset = next_uint(&call);
  uint32_t length = next_uint(&call);
  uint8_t *record = arena_range(&call, record_offset, ERROR_BYTES);
  uint8_t *data = arena_range(&call, offset, length);
  if (call.error != 0) return reply_refusal(&call);
  union {
    struct cmsghdr align;
    uint8_t bytes[ERROR_CONTROL_BYTES];
  } control;
  union socket_address destination = {0};
  struct iovec iovec = {.iov_base = data, .iov_len = length};
  struct msghdr message = {
      .msg_name = &destination,
      .msg_namelen = sizeof destination,
      .msg_iov = &iovec,
      .msg_iovlen = 1,
      .msg_control = &control,
      .msg_controllen = sizeof control,
  };
  ssize_t received = RETRY(recvmsg(fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT));
  if (received < 0) return reply(&call, -errno);
  memset(record, 0, ERROR_BYTES);
  if (message.msg_namelen > 0) write_endpoint(record + ERROR_DESTINATION, &destination.any);
  for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header != NULL; header = CMSG_NXTHDR(&message, header)) {
    bool v4 = header->cmsg_level == IPPROTO_IP && header->cmsg_type == IP_RECVERR;
    bool v6 = header->cmsg_level == IPPROTO_IPV6 && header->cmsg_type == IPV6_RECVERR;
    if (!v4 && !v6) continue;
    /* The offender's address follows the fixed part (SO_EE_OFFENDER). */
    struct {
      struct sock_extended_err error;
      union {
        struct sockaddr any;
        struct sockaddr_in6 v6;
      } offender;
    } entry;
    memset(&entry, 0, sizeof entry);
    size_t size = header->cmsg_len - CMSG_LEN(0);
    memcpy(&entry, CMSG_DATA(header), size < sizeof entry ? size : sizeof entry);
    put_le32(record + ERROR_ERRNO, entry.error.ee_errno);
    record[ERROR_ORIGIN] = entry.error.ee_origin;
    record[ERROR_TYPE] = entry.error.ee_type;
    record[ERROR_CODE] = entry.error.ee_code;
    put_le32(record + ERROR_INFO, entry.error.ee_info);
    write_endpoint(record + ERROR_OFFENDER, &entry.offender.any);
  }
  return reply(&call, received);
}

const struct export_row DATAGRAM_IO_EXPORTS[] = {
    {"receiveDatagrams", native_receive_datagrams},
    {"receiveUnsummed", native_receive_unsummed},
    {"receiveSplitDatagrams", native_receive_split_datagrams},
    {"sendDatagrams", native_send_datagrams},
    {"sendDatagramsTo", native_send_datagrams_to},
    {"sendEqualDatagrams", native_send_equal_datagrams},
    {"sendTo", native_send_to},
    {"receiveError", native_receive_error},
    {NULL, NULL},
};
