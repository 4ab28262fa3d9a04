/* What all modes of the peer share: options, addresses, the verifiable pattern, error counts, output. */
#ifndef PEER_H
#define PEER_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/errqueue.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum finish { FINISH_FIN, FINISH_RST, FINISH_CLOSE, FINISH_WAIT };

struct options {
  const char *addr, *port, *bind, *sizes;
  uint64_t count, parallel, pace, accept, send, finish_after_recv, stall_ms, stall_at, size, wait_ms, window;
  double duration, timeout;
  bool echo, send_after_eof, barrier, verify, expect_echo, unconnected;
  enum finish finish;
  int rcvbuf, sndbuf;
};

static void die(const char *format, ...) {
  va_list args;
  va_start(args, format);
  fputs("peer: ", stderr);
  vfprintf(stderr, format, args);
  fputc('\n', stderr);
  va_end(args);
  exit(1);
}

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static double seconds_between(uint64_t from, uint64_t to) { return to > from ? (double)(to - from) / 1e9 : 0; }

static uint64_t parse_size(const char *text) {
  char *end;
  double v = strtod(text, &end);
  switch (*end) {
    case 'k': return (uint64_t)(v * 1024);
    case 'm': return (uint64_t)(v * 1048576);
    case 'g': return (uint64_t)(v * 1073741824);
    default: return (uint64_t)v;
  }
}

static enum finish parse_finish(const char *text) {
  if (!strcmp(text, "fin")) return FINISH_FIN;
  if (!strcmp(text, "rst")) return FINISH_RST;
  if (!strcmp(text, "close")) return FINISH_CLOSE;
  if (!strcmp(text, "wait")) return FINISH_WAIT;
  die("unknown --finish '%s'", text);
  return FINISH_FIN;
}

static struct options parse_options(int argc, char **argv) {
  struct options o = {.count = 1, .parallel = 0, .verify = true, .timeout = 60, .size = 1, .wait_ms = 1000, .window = 256};
  for (int i = 2; i < argc; i++) {
    const char *name = argv[i];
    if (!strcmp(name, "--echo")) { o.echo = true; continue; }
    if (!strcmp(name, "--send-after-eof")) { o.send_after_eof = true; continue; }
    if (!strcmp(name, "--barrier")) { o.barrier = true; continue; }
    if (!strcmp(name, "--no-verify")) { o.verify = false; continue; }
    if (!strcmp(name, "--expect-echo")) { o.expect_echo = true; continue; }
    if (!strcmp(name, "--unconnected")) { o.unconnected = true; continue; }
    if (++i >= argc) die("option '%s' wants a value", name);
    const char *v = argv[i];
    if (!strcmp(name, "--addr")) o.addr = v;
    else if (!strcmp(name, "--port")) o.port = v;
    else if (!strcmp(name, "--bind")) o.bind = v;
    else if (!strcmp(name, "--sizes")) o.sizes = v;
    else if (!strcmp(name, "--count")) o.count = parse_size(v);
    else if (!strcmp(name, "--parallel")) o.parallel = parse_size(v);
    else if (!strcmp(name, "--pace")) o.pace = parse_size(v);
    else if (!strcmp(name, "--accept")) o.accept = parse_size(v);
    else if (!strcmp(name, "--send")) o.send = parse_size(v);
    else if (!strcmp(name, "--duration")) o.duration = atof(v);
    else if (!strcmp(name, "--finish")) o.finish = parse_finish(v);
    else if (!strcmp(name, "--finish-after-recv")) o.finish_after_recv = parse_size(v);
    else if (!strcmp(name, "--stall-ms")) o.stall_ms = parse_size(v);
    else if (!strcmp(name, "--stall-at")) o.stall_at = parse_size(v);
    else if (!strcmp(name, "--size")) o.size = parse_size(v);
    else if (!strcmp(name, "--wait-ms")) o.wait_ms = parse_size(v);
    else if (!strcmp(name, "--window")) o.window = parse_size(v);
    else if (!strcmp(name, "--timeout")) o.timeout = atof(v);
    else if (!strcmp(name, "--rcvbuf")) o.rcvbuf = (int)parse_size(v);
    else if (!strcmp(name, "--sndbuf")) o.sndbuf = (int)parse_size(v);
    else die("unknown option '%s'", name);
  }
  if (!o.parallel) o.parallel = o.count;
  return o;
}

static void raise_fd_limit(void) {
  struct rlimit r;
  if (getrlimit(RLIMIT_NOFILE, &r)) return;
  r.rlim_cur = r.rlim_max;
  setrlimit(RLIMIT_NOFILE, &r);
}

/* ---- addresses ---- */

struct endpoint {
  struct sockaddr_storage addr;
  socklen_t len;
};

