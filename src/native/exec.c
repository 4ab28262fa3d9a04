/*
 * Starting a program in a child, in other namespaces if asked, and becoming a program: fork(2), execve(2), unshare(2), setns(2),
 * user_namespaces(7).
 *
 * Node has threads before any code of ours runs, so unshare() and setns() of a user namespace fail in its process, and a forked child
 * cannot run JavaScript, since V8 keeps its code out of children. What has to happen in a namespace happens in a child that runs
 * the C code below, which makes async-signal-safe calls only, and then executes a program.
 */
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "exec-request.h"
#include "native.h"

/* What a child was about when it failed; the numbers are known to process.ts. */
enum step {
  STEP_FORK = 1,
  STEP_JOIN = 2,
  STEP_UNSHARE_USER = 3,
  STEP_ID_MAP = 4,
  STEP_UNSHARE = 5,
  STEP_DESCRIPTORS = 6,
  STEP_DIRECTORY = 7,
  STEP_EXEC = 8,
};

struct failure {
  int32_t step;
  int32_t error;
};

static void write_failure(int fd, enum step step) {
  struct failure failure = {.step = (int32_t)step, .error = errno};
  RETRY(write(fd, &failure, sizeof failure));
  _exit(127);
}

static int write_file(const char *path, const char *text) {
  int fd = (int)RETRY(open(path, O_WRONLY | O_CLOEXEC));
  if (fd < 0) return -1;
  ssize_t written = RETRY(write(fd, text, strlen(text)));
  int error = errno;
  close(fd);
  errno = error;
  return written < 0 ? -1 : 0;
}

static void enter_namespaces(const struct exec_request *request, int report) {
  for (size_t i = 0; i < request->join_count; i++) {
    if (setns(request->joins[i], 0) < 0) write_failure(report, STEP_JOIN);
  }
  if ((request->namespaces & CLONE_NEWUSER) != 0 && unshare(CLONE_NEWUSER) < 0) write_failure(report, STEP_UNSHARE_USER);
  if (request->gid_map != NULL) {
    /* Without it the kernel lets no unprivileged process write a group map. */
    if (write_file("/proc/self/setgroups", "deny") < 0 && errno != ENOENT) write_failure(report, STEP_ID_MAP);
    if (write_file("/proc/self/gid_map", request->gid_map) < 0) write_failure(report, STEP_ID_MAP);
  }
  if (request->uid_map != NULL && write_file("/proc/self/uid_map", request->uid_map) < 0) {
    write_failure(report, STEP_ID_MAP);
  }
  uint32_t others = request->namespaces & ~(uint32_t)CLONE_NEWUSER;
  if (others != 0 && unshare((int)others) < 0) write_failure(report, STEP_UNSHARE);
}

/* The child from fork to exec: async-signal-safe calls only. All signals are blocked on entry. */
static void run_child(struct exec_request *request, int report, pid_t parent) {
  int32_t base = first_free_above(request);
  report = fcntl(report, F_DUPFD_CLOEXEC, base);
  if (report < 0) _exit(127);
  reset_signal_actions(request);
  if (request->death_signal != 0) {
    prctl(PR_SET_PDEATHSIG, (unsigned long)request->death_signal);
    /* The parent may have gone before the request was made. */
    if (getppid() != parent) _exit(127);
  }
  if (request->new_session) setsid();
  enter_namespaces(request, report);
  if (!request->keep_inherited) syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC);
  if (place_descriptors(request, base, false) < 0) write_failure(report, STEP_DESCRIPTORS);
  /* Node marks stdio close-on-exec when it starts. */
  for (int fd = 0; fd <= STDERR_FILENO; fd++) fcntl(fd, F_SETFD, 0);
  if (request->directory != NULL && chdir(request->directory) < 0) write_failure(report, STEP_DIRECTORY);
  sigset_t blocked;
  fill_blocked_set(request, &blocked);
  sigprocmask(SIG_SETMASK, &blocked, NULL);
  lower_file_limit(request);
  execve(request->file, request->arguments, request->environment);
  write_failure(report, STEP_EXEC);
}

