/*
 * The services agent: a small process beside a network stack that opens for it what a confined process cannot open: files below one folder
 * (the TFTP server), connections to unix sockets, and commands with a socket for standard input and output (guestfwd, SMB).
 *
 * What it may be asked for is settled when it starts, by its arguments; whoever takes over the stack can ask for no more than the guest can.
 * It starts before the stack gives up its privileges and gives up its own first. It ends when the stack's socket is closed, and takes the
 * commands along.
 *
 * Arguments: UID GID (numbers, or - to stay who we are), `quiet` or - (standard error is the stack's or nowhere), then services in the order of
 * their numbers, each `unix PATH` (@ in front: a name in the abstract namespace), `cmd COUNT WORD…` or `tcp COUNT WORD…`, for a command that
 * wants a socket of TCP; and anywhere `folder PATH`, what the commands need while we run: it is removed at the end. Descriptors: see below.
 *
 * A request is one message: struct request, and for a file its path behind it. It is answered by struct answer, with the descriptor if the
 * result is 0.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STACK_FD = 3, FOLDER_FD = 4, SERVICES_MAX = 256, PATH_BYTES = 1024 };

/* How long commands may take to end before their folder is removed, in seconds. */
enum { END_SECONDS = 1 };
/* Folders in folders, where a command is to leave no more. */
enum { DEPTH_MAX = 16 };
/* Connections of others that are turned away while one of our own is waited for. */
enum { STRANGERS_MAX = 64 };

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
  /* The command has a socket of TCP. */
  bool wants_tcp;
};

static struct service services[SERVICES_MAX];
static uint32_t service_count;
/* NULL: none. */
static const char *own_folder;

/* Commands that have not been reaped, so that their numbers are theirs. Each leads a process group: smbd ends its own when it ends. */
static struct command {
  pid_t pid;
  /* What it has started ends with it. */
  bool ends_group;
} *commands;
static size_t command_count;
static size_t command_room;

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
  size_t length = strlen(path);
  bool is_abstract = path[0] == '@';
  if (length >= sizeof address.sun_path + (is_abstract ? 1U : 0U)) return -ENAMETOOLONG;
  memcpy(address.sun_path, path, length);
  if (is_abstract) address.sun_path[0] = '\0';
  socklen_t address_length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + (is_abstract ? 0U : 1U));
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  if (connect(fd, (const struct sockaddr *)&address, address_length) == 0) return fd;
  int error = errno;
  close(fd);
  return -error;
}

static _Noreturn void become_command(char **words, int socket_fd) {
  /* Before it could miss our end. */
  prctl(PR_SET_PDEATHSIG, SIGTERM, 0UL, 0UL, 0UL);
  signal(SIGCHLD, SIG_DFL);
  signal(SIGPIPE, SIG_DFL);
  if (setpgid(0, 0) != 0) _exit(126);
  if (dup2(socket_fd, STDIN_FILENO) < 0 || dup2(socket_fd, STDOUT_FILENO) < 0) _exit(126);
  execvp(words[0], words);
  _exit(errno == ENOENT ? 127 : 126);
}

/* Accepts the connection from this port, and none that somebody else has made meanwhile. */
static int accept_from(int listener, in_port_t port) {
  for (int strangers = 0; strangers < STRANGERS_MAX; strangers++) {
    struct sockaddr_in peer;
    socklen_t length = sizeof peer;
    int fd;
    do {
      fd = accept4(listener, (struct sockaddr *)&peer, &length, SOCK_CLOEXEC);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0) return -errno;
    if (peer.sin_port == port && peer.sin_addr.s_addr == htonl(INADDR_LOOPBACK)) return fd;
    close(fd);
  }
  return -EBUSY;
}

/* Two ends of a connection over loopback: smbd asks who is at the other end, and takes no answer but an address. */
static int make_tcp_pair(int pair[2]) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
  socklen_t length = sizeof address;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0) return -errno;
  int ours = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int result = ours < 0 ? -errno : 0;
  if (result == 0 && (bind(listener, (struct sockaddr *)&address, length) != 0 || listen(listener, STRANGERS_MAX) != 0 ||
                      getsockname(listener, (struct sockaddr *)&address, &length) != 0 ||
                      connect(ours, (struct sockaddr *)&address, length) != 0 ||
                      getsockname(ours, (struct sockaddr *)&address, &length) != 0)) {
    result = -errno;
  }
  if (result == 0) result = accept_from(listener, address.sin_port);
  close(listener);
  if (result < 0) {
    if (ours >= 0) close(ours);
    return result;
  }
  pair[0] = ours;
  pair[1] = result;
  return 0;
}

static bool make_room_for_command(void) {
  if (command_count < command_room) return true;
  size_t room = command_room == 0 ? 64 : 2 * command_room;
  struct command *more = realloc(commands, room * sizeof *more);
  if (more == NULL) return false;
  commands = more;
  command_room = room;
  return true;
}

