/* Making, opening and entering namespaces; who we are meanwhile. user_namespaces(7), setns(2), unshare(2), capabilities(7). */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent.h"

static int write_text(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  ssize_t written = write(fd, text, strlen(text));
  int error = errno;
  close(fd);
  errno = error;
  return written < 0 ? -1 : 0;
}

static int open_namespace(const char *path, enum agent_step step) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail_step(step, path);
  return fd;
}

static bool is_same_file(const char *path, int fd) {
  struct stat a;
  struct stat b;
  return stat(path, &a) == 0 && fstat(fd, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

void open_namespaces(const struct settings *settings, struct guest *guest) {
  if (settings->pid > 0 && kill(settings->pid, 0) < 0 && errno == ESRCH) fail_step(STEP_FIND_PROCESS, NULL);
  if (settings->user_path != NULL) guest->user = open_namespace(settings->user_path, STEP_OPEN_USER);
  guest->net = open_namespace(settings->net_path, STEP_OPEN_NET);
  /* One cannot enter the user namespace that one is in. */
  if (guest->user >= 0 && is_same_file("/proc/self/ns/user", guest->user)) {
    close(guest->user);
    guest->user = -1;
  }
}

/* Sets user and group ids for good. @returns 0 or -1 */
static int set_ids(const struct settings *settings) {
  if (settings->uid < 0) return 0;
  gid_t gid = (gid_t)settings->gid;
  uid_t uid = (uid_t)settings->uid;
  return setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0 ? -1 : 0;
}

static int change_capabilities(uint64_t keep, bool raise) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  struct __user_cap_data_struct data[2];
  memset(data, 0, sizeof data);
  if (syscall(SYS_capget, &header, data) != 0) return -1;
  for (int i = 0; i < 2; i++) {
    data[i].permitted &= (uint32_t)(keep >> (32 * i));
    data[i].effective = raise ? data[i].permitted : data[i].effective & data[i].permitted;
    data[i].inheritable = 0;
  }
  return (int)syscall(SYS_capset, &header, data);
}

void become_user(const struct settings *settings) {
  if (settings->uid < 0) return;
  /* Namespaces of others are entered and devices opened with root's capabilities, which have no file of root's to protect. */
  prctl(PR_SET_KEEPCAPS, 1UL, 0UL, 0UL, 0UL);
  if (set_ids(settings) < 0 || change_capabilities(~UINT64_C(0), true) < 0) fail_step(STEP_CHANGE_USER, NULL);
  prctl(PR_SET_KEEPCAPS, 0UL, 0UL, 0UL, 0UL);
}

void confine(void) {
  const uint64_t keep = UINT64_C(1) << CAP_NET_BIND_SERVICE;
  for (unsigned long capability = 0; capability < 64; capability++) {
    if (capability == CAP_NET_BIND_SERVICE) continue;
    if (prctl(PR_CAPBSET_DROP, capability, 0UL, 0UL, 0UL) < 0) break;
  }
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0UL, 0UL, 0UL);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1UL, 0UL, 0UL, 0UL) < 0 || change_capabilities(keep, false) < 0) {
    fail_step(STEP_CONFINE, NULL);
  }
  prctl(PR_SET_DUMPABLE, 0UL);
}

/* ------------------------------------------------------------------------------------------------------------------ making */

