/* TCP: listener and connector in one engine, and the two latency loops. */
#ifndef PEER_TCP_H
#define PEER_TCP_H
#include "peer.h"

enum { CHUNK = 256 << 10, ECHO_BUFFER = 64 << 10 };

struct connection {
  int fd;
  bool connecting, established, may_send, sent_all, finished_sending, got_eof, stalling, stalled;
  uint32_t events;
  uint64_t seed_out, seed_in, sent, received, stall_until;
  uint8_t seed_bytes[8];
  uint8_t *echo;
  size_t echo_start, echo_end;
  struct connection *next_stalled, *next_waiting;
};

struct engine {
  const struct options *o;
  bool listener;
  int epoll, listen_fd, signals;
  struct endpoint target;
  uint64_t started, opened, active, connecting, established, clean, finished, barrier_left;
  uint64_t sent, received, mismatches, first_mismatch;
  uint64_t first_byte_ns, last_byte_ns, max_gap_ns, send_end_ns;
  struct connection *all_waiting, *stalled;
  uint8_t buffer[CHUNK + 16], expect[CHUNK + 16];
};

static struct engine engine;

static void drive(struct connection *c);

static void watch(struct connection *c, uint32_t events) {
  if (c->events == events) return;
  struct epoll_event e = {.events = events, .data.ptr = c};
  /* Out of the set when nothing is wanted: errors and hang-ups cannot be masked, and one would keep the loop spinning. */
  epoll_ctl(engine.epoll, !events ? EPOLL_CTL_DEL : c->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, c->fd, &e);
  c->events = events;
}

static void end_connection(struct connection *c, int error) {
  if (c->connecting) engine.connecting--;
  c->connecting = false;
  if (error) count_error(error);
  else engine.clean++;
  close(c->fd);
  c->fd = -1;
  engine.active--;
  engine.finished++;
  free(c->echo);
  c->echo = NULL;
  /* The structure itself stays: it may still be on the stalled list, and a run has a bounded number of them. */
}

static void reset_connection(struct connection *c) {
  struct linger l = {.l_onoff = 1, .l_linger = 0};
  setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
  end_connection(c, 0);
}

static struct connection *new_connection(int fd) {
  static uint64_t serial;
  struct connection *c = calloc(1, sizeof(*c));
  if (!c) die("out of memory");
  c->fd = fd;
  c->seed_out = (++serial * 0xd1342543de82ef95u) ^ (engine.listener ? 0x5555555555555555u : 0) ^ (uint64_t)getpid() << 40;
  if (engine.o->echo && !(c->echo = malloc(ECHO_BUFFER))) die("out of memory");
  engine.opened++;
  engine.active++;
  return c;
}

static void on_established(struct connection *c) {
  if (c->connecting) engine.connecting--;
  c->connecting = false;
  c->established = true;
  engine.established++;
  c->may_send = !engine.o->send_after_eof;
  if (engine.o->duration > 0 && !engine.send_end_ns) engine.send_end_ns = now_ns() + (uint64_t)(engine.o->duration * 1e9);
  if (!engine.o->barrier || engine.listener) return;
  c->next_waiting = engine.all_waiting;
  engine.all_waiting = c;
  if (--engine.barrier_left) {
    c->may_send = false;
    return;
  }
  for (struct connection *w = engine.all_waiting; w; w = w->next_waiting) {
    w->may_send = true;
    if (w != c) drive(w);
  }
  engine.all_waiting = NULL;
}

static void note_received(struct connection *c, const uint8_t *bytes, size_t n) {
  uint64_t now = now_ns();
  if (!engine.first_byte_ns) engine.first_byte_ns = now;
  else if (now - engine.last_byte_ns > engine.max_gap_ns) engine.max_gap_ns = now - engine.last_byte_ns;
  engine.last_byte_ns = now;
  uint64_t pos = c->received;
  c->received += n;
  engine.received += n;
  if (!engine.o->verify) return;
  if (pos < 8) {
    size_t head = n < 8 - pos ? n : 8 - pos;
    memcpy(c->seed_bytes + pos, bytes, head);
    memcpy(&c->seed_in, c->seed_bytes, 8);
    bytes += head;
    n -= head;
    pos += head;
  }
  if (!n) return;
  const uint8_t *want = make_pattern(engine.expect, c->seed_in, pos, n);
  if (!memcmp(want, bytes, n)) return;
  size_t i = 0;
  while (want[i] == bytes[i]) i++;
  if (!engine.mismatches++) engine.first_mismatch = pos + i;
}