static pid_t start_child(struct exec_request *request, struct failure *failure) {
  int pipe_fds[2];
  *failure = (struct failure){.step = STEP_FORK};
  if (pipe2(pipe_fds, O_CLOEXEC) < 0) {
    failure->error = errno;
    return -1;
  }
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  /* A handler of Node's must not run in the child: it would write to pipes that it shares with its parent. */
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pid_t parent = getpid();
  pid_t pid = _Fork();
  if (pid == 0) {
    run_child(request, pipe_fds[1], parent);
    _exit(127);
  }
  int error = errno;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  close(pipe_fds[1]);
  if (pid < 0) {
    failure->error = error;
  } else if (RETRY(read(pipe_fds[0], failure, sizeof *failure)) == (ssize_t)sizeof *failure) {
    RETRY(waitpid(pid, NULL, 0));
    pid = -1;
  }
  /* Otherwise the pipe ended without a word: the program runs, or the child died, which its exit status will tell. */
  close(pipe_fds[0]);
  return pid;
}

/* forkExec(request, failure): the child's pid, or -errno with the step in failure[0] */
static napi_value native_fork_exec(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  napi_value object = next_value(&call);
  int32_t *step = next_int_array(&call, 1);
  struct exec_request request;
  memset(&request, 0, sizeof request);
  pid_t pid = -1;
  struct failure failure = {0, 0};
  if (call.error == 0) read_exec_request(&call, object, &request);
  if (call.error == 0) pid = start_child(&request, &failure);
  free_exec_request(&request);
  if (call.error != 0) return reply_refusal(&call);
  if (pid >= 0) return reply(&call, pid);
  step[0] = failure.step;
  return reply(&call, -failure.error);
}

/*
 * execute(request): this process becomes the program, with the same pid. Comes back only with -errno, and then everything is as
 * before, but for close-on-exec, which the targets of the request then have. Namespaces, session and death signal of the request do
 * not apply.
 */
static napi_value native_execute(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  napi_value object = next_value(&call);
  struct exec_request request;
  memset(&request, 0, sizeof request);
  int error = 0;
  if (call.error == 0 && read_exec_request(&call, object, &request)) {
    int32_t base = first_free_above(&request);
    int stdio_flags[3];
    sigset_t all;
    sigset_t before;
    sigset_t blocked;
    struct sigaction actions[NSIG];
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    sigfillset(&all);
    fill_blocked_set(&request, &blocked);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int number = 1; number < NSIG; number++) sigaction(number, NULL, &actions[number]);
    for (int fd = 0; fd < 3; fd++) stdio_flags[fd] = fcntl(fd, F_GETFD);
    if (place_descriptors(&request, base, true) < 0) {
      error = errno;
    } else {
      for (int fd = 0; fd < 3; fd++) fcntl(fd, F_SETFD, 0);
      reset_signal_actions(&request);
      if (request.directory != NULL && chdir(request.directory) < 0) {
        error = errno;
      } else {
        pthread_sigmask(SIG_SETMASK, &blocked, NULL);
        lower_file_limit(&request);
        execve(request.file, request.arguments, request.environment);
        error = errno;
        setrlimit(RLIMIT_NOFILE, &limit);
        pthread_sigmask(SIG_SETMASK, &all, NULL);
      }
      for (int number = 1; number < NSIG; number++) sigaction(number, &actions[number], NULL);
      restore_descriptors(&request);
      for (int fd = 0; fd < 3; fd++) {
        if (stdio_flags[fd] >= 0) fcntl(fd, F_SETFD, stdio_flags[fd]);
      }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
  }
  free_exec_request(&request);
  if (call.error != 0) return reply_refusal(&call);
  return reply(&call, -error);
}

const struct export_row EXEC_EXPORTS[] = {
    {"forkExec", native_fork_exec},
    {"execute", native_execute},
    {NULL, NULL},
};
