/*
 * The front of an executable that becomes another program and must hand on what its caller gave it, unchanged.
 *
 * Before the first line of JavaScript runs, Node has set all signals to their default action, emptied the signal mask, raised the
 * limit of open files and marked inherited descriptors close-on-exec; none of it can be found out afterwards. So this program
 * starts first, writes down how things are, and becomes Node. Nothing else is done here.
 *
 * The note is one environment variable: PID IGNORED BLOCKED LIMIT FDS, where IGNORED and BLOCKED are masks in hexadecimal (bit 0
 * is signal 1), LIMIT is the soft RLIMIT_NOFILE, or - if there is none, and FDS are ranges of open descriptors, or - if they are
 * not known. The PID tells a note for this process from one that leaked into a child's environment.
 */
#include <dirent.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "node.h"

enum { NOTE_BYTES_MAX = 96 * 1024, SIGNAL_MAX = 64 };

static const char NOTE_NAME[] = "PASSEL_INHERITED";

struct text {
  char *bytes;
  size_t used;
};

static void append_range(struct text *text, int first, int last) {
  const char *comma = text->bytes[text->used - 1] == ' ' ? "" : ",";
  int written = snprintf(text->bytes + text->used, NOTE_BYTES_MAX - text->used, first == last ? "%s%d" : "%s%d-%d", comma,
                         first, last);
  /* A note that is cut short would lose descriptors; NOTE_BYTES_MAX holds more of them than a kernel's default limit allows. */
  if (written > 0 && (size_t)written < NOTE_BYTES_MAX - text->used) text->used += (size_t)written;
}

static int compare_ints(const void *left, const void *right) {
  int a = *(const int *)left;
  int b = *(const int *)right;
  return (a > b) - (a < b);
}

/* Open descriptors as ranges. All of them are the caller's: this program opened none but the folder that it reads. */
static bool append_descriptors(struct text *text) {
  DIR *folder = opendir("/proc/self/fd");
  if (folder == NULL) return false;
  int *fds = NULL;
  size_t count = 0;
  size_t room = 0;
  for (struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
    if (entry->d_name[0] == '.' || atoi(entry->d_name) == dirfd(folder)) continue;
    if (count == room) {
      room = room == 0 ? 64 : 2 * room;
      int *larger = realloc(fds, room * sizeof *fds);
      if (larger == NULL) break;
      fds = larger;
    }
    fds[count++] = atoi(entry->d_name);
  }
  closedir(folder);
  if (count > 0) qsort(fds, count, sizeof *fds, compare_ints);
  for (size_t i = 0; i < count;) {
    size_t end = i + 1;
    while (end < count && fds[end] == fds[end - 1] + 1) end++;
    append_range(text, fds[i], fds[end - 1]);
    i = end;
  }
  free(fds);
  return true;
}

static void write_note(void) {
  uint64_t ignored = 0;
  uint64_t blocked = 0;
  sigset_t mask;
  sigprocmask(SIG_SETMASK, NULL, &mask);
  for (int number = 1; number <= SIGNAL_MAX; number++) {
    struct sigaction action;
    uint64_t bit = UINT64_C(1) << (number - 1);
    if (sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN) ignored |= bit;
    if (sigismember(&mask, number) == 1) blocked |= bit;
  }
  struct text text = {.bytes = malloc(NOTE_BYTES_MAX), .used = 0};
  if (text.bytes == NULL) return;
  int written = snprintf(text.bytes, NOTE_BYTES_MAX, "%d %" PRIx64 " %" PRIx64 " ", (int)getpid(), ignored, blocked);
  text.used = (size_t)written;
  struct rlimit limit;
  bool limited = getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < INT_MAX;
  written = limited ? snprintf(text.bytes + text.used, 32, "%lu ", (unsigned long)limit.rlim_cur)
                    : snprintf(text.bytes + text.used, 32, "- ");
  text.used += (size_t)written;
  size_t before = text.used;
  bool listed = append_descriptors(&text);
  if (text.used == before) text.bytes[text.used++] = listed ? ',' : '-';
  text.bytes[text.used] = '\0';
  setenv(NOTE_NAME, text.bytes, 1);
  free(text.bytes);
}

int main(int argc, char **argv) {
  char own[OWN_PATH_BYTES];
  if (find_own_path(argv[0], own) != 0) return 1;
  write_note();
  /* A signal that is blocked and pending would end Node when it empties the mask; ignored until it is the program's, at worst it is
   * lost. */
  sigset_t pending;
  if (sigpending(&pending) == 0) {
    for (int number = 1; number <= SIGNAL_MAX; number++) {
      if (sigismember(&pending, number) == 1) signal(number, SIG_IGN);
    }
  }
  return become_node(own, argc, argv);
}
