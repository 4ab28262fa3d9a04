/*
 * UDP.
 *
 *   peer udp-listen --port P [--addr A] [--echo] [--accept N]      counts and checks datagrams, names their sources
 *   peer udp-send   --addr A --port P --sizes 1,100,65507 [--count N] [--expect-echo] [--wait-ms N] [--bind A,PORT]
 *   peer udp-stream --addr A --port P --size B --duration S [--window N]
 *
 * udp-stream keeps a window of datagrams under way: udp-listen answers every batch from a stream with its running count. So
 * the rate that is measured is what gets through, without a flood that takes the machine's other core away from the stack.
 */
#ifndef PEER_UDP_H
#define PEER_UDP_H
#include "peer.h"

enum { UDP_BATCH = 32, UDP_MAX = 65536, MAX_SOURCES = 64 };

/* Marks datagrams of a stream in the high bits of their seed. */
#define STREAM_MARK 0x5354524d00000000u
#define STREAM_MASK 0xffffffff00000000u

static struct {
  uint64_t datagrams, bytes, bad, echoed;
  char sources[MAX_SOURCES][96];
  int source_count;
  uint64_t sizes[MAX_SOURCES];
} udp_seen;

static void note_source(const struct sockaddr_storage *from) {
  char text[96];
  format_endpoint(from, text, sizeof(text));
  for (int i = udp_seen.source_count - 1; i >= 0; i--)
    if (!strcmp(udp_seen.sources[i], text)) return;
  if (udp_seen.source_count < MAX_SOURCES) strcpy(udp_seen.sources[udp_seen.source_count++], text);
}

static bool datagram_fits(const uint8_t *bytes, size_t len) {
  static uint8_t expect[UDP_MAX + 16];
  uint64_t seed;
  if (len <= 8) return true;
  memcpy(&seed, bytes, 8);
  return !memcmp(make_pattern(expect, seed, 8, len - 8), bytes + 8, len - 8);
}

static void print_udp_listen(uint64_t first, uint64_t last) {
  printf("{\"event\":\"result\",\"datagrams\":%llu,\"bytes\":%llu,\"bad\":%llu,\"echoed\":%llu,\"seconds\":%.6f,\"sources\":[",
         (unsigned long long)udp_seen.datagrams, (unsigned long long)udp_seen.bytes, (unsigned long long)udp_seen.bad,
         (unsigned long long)udp_seen.echoed, seconds_between(first, last));
  for (int i = 0; i < udp_seen.source_count; i++) printf("%s\"%s\"", i ? "," : "", udp_seen.sources[i]);
  printf("],\"sizes\":[");
  for (uint64_t i = 0; i < udp_seen.datagrams && i < MAX_SOURCES; i++)
    printf("%s%llu", i ? "," : "", (unsigned long long)udp_seen.sizes[i]);
  printf("],");
  print_errors();
  printf("}\n");
}

static void run_udp_listen(const struct options *o) {
  static uint8_t buffers[UDP_BATCH][UDP_MAX];
  static struct sockaddr_storage from[UDP_BATCH];
  static struct mmsghdr messages[UDP_BATCH];
  static struct iovec iov[UDP_BATCH];
  struct options with_buffer = *o;
  if (!with_buffer.rcvbuf) with_buffer.rcvbuf = 4 << 20;
  int fd = open_bound(&with_buffer, SOCK_DGRAM), signals = open_signals();
  uint64_t first = 0, last = 0, stream_total = 0, deadline = now_ns() + (uint64_t)(o->timeout * 1e9);
  print_ready(fd);
  while (!o->accept || udp_seen.datagrams < o->accept) {
    struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
    uint64_t now = now_ns();
    if (now >= deadline) break;
    poll(p, 2, (int)((deadline - now) / 1000000u) + 1);
    if (p[1].revents) break;
    for (int i = 0; i < UDP_BATCH; i++) {
      iov[i] = (struct iovec){buffers[i], UDP_MAX};
      messages[i].msg_hdr = (struct msghdr){.msg_name = &from[i], .msg_namelen = sizeof(from[i]), .msg_iov = &iov[i], .msg_iovlen = 1};
    }
    int n = recvmmsg(fd, messages, UDP_BATCH, MSG_DONTWAIT, NULL);
    if (n < 0) {
      if (errno != EAGAIN && errno != EINTR) count_error(errno);
      continue;
    }
    last = now_ns();
    if (!first) first = last;
    int acknowledge = -1;
    for (int i = 0; i < n; i++) {
      size_t len = messages[i].msg_len;
      uint64_t seed = 0;
      if (len >= 8) memcpy(&seed, buffers[i], 8);
      bool stream = (seed & STREAM_MASK) == STREAM_MARK;
      if (udp_seen.datagrams < MAX_SOURCES) udp_seen.sizes[udp_seen.datagrams] = len;
      udp_seen.datagrams++;
      udp_seen.bytes += len;
      if (stream) {
        acknowledge = i;
        if ((uint32_t)seed == 0) stream_total = 0;
        stream_total++;
        if (i == 0) note_source(&from[i]);
        continue;
      }
      note_source(&from[i]);
      if (o->verify && !datagram_fits(buffers[i], len)) udp_seen.bad++;
      if (!o->echo) continue;
      if (sendto(fd, buffers[i], len, 0, (struct sockaddr *)&from[i], messages[i].msg_hdr.msg_namelen) < 0) count_error(errno);
      else udp_seen.echoed++;
    }
    if (acknowledge >= 0) {
      sendto(fd, &stream_total, sizeof(stream_total), 0, (struct sockaddr *)&from[acknowledge], messages[acknowledge].msg_hdr.msg_namelen);
    }
  }
  print_udp_listen(first, last);
}

