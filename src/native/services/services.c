/*
 * The services agent: a small process beside a network stack that opens for it what a confined process cannot open: files below one folder
 * (the TFTP server), connections to unix sockets, and commands with a socket for standard input and output (guestfwd).
 *
 * What it may be asked for is settled when it starts, by its arguments; whoever takes over the stack can ask for no more than the guest can.
 * It starts before the stack gives up its privileges and gives up its own first. It ends when the stack's socket is closed, and takes the
 * commands along.
 *
 * Arguments: UID GID (numbers, or - to stay who we are), `quiet` or - (standard error is the stack's or nowhere), then services in the order of their numbers, each `unix PATH` or
 * `cmd COUNT WORD…`. Descriptors: see below.
 *
 * A request is one message: struct request, and for a file its path behind it. It is answered by struct answer, with the descriptor if the
 * result is 0.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

enum { STACK_FD = 3, FOLDER_FD = 4, SERVICES_MAX = 256, PATH_BYTES = 1024 };

enum request_kind { REQUEST_FILE = 1, REQUEST_CONNECTION = 2 };

/* In the byte order of the machine; src/sys/services.ts knows them too. */
struct request {
  /* Comes back with the answer. */
  uint32_t ticket[2];
  uint32_t kind;
  /* REQUEST_CONNECTION: number of the service. */
  uint32_t service;
};

struct answer {
  uint32_t ticket[2];
  /* 0 or -errno */
  int32_t result;
};

struct service {
  /* Either of the two. */
  const char *path;
  char **words;
};

static struct service services[SERVICES_MAX];
static uint32_t service_count;

static int open_file(const char *path) {
  struct open_how how;
  memset(&how, 0, sizeof how);
  /* Non-blocking, so that a pipe without a writer does not stop everything. */
  how.flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  long fd;
  int tries = 0;
  do {
    fd = syscall(SYS_openat2, FOLDER_FD, path, &how, sizeof how);
  } while (fd < 0 && (errno == EINTR || (errno == EAGAIN && ++tries < 16)));
  if (fd < 0) return -errno;
  struct stat status;
  if (fstat((int)fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    close((int)fd);
    return -EACCES;
  }
  return (int)fd;
}

static int connect_path(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) return -ENAMETOOLONG;
  memcpy(address.sun_path, path, strlen(path));
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  if (connect(fd, (const struct sockaddr *)&address, sizeof address) == 0) return fd;
  int error = errno;
  close(fd);
  return -error;
}

static _Noreturn void become_command(char **words, int socket_fd) {
  /* Before it could miss our end. */
  prctl(PR_SET_PDEATHSIG, SIGTERM, 0UL, 0UL, 0UL);
  signal(SIGCHLD, SIG_DFL);
  signal(SIGPIPE, SIG_DFL);
  if (dup2(socket_fd, STDIN_FILENO) < 0 || dup2(socket_fd, STDOUT_FILENO) < 0) _exit(126);
  execvp(words[0], words);
  _exit(errno == ENOENT ? 127 : 126);
}

static int start_command(char **words) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return -errno;
  pid_t self = getpid();
  pid_t child = fork();
  if (child == 0) {
    if (getppid() != self) _exit(126);
    become_command(words, pair[1]);
  }
  int error = errno;
  close(pair[1]);
  if (child > 0 && fcntl(pair[0], F_SETFL, O_NONBLOCK) == 0) return pair[0];
  close(pair[0]);
  return child < 0 ? -error : -EIO;
}

static int connect_service(uint32_t number) {
  if (number >= service_count) return -ENOENT;
  const struct service *service = &services[number];
  return service->path != NULL ? connect_path(service->path) : start_command(service->words);
}