static void stall(struct connection *c) {
  c->stalling = c->stalled = true;
  c->stall_until = now_ns() + engine.o->stall_ms * 1000000u;
  c->next_stalled = engine.stalled;
  engine.stalled = c;
}

/* True while there may be more; false when the socket is empty, at its end, or the connection is gone. */
static bool read_some(struct connection *c) {
  const struct options *o = engine.o;
  uint8_t *target = engine.buffer;
  size_t room = CHUNK;
  if (c->echo) {
    if (c->echo_start == c->echo_end) c->echo_start = c->echo_end = 0;
    target = c->echo + c->echo_end;
    room = ECHO_BUFFER - c->echo_end;
    if (!room) return false;
  }
  if (o->stall_ms && !c->stalled && o->stall_at > c->received && room > o->stall_at - c->received) room = o->stall_at - c->received;
  ssize_t n = recv(c->fd, o->verify || c->echo ? target : NULL, o->verify || c->echo ? room : 8 << 20,
                   o->verify || c->echo ? 0 : MSG_TRUNC);
  if (n < 0) {
    if (errno == EAGAIN || errno == EINTR) return false;
    end_connection(c, errno);
    return false;
  }
  if (n == 0) {
    c->got_eof = true;
    c->may_send = true;
    return false;
  }
  note_received(c, target, (size_t)n);
  if (c->echo) c->echo_end += (size_t)n;
  if (o->stall_ms && !c->stalled && c->received >= o->stall_at) {
    stall(c);
    return false;
  }
  return true;
}

static void send_failed(struct connection *c) {
  if (errno == EAGAIN || errno == EINTR) return;
  end_connection(c, errno);
}

static void write_echo(struct connection *c) {
  while (c->echo_start < c->echo_end) {
    ssize_t n = send(c->fd, c->echo + c->echo_start, c->echo_end - c->echo_start, 0);
    if (n < 0) {
      send_failed(c);
      return;
    }
    c->echo_start += (size_t)n;
    c->sent += (size_t)n;
    engine.sent += (size_t)n;
  }
  c->sent_all = c->got_eof;
}

static void write_pattern(struct connection *c) {
  const struct options *o = engine.o;
  for (int turn = 0; turn < 16; turn++) {
    uint64_t left = o->duration > 0 ? (now_ns() < engine.send_end_ns ? CHUNK : 0) : o->send - c->sent;
    if (!left) {
      c->sent_all = true;
      return;
    }
    size_t want = left < CHUNK ? (size_t)left : CHUNK;
    const uint8_t *bytes = o->verify ? make_pattern(engine.buffer, c->seed_out, c->sent, want) : engine.buffer;
    ssize_t n = send(c->fd, bytes, want, 0);
    if (n < 0) {
      send_failed(c);
      return;
    }
    c->sent += (size_t)n;
    engine.sent += (size_t)n;
  }
}

static void finish_sending(struct connection *c) {
  const struct options *o = engine.o;
  if (c->received < o->finish_after_recv && !c->got_eof) return;
  if (o->finish == FINISH_WAIT && !c->got_eof) return;
  c->finished_sending = true;
  if (o->finish == FINISH_RST) reset_connection(c);
  else if (o->finish == FINISH_CLOSE) end_connection(c, 0);
  else if (shutdown(c->fd, SHUT_WR)) end_connection(c, errno);
}

static void drive(struct connection *c) {
  const struct options *o = engine.o;
  if (c->fd < 0 || !c->established) return;
  if (o->stall_ms && !o->stall_at && !c->stalled) stall(c);
  bool more = false;
  if (!c->got_eof && !c->stalling)
    for (int turn = 0; turn < 16 && (more = read_some(c)); turn++) {
    }
  if (c->fd < 0) return;
  if (c->may_send && !c->sent_all) {
    if (c->echo) write_echo(c);
    else write_pattern(c);
    if (c->fd < 0) return;
  }
  if (c->sent_all && !c->finished_sending) finish_sending(c);
  if (c->fd < 0) return;
  if (c->got_eof && c->finished_sending) {
    end_connection(c, 0);
    return;
  }
  bool echo_full = c->echo && c->echo_end == ECHO_BUFFER && c->echo_start < c->echo_end;
  bool wants_write = c->may_send && !c->sent_all && (!c->echo || c->echo_start < c->echo_end);
  watch(c, (c->got_eof || c->stalling || echo_full ? 0u : EPOLLIN) | (wants_write ? EPOLLOUT : 0u));
}

