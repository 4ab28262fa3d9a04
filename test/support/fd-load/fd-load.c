/*
 * Load for a keeper of descriptors: clients, a process each, that hand over a descriptor and fetch one, again and again.
 *
 *   fd-load ours|s6 SOCKET CLIENTS SECONDS move|copy
 *
 * `move`: a descriptor is given under a name and taken away again, two requests. `copy`: a copy of one that stays is fetched, one request.
 * Prints {"perSecond":N,"p50Us":N,"p99Us":N}, of moves or copies. Speaks to passel-fd-broker, and when compiled with WITH_S6 to s6-fdholderd
 * by its own library.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef WITH_S6
#include <s6/fdholder.h>
#include <skalibs/tai.h>
#endif

enum { CLIENTS_MAX = 64, SLOTS = 1 << 16, MESSAGE_BYTES = 4096 };

struct client {
  uint64_t done;
  uint32_t seen[SLOTS];
};

static const char *socket_path;
static bool of_s6;
static char name[32];
static int given;

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static int64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static int broker = -1;

static void connect_broker(void) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strncpy(address.sun_path, socket_path, sizeof address.sun_path - 1);
  broker = socket(AF_UNIX, SOCK_SEQPACKET, 0);
  if (broker < 0 || connect(broker, (struct sockaddr *)&address, sizeof address) != 0) fail("connect");
}

/* One request, with `fd` if it is not -1. @returns the descriptor that came, or -1 */
static int ask_broker(const char *verb, int fd) {
  static char text[MESSAGE_BYTES];
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
  } control;
  memset(&control, 0, sizeof control);
  int length = snprintf(text, sizeof text, "{\"version\":1,\"id\":1,\"verb\":\"%s\",\"name\":\"%s\",\"fds\":%d}", verb, name, fd < 0 ? 0 : 1);
  struct iovec data = {text, (size_t)length};
  struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
  if (fd >= 0) {
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof control;
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
  }
  if (sendmsg(broker, &message, 0) < 0) fail("sendmsg");
  data.iov_len = sizeof text - 1;
  message.msg_control = control.bytes;
  message.msg_controllen = sizeof control;
  ssize_t got = recvmsg(broker, &message, MSG_CMSG_CLOEXEC);
  if (got <= 0) fail("recvmsg");
  text[got] = '\0';
  if (strstr(text, "\"error\"") != NULL) {
    fprintf(stderr, "%s: %s\n", verb, text);
    exit(1);
  }
  const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  if (header == NULL) return -1;
  memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return fd;
}

#ifdef WITH_S6
static s6_fdholder_t holder = S6_FDHOLDER_ZERO;
static tain deadline;

static void connect_s6(void) {
  tain_now_g();
  tain_addsec_g(&deadline, 3600);
  if (!s6_fdholder_start_g(&holder, socket_path, &deadline)) fail("s6_fdholder_start");
}

static int ask_s6(const char *verb, int fd) {
  if (verb[0] == 'p') {
    if (!s6_fdholder_store_g(&holder, fd, name, &deadline, &deadline)) fail("s6_fdholder_store");
    return -1;
  }
  int got = s6_fdholder_retrieve_maybe_delete_g(&holder, name, verb[0] == 't', &deadline);
  if (got < 0) fail("s6_fdholder_retrieve");
  return got;
}
#else
static void connect_s6(void) {
  fprintf(stderr, "compiled without s6\n");
  exit(1);
}

static int ask_s6(const char *verb, int fd) {
  (void)verb;
  return fd;
}
#endif

static int ask(const char *verb, int fd) {
  return of_s6 ? ask_s6(verb, fd) : ask_broker(verb, fd);
}

static void fetch(const char *verb) {
  int fd = ask(verb, -1);
  if (fd < 0) {
    fprintf(stderr, "%s: no descriptor came\n", verb);
    exit(1);
  }
  close(fd);
}

static void run(struct client *client, int number, int64_t end_ns, bool moves) {
  snprintf(name, sizeof name, "load-%d-%d", (int)getpid(), number);
  if (of_s6) connect_s6();
  else connect_broker();
  if (!moves) ask("put", given);
  for (int64_t before = now_ns(), after; before < end_ns; before = after) {
    if (moves) ask("put", given);
    fetch(moves ? "take" : "copy");
    after = now_ns();
    int64_t us = (after - before) / 1000;
    client->seen[us < SLOTS ? us : SLOTS - 1]++;
    client->done++;
  }
  if (!moves) fetch("take");
}

int main(int argc, char **argv) {
  if (argc != 6) {
    fprintf(stderr, "usage: %s ours|s6 SOCKET CLIENTS SECONDS move|copy\n", argv[0]);
    return 2;
  }
  of_s6 = strcmp(argv[1], "s6") == 0;
  socket_path = argv[2];
  int count = atoi(argv[3]);
  double seconds = atof(argv[4]);
  if (count < 1 || count > CLIENTS_MAX) return 2;
  given = open("/dev/null", O_RDONLY | O_CLOEXEC);
  struct client *clients =
      mmap(NULL, sizeof *clients * (size_t)count, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (given < 0 || clients == MAP_FAILED) fail("setup");
  int64_t start_ns = now_ns();
  for (int i = 0; i < count; i++) {
    pid_t pid = fork();
    if (pid < 0) fail("fork");
    if (pid == 0) {
      run(&clients[i], i, start_ns + (int64_t)(seconds * 1e9), strcmp(argv[5], "move") == 0);
      exit(0);
    }
  }
  bool good = true;
  for (int i = 0, status; i < count; i++) {
    if (wait(&status) < 0 || status != 0) good = false;
  }
  if (!good) return 1;
  uint64_t total = 0;
  for (int i = 0; i < count; i++) total += clients[i].done;
  uint64_t sum = 0;
  unsigned p50 = 0;
  unsigned p99 = 0;
  for (unsigned slot = 0; slot < SLOTS; slot++) {
    for (int i = 0; i < count; i++) sum += clients[i].seen[slot];
    if (p50 == 0 && sum * 2 >= total) p50 = slot;
    if (sum * 100 >= total * 99) {
      p99 = slot;
      break;
    }
  }
  printf("{\"perSecond\":%.0f,\"p50Us\":%u,\"p99Us\":%u}\n", (double)total / seconds, p50, p99);
  return 0;
}
