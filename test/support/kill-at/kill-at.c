/*
 * A library for LD_PRELOAD that ends its process at exactly one of its steps to the outside: sendmsg(2) and pwrite(2). KILL_AT names a file with one
 * int32: when it is not 0, each step takes 1 away, and the step that makes it 0 is not made but is SIGKILL. The test writes the file at any time.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static int32_t *left;

__attribute__((constructor)) static void open_counter(void) {
  const char *path = getenv("KILL_AT");
  int fd = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return;
  void *page = mmap(NULL, sizeof *left, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (page != MAP_FAILED) left = page;
  close(fd);
}

static void step(void) {
  if (left == NULL || __atomic_load_n(left, __ATOMIC_SEQ_CST) == 0) return;
  if (__atomic_sub_fetch(left, 1, __ATOMIC_SEQ_CST) == 0) kill(getpid(), SIGKILL);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
  static ssize_t (*next)(int, const struct msghdr *, int);
  if (next == NULL) *(void **)&next = dlsym(RTLD_NEXT, "sendmsg");
  step();
  return next(fd, message, flags);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
  static ssize_t (*next)(int, const void *, size_t, off64_t);
  if (next == NULL) *(void **)&next = dlsym(RTLD_NEXT, "pwrite64");
  step();
  return next(fd, bytes, length, offset);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) { return pwrite64(fd, bytes, length, offset); }