/* Nobody asks how a command has ended. */
static void forget_command(pid_t pid) {
  for (size_t i = 0; i < command_count; i++) {
    if (commands[i].pid == pid) commands[i] = commands[--command_count];
  }
}

/* Takes leave of a child that has ended. Until it is reaped, its group cannot be another's. */
static void reap(pid_t pid) {
  for (size_t i = 0; i < command_count; i++) {
    if (commands[i].pid == pid && commands[i].ends_group) kill(-pid, SIGTERM);
  }
  waitpid(pid, NULL, 0);
  forget_command(pid);
}

/* @param options - WNOHANG, or 0 to wait. @returns false when none has ended; errno is ECHILD when there is none */
static bool reap_next(int options) {
  siginfo_t ended;
  memset(&ended, 0, sizeof ended);
  if (waitid(P_ALL, 0, &ended, WEXITED | WNOWAIT | options) != 0 || ended.si_pid == 0) return false;
  reap(ended.si_pid);
  return true;
}

static int start_command(char **words, bool wants_tcp) {
  int pair[2];
  if (!make_room_for_command()) return -ENOMEM;
  if (wants_tcp) {
    int made = make_tcp_pair(pair);
    if (made < 0) return made;
  } else if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
    return -errno;
  }
  pid_t self = getpid();
  pid_t child = fork();
  if (child == 0) {
    if (getppid() != self) _exit(126);
    become_command(words, pair[1]);
  }
  int error = errno;
  close(pair[1]);
  if (child > 0) commands[command_count++] = (struct command){.pid = child, .ends_group = wants_tcp};
  if (child > 0 && fcntl(pair[0], F_SETFL, O_NONBLOCK) == 0) return pair[0];
  close(pair[0]);
  return child < 0 ? -error : -EIO;
}

static int connect_service(uint32_t number) {
  if (number >= service_count) return -ENOENT;
  const struct service *service = &services[number];
  return service->path != NULL ? connect_path(service->path) : start_command(service->words, service->wants_tcp);
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
    /* The end of one interrupts the wait, or is seen to the next time. */
    while (reap_next(WNOHANG)) continue;
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

/* Removes what is in a folder, as far as that is possible. The descriptor is closed. */
static void empty_folder(int folder, int depth) {
  DIR *entries = fdopendir(folder);
  if (entries == NULL) {
    close(folder);
    return;
  }
  for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    if (unlinkat(folder, entry->d_name, 0) == 0 || depth == DEPTH_MAX) continue;
    int inner = openat(folder, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (inner >= 0) empty_folder(inner, depth + 1);
    unlinkat(folder, entry->d_name, AT_REMOVEDIR);
  }
  closedir(entries);
}

static void on_interrupt(int number) { (void)number; }

/* Has a signal end system calls that wait. */
static void interrupt_on(int number) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_interrupt;
  sigaction(number, &action, NULL);
}

/* Ends the commands, and then removes their folder. */
static void clean_up(void) {
  if (own_folder == NULL) return;
  signal(SIGCHLD, SIG_DFL);
  interrupt_on(SIGALRM);
  alarm(END_SECONDS);
  for (int number = SIGTERM; number != 0; number = number == SIGTERM ? SIGKILL : 0) {
    for (size_t i = 0; i < command_count; i++) kill(-commands[i].pid, number);
    /* Those that they have left to us too, until there are none or the alarm comes. */
    while (reap_next(0)) continue;
    if (errno == ECHILD) break;
    alarm(END_SECONDS);
  }
  int folder = open(own_folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (folder >= 0) empty_folder(folder, 0);
  rmdir(own_folder);
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
  for (int at = 4; at < argc;) {
    if (at + 1 >= argc) _exit(2);
    if (strcmp(argv[at], "folder") == 0) {
      own_folder = argv[at + 1];
      at += 2;
      continue;
    }
    if (service_count == SERVICES_MAX) _exit(2);
    struct service *service = &services[service_count++];
    if (strcmp(argv[at], "unix") == 0) {
      service->path = argv[at + 1];
      at += 2;
      continue;
    }
    uint32_t count = parse_number(argv[at + 1]);
    service->wants_tcp = strcmp(argv[at], "tcp") == 0;
    if ((!service->wants_tcp && strcmp(argv[at], "cmd") != 0) || count == 0 || count > (uint32_t)(argc - at - 2)) _exit(2);
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
  interrupt_on(SIGCHLD);
  /* What commands leave behind is still at work in the folder. */
  if (own_folder != NULL) prctl(PR_SET_CHILD_SUBREAPER, 1UL, 0UL, 0UL, 0UL);
  give_up_privileges(argv[1], argv[2]);
  serve();
  clean_up();
  return 0;
}
