/*
 * The front of an executable that goes to the background: it starts first, so that Node, which cannot fork(2) and go on, is started
 * once only, and already where it will stay.
 *
 * In the background: a child becomes Node in a session of its own; this process waits, writes nothing itself, and ends with status 0 when
 * the child says over a pipe that it is ready (one byte), with the child's own status when it ends before. Whoever ends this process
 * meanwhile ends the child. In the foreground this process becomes Node itself, so that the pid that was started is the one that
 * serves.
 *
 * The child finds the number of its end of the pipe in PASSEL_DAEMON, and its own PID, which it would not know in a PID namespace; see
 * daemonise.ts, which does the same for a bundle that is started without this front.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "detach.h"
#include "node.h"
#include "plan.h"
#include "ring.h"

static const char DAEMON_MARK[] = "PASSEL_DAEMON";
static const int ENDING_SIGNALS[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM};
enum {
  ENDING_SIGNAL_COUNT = sizeof ENDING_SIGNALS / sizeof *ENDING_SIGNALS,
  SIGNAL_STATUS = 128,
  /* For a child that is told to end. */
  PATIENCE_SECONDS = 5,
};

/* What the handler works on; signal handlers have no argument of ours, hence the file scope. */
static volatile sig_atomic_t ended_by;
static volatile sig_atomic_t child_pid;

static void on_ending_signal(int number) {
  int saved = errno;
  ended_by = number;
  kill((pid_t)child_pid, SIGTERM);
  alarm(PATIENCE_SECONDS);
  errno = saved;
}

static void on_alarm(int number) {
  (void)number;
  int saved = errno;
  kill((pid_t)child_pid, SIGKILL);
  errno = saved;
}

static const char *base_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash == NULL ? path : slash + 1;
}

/* The text is that of PASSEL_E_DAEMON in errors.ts. */
static int complain(const char *own, const char *what, const char *detail) {
  fprintf(stderr, "%s: the background process ended before it was ready: %s%s\n", base_name(own), what, detail);
  return 1;
}

/* Closes all that was inherited but stdio and two others, which may be -1: what is kept open would stay so for a daemon's life. */
static void close_others(int one, int other) {
  int low = one < other ? one : other;
  int high = one < other ? other : one;
  unsigned int from = STDERR_FILENO + 1;
  if (low > STDERR_FILENO) {
    if ((unsigned int)low > from) syscall(SYS_close_range, from, (unsigned int)low - 1, 0U);
    from = (unsigned int)low + 1;
  }
  if (high > STDERR_FILENO) {
    if ((unsigned int)high > from) syscall(SYS_close_range, from, (unsigned int)high - 1, 0U);
    from = (unsigned int)high + 1;
  }
  syscall(SYS_close_range, from, ~0U, 0U);
}

/* The child: stays where the launcher's terminal and session are not. Ends with an exit status if Node cannot be started. */
static int serve(const char *own, int ready, int told, int keep_fd, int argc, char **argv) {
  pid_t pid = 0;
  if (read(told, &pid, sizeof pid) != (ssize_t)sizeof pid) return 1;
  setsid();
  int null = open("/dev/null", O_RDWR);
  for (int fd = STDIN_FILENO; null >= 0 && fd <= STDOUT_FILENO; fd++) {
    if (fd != keep_fd) dup2(null, fd);
  }
  fcntl(ready, F_SETFD, 0);
  close_others(ready, keep_fd);
  char text[32];
  snprintf(text, sizeof text, "%d %d", ready, (int)pid);
  setenv(DAEMON_MARK, text, 1);
  return become_node(own, argc, argv);
}

/* Waits until the child is ready or has ended. @returns exit status */
static int wait_for_child(const char *own, pid_t child, int ready) {
  char byte;
  ssize_t got;
  do {
    got = read(ready, &byte, 1);
  } while (got < 0 && errno == EINTR);
  if (got == 1 && ended_by == 0) return 0;
  /* The first process of a PID namespace is deaf to signals until it has handlers for them, which it has when it is ready. */
  if (got == 1) kill(child, SIGTERM);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  if (ended_by != 0) return SIGNAL_STATUS + (int)ended_by;
  if (WIFSIGNALED(status)) {
    const char *name = sigabbrev_np(WTERMSIG(status));
    return complain(own, "killed by SIG", name == NULL ? "?" : name);
  }
  return WEXITSTATUS(status) == 0 ? complain(own, "it exited early", "") : WEXITSTATUS(status);
}

static int launch(const char *own, int keep_fd, int argc, char **argv) {
  /* Nothing of ours gets a number that means something else to the program. */
  for (int fd = 0; fd <= STDERR_FILENO;) {
    fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (fd < 0) break;
    if (fd > STDERR_FILENO) close(fd);
  }
  if (fcntl(keep_fd, F_GETFD) < 0) keep_fd = -1;
  int ready[2];
  int told[2];
  if (pipe2(ready, O_CLOEXEC) < 0 || pipe2(told, O_CLOEXEC) < 0) return complain(own, "pipe: ", strerror(errno));
  sigset_t ending;
  sigset_t before;
  sigemptyset(&ending);
  for (int i = 0; i < ENDING_SIGNAL_COUNT; i++) sigaddset(&ending, ENDING_SIGNALS[i]);
  /* Until there is a child to end. */
  sigprocmask(SIG_BLOCK, &ending, &before);
  pid_t child = fork();
  if (child < 0) return complain(own, "fork: ", strerror(errno));
  if (child == 0) {
    sigprocmask(SIG_SETMASK, &before, NULL);
    close(told[1]);
    return serve(own, ready[1], told[0], keep_fd, argc, argv);
  }
  close(ready[1]);
  /* Of its own fork(2) it has been told another number. */
  if (write(told[1], &child, sizeof child) != (ssize_t)sizeof child) return complain(own, "pipe: ", strerror(errno));
  child_pid = child;
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_ending_signal;
  for (int i = 0; i < ENDING_SIGNAL_COUNT; i++) {
    struct sigaction inherited;
    /* One that our caller ignores (nohup(1)) stays ignored. */
    if (sigaction(ENDING_SIGNALS[i], NULL, &inherited) == 0 && inherited.sa_handler == SIG_IGN) continue;
    sigaction(ENDING_SIGNALS[i], &action, NULL);
  }
  action.sa_handler = on_alarm;
  sigaction(SIGALRM, &action, NULL);
  sigprocmask(SIG_SETMASK, &before, NULL);
  return wait_for_child(own, child, ready[0]);
}

int main(int argc, char **argv) {
  char own[OWN_PATH_BYTES];
  if (find_own_path(argv[0], own) != 0) return 1;
  struct plan plan = read_plan(own, argc, argv);
  /* Node would read them all at each start, which takes twice the time; nothing here speaks TLS. */
  unsetenv("NODE_EXTRA_CA_CERTS");
  unsetenv(DAEMON_MARK);
  if (plan.confined) refuse_ring();
  if (plan.confined && plan.of_guest) detach(plan.background);
  return plan.background ? launch(own, plan.keep_fd, argc, argv) : become_node(own, argc, argv);
}
