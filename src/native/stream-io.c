/*
 * Reading, peeking and writing stream sockets: recv(2), send(2), tcp(7).
 *
 * MSG_DONTWAIT is set on every call although the sockets are non-blocking: an inherited or passed descriptor shares its flags with
 * other processes, and QEMU for one clears O_NONBLOCK on descriptors that it is given.
 */
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "checksum.h"
#include "native.h"

enum {
  /* UIO_MAXIOV of the kernel: more in one call is EMSGSIZE. */
  IOVECS_PER_CALL = 1024,
  /* How many of them a peek may spend on skipping. */
  SKIP_IOVECS = 512,
};

static const int SEND_FLAGS = MSG_DONTWAIT | MSG_NOSIGNAL;

/* receive(fd, offset, length, flags) */
static napi_value native_receive(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  uint32_t offset = next_uint(&call);
  uint32_t length = next_uint(&call);
  int32_t flags = next_int(&call);
  uint8_t *data = arena_range(&call, offset, length);
  if (call.error != 0) return reply_refusal(&call);
  return reply_result(&call, RETRY(recv(fd, data, length, flags | MSG_DONTWAIT)));
}

/* send(fd, offset, length, flags) */
static napi_value native_send(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  uint32_t offset = next_uint(&call);
  uint32_t length = next_uint(&call);
  int32_t flags = next_int(&call);
  const uint8_t *data = arena_range(&call, offset, length);
  if (call.error != 0) return reply_refusal(&call);
  return reply_result(&call, RETRY(send(fd, data, length, flags | SEND_FLAGS)));
}

/* sendBuffer(fd, bytes, offset, length, flags) */
static napi_value native_send_buffer(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  uint32_t available = 0;
  const uint8_t *data = next_bytes(&call, &available);
  uint32_t offset = next_uint(&call);
  uint32_t length = next_uint(&call);
  int32_t flags = next_int(&call);
  if ((uint64_t)offset + length > available) fail_call(&call, EFAULT);
  if (call.error != 0) return reply_refusal(&call);
  return reply_result(&call, RETRY(send(fd, data + offset, length, flags | SEND_FLAGS)));
}

/* sendSegments(fd, list, count, flags): `count` pairs of u32 LE (offset, length) */
static napi_value native_send_segments(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  uint32_t list_offset = next_uint(&call);
  uint32_t count = next_uint(&call);
  int32_t flags = next_int(&call);
  const uint8_t *list = arena_range(&call, list_offset, (uint64_t)count * 8);
  if (call.error != 0) return reply_refusal(&call);
  struct iovec iovecs[IOVECS_PER_CALL];
  int64_t total = 0;
  for (uint32_t first = 0; first < count;) {
    uint32_t batch = count - first < IOVECS_PER_CALL ? count - first : IOVECS_PER_CALL;
    int64_t wanted = 0;
    for (uint32_t i = 0; i < batch; i++) {
      const uint8_t *pair = list + (size_t)(first + i) * 8;
      uint32_t length = get_le32(pair + 4);
      iovecs[i].iov_base = arena_range(&call, get_le32(pair), length);
      iovecs[i].iov_len = length;
      wanted += length;
    }
    /* Nothing of a batch with a bad segment is sent; what went out before is still told. */
    if (call.error != 0) return total > 0 ? reply(&call, total) : reply_refusal(&call);
    struct msghdr message = {.msg_iov = iovecs, .msg_iovlen = batch};
    ssize_t sent = RETRY(sendmsg(fd, &message, flags | SEND_FLAGS));
    if (sent < 0) return total > 0 ? reply(&call, total) : reply(&call, -errno);
    total += sent;
    if (sent < wanted) break;
    first += batch;
  }
  return reply(&call, total);
}

/* Whether peeks on this socket go on where the last one ended. Without SO_PEEK_OFF each starts at the front again. */
static bool peek_advances(int fd) {
  int value = -1;
  socklen_t length = sizeof value;
  return getsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &value, &length) == 0 && value >= 0;
}

