/*
 * Becoming another user and keeping capabilities on the way, in all threads: capabilities(7), setresuid(2); and the lock of a PID file.
 *
 * A change of user from root to another takes all capabilities away, unless the thread has asked to keep them. That wish, like the
 * capabilities, belongs to each thread, while the C library changes the user of all of them. So threads are asked twice.
 */
#include <fcntl.h>
#include <grp.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "broadcast.h"
#include "native.h"

static int keep_in_thread(const void *wanted) {
  const unsigned long *on = wanted;
  return prctl(PR_SET_KEEPCAPS, *on, 0UL, 0UL, 0UL) == 0 ? 0 : errno;
}

/*
 * changeUser(threadList, uid, gid): no supplementary groups, all three group and user ids; permitted capabilities stay in every thread.
 * -1 as uid or gid leaves that one as it is. 0, or -errno; nothing says how far it came then.
 */
static napi_value native_change_user(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t list = next_int(&call);
  int64_t uid = next_int64(&call);
  int64_t gid = next_int64(&call);
  if (uid < -1 || uid >= UINT32_MAX || gid < -1 || gid >= UINT32_MAX) fail_call(&call, EINVAL);
  if (call.error != 0) return reply_refusal(&call);
  uid_t user = uid < 0 ? getuid() : (uid_t)uid;
  gid_t group = gid < 0 ? getgid() : (gid_t)gid;
  unsigned long keep = 1;
  int reached = run_in_all_threads(list, keep_in_thread, &keep);
  if (reached < 0) return reply(&call, reached);
  if (setresgid(group, group, group) != 0 || setgroups(0, NULL) != 0 || setresuid(user, user, user) != 0) {
    return reply(&call, -errno);
  }
  keep = 0;
  reached = run_in_all_threads(list, keep_in_thread, &keep);
  return reply(&call, reached < 0 ? reached : 0);
}

/* lockFile(fd): a write lock on the whole file for this process (F_SETLK), 0 or -errno. Closing any descriptor of the file gives it up. */
static napi_value native_lock_file(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  return reply_result(&call, fcntl(fd, F_SETLK, &lock));
}

const struct export_row PRIVILEGES_EXPORTS[] = {
    {"changeUser", native_change_user},
    {"lockFile", native_lock_file},
    {NULL, NULL},
};