/* In a child: the namespaces, and the process that is their first. */
static _Noreturn void make_in_child(const struct settings *settings, int go, int ended, int pid_out) {
  char map[64];
  if (set_ids(settings) < 0) fail_step(STEP_CHANGE_USER, NULL);
  /* A change of user takes our files in /proc away from us, and the wish to end with our parent. */
  prctl(PR_SET_DUMPABLE, 1UL);
  prctl(PR_SET_PDEATHSIG, (unsigned long)SIGKILL);
  uid_t uid = geteuid();
  gid_t gid = getegid();
  if (unshare(CLONE_NEWUSER) < 0) fail_step(STEP_MAKE_USER, NULL);
  if (write_text("/proc/self/setgroups", "deny") < 0 && errno != ENOENT) fail_step(STEP_ID_MAP, "/proc/self/setgroups");
  snprintf(map, sizeof map, "0 %u 1", (unsigned)gid);
  if (write_text("/proc/self/gid_map", map) < 0) fail_step(STEP_ID_MAP, "/proc/self/gid_map");
  snprintf(map, sizeof map, "0 %u 1", (unsigned)uid);
  if (write_text("/proc/self/uid_map", map) < 0) fail_step(STEP_ID_MAP, "/proc/self/uid_map");
  if (unshare(CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS | CLONE_NEWPID) < 0) {
    fail_step(STEP_MAKE_OTHERS, NULL);
  }
  /* Ping as an ordinary user; without it the command needs rights for it, which it has. */
  if (write_text("/proc/sys/net/ipv4/ping_group_range", "0 0") < 0) errno = 0;
  pid_t init = fork();
  if (init < 0) fail_step(STEP_FORK, NULL);
  if (init == 0) run_init(settings, go, ended);
  if (write(pid_out, &init, sizeof init) < 0) _exit(1);
  /* Our namespaces are looked up by our pid. */
  pause();
  _exit(0);
}

void make_namespaces(const struct settings *settings, struct guest *guest) {
  int go[2];
  int ended[2];
  int pids[2];
  if (pipe2(go, O_CLOEXEC) < 0 || pipe2(ended, O_CLOEXEC) < 0 || pipe2(pids, O_CLOEXEC) < 0) fail_step(STEP_FORK, NULL);
  pid_t maker = fork();
  if (maker < 0) fail_step(STEP_FORK, NULL);
  if (maker == 0) {
    close(go[1]);
    close(ended[0]);
    close(pids[0]);
    make_in_child(settings, go[0], ended[1], pids[1]);
  }
  close(go[0]);
  close(ended[1]);
  close(pids[1]);
  pid_t init = 0;
  /* Nothing: it has reported why. */
  if (read(pids[0], &init, sizeof init) != (ssize_t)sizeof init) _exit(1);
  close(pids[0]);
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/ns/user", (int)maker);
  guest->user = open_namespace(path, STEP_OPEN_USER);
  snprintf(path, sizeof path, "/proc/%d/ns/net", (int)maker);
  guest->net = open_namespace(path, STEP_OPEN_NET);
  kill(maker, SIGKILL);
  waitpid(maker, NULL, 0);
  guest->init = init;
  guest->go = go[1];
  guest->ended = ended[0];
}

/* ---------------------------------------------------------------------------------------------------------------- entering */

static int open_tun(void) { return open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK); }

int enter_namespaces(const struct settings *settings, struct guest *guest) {
  const char *user_name = settings->user_path;
  bool wanted = settings->tap != NULL;
  int tun = -1;
  /*
   * With rights over the network namespace as we are, it is entered first: the device, which remembers where it was opened, may be
   * one that only root may open, and in the user namespace we are root no more.
   */
  bool entered = setns(guest->net, CLONE_NEWNET) == 0;
  int error = errno;
  if (entered && wanted) tun = open_tun();
  if (guest->user >= 0 && setns(guest->user, CLONE_NEWUSER) < 0) fail_step(STEP_JOIN_USER, user_name);
  if (!entered) {
    if (guest->user < 0) fail_step_with(STEP_JOIN_NET, error, settings->net_path);
    if (setns(guest->net, CLONE_NEWNET) < 0) fail_step(STEP_JOIN_NET, settings->net_path);
  }
  if (wanted && tun < 0) tun = open_tun();
  if (wanted && tun < 0) fail_step(STEP_OPEN_TUN, "/dev/net/tun");
  /* A path that leads to a namespace could not be unmounted as long as it is open. */
  if (guest->user >= 0) close(guest->user);
  close(guest->net);
  guest->user = -1;
  guest->net = -1;
  return tun;
}
