/* Opening files for others: below a folder that nothing leads out of (openat2(2)), and with another user's rights. */
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "native.h"

/* openBeneath(dirFd, path, flags, mode): no link or `..` leads out of the folder; magic links (/proc) are not followed. */
static napi_value native_open_beneath(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t dir = next_int(&call);
  char path[PATH_MAX];
  next_string(&call, path, sizeof path, NULL);
  uint32_t flags = next_uint(&call);
  uint32_t mode = next_uint(&call);
  if (call.error != 0) return reply_refusal(&call);
  struct open_how how;
  memset(&how, 0, sizeof how);
  how.flags = (uint64_t)flags | O_CLOEXEC;
  how.mode = (flags & O_CREAT) != 0 ? mode : 0;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  /* EAGAIN: something was renamed meanwhile, and the kernel could not be sure. */
  long fd;
  int tries = 0;
  do fd = syscall(SYS_openat2, dir, path, &how, sizeof how);
  while (fd < 0 && (errno == EINTR || (errno == EAGAIN && ++tries < 16)));
  return reply(&call, fd < 0 ? -errno : fd);
}

enum { GROUPS_MAX = 65536 };

/*
 * openAs(path, flags, uid, gid, groups, count): open(2) with the file system rights of a user. They are those of the calling thread alone
 * and are put back before it returns (setfsuid(2), and setgroups by its system call, which glibc would spread over all threads). Changing
 * the file system user from 0 also takes the capabilities away that pass over permissions. -EPERM: this thread may not do that.
 */
static napi_value native_open_as(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  char path[PATH_MAX];
  next_string(&call, path, sizeof path, NULL);
  int32_t flags = next_int(&call);
  uint32_t uid = next_uint(&call);
  uint32_t gid = next_uint(&call);
  napi_value list = call.arguments[call.taken];
  size_t length = 0;
  if (napi_get_typedarray_info(env, list, NULL, &length, NULL, NULL, NULL) != napi_ok) fail_call(&call, EINVAL);
  int32_t *groups = next_int_array(&call, 0);
  uint32_t count = next_uint(&call);
  if (call.error == 0 && (count > length || count > GROUPS_MAX)) fail_call(&call, EFAULT);
  if (call.error != 0) return reply_refusal(&call);

  static const gid_t NONE[1];
  gid_t own[256];
  int own_count = getgroups(256, own);
  if (own_count < 0) return reply(&call, -errno);
  uid_t old_uid = (uid_t)setfsuid((uid_t)-1);
  gid_t old_gid = (gid_t)setfsgid((gid_t)-1);
  int result = 0;
  if (syscall(SYS_setgroups, (int)count, count == 0 ? NONE : (const gid_t *)groups) < 0) return reply(&call, -errno);
  setfsgid(gid);
  setfsuid(uid);
  /* The calls do not tell whether they did anything. */
  if ((uid_t)setfsuid((uid_t)-1) != uid || (gid_t)setfsgid((gid_t)-1) != gid) result = -EPERM;
  if (result == 0) {
    result = (int)RETRY(open(path, flags | O_CLOEXEC));
    if (result < 0) result = -errno;
  }
  setfsuid(old_uid);
  setfsgid(old_gid);
  if (syscall(SYS_setgroups, own_count, own) < 0) {
    /* It could be set to something else a moment ago; going on with another user's groups is no option. */
    static const char MESSAGE[] = "passel: cannot put this thread's groups back\n";
    if (write(STDERR_FILENO, MESSAGE, sizeof MESSAGE - 1) < 0) _exit(1);
    _exit(1);
  }
  return reply(&call, result);
}

const struct export_row OPEN_EXPORTS[] = {
    {"openBeneath", native_open_beneath},
    {"openAs", native_open_as},
    {NULL, NULL},
};
