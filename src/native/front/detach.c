#include "detach.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

/* Tells the program that its mount namespace is its own, and which: see src/cli/sandbox.ts. */
static const char DETACHED_MARK[] = "PASSEL_DETACHED";

/* What Node is left with in the user namespace until it has made its root an empty one. */
static const uint64_t ROOT_CHANGERS = UINT64_C(1) << CAP_SYS_ADMIN | UINT64_C(1) << CAP_SYS_CHROOT;

static uint64_t permitted_capabilities(void) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  struct __user_cap_data_struct data[2];
  memset(data, 0, sizeof data);
  /* Unknown is treated like all of them but the one: nothing is done. */
  if (syscall(SYS_capget, &header, data) != 0) return 1;
  return (uint64_t)data[1].permitted << 32 | data[0].permitted;
}

static bool write_text(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  ssize_t written = write(fd, text, strlen(text));
  close(fd);
  return written == (ssize_t)strlen(text);
}

static bool set_capabilities(uint64_t permitted, uint64_t inheritable) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  struct __user_cap_data_struct data[2];
  for (int i = 0; i < 2; i++) {
    data[i].permitted = data[i].effective = (uint32_t)(permitted >> (32 * i));
    data[i].inheritable = (uint32_t)(inheritable >> (32 * i));
  }
  return syscall(SYS_capset, &header, data) == 0;
}

/* Keeps `wanted` alone, over execve(2) too. */
static bool limit_capabilities(uint64_t wanted) {
  /* What is not in the bounding set any more cannot become inheritable. */
  if (!set_capabilities(wanted | UINT64_C(1) << CAP_SETPCAP, wanted)) return false;
  for (unsigned long capability = 0; capability < 64; capability++) {
    /* EINVAL: beyond the last one that this kernel has. */
    if (prctl(PR_CAPBSET_DROP, capability, 0UL, 0UL, 0UL) != 0) break;
  }
  if (!set_capabilities(wanted, wanted)) return false;
  for (unsigned long capability = 0; capability < 64; capability++) {
    if ((wanted >> capability & 1) == 0) continue;
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0UL, 0UL) != 0) return false;
  }
  return true;
}

/* Stays the same user: another would not be able to make files. */
static bool enter_user_namespace(int others) {
  char uids[32];
  char gids[32];
  snprintf(uids, sizeof uids, "%u %u 1", geteuid(), geteuid());
  snprintf(gids, sizeof gids, "%u %u 1", getegid(), getegid());
  if (unshare(CLONE_NEWUSER | others) != 0) return false;
  /* Without this the kernel lets no ordinary user write a group map. */
  if (!write_text("/proc/self/setgroups", "deny")) return false;
  return write_text("/proc/self/gid_map", gids) && write_text("/proc/self/uid_map", uids) &&
         limit_capabilities(ROOT_CHANGERS);
}

/* Whether all steps of the above succeed. Some systems let user namespaces be made and then refuse the rest, and there is no way back. */
static bool may_enter_user_namespace(int others) {
  pid_t child = fork();
  if (child == 0) _exit(enter_user_namespace(others) ? 0 : 1);
  int status = 0;
  if (child < 0) return false;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void detach(bool with_pid) {
  unsetenv(DETACHED_MARK);
  int others = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | (with_pid ? CLONE_NEWPID : 0);
  uint64_t held = permitted_capabilities();
  if ((held >> CAP_SYS_ADMIN & 1) != 0) {
    if (unshare(others) != 0) return;
  } else {
    bool given = held != 0 || getxattr(NODE_EXECUTABLE, "security.capability", NULL, 0) > 0;
    if (given || getuid() != geteuid() || getgid() != getegid()) return;
    if (!may_enter_user_namespace(others) || !enter_user_namespace(others)) return;
  }
  char name[64];
  ssize_t length = readlink("/proc/self/ns/mnt", name, sizeof name - 1);
  if (length <= 0) return;
  name[length] = '\0';
  setenv(DETACHED_MARK, name, 1);
}
