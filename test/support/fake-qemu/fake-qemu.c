/*
 * A program that tells, as JSON on standard output, what it was given: arguments, environment, descriptors, signals, limits. It
 * stands in for QEMU where a test asks what QEMU would get.
 *
 * With a stream socket among its descriptors it can also say what waits there, unread: FAKE_QEMU_READ=FD waits up to 200 ms.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

static void print_string(const char *text) {
  putchar('"');
  for (const unsigned char *c = (const unsigned char *)text; *c != 0; c++) {
    if (*c == '"' || *c == '\\' || *c < 0x20 || *c >= 0x7f) {
      printf("\\u%04x", *c);
    } else {
      putchar(*c);
    }
  }
  putchar('"');
}

static void print_list(const char *name, char **strings) {
  printf("\"%s\":[", name);
  for (int i = 0; strings[i] != NULL; i++) {
    if (i > 0) putchar(',');
    print_string(strings[i]);
  }
  printf("],");
}

static const char *kind_of(int fd) {
  struct stat status;
  if (fstat(fd, &status) < 0) return "?";
  if (S_ISSOCK(status.st_mode)) return "socket";
  if (S_ISFIFO(status.st_mode)) return "pipe";
  if (S_ISCHR(status.st_mode)) return "device";
  return S_ISREG(status.st_mode) ? "file" : "other";
}

static void print_descriptors(void) {
  int fds[4096];
  int count = 0;
  DIR *folder = opendir("/proc/self/fd");
  if (folder == NULL) exit(2);
  for (struct dirent *entry = readdir(folder); entry != NULL && count < 4096; entry = readdir(folder)) {
    if (entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(folder)) fds[count++] = atoi(entry->d_name);
  }
  closedir(folder);
  printf("\"fds\":{");
  for (int i = 0; i < count; i++) {
    int flags = fcntl(fds[i], F_GETFL);
    printf("%s\"%d\":{\"kind\":\"%s\",\"nonBlocking\":%s}", i > 0 ? "," : "", fds[i], kind_of(fds[i]),
           (flags & O_NONBLOCK) != 0 ? "true" : "false");
  }
  printf("},");
}

static void print_signals(void) {
  sigset_t mask;
  const char *comma = "";
  printf("\"ignored\":[");
  for (int number = 1; number <= 64; number++) {
    struct sigaction action;
    if (sigaction(number, NULL, &action) != 0 || action.sa_handler != SIG_IGN) continue;
    printf("%s%d", comma, number);
    comma = ",";
  }
  sigprocmask(SIG_SETMASK, NULL, &mask);
  comma = "";
  printf("],\"blocked\":[");
  for (int number = 1; number <= 64; number++) {
    if (sigismember(&mask, number) != 1) continue;
    printf("%s%d", comma, number);
    comma = ",";
  }
  printf("],");
}

static void print_unread(const char *number) {
  unsigned char bytes[4096];
  int fd = atoi(number);
  struct pollfd ready = {.fd = fd, .events = POLLIN};
  ssize_t got = 0;
  if (poll(&ready, 1, 200) > 0) got = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT | MSG_PEEK);
  printf("\"unread\":%zd,", got);
}

int main(int argc, char **argv) {
  (void)argc;
  char buffer[1 << 16];
  setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  putchar('{');
  print_list("argv", argv);
  print_list("env", environ);
  print_descriptors();
  print_signals();
  if (getenv("FAKE_QEMU_READ") != NULL) print_unread(getenv("FAKE_QEMU_READ"));
  printf("\"fileLimit\":%lu,\"pid\":%d}\n", (unsigned long)files.rlim_cur, (int)getpid());
  fflush(stdout);
  const char *status = getenv("FAKE_QEMU_STATUS");
  return status == NULL ? 0 : atoi(status);
}