/* Answers with the descriptor, which is closed, or the negative result. @returns false when the stack is gone */
static bool answer_request(const struct request *request, int fd) {
  struct answer answer = {.ticket = {request->ticket[0], request->ticket[1]}, .result = fd < 0 ? fd : 0};
  union {
    struct cmsghdr align;
    uint8_t bytes[CMSG_SPACE(sizeof(int))];
  } control;
  memset(&control, 0, sizeof control);
  struct iovec iovec = {.iov_base = &answer, .iov_len = sizeof answer};
  struct msghdr message = {.msg_iov = &iovec, .msg_iovlen = 1};
  if (fd >= 0) {
    message.msg_control = &control;
    message.msg_controllen = sizeof control.bytes;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
  }
  ssize_t sent;
  do {
    sent = sendmsg(STACK_FD, &message, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (fd >= 0) close(fd);
  return sent >= 0;
}

static void serve(void) {
  struct {
    struct request request;
    char path[PATH_BYTES + 1];
  } message;
  for (;;) {
    ssize_t received = recv(STACK_FD, &message, sizeof message - 1, 0);
    if (received < 0 && errno == EINTR) continue;
    if (received < (ssize_t)sizeof message.request) return;
    ((char *)&message)[received] = '\0';
    const struct request *request = &message.request;
    int fd = -EINVAL;
    if (request->kind == REQUEST_FILE) fd = open_file(message.path);
    else if (request->kind == REQUEST_CONNECTION) fd = connect_service(request->service);
    if (!answer_request(request, fd)) return;
  }
}

static uint32_t parse_number(const char *text) {
  char *end = NULL;
  errno = 0;
  unsigned long value = strtoul(text, &end, 10);
  if (errno != 0 || end == text || *end != '\0' || value > UINT32_MAX) _exit(2);
  return (uint32_t)value;
}

static void give_up_privileges(const char *uid, const char *gid) {
  if (strcmp(gid, "-") != 0) {
    gid_t group = parse_number(gid);
    if (setgroups(0, NULL) != 0 || setresgid(group, group, group) != 0) _exit(3);
  }
  if (strcmp(uid, "-") != 0) {
    uid_t user = parse_number(uid);
    if (setresuid(user, user, user) != 0) _exit(3);
  }
  /* What a user namespace of the stack's own has given; commands are to have none of it. */
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0UL, 0UL, 0UL);
  if (geteuid() == 0) return;
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  struct __user_cap_data_struct none[2];
  memset(none, 0, sizeof none);
  if (syscall(SYS_capset, &header, none) != 0) _exit(3);
}

static void read_services(int argc, char **argv) {
  for (int at = 4; at < argc; service_count++) {
    if (service_count == SERVICES_MAX || at + 1 >= argc) _exit(2);
    struct service *service = &services[service_count];
    if (strcmp(argv[at], "unix") == 0) {
      service->path = argv[at + 1];
      at += 2;
      continue;
    }
    uint32_t count = parse_number(argv[at + 1]);
    if (strcmp(argv[at], "cmd") != 0 || count == 0 || count > (uint32_t)(argc - at - 2)) _exit(2);
    char **words = calloc((size_t)count + 1, sizeof *words);
    if (words == NULL) _exit(2);
    memcpy(words, argv + at + 2, count * sizeof *words);
    service->words = words;
    at += 2 + (int)count;
  }
}

int main(int argc, char **argv) {
  if (argc < 4) return 2;
  read_services(argc, argv);
  /* Terminal and descriptors of the stack's are not for commands: but for standard error, where they may complain. */
  int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0 || dup2(null_fd, STDOUT_FILENO) < 0) return 2;
  /* Whoever has started a program for the background reads what it says until nobody has that descriptor any more. */
  if (strcmp(argv[3], "quiet") == 0 && dup2(null_fd, STDERR_FILENO) < 0) return 2;
  for (int fd = STACK_FD; fd <= FOLDER_FD; fd++) fcntl(fd, F_SETFD, FD_CLOEXEC);
  setsid();
  signal(SIGPIPE, SIG_IGN);
  /* Nobody asks how a command has ended. */
  signal(SIGCHLD, SIG_IGN);
  give_up_privileges(argv[1], argv[2]);
  serve();
  return 0;
}