/* peekSegments(fd, offset, stride, segment, count, skip, sums): `sums` 0 asks for none */
static napi_value native_peek_segments(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  uint32_t offset = next_uint(&call);
  uint32_t stride = next_uint(&call);
  uint32_t segment = next_uint(&call);
  uint32_t count = next_uint(&call);
  uint32_t skip = next_uint(&call);
  uint32_t sums_offset = next_uint(&call);
  if (count == 0 || segment == 0 || skip > (uint32_t)SKIP_IOVECS * SCRATCH_BYTES) fail_call(&call, EINVAL);
  if (call.error != 0) return reply_refusal(&call);
  uint8_t *data = arena_range(&call, offset, (uint64_t)stride * (count - 1) + segment);
  uint8_t *sums = sums_offset == 0 ? NULL : arena_range(&call, sums_offset, (uint64_t)count * 4);
  if (call.error != 0) return reply_refusal(&call);

  struct iovec iovecs[IOVECS_PER_CALL];
  uint32_t skip_iovecs = 0;
  if (skip > 0) {
    /* All skipped bytes land on the same scratch area, one over the other. */
    uint8_t *scratch = take_scratch(call.addon);
    if (scratch == NULL) return reply(&call, -ENOMEM);
    for (uint32_t left = skip; left > 0;) {
      uint32_t part = left < SCRATCH_BYTES ? left : SCRATCH_BYTES;
      iovecs[skip_iovecs].iov_base = scratch;
      iovecs[skip_iovecs++].iov_len = part;
      left -= part;
    }
  }

  int64_t total = 0;
  for (uint32_t first = 0; first < count;) {
    uint32_t room = IOVECS_PER_CALL - skip_iovecs;
    uint32_t batch = count - first < room ? count - first : room;
    for (uint32_t i = 0; i < batch; i++) {
      iovecs[skip_iovecs + i].iov_base = data + (size_t)stride * (first + i);
      iovecs[skip_iovecs + i].iov_len = segment;
    }
    struct msghdr message = {.msg_iov = iovecs, .msg_iovlen = skip_iovecs + batch};
    ssize_t peeked = RETRY(recvmsg(fd, &message, MSG_PEEK | MSG_DONTWAIT));
    if (peeked <= 0) return total > 0 ? reply(&call, total) : reply_result(&call, peeked);
    /* Bytes that were skipped say nothing about whether the stream ends behind them. */
    if ((uint64_t)peeked <= skip) return reply(&call, -EAGAIN);
    uint64_t fresh = (uint64_t)peeked - skip;
    total += (int64_t)fresh;
    /* Summed at once, while the bytes that the kernel has just copied are in the cache. */
    uint64_t left = sums == NULL ? 0 : fresh;
    for (uint32_t i = first; left > 0; i++) {
      uint32_t filled = left < segment ? (uint32_t)left : segment;
      put_le32(sums + (size_t)i * 4, sum_bytes(data + (size_t)stride * i, filled));
      left -= filled;
    }
    if (fresh < (uint64_t)batch * segment) break;
    first += batch;
    /* A second call would see the same bytes again if the socket does not count them. */
    if (first < count && (skip > 0 || !peek_advances(fd))) break;
  }
  return reply(&call, total);
}

/* discard(fd, length) */
static napi_value native_discard(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  uint32_t length = next_uint(&call);
  if (call.error != 0) return reply_refusal(&call);
  ssize_t dropped = RETRY(recv(fd, NULL, length, MSG_TRUNC | MSG_DONTWAIT));
  if (dropped >= 0 || errno != EFAULT) return reply_result(&call, dropped);
  /* AF_UNIX copies even with MSG_TRUNC, so give it a place to copy to. */
  uint8_t *scratch = take_scratch(call.addon);
  if (scratch == NULL) return reply(&call, -ENOMEM);
  int64_t total = 0;
  while (total < length) {
    size_t part = length - total < SCRATCH_BYTES ? (size_t)(length - total) : SCRATCH_BYTES;
    dropped = RETRY(recv(fd, scratch, part, MSG_DONTWAIT));
    if (dropped <= 0) return total > 0 ? reply(&call, total) : reply_result(&call, dropped);
    total += dropped;
  }
  return reply(&call, total);
}

const struct export_row STREAM_IO_EXPORTS[] = {
    {"receive", native_receive},
    {"send", native_send},
    {"sendBuffer", native_send_buffer},
    {"sendSegments", native_send_segments},
    {"peekSegments", native_peek_segments},
    {"discard", native_discard},
    {NULL, NULL},
};
