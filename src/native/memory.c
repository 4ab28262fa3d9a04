/* Memory that is a file: memfd_create(2), mmap(2). */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "native.h"

/* memfdCreate(name, size): it may be sealed */
static napi_value native_memfd_create(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  char name[250];
  next_string(&call, name, sizeof name, NULL);
  int64_t size = next_int64(&call);
  if (size < 0) fail_call(&call, EINVAL);
  if (call.error != 0) return reply_refusal(&call);
  int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return reply(&call, -errno);
  if (RETRY(ftruncate(fd, size)) < 0) {
    int error = errno;
    close(fd);
    return reply(&call, -error);
  }
  return reply(&call, fd);
}

/* addSeals(fd, seals): F_SEAL_* of fcntl(2) */
static napi_value native_add_seals(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  int32_t seals = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  return reply_result(&call, fcntl(fd, F_ADD_SEALS, seals));
}

static void unmap(napi_env env, void *data, void *hint) {
  size_t *length = hint;
  (void)env;
  munmap(data, *length);
  free(length);
}

/*
 * mapFd(fd, offset, length): an ArrayBuffer over shared pages of the file, or -errno. Unmapped when it is collected; the fd may be closed
 * at once. Touching pages behind the end of the file ends the process (SIGBUS), so a file that others can shrink must be sealed.
 */
static napi_value native_map_fd(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  int64_t offset = next_int64(&call);
  int64_t length = next_int64(&call);
  if (offset < 0 || length <= 0) fail_call(&call, EINVAL);
  if (call.error != 0) return reply_refusal(&call);
  size_t *kept_length = malloc(sizeof *kept_length);
  if (kept_length == NULL) return reply(&call, -ENOMEM);
  *kept_length = (size_t)length;
  void *data = mmap(NULL, (size_t)length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
  if (data == MAP_FAILED) {
    int error = errno;
    free(kept_length);
    return reply(&call, -error);
  }
  napi_value buffer = NULL;
  if (napi_create_external_arraybuffer(env, data, (size_t)length, unmap, kept_length, &buffer) != napi_ok) {
    unmap(env, data, kept_length);
    return reply(&call, -ENOMEM);
  }
  return buffer;
}

const struct export_row MEMORY_EXPORTS[] = {
    {"memfdCreate", native_memfd_create},
    {"addSeals", native_add_seals},
    {"mapFd", native_map_fd},
    {NULL, NULL},
};
