/*
 * The first process of new namespaces: waits until the network is there, starts the command, adopts what the command leaves behind, tells how
 * the command ended, and ends, and the kernel with it whatever still runs there.
 *
 * The command is not the first process itself, since the kernel keeps from that all signals that it does not handle: it could neither be
 * interrupted from the terminal nor end itself by a signal.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "agent.h"

/* As shells have it. */
enum { STATUS_NOT_EXECUTABLE = 126, STATUS_NOT_FOUND = 127 };

static void execute(const struct settings *settings) {
  execv(settings->file, settings->arguments);
  _exit(errno == ENOENT ? STATUS_NOT_FOUND : STATUS_NOT_EXECUTABLE);
}

/*
 * An interactive shell notes which group of processes has the terminal, to give it back at its end. That of whoever started us has no number
 * in this namespace, so a group of our own takes the terminal first; the agent gives it back. Commands stay in the group in which
 * we were started: who stops it from the terminal stops all of it.
 */
static void take_terminal(void) {
  if (!isatty(STDIN_FILENO) || tcgetpgrp(STDIN_FILENO) != getpgrp() || setpgid(0, 0) < 0) return;
  signal(SIGTTOU, SIG_IGN);
  tcsetpgrp(STDIN_FILENO, getpgrp());
  signal(SIGTTOU, SIG_DFL);
}

_Noreturn void run_init(const struct settings *settings, int go, int ended) {
  char byte = 0;
  /* What the agent holds, but for these two: its ends of the sockets must close when it does. */
  if (go != REQUEST_FD && ended != REQUEST_FD) close(REQUEST_FD);
  close(REPORT_FD);
  /* Where the kernel allows it, ps(1) and its kin see this namespace's processes. */
  mount("none", "/", NULL, MS_REC | MS_SLAVE, NULL);
  mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
  ssize_t got;
  do {
    got = read(go, &byte, 1);
  } while (got < 0 && errno == EINTR);
  if (got != 1) _exit(1);
  /* Only now, since the process that started us has ended meanwhile. */
  prctl(PR_SET_PDEATHSIG, (unsigned long)SIGKILL);
  struct pollfd still = {.fd = go, .events = 0};
  if (poll(&still, 1, 0) > 0 && (still.revents & (POLLHUP | POLLERR)) != 0) _exit(1);
  if (settings->shell) take_terminal();
  pid_t command = fork();
  if (command < 0) _exit(1);
  if (command == 0) execute(settings);
  for (;;) {
    int status = 0;
    pid_t pid = waitpid(-1, &status, 0);
    if (pid < 0 && errno == EINTR) continue;
    if (pid >= 0 && pid != command) continue;
    int32_t told = status;
    if (pid < 0 || write(ended, &told, sizeof told) < 0) _exit(1);
    _exit(0);
  }
}
