/* A root directory with nothing in it: chroot(2), mount(2), pivot_root(2). */
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "native.h"

/* changeRoot(fd): the directory becomes root and working directory */
static napi_value native_change_root(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  if (fchdir(fd) != 0) return reply(&call, -errno);
  return reply_result(&call, chroot("."));
}

/* An empty file system, read-only, that becomes the root of all that is in this mount namespace. @returns 0 or -errno */
static int pivot_into(const char *scratch) {
  /* Nothing of this reaches other namespaces. */
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) return -errno;
  if (mount("passel", scratch, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "nr_inodes=2,size=4k,mode=0555") != 0) return -errno;
  if (chdir(scratch) != 0) return -errno;
  /* The old root comes to lie upon the new one, and is taken away from there. */
  if (syscall(SYS_pivot_root, ".", ".") != 0) return -errno;
  return umount2(".", MNT_DETACH) == 0 ? 0 : -errno;
}

/* pivotRoot(scratch): a path of an existing directory that the file system is mounted on for a moment; 0 or -errno */
static napi_value native_pivot_root(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  char scratch[256];
  next_string(&call, scratch, sizeof scratch, NULL);
  if (call.error != 0) return reply_refusal(&call);
  return reply(&call, pivot_into(scratch));
}

const struct export_row ROOT_EXPORTS[] = {
    {"changeRoot", native_change_root},
    {"pivotRoot", native_pivot_root},
    {NULL, NULL},
};
