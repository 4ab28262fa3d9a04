/*
 * Frames through a tap device, where one read(2) or write(2) is one frame: many of them per call from JavaScript. Nothing batches in the
 * kernel (a writev of two frames would be one long frame). The descriptor must be non-blocking.
 *
 * To the device, frames lie one behind the other: u32 LE length of the frame, then `header` bytes of virtio-net header, then
 * the frame. So the queue needs no list of its own.
 */
#include <unistd.h>

#include "native.h"

enum {
  LENGTH_BYTES = 4,
  ETHERNET_HEADER = 14,
  /* Frames start where a cache line does. */
  FRAME_ALIGNMENT = 64,
};

/*
 * tunRead(fd, offset, length, slot, header, frames): reads frames into the range until it has no room for one of `slot` bytes, `frames`
 * (pairs of offset and length, both without the header) is full, or none is left. What does not fit a slot, or has no whole Ethernet
 * header, is dropped. Answers the number of frames, 0 at the end of a stand-in socket, or -errno when there was none.
 */
static napi_value native_tun_read(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  uint32_t offset = next_uint(&call);
  uint32_t length = next_uint(&call);
  uint32_t slot = next_uint(&call);
  uint32_t header = next_uint(&call);
  size_t elements = 0;
  int32_t *frames = next_ints(&call, &elements);
  uint8_t *data = arena_range(&call, offset, length);
  /* Offsets go to JavaScript as int32, and come back from there. */
  if ((uint64_t)offset + length > INT32_MAX || header >= slot) fail_call(&call, EINVAL);
  if (call.error != 0) return reply_refusal(&call);
  size_t capacity = elements / 2;
  uint32_t count = 0;
  uint32_t at = 0;
  while (count < capacity && length - at >= slot) {
    ssize_t got = RETRY(read(fd, data + at, slot));
    if (got <= 0) return count > 0 ? reply(&call, count) : reply_result(&call, got);
    uint32_t bytes = (uint32_t)got;
    if (bytes >= slot || bytes < header + ETHERNET_HEADER) continue;
    frames[2 * count] = (int32_t)(offset + at + header);
    frames[2 * count + 1] = (int32_t)(bytes - header);
    count++;
    uint32_t step = (bytes + FRAME_ALIGNMENT - 1) & ~(uint32_t)(FRAME_ALIGNMENT - 1);
    at = step < length - at ? at + step : length;
  }
  return reply(&call, count > 0 ? (int64_t)count : -EAGAIN);
}

/*
 * tunWrite(fd, offset, length, header): writes the frames that fill the range exactly. Answers the bytes of the range that are done
 * with, which is fewer when the device takes no more, or -errno when not even the first frame went.
 */
static napi_value native_tun_write(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  uint32_t offset = next_uint(&call);
  uint32_t length = next_uint(&call);
  uint32_t header = next_uint(&call);
  const uint8_t *data = arena_range(&call, offset, length);
  if (call.error != 0) return reply_refusal(&call);
  uint64_t at = 0;
  while (at < length) {
    uint64_t left = length - at;
    uint64_t frame = left >= LENGTH_BYTES ? (uint64_t)header + get_le32(data + at) : left;
    if (LENGTH_BYTES + frame > left) return reply(&call, at > 0 ? (int64_t)at : -EINVAL);
    if (RETRY(write(fd, data + at + LENGTH_BYTES, (size_t)frame)) < 0) {
      return at > 0 ? reply(&call, (int64_t)at) : reply(&call, -errno);
    }
    at += LENGTH_BYTES + frame;
  }
  return reply(&call, (int64_t)at);
}

const struct export_row TAP_IO_EXPORTS[] = {
    {"tunRead", native_tun_read},
    {"tunWrite", native_tun_write},
    {NULL, NULL},
};
