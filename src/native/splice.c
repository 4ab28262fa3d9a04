/* Moving stream data between two sockets inside the kernel: pipe(7), splice(2). */
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "native.h"

enum {
  RECORD_BYTES = 16,
  RECORD_PENDING = 0,
  RECORD_MOVED = 4,
  RECORD_SOURCE = 8,
  RECORD_TARGET = 12,

  STATE_OPEN = 0,
  STATE_ENDED = 1,

  SMALLEST_PIPE = 4096,
  /* Asked of one splice(2); the pipe's capacity is what limits it. */
  CHUNK_BYTES = 1 << 30,
};

/* pipe(size, fds) */
static napi_value native_pipe(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  uint32_t size = next_uint(&call);
  int32_t *out = next_int_array(&call, 2);
  if (size > INT32_MAX) fail_call(&call, EINVAL);
  if (call.error != 0) return reply_refusal(&call);
  int fds[2];
  if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0) return reply(&call, -errno);
  /* Refused above fs.pipe-max-size, and to users who have reached fs.pipe-user-pages-soft: less will do. */
  int capacity = fcntl(fds[0], F_GETPIPE_SZ);
  for (int wanted = (int)size; wanted >= SMALLEST_PIPE && wanted > capacity; wanted /= 2) {
    int granted = fcntl(fds[0], F_SETPIPE_SZ, wanted);
    if (granted < 0) continue;
    capacity = granted;
    break;
  }
  out[0] = fds[0];
  out[1] = fds[1];
  return reply(&call, capacity);
}

/* spliceStream(source, pipeRead, pipeWrite, target, pending, budget, record) */
static napi_value native_splice_stream(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t source = next_int(&call);
  int32_t pipe_read = next_int(&call);
  int32_t pipe_write = next_int(&call);
  int32_t target = next_int(&call);
  uint32_t pending = next_uint(&call);
  uint32_t budget = next_uint(&call);
  uint32_t record_offset = next_uint(&call);
  uint8_t *record = arena_range(&call, record_offset, RECORD_BYTES);
  if (call.error != 0) return reply_refusal(&call);
  const unsigned flags = SPLICE_F_MOVE | SPLICE_F_NONBLOCK;
  uint64_t held = pending;
  uint64_t moved = 0;
  int source_state = STATE_OPEN;
  int target_state = STATE_OPEN;
  do {
    if (source_state == STATE_OPEN) {
      ssize_t taken = RETRY(splice(source, NULL, pipe_write, NULL, CHUNK_BYTES, flags));
      if (taken > 0) {
        held += (uint64_t)taken;
      } else if (taken == 0) {
        source_state = STATE_ENDED;
      } else if (errno != EAGAIN || held == 0) {
        /* With something in the pipe, EAGAIN may also say that the pipe is full: then look again when that has left. */
        source_state = -errno;
      }
    }
    if (held == 0) break;
    ssize_t given = RETRY(splice(pipe_read, NULL, target, NULL, (size_t)held, flags));
    if (given <= 0) {
      target_state = given == 0 ? -EAGAIN : -errno;
      break;
    }
    held -= (uint64_t)given;
    moved += (uint64_t)given;
  } while (moved < budget && (source_state == STATE_OPEN || held > 0));
  put_le32(record + RECORD_PENDING, (uint32_t)held);
  put_le32(record + RECORD_MOVED, (uint32_t)moved);
  put_le32(record + RECORD_SOURCE, (uint32_t)source_state);
  put_le32(record + RECORD_TARGET, (uint32_t)target_state);
  return reply(&call, 0);
}

const struct export_row SPLICE_EXPORTS[] = {
    {"pipe", native_pipe},
    {"spliceStream", native_splice_stream},
    {NULL, NULL},
};