static int open_udp_client(const struct options *o) {
  struct endpoint target = parse_endpoint(o->addr, o->port, SOCK_DGRAM);
  struct options with_buffer = *o;
  if (!with_buffer.rcvbuf) with_buffer.rcvbuf = 4 << 20;
  if (!with_buffer.sndbuf) with_buffer.sndbuf = 4 << 20;
  int fd = open_socket(&with_buffer, target.addr.ss_family, SOCK_DGRAM);
  if (o->bind) {
    struct endpoint b = parse_bind(o->bind, SOCK_DGRAM);
    if (bind(fd, (struct sockaddr *)&b.addr, b.len)) die("bind %s: %s", o->bind, strerror(errno));
  }
  if (connect(fd, (struct sockaddr *)&target.addr, target.len)) die("connect: %s", strerror(errno));
  return fd;
}

static void run_udp_send(const struct options *o) {
  static uint8_t out[UDP_MAX + 16], in[UDP_MAX];
  int fd = open_udp_client(o);
  uint64_t sent = 0, echoed = 0, bad = 0, serial = (uint64_t)getpid() << 20;
  char missing[4096] = "";
  size_t missing_len = 0;
  for (uint64_t round = 0; round < o->count; round++) {
    char list[4096];
    snprintf(list, sizeof(list), "%s", o->sizes ? o->sizes : "1");
    for (char *save = NULL, *item = strtok_r(list, ",", &save); item; item = strtok_r(NULL, ",", &save)) {
      size_t size = (size_t)parse_size(item);
      make_pattern(out, ++serial * 0x9e3779b97f4a7c15u >> 1, 0, size ? size : 1);
      if (send(fd, out, size, 0) < 0) {
        count_error(errno);
        continue;
      }
      sent++;
      if (!o->expect_echo && !o->wait_ms) continue;
      struct pollfd p = {.fd = fd, .events = POLLIN};
      ssize_t n = -1;
      if (poll(&p, 1, (int)o->wait_ms) == 1) {
        n = recv(fd, in, sizeof(in), 0);
        if (n < 0) count_error(errno);
      }
      if (n >= 0) {
        echoed++;
        if ((size_t)n != size || memcmp(in, out, size)) bad++;
      } else if (o->expect_echo && missing_len < sizeof(missing) - 16) {
        missing_len += (size_t)snprintf(missing + missing_len, sizeof(missing) - missing_len, "%s%zu", missing_len ? "," : "", size);
      }
    }
  }
  printf("{\"event\":\"result\",\"sent\":%llu,\"echoed\":%llu,\"bad\":%llu,\"missing\":[%s],", (unsigned long long)sent,
         (unsigned long long)echoed, (unsigned long long)bad, missing);
  print_errors();
  printf("}\n");
}

static void run_udp_stream(const struct options *o) {
  static uint8_t payload[UDP_BATCH][UDP_MAX];
  static struct mmsghdr messages[UDP_BATCH];
  static struct iovec iov[UDP_BATCH];
  int fd = open_udp_client(o);
  size_t size = o->size < 8 ? 8 : o->size;
  uint64_t sent = 0, answered = 0, written_off = 0, serial = 0;
  uint64_t start = now_ns(), end = start + (uint64_t)(o->duration * 1e9), progress = start, last_answer = start;
  for (int i = 0; i < UDP_BATCH; i++) {
    iov[i] = (struct iovec){payload[i], size};
    messages[i].msg_hdr = (struct msghdr){.msg_iov = &iov[i], .msg_iovlen = 1};
  }
  for (;;) {
    uint64_t now = now_ns();
    bool sending = now < end;
    uint64_t under_way = sent - answered - written_off;
    if (!sending && (under_way == 0 || now > end + 200000000u)) break;
    if (sending && under_way < o->window) {
      uint64_t room = o->window - under_way;
      int batch = room < UDP_BATCH ? (int)room : UDP_BATCH;
      for (int i = 0; i < batch; i++) {
        uint64_t seed = STREAM_MARK | (uint32_t)serial++;
        memcpy(payload[i], &seed, 8);
      }
      int n = sendmmsg(fd, messages, (unsigned)batch, MSG_DONTWAIT);
      if (n > 0) sent += (uint64_t)n;
      else if (errno != EAGAIN) count_error(errno);
    }
    under_way = sent - answered - written_off;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int ready = poll(&p, 1, under_way < o->window && sending ? 0 : 5);
    if (ready == 1) {
      uint64_t total;
      ssize_t n;
      while ((n = recv(fd, &total, sizeof(total), MSG_DONTWAIT)) == sizeof(total)) {
        if (total <= answered) continue;
        answered = total;
        progress = last_answer = now_ns();
        /* More arrived than what was not written off: some of it was only late. */
        if (answered + written_off > sent) written_off = sent - answered;
      }
      if (n < 0 && errno != EAGAIN) count_error(errno);
    } else if (under_way >= o->window && now_ns() - progress > 20000000u) {
      written_off = sent - answered;
      progress = now_ns();
    }
  }
  double seconds = seconds_between(start, last_answer > start ? last_answer : now_ns());
  printf("{\"event\":\"result\",\"sent\":%llu,\"answered\":%llu,\"lost\":%llu,\"seconds\":%.6f,\"perSecond\":%.1f,\"bytesPerSecond\":%.1f,",
         (unsigned long long)sent, (unsigned long long)answered, (unsigned long long)(sent - answered), seconds,
         (double)answered / seconds, (double)answered * (double)size / seconds);
  print_errors();
  printf("}\n");
}
#endif
