/*
 * Load for a reservation helper: connections that each send PERSISTENT RESERVE IN, wait for the answer and send the next, a thread
 * for each of them. The device is one that takes no SCSI commands, so what is measured is the helper.
 *
 *   pr-load SOCKET DEVICE CONNECTIONS SECONDS
 *
 * Prints {"requests":N,"perSecond":N,"p50Us":N,"p99Us":N}. Ends with status 1 when an answer is not "check condition" without payload.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { CDB_BYTES = 16, HEADER_BYTES = 104, CONNECTIONS_MAX = 64, SLOTS = 1 << 16 };

static struct sockaddr_un address = {.sun_family = AF_UNIX};
static int device;
static int64_t deadline_ns;

/* Latencies in microseconds, and how often each was seen. */
struct client {
  pthread_t thread;
  uint64_t requests;
  uint32_t seen[SLOTS];
};

static int64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void receive(int fd, void *bytes, size_t length) {
  if (recv(fd, bytes, length, MSG_WAITALL) != (ssize_t)length) fail("recv");
}

static void request(int fd) {
  uint8_t cdb[CDB_BYTES] = {0x5e, 0, 0, 0, 0, 0, 0, 0x20, 0};
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
  } control;
  struct iovec data = {cdb, sizeof cdb};
  struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control};
  memset(&control, 0, sizeof control);
  control.header.cmsg_level = SOL_SOCKET;
  control.header.cmsg_type = SCM_RIGHTS;
  control.header.cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(&control.header), &device, sizeof device);
  if (sendmsg(fd, &message, MSG_NOSIGNAL) != CDB_BYTES) fail("sendmsg");
  uint8_t answer[HEADER_BYTES];
  receive(fd, answer, sizeof answer);
  static const uint8_t expected[8] = {0, 0, 0, 2, 0, 0, 0, 0};
  if (memcmp(answer, expected, sizeof expected) != 0) {
    fprintf(stderr, "not the answer that was expected\n");
    exit(1);
  }
}

static void *run(void *data) {
  struct client *client = data;
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) fail("connect");
  uint8_t features[4];
  receive(fd, features, sizeof features);
  memset(features, 0, sizeof features);
  if (send(fd, features, sizeof features, MSG_NOSIGNAL) != sizeof features) fail("send");
  for (int64_t start = now_ns(); start < deadline_ns;) {
    request(fd);
    int64_t end = now_ns();
    int64_t us = (end - start) / 1000;
    client->seen[us < SLOTS ? us : SLOTS - 1]++;
    client->requests++;
    start = end;
  }
  close(fd);
  return NULL;
}

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  int count = atoi(argv[3]);
  double seconds = atof(argv[4]);
  if (count < 1 || count > CONNECTIONS_MAX || strlen(argv[1]) >= sizeof address.sun_path) return 2;
  strcpy(address.sun_path, argv[1]);
  device = open(argv[2], O_RDWR | O_CLOEXEC);
  if (device < 0) fail(argv[2]);
  struct client *clients = calloc((size_t)count, sizeof *clients);
  if (clients == NULL) fail("calloc");
  int64_t start = now_ns();
  deadline_ns = start + (int64_t)(seconds * 1e9);
  for (int i = 0; i < count; i++) {
    if (pthread_create(&clients[i].thread, NULL, run, &clients[i]) != 0) fail("pthread_create");
  }
  uint64_t requests = 0;
  for (int i = 0; i < count; i++) {
    pthread_join(clients[i].thread, NULL);
    requests += clients[i].requests;
  }
  double elapsed = (double)(now_ns() - start) / 1e9;
  uint64_t below = 0;
  int p50 = -1;
  int p99 = -1;
  for (int us = 0; us < SLOTS; us++) {
    for (int i = 0; i < count; i++) below += clients[i].seen[us];
    if (p50 < 0 && below * 2 >= requests) p50 = us;
    if (p99 < 0 && below * 100 >= requests * 99) p99 = us;
  }
  printf("{\"requests\":%llu,\"perSecond\":%.1f,\"p50Us\":%d,\"p99Us\":%d}\n", (unsigned long long)requests, (double)requests / elapsed, p50, p99);
  free(clients);
  return 0;
}
