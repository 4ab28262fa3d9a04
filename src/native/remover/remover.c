/*
 * Removes files for a process that has given up the right to: src/sys/remover.ts.
 *
 *     remover NAME...
 *
 * Descriptor 3 is a socket, 4 and on are the directories of the names, in their order. The process that was started ends at once; what
 * goes on is its child, which nobody has to wait for. A byte on the socket is the number of a name, which is then unlinked if it is a
 * socket; the answer is a byte, 0 or errno. With the other end of the socket this process ends, and removes nothing: who was killed
 * may have been followed already by another that uses the same name.
 *
 * Of all privileges it keeps those that may be needed to write to a directory of somebody else. There is nothing else that it reads or
 * can be told.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CONTROL_FD = 3, FIRST_DIRECTORY_FD = 4, NAMES_MAX = 4 };

/* @returns 0 or errno */
static int limit_privileges(void) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  struct __user_cap_data_struct data[2];
  memset(data, 0, sizeof data);
  if (syscall(SYS_capget, &header, data) != 0) return errno;
  const uint32_t keep = 1U << CAP_DAC_OVERRIDE | 1U << CAP_FOWNER;
  data[0].permitted &= keep;
  data[0].effective = data[0].permitted;
  data[0].inheritable = 0;
  data[1].permitted = 0;
  data[1].effective = 0;
  data[1].inheritable = 0;
  if (syscall(SYS_capset, &header, data) != 0) return errno;
  if (prctl(PR_SET_NO_NEW_PRIVS, 1UL, 0UL, 0UL, 0UL) != 0) return errno;
  return prctl(PR_SET_DUMPABLE, 0UL) != 0 ? errno : 0;
}

static void close_from(int first) {
  if (syscall(SYS_close_range, (unsigned int)first, ~0U, 0U) == 0) return;
  long limit = sysconf(_SC_OPEN_MAX);
  for (int fd = first; fd < limit; fd++) close(fd);
}

/* @returns 0 or errno */
static int remove_socket(int directory, const char *name) {
  struct stat found;
  if (fstatat(directory, name, &found, AT_SYMLINK_NOFOLLOW) != 0) return errno;
  if (!S_ISSOCK(found.st_mode)) return ENOTSOCK;
  return unlinkat(directory, name, 0) == 0 ? 0 : errno;
}

static void serve(char *const *names, int count) {
  for (;;) {
    unsigned char number = 0;
    ssize_t got = read(CONTROL_FD, &number, 1);
    if (got < 0 && errno == EINTR) continue;
    if (got != 1) return;
    int error = number < count ? remove_socket(FIRST_DIRECTORY_FD + number, names[number]) : EINVAL;
    unsigned char answer = (unsigned char)error;
    ssize_t sent = 0;
    do {
      sent = write(CONTROL_FD, &answer, 1);
    } while (sent < 0 && errno == EINTR);
    if (sent != 1) return;
  }
}

int main(int argc, char **argv) {
  int count = argc - 1;
  if (count < 1 || count > NAMES_MAX) return 1;
  close_from(FIRST_DIRECTORY_FD + count);
  if (chdir("/") != 0 || limit_privileges() != 0) return 1;
  pid_t child = fork();
  if (child < 0) return 1;
  if (child > 0) return 0;
  setsid();
  /* It ends with whom it serves, who may have work left when a terminal or a service manager signals both. */
  const int ignored[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE};
  for (size_t i = 0; i < sizeof ignored / sizeof ignored[0]; i++) signal(ignored[i], SIG_IGN);
  serve(argv + 1, count);
  return 0;
}
