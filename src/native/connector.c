/*
 * A child that connects to one local address, whenever it is asked to, for a process that has given up seeing files and making local
 * sockets: fork(2), unix(7). It knows the address from its start, so whoever takes that process over can make it do nothing else.
 *
 * The child has what it needs of its parent's rights and namespaces when it is made, and keeps it. It makes async-signal-safe calls only,
 * has no descriptors but its end of a SEQPACKET pair (and the datagram socket that it connects), and ends when the other end is closed.
 *
 * A request is one byte. The answer is a signed 32-bit number in the machine's order, 0 or -errno, and with 0 a connected stream socket
 * goes along; a datagram socket is connected in place, since it is the same one in both processes.
 */
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "native.h"
#include "unix-address.h"

/* In the child. */
struct connector {
  int control;
  /* The datagram socket; -1: streams are made. */
  int socket;
  struct sockaddr_un address;
  socklen_t length;
};

static void close_all_but(int one, int other) {
  unsigned int low = (unsigned int)(one < other ? one : other);
  unsigned int high = (unsigned int)(one < other ? other : one);
  if (low > 0) syscall(SYS_close_range, 0U, low - 1, 0U);
  if (high > low + 1) syscall(SYS_close_range, low + 1, high - 1, 0U);
  syscall(SYS_close_range, high + 1, ~0U, 0U);
}

/* Files of other users are reached as before, and nothing else is kept. */
static void limit_capabilities(void) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  struct __user_cap_data_struct data[2];
  memset(data, 0, sizeof data);
  if (syscall(SYS_capget, &header, data) != 0) return;
  for (int i = 0; i < 2; i++) {
    data[i].permitted &= i == 0 ? 1U << CAP_DAC_OVERRIDE : 0U;
    data[i].effective = data[i].permitted;
    data[i].inheritable = 0;
  }
  syscall(SYS_capset, &header, data);
}

/* Sends the result, with a descriptor if it is not negative. */
static ssize_t answer(int control, int32_t result, int fd) {
  union {
    struct cmsghdr align;
    uint8_t bytes[CMSG_SPACE(sizeof(int))];
  } buffer;
  struct iovec iovec = {.iov_base = &result, .iov_len = sizeof result};
  struct msghdr message = {.msg_iov = &iovec, .msg_iovlen = 1};
  if (fd >= 0) {
    memset(&buffer, 0, sizeof buffer);
    message.msg_control = &buffer;
    message.msg_controllen = CMSG_SPACE(sizeof(int));
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof(int));
  }
  return RETRY(sendmsg(control, &message, MSG_NOSIGNAL));
}

static void serve(const struct connector *connector) {
  const struct sockaddr *address = (const struct sockaddr *)&connector->address;
  for (;;) {
    char request;
    if (RETRY(read(connector->control, &request, 1)) != 1) return;
    int fd = connector->socket >= 0 ? connector->socket : socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int32_t result = 0;
    if (fd < 0 || RETRY(connect(fd, address, connector->length)) < 0) result = -errno;
    ssize_t sent = answer(connector->control, result, result == 0 && connector->socket < 0 ? fd : -1);
    if (fd >= 0 && connector->socket < 0) close(fd);
    if (sent < 0) return;
  }
}

static void run_child(const struct connector *connector) {
  /* Handlers of Node's would write to pipes that are its own. */
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = SIG_DFL;
  for (int number = 1; number < NSIG; number++) sigaction(number, &action, NULL);
  close_all_but(connector->control, connector->socket >= 0 ? connector->socket : connector->control);
  prctl(PR_SET_NAME, "passel-connect");
  prctl(PR_SET_NO_NEW_PRIVS, 1UL, 0UL, 0UL, 0UL);
  /* Where the parent may take all files away from its mount namespace, this one is another; where it may not, it need not be. */
  (void)unshare(CLONE_NEWNS);
  limit_capabilities();
  prctl(PR_SET_DUMPABLE, 0UL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  serve(connector);
}

/* startConnector(path, socket, out): 0 or -errno; out[0] is our end of the pair, non-blocking, out[1] the child's pid */
static napi_value native_start_connector(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct connector connector;
  memset(&connector, 0, sizeof connector);
  connector.length = next_unix_address(&call, &connector.address);
  connector.socket = next_int(&call);
  int32_t *out = next_int_array(&call, 2);
  if (call.error != 0) return reply_refusal(&call);
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) return reply(&call, -errno);
  if (fcntl(pair[0], F_SETFL, O_NONBLOCK) < 0) {
    int error = errno;
    close(pair[0]);
    close(pair[1]);
    return reply(&call, -error);
  }
  connector.control = pair[1];
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pid_t child = fork();
  if (child == 0) {
    run_child(&connector);
    _exit(0);
  }
  int error = errno;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  close(pair[1]);
  if (child < 0) {
    close(pair[0]);
    return reply(&call, -error);
  }
  out[0] = pair[0];
  out[1] = child;
  return reply(&call, 0);
}

const struct export_row CONNECTOR_EXPORTS[] = {
    {"startConnector", native_start_connector},
    {NULL, NULL},
};