static void accept_some(void) {
  for (int turn = 0; turn < 64; turn++) {
    int fd = accept4(engine.listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) die("accept: %s", strerror(errno));
      return;
    }
    struct connection *c = new_connection(fd);
    on_established(c);
    drive(c);
  }
}

static void open_connections(void) {
  const struct options *o = engine.o;
  while (engine.active < o->parallel && engine.opened < o->count && (!o->pace || engine.connecting < o->pace)) {
    int fd = open_socket(o, engine.target.addr.ss_family, SOCK_STREAM);
    if (o->bind) {
      struct endpoint b = parse_bind(o->bind, SOCK_STREAM);
      if (bind(fd, (struct sockaddr *)&b.addr, b.len)) die("bind %s: %s", o->bind, strerror(errno));
    }
    struct connection *c = new_connection(fd);
    if (!connect(fd, (struct sockaddr *)&engine.target.addr, engine.target.len)) {
      on_established(c);
      drive(c);
    } else if (errno == EINPROGRESS) {
      c->connecting = true;
      engine.connecting++;
      watch(c, EPOLLOUT);
    } else {
      end_connection(c, errno);
    }
  }
}

static void on_event(struct connection *c) {
  if (c->fd < 0) return;
  if (c->connecting) {
    int error = 0;
    socklen_t len = sizeof(error);
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len);
    if (error) {
      end_connection(c, error);
      return;
    }
    on_established(c);
  }
  drive(c);
}

static void wake_stalled(uint64_t now) {
  struct connection *list = engine.stalled;
  engine.stalled = NULL;
  while (list) {
    struct connection *c = list;
    list = c->next_stalled;
    if (c->stall_until <= now) {
      c->stalling = false;
      drive(c);
    } else {
      c->next_stalled = engine.stalled;
      engine.stalled = c;
    }
  }
}

static void print_tcp(bool timed_out) {
  uint64_t now = now_ns();
  printf("{\"event\":\"result\",\"opened\":%llu,\"established\":%llu,\"clean\":%llu,\"unfinished\":%llu,\"sent\":%llu,\"received\":%llu,"
         "\"mismatches\":%llu,\"firstMismatch\":%lld,\"timedOut\":%s,\"seconds\":%.6f,\"receiveSeconds\":%.6f,\"maxGapMs\":%.3f,",
         (unsigned long long)engine.opened, (unsigned long long)engine.established, (unsigned long long)engine.clean,
         (unsigned long long)engine.active, (unsigned long long)engine.sent, (unsigned long long)engine.received,
         (unsigned long long)engine.mismatches, engine.mismatches ? (long long)engine.first_mismatch : -1LL,
         timed_out ? "true" : "false", seconds_between(engine.started, now),
         seconds_between(engine.first_byte_ns, engine.last_byte_ns), (double)engine.max_gap_ns / 1e6);
  print_errors();
  printf("}\n");
  fflush(stdout);
}

static void run_tcp(const struct options *o, bool listener) {
  static int signal_tag, listen_tag;
  engine.o = o;
  engine.listener = listener;
  engine.epoll = epoll_create1(EPOLL_CLOEXEC);
  engine.signals = open_signals();
  engine.started = now_ns();
  engine.barrier_left = o->count;
  struct epoll_event e = {.events = EPOLLIN, .data.ptr = &signal_tag};
  epoll_ctl(engine.epoll, EPOLL_CTL_ADD, engine.signals, &e);
  if (listener) {
    engine.listen_fd = open_bound(o, SOCK_STREAM);
    if (listen(engine.listen_fd, 4096)) die("listen: %s", strerror(errno));
    e.data.ptr = &listen_tag;
    epoll_ctl(engine.epoll, EPOLL_CTL_ADD, engine.listen_fd, &e);
    print_ready(engine.listen_fd);
  } else {
    engine.target = parse_endpoint(o->addr, o->port, SOCK_STREAM);
  }
  uint64_t deadline = engine.started + (uint64_t)(o->timeout * 1e9);
  for (;;) {
    if (!listener) open_connections();
    if (listener ? o->accept && engine.finished >= o->accept : engine.finished >= o->count) break;
    uint64_t now = now_ns(), wake = deadline;
    if (now >= deadline) {
      print_tcp(true);
      exit(0);
    }
    for (struct connection *c = engine.stalled; c; c = c->next_stalled)
      if (c->stall_until < wake) wake = c->stall_until;
    if (engine.send_end_ns > now && engine.send_end_ns < wake) wake = engine.send_end_ns;
    struct epoll_event events[256];
    int wait_ms = wake > now ? (int)((wake - now) / 1000000u) + 1 : 0;
    int n = epoll_wait(engine.epoll, events, 256, wait_ms);
    for (int i = 0; i < n; i++) {
      if (events[i].data.ptr == &signal_tag) {
        print_tcp(false);
        exit(0);
      }
      if (events[i].data.ptr == &listen_tag) accept_some();
      else on_event(events[i].data.ptr);
    }
    wake_stalled(now_ns());
  }
  print_tcp(false);
}

