/*
 * Something that every thread has to do for itself: capabilities belong to threads, and Node has several before any of our code runs.
 * Each is interrupted by a signal whose handler does the work there, as the C library does for setuid(2). The signal is the one
 * that the C libraries keep for themselves for that very purpose: no thread has it blocked.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "broadcast.h"
#include "native.h"

enum {
  BROADCAST_SIGNAL = 33,
  BROADCAST_WAIT_MS = 2000,
};

/* struct sigaction as the kernel has it: the libraries' own refuse this signal. */
struct kernel_action {
  void *handler;
  unsigned long flags;
  void (*restorer)(void);
  uint64_t mask;
};

/* What the handler works on; only one broadcast runs at a time. Signal handlers have no argument of ours, hence the file scope. */
static struct {
  atomic_flag busy;
  thread_work *work;
  const void *data;
  atomic_int done;
  atomic_int error;
} broadcast = {.busy = ATOMIC_FLAG_INIT};

static void on_broadcast(int number) {
  (void)number;
  int saved = errno;
  int error = broadcast.work(broadcast.data);
  if (error != 0) atomic_store(&broadcast.error, error);
  atomic_fetch_add(&broadcast.done, 1);
  errno = saved;
}

static int raw_sigaction(const struct kernel_action *action, struct kernel_action *old) {
  return (int)syscall(SYS_rt_sigaction, BROADCAST_SIGNAL, action, old, sizeof(uint64_t));
}

/*
 * A thread of the list as tgkill(2) knows it: the list has the numbers of the PID namespace that it was mounted in, which is our caller's where
 * this process was given one of its own. The last number of NSpid is ours. 0: the thread has ended meanwhile.
 */
static pid_t translate_thread(int list, const char *name) {
  char path[64];
  char text[4096];
  snprintf(path, sizeof path, "%.32s/status", name);
  int fd = openat(list, path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  ssize_t length = RETRY(read(fd, text, sizeof text - 1));
  close(fd);
  if (length <= 0) return 0;
  text[length] = '\0';
  const char *line = strstr(text, "\nNSpid:");
  /* A kernel without such namespaces. */
  if (line == NULL) return (pid_t)strtol(name, NULL, 10);
  size_t end = strcspn(line + 1, "\n") + 1;
  while (end > 0 && line[end - 1] >= '0' && line[end - 1] <= '9') end--;
  return (pid_t)strtol(line + end, NULL, 10);
}

/* Sends the signal to every other thread of the list (/proc/self/task) and waits for their handlers. @returns threads reached, or -errno */
static int reach_threads(int list) {
  int fd = openat(list, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -errno;
  DIR *tasks = fdopendir(fd);
  if (tasks == NULL) {
    int error = errno;
    close(fd);
    return -error;
  }
  pid_t self = (pid_t)syscall(SYS_gettid);
  int sent = 0;
  for (struct dirent *entry = readdir(tasks); entry != NULL; entry = readdir(tasks)) {
    if (entry->d_name[0] == '.') continue;
    pid_t thread = translate_thread(list, entry->d_name);
    if (thread <= 0 || thread == self) continue;
    /* A thread that has ended meanwhile holds nothing. */
    if (syscall(SYS_tgkill, getpid(), thread, BROADCAST_SIGNAL) == 0) sent++;
  }
  closedir(tasks);
  for (int waited = 0; atomic_load(&broadcast.done) < sent; waited++) {
    if (waited == BROADCAST_WAIT_MS * 10) return -ETIMEDOUT;
    const struct timespec pause = {.tv_sec = 0, .tv_nsec = 100000};
    nanosleep(&pause, NULL);
  }
  int error = atomic_load(&broadcast.error);
  return error != 0 ? -error : sent;
}

/*
 * The kernel needs SA_RESTORER with a function that calls rt_sigreturn(2) on x86-64. The library's is taken from an action that it
 * installed itself.
 */
static int borrow_restorer(struct kernel_action *action) {
  struct sigaction probe;
  struct sigaction old;
  memset(&probe, 0, sizeof probe);
  probe.sa_handler = on_broadcast;
  struct kernel_action seen;
  memset(&seen, 0, sizeof seen);
  if (sigaction(SIGURG, &probe, &old) != 0) return -errno;
  int result = (int)syscall(SYS_rt_sigaction, SIGURG, NULL, &seen, sizeof(uint64_t));
  int error = errno;
  sigaction(SIGURG, &old, NULL);
  if (result != 0) return -error;
  enum { RESTORER_FLAG = 0x04000000 };
  action->flags = (seen.flags & RESTORER_FLAG) | SA_RESTART;
  action->restorer = seen.restorer;
  return 0;
}

int run_in_all_threads(int list, thread_work *work, const void *data) {
  if (atomic_flag_test_and_set(&broadcast.busy)) return -EBUSY;
  broadcast.work = work;
  broadcast.data = data;
  atomic_store(&broadcast.done, 0);
  atomic_store(&broadcast.error, 0);
  struct kernel_action action;
  struct kernel_action old;
  memset(&action, 0, sizeof action);
  memset(&old, 0, sizeof old);
  action.handler = (void *)(uintptr_t)on_broadcast;
  int result = borrow_restorer(&action);
  if (result == 0 && raw_sigaction(&action, &old) != 0) result = -errno;
  if (result == 0) {
    result = reach_threads(list);
    raw_sigaction(&old, NULL);
    if (result >= 0) {
      int error = work(data);
      result = error != 0 ? -error : result + 1;
    }
  }
  atomic_flag_clear(&broadcast.busy);
  return result;
}