/* `text` NULL: every address, both families where the kernel has IPv6. */
static struct endpoint parse_endpoint(const char *text, const char *port, int type) {
  struct endpoint e = {0};
  struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE, .ai_socktype = type}, *list;
  int error = getaddrinfo(text ? text : "::", port ? port : "0", &hints, &list);
  if (error) die("address '%s': %s", text, gai_strerror(error));
  memcpy(&e.addr, list->ai_addr, list->ai_addrlen);
  e.len = list->ai_addrlen;
  freeaddrinfo(list);
  return e;
}

/* "ADDR" or "ADDR,PORT" for --bind. */
static struct endpoint parse_bind(const char *text, int type) {
  char copy[128];
  snprintf(copy, sizeof(copy), "%s", text);
  char *comma = strchr(copy, ',');
  if (comma) *comma = 0;
  return parse_endpoint(copy, comma ? comma + 1 : "0", type);
}

static int open_socket(const struct options *o, int family, int type) {
  int one = 1, fd = socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) die("socket: %s", strerror(errno));
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  if (o->rcvbuf) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &o->rcvbuf, sizeof(int));
  if (o->sndbuf) setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &o->sndbuf, sizeof(int));
  return fd;
}

static int open_bound(const struct options *o, int type) {
  struct endpoint e = parse_endpoint(o->addr, o->port, type);
  int zero = 0, fd = open_socket(o, e.addr.ss_family, type);
  if (!o->addr || !strcmp(o->addr, "::")) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
  if (bind(fd, (struct sockaddr *)&e.addr, e.len)) die("bind %s %s: %s", o->addr ? o->addr : "::", o->port, strerror(errno));
  return fd;
}

static void format_endpoint(const struct sockaddr_storage *a, char *out, size_t size) {
  char host[INET6_ADDRSTRLEN] = "";
  uint16_t port = 0;
  if (a->ss_family == AF_INET) {
    const struct sockaddr_in *v4 = (const void *)a;
    inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host));
    port = ntohs(v4->sin_port);
  } else if (a->ss_family == AF_INET6) {
    const struct sockaddr_in6 *v6 = (const void *)a;
    if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) inet_ntop(AF_INET, v6->sin6_addr.s6_addr + 12, host, sizeof(host));
    else inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host));
    port = ntohs(v6->sin6_port);
  }
  snprintf(out, size, "%s,%u", host, port);
}

/* ---- pattern ---- */

static uint64_t pattern_word(uint64_t seed, uint64_t index) {
  if (index == 0) return seed;
  uint64_t w = index * 0x9e3779b97f4a7c15u ^ seed;
  return w ^ w >> 31;
}

/* Writes the bytes [pos, pos + len) of a stream, to out + pos % 8; returns where they start. `out` has 16 bytes to spare. */
static uint8_t *make_pattern(uint8_t *out, uint64_t seed, uint64_t pos, size_t len) {
  uint64_t first = pos / 8, last = (pos + len + 7) / 8;
  uint64_t *words = (uint64_t *)(void *)out;
  for (uint64_t i = first; i < last; i++) words[i - first] = pattern_word(seed, i);
  return out + pos % 8;
}

/* ---- error counts ---- */

static uint64_t error_counts[256];

static void count_error(int error) { error_counts[error & 255]++; }

static void print_errors(void) {
  bool first = true;
  printf("\"errors\":{");
  for (int i = 1; i < 256; i++) {
    if (!error_counts[i]) continue;
    printf("%s\"%s\":%llu", first ? "" : ",", strerrorname_np(i), (unsigned long long)error_counts[i]);
    first = false;
  }
  printf("}");
}

/* ---- latency samples ---- */

struct samples {
  uint32_t *ns;
  size_t len, cap;
};

static void add_sample(struct samples *s, uint64_t ns) {
  if (s->len == s->cap) {
    s->cap = s->cap ? s->cap * 2 : 65536;
    s->ns = realloc(s->ns, s->cap * sizeof(*s->ns));
    if (!s->ns) die("out of memory");
  }
  s->ns[s->len++] = ns > UINT32_MAX ? UINT32_MAX : (uint32_t)ns;
}

static int compare_samples(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return x < y ? -1 : x > y;
}

static void print_samples(struct samples *s) {
  qsort(s->ns, s->len, sizeof(*s->ns), compare_samples);
#define AT(q) (s->len ? (double)s->ns[(size_t)((double)(s->len - 1) * (q))] / 1000 : 0.0)
  printf("\"p50Us\":%.2f,\"p90Us\":%.2f,\"p99Us\":%.2f,\"maxUs\":%.2f", AT(0.5), AT(0.9), AT(0.99), AT(1.0));
#undef AT
}

static int open_signals(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigprocmask(SIG_BLOCK, &set, NULL);
  return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void print_ready(int fd) {
  struct sockaddr_storage a;
  socklen_t len = sizeof(a);
  char text[96];
  getsockname(fd, (struct sockaddr *)&a, &len);
  format_endpoint(&a, text, sizeof(text));
  printf("{\"event\":\"ready\",\"local\":\"%s\"}\n", text);
  fflush(stdout);
}
#endif