/* ---- latency ---- */

static bool transfer_all(int fd, uint8_t *bytes, size_t len, bool out, int timeout_ms) {
  for (size_t done = 0; done < len;) {
    ssize_t n = out ? send(fd, bytes + done, len - done, 0) : recv(fd, bytes + done, len - done, 0);
    if (n > 0) {
      done += (size_t)n;
      continue;
    }
    if (n == 0) {
      count_error(ECONNRESET);
      return false;
    }
    if (errno != EAGAIN) {
      count_error(errno);
      return false;
    }
    struct pollfd p = {.fd = fd, .events = out ? POLLOUT : POLLIN};
    if (poll(&p, 1, timeout_ms) == 0) {
      count_error(ETIMEDOUT);
      return false;
    }
  }
  return true;
}

static int connect_waiting(const struct options *o, const struct endpoint *target, int timeout_ms) {
  int one = 1, fd = open_socket(o, target->addr.ss_family, SOCK_STREAM);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  int error = connect(fd, (const struct sockaddr *)&target->addr, target->len) ? errno : 0;
  if (error == EINPROGRESS) {
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    socklen_t len = sizeof(error);
    if (poll(&p, 1, timeout_ms) == 0) error = ETIMEDOUT;
    else getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len);
  }
  if (!error) return fd;
  count_error(error);
  close(fd);
  return -1;
}

/* One transaction after the other; `per_connection` opens a connection for each and waits for its end. */
static void run_latency(const struct options *o, bool per_connection) {
  struct endpoint target = parse_endpoint(o->addr, o->port, SOCK_STREAM);
  struct samples samples = {0};
  size_t size = o->size;
  uint8_t *buffer = calloc(1, size + 1);
  int timeout_ms = (int)(o->timeout * 1000);
  int fd = per_connection ? -1 : connect_waiting(o, &target, timeout_ms);
  uint64_t start = now_ns(), end = o->duration > 0 ? start + (uint64_t)(o->duration * 1e9) : UINT64_MAX, failed = 0, t = start;
  uint64_t count = o->duration > 0 && o->count == 1 ? UINT64_MAX : o->count;
  while (samples.len + failed < count && t < end) {
    if (per_connection) fd = connect_waiting(o, &target, timeout_ms);
    bool good = fd >= 0 && transfer_all(fd, buffer, size, true, timeout_ms) && transfer_all(fd, buffer, size, false, timeout_ms);
    if (per_connection && fd >= 0) {
      uint8_t one_more;
      shutdown(fd, SHUT_WR);
      struct pollfd p = {.fd = fd, .events = POLLIN};
      if (good && (poll(&p, 1, timeout_ms) != 1 || recv(fd, &one_more, 1, 0) != 0)) good = false;
      close(fd);
      fd = -1;
    }
    uint64_t after = now_ns();
    if (good) add_sample(&samples, after - t);
    else failed++;
    t = after;
    if (!good && !per_connection) break;
  }
  double seconds = seconds_between(start, t);
  printf("{\"event\":\"result\",\"transactions\":%zu,\"failed\":%llu,\"seconds\":%.6f,\"perSecond\":%.1f,", samples.len,
         (unsigned long long)failed, seconds, seconds > 0 ? (double)samples.len / seconds : 0);
  print_samples(&samples);
  putchar(',');
  print_errors();
  printf("}\n");
}
#endif
