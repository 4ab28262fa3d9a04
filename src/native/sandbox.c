/*
 * Giving up what the process could do, in all of its threads: capabilities(7), seccomp(2).
 *
 * Capabilities belong to threads, so each thread gives them up itself: see broadcast.c.
 *
 * A sealed name is a path that may still be removed after the filter is loaded: it lies in a page of its own at an
 * address that the filter knows and that nothing may change or replace.
 */
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "broadcast.h"
#include "native.h"

enum {
  MAX_FILTER_INSTRUCTIONS = 4096,
};

/* Where sealed names lie: outside of all that the kernel, the C library and V8 choose by themselves. */
static const uint64_t SEALED_BASE = 0x500000000000;

/* Sets of capabilities. */
struct limits {
  uint64_t keep;
  uint64_t bound;
};

/* In one thread. @returns 0 or errno */
static int limit_this_thread(const void *wanted) {
  const struct limits *limits = wanted;
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  struct __user_cap_data_struct data[2];
  memset(data, 0, sizeof data);
  if (syscall(SYS_capget, &header, data) != 0) return errno;
  uint64_t effective = (uint64_t)data[1].effective << 32 | data[0].effective;
  /* The bounding set only matters to an exec; without CAP_SETPCAP it stays as it was given to us. */
  if ((effective >> CAP_SETPCAP & 1) != 0) {
    for (unsigned long capability = 0; capability < 64; capability++) {
      if ((limits->bound >> capability & 1) != 0) continue;
      /* EINVAL: beyond the last one that this kernel has. */
      if (prctl(PR_CAPBSET_DROP, capability, 0UL, 0UL, 0UL) != 0 && errno == EINVAL) break;
    }
  }
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0UL, 0UL, 0UL);
  for (int i = 0; i < 2; i++) {
    uint32_t keep = (uint32_t)(limits->keep >> (32 * i));
    data[i].permitted &= keep;
    data[i].effective = data[i].permitted;
    data[i].inheritable = 0;
  }
  return syscall(SYS_capset, &header, data) == 0 ? 0 : errno;
}

/*
 * limitCapabilities(threadList, keepLow, keepHigh, boundLow, boundHigh): in all threads keeps, of the capabilities held, those in `keep` and, of
 * the bounding set, those in `bound`; none is inheritable or ambient afterwards. The number of threads reached, or -errno.
 */
static napi_value native_limit_capabilities(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t list = next_int(&call);
  struct limits limits;
  limits.keep = next_uint(&call);
  limits.keep |= (uint64_t)next_uint(&call) << 32;
  limits.bound = next_uint(&call);
  limits.bound |= (uint64_t)next_uint(&call) << 32;
  if (call.error != 0) return reply_refusal(&call);
  return reply(&call, run_in_all_threads(list, limit_this_thread, &limits));
}

/*
 * loadFilter(program): no_new_privs and a seccomp(2) filter, of 8 bytes an instruction, for all threads. 0, -errno, or the id of a
 * thread that has a filter of its own.
 */
static napi_value native_load_filter(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  uint32_t length = 0;
  uint8_t *bytes = next_bytes(&call, &length);
  const uint32_t size = (uint32_t)sizeof(struct sock_filter);
  if (call.error == 0 && (length == 0 || length % size != 0 || length / size > MAX_FILTER_INSTRUCTIONS)) {
    fail_call(&call, EINVAL);
  }
  if (call.error != 0) return reply_refusal(&call);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1UL, 0UL, 0UL, 0UL) != 0) return reply(&call, -errno);
  struct sock_filter *instructions = malloc(length);
  if (instructions == NULL) return reply(&call, -ENOMEM);
  memcpy(instructions, bytes, length);
  struct sock_fprog program = {.len = (unsigned short)(length / size), .filter = instructions};
  long result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
  int error = errno;
  free(instructions);
  return reply(&call, result < 0 ? -error : result);
}

/*
 * sealName(slot, dirFd, name): notes the name of a file in a directory for unlinkSealed(). The name gets a page at SEALED_BASE.
 * The address, or -errno (-EEXIST: something is there).
 */
static napi_value native_seal_name(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  uint32_t slot = next_uint(&call);
  int32_t dir = next_int(&call);
  char name[256];
  next_string(&call, name, sizeof name, NULL);
  if (slot >= SEALED_SLOTS) fail_call(&call, EINVAL);
  if (call.error != 0) return reply_refusal(&call);
  struct sealed_name *sealed = &call.addon->sealed[slot];
  if (sealed->name != NULL) return reply(&call, -EEXIST);
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  /* As a number, since a 32-bit pointer could not hold it. */
  void *wanted = (void *)(uintptr_t)(SEALED_BASE + slot * (uint64_t)page);
  char *at = mmap(wanted, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  if (at == MAP_FAILED) return reply(&call, -errno);
  int error = at == wanted ? 0 : EEXIST;
  if (error == 0) {
    memcpy(at, name, strlen(name) + 1);
    if (mprotect(at, page, PROT_READ) != 0) error = errno;
  }
  if (error != 0) {
    munmap(at, page);
    return reply(&call, -error);
  }
  sealed->dir = dir;
  sealed->name = at;
  return reply(&call, (int64_t)(uintptr_t)at);
}

/* unlinkSealed(slot) */
static napi_value native_unlink_sealed(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  uint32_t slot = next_uint(&call);
  if (slot >= SEALED_SLOTS) fail_call(&call, EINVAL);
  if (call.error != 0) return reply_refusal(&call);
  const struct sealed_name *sealed = &call.addon->sealed[slot];
  if (sealed->name == NULL) return reply(&call, -ENOENT);
  return reply_result(&call, unlinkat(sealed->dir, sealed->name, 0));
}

const struct export_row SANDBOX_EXPORTS[] = {
    {"limitCapabilities", native_limit_capabilities},
    {"loadFilter", native_load_filter},
    {"sealName", native_seal_name},
    {"unlinkSealed", native_unlink_sealed},
    {NULL, NULL},
};
