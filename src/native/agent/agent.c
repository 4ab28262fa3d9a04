/*
 * The namespace agent: a small process beside a network stack for a namespace, which does what the stack's own process cannot.
 *
 * Node has threads before any code of ours runs, so it can neither make nor join a user namespace. This program makes or joins the
 * namespaces, makes and configures the tap device, hands its descriptor over, and stays: as the maker of sockets that belong to the
 * namespace, as who binds them to low ports there, as parent of the namespace's first process (command.c), and as who notices that a joined
 * namespace is gone. By the time it answers requests it has no privileges left but that of binding low ports.
 *
 *     stack (Node) ── fork, exec ── agent ─┬─ (subreaper) init, PID 1 of the new namespaces ── the command
 *
 * It ends when its sockets are closed, and takes the command along.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

enum { WATCH_INTERVAL_MS = 1000, TABLES = 4 };

static const char *const TABLE_PATHS[TABLES] = {"/proc/self/net/tcp", "/proc/self/net/tcp6", "/proc/self/net/udp",
                                                "/proc/self/net/udp6"};

/* One message with descriptors; false when nobody is there any more. */
static bool send_message(int socket_fd, const void *bytes, size_t length, const int *fds, size_t count) {
  union {
    struct cmsghdr align;
    uint8_t bytes[CMSG_SPACE(SOCKETS_MAX * sizeof(int))];
  } control;
  memset(&control, 0, sizeof control);
  struct iovec iovec = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = length};
  struct msghdr message = {.msg_iov = &iovec, .msg_iovlen = 1};
  if (count > 0) {
    message.msg_control = &control;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(header), fds, count * sizeof(int));
  }
  ssize_t sent;
  do {
    sent = sendmsg(socket_fd, &message, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  return sent >= 0;
}

static void send_report(int32_t kind, int32_t a, int32_t b, const char *text, const int *fds, size_t count) {
  struct report report;
  memset(&report, 0, sizeof report);
  report.kind = kind;
  report.a = a;
  report.b = b;
  if (text != NULL) memcpy(report.text, text, strnlen(text, sizeof report.text - 1));
  send_message(REPORT_FD, &report, sizeof report, fds, count);
}

_Noreturn void fail_step_with(enum agent_step step, int error, const char *subject) {
  send_report(REPORT_FAILED, (int32_t)step, error, subject, NULL, 0);
  _exit(1);
}

_Noreturn void fail_step(enum agent_step step, const char *subject) { fail_step_with(step, errno, subject); }

/* ---------------------------------------------------------------------------------------------------------------- settings */

static int64_t parse_number(const char *text) {
  char *end = NULL;
  errno = 0;
  long long value = strtoll(text, &end, 10);
  if (errno != 0 || end == text || *end != '\0' || value < 0) fail_step_with(STEP_ARGUMENTS, EINVAL, text);
  return value;
}

static const char *value_of(const char *word, const char *name) {
  size_t length = strlen(name);
  return strncmp(word, name, length) == 0 && word[length] == '=' ? word + length + 1 : NULL;
}

static struct settings read_settings(int count, char **words) {
  struct settings settings = {.uid = -1, .gid = -1};
  for (int i = 1; i < count; i++) {
    const char *value;
    if (strcmp(words[i], "--") == 0) {
      if (i + 2 >= count) fail_step_with(STEP_ARGUMENTS, EINVAL, "--");
      settings.file = words[i + 1];
      settings.arguments = words + i + 2;
      break;
    }
    if ((value = value_of(words[i], "uid")) != NULL) settings.uid = parse_number(value);
    else if ((value = value_of(words[i], "gid")) != NULL) settings.gid = parse_number(value);
    else if ((value = value_of(words[i], "user")) != NULL) settings.user_path = value;
    else if ((value = value_of(words[i], "net")) != NULL) settings.net_path = value;
    else if ((value = value_of(words[i], "pid")) != NULL) settings.pid = (pid_t)parse_number(value);
    else if ((value = value_of(words[i], "watch")) != NULL) settings.watch = parse_number(value) != 0;
    else if ((value = value_of(words[i], "tap")) != NULL) settings.tap = value;
    else if ((value = value_of(words[i], "vnet")) != NULL) settings.vnet = parse_number(value) != 0;
    else if ((value = value_of(words[i], "mac")) != NULL) settings.mac = value;
    else if ((value = value_of(words[i], "mtu")) != NULL) settings.mtu = (int)parse_number(value);
    else if ((value = value_of(words[i], "shell")) != NULL) settings.shell = parse_number(value) != 0;
    else if ((value = value_of(words[i], "up")) != NULL) settings.up = parse_number(value) != 0;
    else if (settings.item_count < ITEMS_MAX) settings.items[settings.item_count++] = words[i];
  }
  return settings;
}

/* ------------------------------------------------------------------------------------------------------------------ service */

static void answer_sockets(const struct request *request) {
  int fds[SOCKETS_MAX];
  int32_t made = 0;
  int domain = request->family == 4 ? AF_INET : AF_INET6;
  while (made < request->count && made < SOCKETS_MAX) {
    int fd = socket(domain, request->type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) break;
    fds[made++] = fd;
  }
  int32_t status = made > 0 ? made : -errno;
  send_message(REQUEST_FD, &status, sizeof status, fds, (size_t)made);
  for (int32_t i = 0; i < made; i++) close(fds[i]);
}

static void answer_bind(const struct request *request, int fd) {
  int32_t status = -EBADF;
  if (fd >= 0) {
    status = bind(fd, (const struct sockaddr *)&request->address, request->address_length) < 0 ? -errno : 0;
  }
  send_message(REQUEST_FD, &status, sizeof status, NULL, 0);
}

/* false: the other side has closed its end. */
static bool serve_request(struct guest *guest) {
  union {
    struct cmsghdr align;
    uint8_t bytes[CMSG_SPACE(sizeof(int))];
  } control;
  struct request request;
  memset(&request, 0, sizeof request);
  struct iovec iovec = {.iov_base = &request, .iov_len = sizeof request};
  struct msghdr message = {
      .msg_iov = &iovec, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  ssize_t received = recvmsg(REQUEST_FD, &message, MSG_CMSG_CLOEXEC);
  if (received < 0) return errno == EINTR || errno == EAGAIN;
  if (received == 0) return false;
  int fd = -1;
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  if (header != NULL && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
    memcpy(&fd, CMSG_DATA(header), sizeof fd);
  }
  if (request.kind == REQUEST_SOCKETS) {
    answer_sockets(&request);
  } else if (request.kind == REQUEST_BIND && request.address_length <= sizeof request.address) {
    answer_bind(&request, fd);
  } else if (request.kind == REQUEST_GO && guest->go >= 0) {
    /* Init may have ended already; it is then reported as such. */
    if (write(guest->go, "g", 1) < 0) errno = 0;
  }
  if (fd >= 0) close(fd);
  return true;
}

/* Gives the terminal back to those who had it, if a shell has taken it. */
static void return_terminal(const struct guest *guest) {
  if (guest->terminal >= 0 && tcsetpgrp(guest->terminal, guest->terminal_group) < 0) errno = 0;
}

static void report_end(struct guest *guest) {
  int32_t status = SIGKILL;
  /* Without a word, init was ended by force, and all that ran there with it. */
  if (read(guest->ended, &status, sizeof status) != (ssize_t)sizeof status) status = SIGKILL;
  close(guest->ended);
  guest->ended = -1;
  return_terminal(guest);
  send_report(REPORT_ENDED, status, 0, NULL, NULL, 0);
}

static void serve(struct guest *guest, const struct watch *watch) {
  bool told = false;
  for (;;) {
    struct pollfd polls[4] = {
        {.fd = REQUEST_FD, .events = POLLIN},
        {.fd = guest->ended, .events = POLLIN},
        {.fd = told ? -1 : watch->pidfd, .events = POLLIN},
        {.fd = told ? -1 : watch->inotify, .events = POLLIN},
    };
    /* First of all: it may have gone before it was watched. */
    if (!told && is_gone(watch)) {
      send_report(REPORT_GONE, 0, 0, NULL, NULL, 0);
      told = true;
    }
    int timeout = !told && watch->directory >= 0 ? WATCH_INTERVAL_MS : -1;
    if (poll(polls, 4, timeout) < 0) {
      if (errno != EINTR) return;
      continue;
    }
    if (polls[1].revents != 0) report_end(guest);
    if (polls[0].revents != 0 && !serve_request(guest)) return;
    while (waitpid(-1, NULL, WNOHANG) > 0) continue;
  }
}

/* Our own standard descriptors are the command's, or somebody waits for their end. */
static void leave_stdio(void) {
  int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int fd = 0; fd <= STDERR_FILENO; fd++) {
    if (null >= 0) dup2(null, fd);
    else close(fd);
  }
  if (null > STDERR_FILENO) close(null);
}

int main(int count, char **words) {
  fcntl(REQUEST_FD, F_SETFD, FD_CLOEXEC);
  fcntl(REPORT_FD, F_SETFD, FD_CLOEXEC);
  struct settings settings = read_settings(count, words);
  struct guest guest = {.user = -1, .net = -1, .init = 0, .go = -1, .ended = -1, .terminal = -1};
  struct watch watch = {.pidfd = -1, .inotify = -1, .directory = -1, .name = "", .lost = false};
  prctl(PR_SET_CHILD_SUBREAPER, 1UL, 0UL, 0UL, 0UL);
  if (settings.file != NULL) {
    make_namespaces(&settings, &guest);
  } else {
    open_namespaces(&settings, &guest);
    if (settings.watch) start_watch(&settings, &watch);
  }
  if (settings.shell && isatty(STDIN_FILENO)) {
    guest.terminal = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, FIRST_FREE_FD);
    guest.terminal_group = tcgetpgrp(STDIN_FILENO);
  }
  leave_stdio();
  /* A terminal's signals are for the command. */
  for (size_t i = 0; i < 5; i++) signal((const int[]){SIGINT, SIGQUIT, SIGHUP, SIGPIPE, SIGTTOU}[i], SIG_IGN);
  become_user(&settings);
  int fds[1 + TABLES];
  size_t fd_count = 0;
  int tun = enter_namespaces(&settings, &guest);
  int32_t flags = 0;
  if (tun >= 0) {
    flags = make_tap(tun, &settings);
    fds[fd_count++] = tun;
  }
  configure_network(&settings);
  for (size_t i = 0; i < TABLES; i++) {
    fds[fd_count] = open(TABLE_PATHS[i], O_RDONLY | O_CLOEXEC);
    /* A kernel without IPv6 has no tables of it. */
    if (fds[fd_count] < 0 && errno == ENOENT) fds[fd_count] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fds[fd_count] < 0) fail_step(STEP_TABLES, TABLE_PATHS[i]);
    fd_count++;
  }
  if (chdir("/") < 0) errno = 0;
  confine();
  prctl(PR_SET_PDEATHSIG, (unsigned long)SIGKILL);
  if (load_filter(guest.init) < 0) fail_step(STEP_CONFINE, NULL);
  send_report(REPORT_READY, flags, guest.init, settings.tap, fds, fd_count);
  for (size_t i = 0; i < fd_count; i++) close(fds[i]);
  serve(&guest, &watch);
  if (guest.init > 0 && guest.ended >= 0) {
    kill(guest.init, SIGKILL);
    return_terminal(&guest);
  }
  return 0;
}
