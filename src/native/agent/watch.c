/*
 * Noticing that a joined namespace is gone: its process has ended, or its name was removed. inotify(7) tells of names; the file systems of the
 * kernel itself (procfs) do not, so there the process is watched, and where neither is possible, the name is looked for each second.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent.h"

static int open_process(pid_t pid) { return (int)syscall(SYS_pidfd_open, pid, 0U); }

/* The process of a path /proc/PID/…, or 0. */
static pid_t process_of(const char *path) {
  int pid = 0;
  char next = '\0';
  return sscanf(path, "/proc/%d%c", &pid, &next) == 2 && next == '/' ? (pid_t)pid : 0;
}

static bool is_missing(const struct watch *watch) {
  struct stat stat;
  return fstatat(watch->directory, watch->name, &stat, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT;
}

void start_watch(const struct settings *settings, struct watch *watch) {
  pid_t pid = settings->pid > 0 ? settings->pid : process_of(settings->net_path);
  if (pid > 0) {
    watch->pidfd = open_process(pid);
    if (watch->pidfd >= 0) return;
    if (errno == ESRCH && settings->pid > 0) fail_step(STEP_FIND_PROCESS, NULL);
  }
  char directory[PATH_MAX];
  const char *slash = strrchr(settings->net_path, '/');
  size_t length = slash == NULL ? 0 : (size_t)(slash - settings->net_path);
  if (length >= sizeof directory) fail_step_with(STEP_WATCH, ENAMETOOLONG, settings->net_path);
  memcpy(directory, settings->net_path, length);
  directory[length] = '\0';
  const char *folder = slash == NULL ? "." : length == 0 ? "/" : directory;
  snprintf(watch->name, sizeof watch->name, "%s", slash == NULL ? settings->net_path : slash + 1);
  watch->directory = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (watch->directory < 0) fail_step(STEP_WATCH, settings->net_path);
  watch->inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  if (watch->inotify < 0) return;
  if (inotify_add_watch(watch->inotify, folder, IN_DELETE | IN_MOVED_FROM | IN_DELETE_SELF) < 0) {
    close(watch->inotify);
    watch->inotify = -1;
    return;
  }
  /* It may have gone before it was watched. Afterwards the directory is let go, so that its file system can be unmounted. */
  watch->lost = is_missing(watch);
  close(watch->directory);
  watch->directory = -1;
}

/* Whether one of the events that wait is the end of the name, or of what it is in. */
static bool read_events(const struct watch *watch) {
  union {
    struct inotify_event align;
    char bytes[4096];
  } events;
  ssize_t length;
  while ((length = read(watch->inotify, events.bytes, sizeof events.bytes)) > 0) {
    for (ssize_t at = 0; at < length;) {
      const struct inotify_event *event = (const void *)(events.bytes + at);
      if ((event->mask & (IN_DELETE_SELF | IN_UNMOUNT | IN_IGNORED)) != 0) return true;
      if (event->len > 0 && strcmp(event->name, watch->name) == 0) return true;
      at += (ssize_t)(sizeof *event + event->len);
    }
  }
  return false;
}

bool is_gone(const struct watch *watch) {
  if (watch->lost) return true;
  if (watch->pidfd >= 0) {
    struct pollfd process = {.fd = watch->pidfd, .events = POLLIN};
    return poll(&process, 1, 0) > 0;
  }
  if (watch->inotify >= 0) return read_events(watch);
  return watch->directory >= 0 && is_missing(watch);
}
