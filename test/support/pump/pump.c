/*
 * A tap device on one side, a QEMU-style stream socket (4-byte big-endian length, then the frame) on the other: what a
 * virtual machine's network card and emulator are to the stack, with a real Linux kernel as the guest.
 *
 *   pump --tap NAME (--socket PATH | --listen PATH) [options]      run inside the guest's network namespace
 *
 * Lossless by construction: the tap's queue is long, frames stay in it while the stack does not read, and what was read is
 * kept until it is sent. Whatever is lost all the same shows in the counters. Many frames travel per system call on the
 * stack's side, so that the stack is the limit in a measurement and not this program.
 *
 * Control, one command per line on standard input (its end stops the pump):
 *   faults to-stack|to-tap KEY=VALUE...     loss, dup, reorder, corrupt in percent; delay, reorder-delay in ms; seed
 *   pause stack|tap MS                      stop reading that side
 *   counters                                the same JSON line as SIGUSR1 and the end of the program give
 *   quit
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
  MAX_FRAME = 65535,
  PREFIX = 4,
  BUFFER = 8 << 20,
  TAP_BATCH = 1 << 20,
  RECV_BATCH = 4 << 20,
};

struct faults {
  double loss, dup, reorder, corrupt;
  uint64_t delay_ns, reorder_delay_ns;
  uint64_t rng;
  bool active;
};

struct held_frame {
  uint64_t due_ns, order;
  uint32_t len;
  uint8_t *bytes;
};

/* One direction: its faults, the frames they hold back (a heap by due time), and its counters. */
struct direction {
  const char *name;
  struct faults faults;
  struct held_frame *heap;
  size_t heap_len, heap_cap;
  uint64_t order;
  uint64_t frames, bytes, calls, partial, lost, duplicated, reordered, corrupted, errors;
  int last_errno;
};

static struct direction to_stack = {.name = "toStack"}, to_tap = {.name = "toTap"};
static int tap_fd = -1, stack_fd = -1;
static char tap_name[IFNAMSIZ];
static uint8_t *out_buf, *in_buf;
static size_t out_start, out_end, in_start, in_end;
static uint64_t pause_stack_until, pause_tap_until;

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *format, ...) {
  va_list args;
  va_start(args, format);
  fputs("pump: ", stderr);
  vfprintf(stderr, format, args);
  fputc('\n', stderr);
  va_end(args);
  exit(1);
}

/* ---- counters ---- */

static void print_direction(const struct direction *d) {
  printf("\"%s\":{\"frames\":%llu,\"bytes\":%llu,\"calls\":%llu,\"partial\":%llu,\"lost\":%llu,\"duplicated\":%llu,"
         "\"reordered\":%llu,\"corrupted\":%llu,\"errors\":%llu,\"lastErrno\":%d,\"held\":%zu}",
         d->name, (unsigned long long)d->frames, (unsigned long long)d->bytes, (unsigned long long)d->calls,
         (unsigned long long)d->partial, (unsigned long long)d->lost, (unsigned long long)d->duplicated,
         (unsigned long long)d->reordered, (unsigned long long)d->corrupted, (unsigned long long)d->errors, d->last_errno,
         d->heap_len);
}

/* The kernel's own view: txDropped counts frames the guest sent that found the tap's queue full. */
static void print_interface(void) {
  unsigned long long v[16] = {0};
  char line[512];
  FILE *f = fopen("/proc/self/net/dev", "r");
  while (f && fgets(line, sizeof(line), f)) {
    char *colon = strchr(line, ':'), *name = line + strspn(line, " ");
    if (!colon) continue;
    *colon = 0;
    if (strcmp(name, tap_name)) continue;
    char *p = colon + 1;
    for (int i = 0; i < 16; i++) v[i] = strtoull(p, &p, 10);
  }
  if (f) fclose(f);
  printf("\"tap\":{\"rxPackets\":%llu,\"rxErrors\":%llu,\"rxDropped\":%llu,\"txPackets\":%llu,\"txErrors\":%llu,\"txDropped\":%llu}",
         v[1], v[2], v[3], v[9], v[10], v[11]);
}

static void print_counters(const char *reason) {
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  printf("{\"event\":\"counters\",\"reason\":\"%s\",", reason);
  print_direction(&to_stack);
  putchar(',');
  print_direction(&to_tap);
  putchar(',');
  print_interface();
  printf(",\"cpuSeconds\":%.6f}\n", (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
                                         (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6);
  fflush(stdout);
}

/* ---- fault injection ---- */

static uint64_t next_random(struct faults *f) {
  uint64_t z = (f->rng += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

static bool roll(struct faults *f, double percent) {
  return percent > 0 && (double)(next_random(f) >> 11) * 0x1p-53 * 100.0 < percent;
}

static bool heap_before(const struct held_frame *a, const struct held_frame *b) {
  return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->order < b->order;
}

static void heap_push(struct direction *d, uint64_t due_ns, const uint8_t *bytes, uint32_t len) {
  if (d->heap_len == d->heap_cap) {
    d->heap_cap = d->heap_cap ? d->heap_cap * 2 : 256;
    d->heap = realloc(d->heap, d->heap_cap * sizeof(*d->heap));
    if (!d->heap) die("out of memory");
  }
  struct held_frame frame = {due_ns, d->order++, len, malloc(len)};
  if (!frame.bytes) die("out of memory");
  memcpy(frame.bytes, bytes, len);
  size_t i = d->heap_len++;
  while (i > 0 && heap_before(&frame, &d->heap[(i - 1) / 2])) {
    d->heap[i] = d->heap[(i - 1) / 2];
    i = (i - 1) / 2;
  }
  d->heap[i] = frame;
}

static struct held_frame heap_pop(struct direction *d) {
  struct held_frame top = d->heap[0], last = d->heap[--d->heap_len];
  size_t i = 0;
  for (;;) {
    size_t child = 2 * i + 1;
    if (child >= d->heap_len) break;
    if (child + 1 < d->heap_len && heap_before(&d->heap[child + 1], &d->heap[child])) child++;
    if (!heap_before(&d->heap[child], &last)) break;
    d->heap[i] = d->heap[child];
    i = child;
  }
  d->heap[i] = last;
  return top;
}

/* Decides a frame's fate and holds back what survives; the caller releases what is due. */
static void inject(struct direction *d, uint8_t *bytes, uint32_t len, uint64_t now) {
  struct faults *f = &d->faults;
  if (roll(f, f->loss)) {
    d->lost++;
    return;
  }
  if (len > 14 && roll(f, f->corrupt)) {
    bytes[14 + next_random(f) % (len - 14)] ^= (uint8_t)(1u << (next_random(f) & 7));
    d->corrupted++;
  }
  uint64_t due = now + f->delay_ns;
  if (roll(f, f->dup)) {
    d->duplicated++;
    heap_push(d, due, bytes, len);
  }
  if (roll(f, f->reorder)) {
    d->reordered++;
    due += f->reorder_delay_ns;
  }
  heap_push(d, due, bytes, len);
}

static void set_fault(struct faults *f, const char *key, const char *value) {
  double v = atof(value);
  if (!strcmp(key, "loss")) f->loss = v;
  else if (!strcmp(key, "dup")) f->dup = v;
  else if (!strcmp(key, "reorder")) f->reorder = v;
  else if (!strcmp(key, "corrupt")) f->corrupt = v;
  else if (!strcmp(key, "delay")) f->delay_ns = (uint64_t)(v * 1e6);
  else if (!strcmp(key, "reorder-delay")) f->reorder_delay_ns = (uint64_t)(v * 1e6);
  else if (!strcmp(key, "seed")) f->rng = strtoull(value, NULL, 0);
  else die("unknown fault '%s'", key);
  if (!f->reorder_delay_ns) f->reorder_delay_ns = 2000000;
  f->active = f->loss > 0 || f->dup > 0 || f->reorder > 0 || f->corrupt > 0 || f->delay_ns > 0;
}

/* ---- frames ---- */

static void append_for_stack(const uint8_t *bytes, uint32_t len) {
  uint8_t *p = out_buf + out_end;
  p[0] = (uint8_t)(len >> 24);
  p[1] = (uint8_t)(len >> 16);
  p[2] = (uint8_t)(len >> 8);
  p[3] = (uint8_t)len;
  if (bytes) memcpy(p + PREFIX, bytes, len);
  out_end += PREFIX + len;
  to_stack.frames++;
  to_stack.bytes += len;
}

static void write_to_tap(const uint8_t *bytes, uint32_t len) {
  ssize_t n;
  do n = write(tap_fd, bytes, len);
  while (n < 0 && errno == EINTR);
  if (n < 0) {
    to_tap.errors++;
    to_tap.last_errno = errno;
    return;
  }
  to_tap.frames++;
  to_tap.bytes += len;
}

static size_t out_room(void) { return (size_t)BUFFER - out_end; }

static void release_due(uint64_t now) {
  while (to_stack.heap_len && to_stack.heap[0].due_ns <= now && out_room() >= PREFIX + MAX_FRAME) {
    struct held_frame frame = heap_pop(&to_stack);
    append_for_stack(frame.bytes, frame.len);
    free(frame.bytes);
  }
  while (to_tap.heap_len && to_tap.heap[0].due_ns <= now) {
    struct held_frame frame = heap_pop(&to_tap);
    write_to_tap(frame.bytes, frame.len);
    free(frame.bytes);
  }
}

static void read_tap(uint64_t now) {
  uint8_t scratch[MAX_FRAME];
  size_t taken = 0;
  while (taken < TAP_BATCH && out_room() >= PREFIX + MAX_FRAME) {
    uint8_t *target = to_stack.faults.active || to_stack.heap_len ? scratch : out_buf + out_end + PREFIX;
    ssize_t n = read(tap_fd, target, MAX_FRAME);
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN) {
        to_stack.errors++;
        to_stack.last_errno = errno;
      }
      return;
    }
    taken += (size_t)n;
    if (target == scratch) inject(&to_stack, scratch, (uint32_t)n, now);
    else append_for_stack(NULL, (uint32_t)n);
  }
}

/* False when the stack's side is gone. */
static bool send_to_stack(void) {
  while (out_start < out_end) {
    ssize_t n = send(stack_fd, out_buf + out_start, out_end - out_start, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0) {
      if (errno == EINTR) continue;
      return errno == EAGAIN;
    }
    to_stack.calls++;
    out_start += (size_t)n;
    if (out_start < out_end) to_stack.partial++;
  }
  out_start = out_end = 0;
  return true;
}

static bool receive_from_stack(uint64_t now) {
  ssize_t n = recv(stack_fd, in_buf + in_end, RECV_BATCH, MSG_DONTWAIT);
  if (n == 0) return false;
  if (n < 0) return errno == EAGAIN || errno == EINTR;
  to_tap.calls++;
  in_end += (size_t)n;
  while (in_end - in_start >= PREFIX) {
    const uint8_t *p = in_buf + in_start;
    uint32_t len = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    if (len < 14 || len > MAX_FRAME) {
      print_counters("bad-length");
      die("the stack sent a frame length of %u", len);
    }
    if (in_end - in_start < PREFIX + len) break;
    if (to_tap.faults.active || to_tap.heap_len) inject(&to_tap, in_buf + in_start + PREFIX, len, now);
    else write_to_tap(p + PREFIX, len);
    in_start += PREFIX + len;
  }
  memmove(in_buf, in_buf + in_start, in_end - in_start);
  in_end -= in_start;
  in_start = 0;
  return true;
}

/* ---- set-up ---- */

static void open_tap(const char *name, int mtu, int queue_len, const char *mac) {
  struct ifreq r = {0};
  tap_fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (tap_fd < 0) die("/dev/net/tun: %s", strerror(errno));
  r.ifr_flags = IFF_TAP | IFF_NO_PI;
  strncpy(r.ifr_name, name, IFNAMSIZ - 1);
  if (ioctl(tap_fd, TUNSETIFF, &r) < 0) die("TUNSETIFF %s: %s", name, strerror(errno));
  memcpy(tap_name, r.ifr_name, IFNAMSIZ);
  int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  r.ifr_mtu = mtu;
  if (ioctl(s, SIOCSIFMTU, &r) < 0) die("SIOCSIFMTU %d: %s", mtu, strerror(errno));
  r.ifr_qlen = queue_len;
  if (ioctl(s, SIOCSIFTXQLEN, &r) < 0) die("SIOCSIFTXQLEN: %s", strerror(errno));
  if (mac) {
    unsigned b[6];
    if (sscanf(mac, "%x:%x:%x:%x:%x:%x", b, b + 1, b + 2, b + 3, b + 4, b + 5) != 6) die("bad MAC address '%s'", mac);
    r.ifr_hwaddr.sa_family = ARPHRD_ETHER;
    for (int i = 0; i < 6; i++) r.ifr_hwaddr.sa_data[i] = (char)b[i];
    if (ioctl(s, SIOCSIFHWADDR, &r) < 0) die("SIOCSIFHWADDR: %s", strerror(errno));
  }
  close(s);
}

static void set_buffers(int fd, int bytes) {
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
}

static int connect_stack(const char *path, int timeout_ms, int buffer) {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  uint64_t end = now_ns() + (uint64_t)timeout_ms * 1000000u;
  strncpy(a.sun_path, path, sizeof(a.sun_path) - 1);
  for (;;) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    set_buffers(fd, buffer);
    if (!connect(fd, (struct sockaddr *)&a, sizeof(a))) return fd;
    int error = errno;
    close(fd);
    if (now_ns() > end) die("connect %s: %s", path, strerror(error));
    usleep(2000);
  }
}

static int accept_stack(const char *path, int buffer) {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  strncpy(a.sun_path, path, sizeof(a.sun_path) - 1);
  int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  unlink(path);
  if (bind(listener, (struct sockaddr *)&a, sizeof(a)) || listen(listener, 1)) die("listen %s: %s", path, strerror(errno));
  printf("{\"event\":\"listening\"}\n");
  fflush(stdout);
  int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
  if (fd < 0) die("accept: %s", strerror(errno));
  set_buffers(fd, buffer);
  close(listener);
  unlink(path);
  return fd;
}

/* ---- control ---- */

static bool run_command(char *line, uint64_t now) {
  char *save = NULL, *word = strtok_r(line, " \t\r", &save);
  if (!word) return true;
  if (!strcmp(word, "quit")) return false;
  if (!strcmp(word, "counters")) {
    print_counters("command");
    return true;
  }
  char *which = strtok_r(NULL, " \t\r", &save);
  if (!which) die("command '%s' wants an argument", word);
  if (!strcmp(word, "pause")) {
    char *ms = strtok_r(NULL, " \t\r", &save);
    uint64_t until = now + strtoull(ms ? ms : "0", NULL, 10) * 1000000u;
    if (!strcmp(which, "stack")) pause_stack_until = until;
    else pause_tap_until = until;
  } else if (!strcmp(word, "faults")) {
    struct faults *f = !strcmp(which, "to-stack") ? &to_stack.faults : &to_tap.faults;
    uint64_t rng = f->rng;
    memset(f, 0, sizeof(*f));
    f->rng = rng;
    for (char *pair; (pair = strtok_r(NULL, " \t\r", &save));) {
      char *equals = strchr(pair, '=');
      if (!equals) die("bad fault '%s'", pair);
      *equals = 0;
      set_fault(f, pair, equals + 1);
    }
  } else {
    die("unknown command '%s'", word);
  }
  printf("{\"event\":\"done\"}\n");
  fflush(stdout);
  return true;
}

static bool read_commands(uint64_t now) {
  static char buffer[4096];
  static size_t len;
  ssize_t n = read(0, buffer + len, sizeof(buffer) - len - 1);
  if (n <= 0) return false;
  len += (size_t)n;
  buffer[len] = 0;
  for (char *end; (end = strchr(buffer, '\n'));) {
    *end = 0;
    bool more = run_command(buffer, now);
    len -= (size_t)(end + 1 - buffer);
    memmove(buffer, end + 1, len + 1);
    if (!more) return false;
  }
  return true;
}

static uint64_t earliest(uint64_t a, uint64_t b) { return a && (!b || a < b) ? a : b; }

static const char *run(int signals, bool commands) {
  for (;;) {
    uint64_t now = now_ns(), wake = 0;
    if (to_stack.heap_len || to_tap.heap_len) release_due(now);
    if (!send_to_stack()) return "stack-closed";
    if (pause_stack_until && pause_stack_until <= now) pause_stack_until = 0;
    if (pause_tap_until && pause_tap_until <= now) pause_tap_until = 0;
    bool blocked = out_end > out_start;
    struct pollfd fds[4] = {
        {.fd = stack_fd, .events = (short)((pause_stack_until ? 0 : POLLIN) | (blocked ? POLLOUT : 0))},
        {.fd = tap_fd, .events = (short)(blocked || pause_tap_until ? 0 : POLLIN)},
        {.fd = signals, .events = POLLIN},
        {.fd = commands ? 0 : -1, .events = POLLIN},
    };
    wake = earliest(wake, pause_stack_until);
    wake = earliest(wake, pause_tap_until);
    if (to_stack.heap_len && !blocked) wake = earliest(wake, to_stack.heap[0].due_ns);
    if (to_tap.heap_len) wake = earliest(wake, to_tap.heap[0].due_ns);
    struct timespec wait = {0};
    if (wake > now) {
      wait.tv_sec = (time_t)((wake - now) / 1000000000u);
      wait.tv_nsec = (long)((wake - now) % 1000000000u);
    }
    if (ppoll(fds, 4, wake ? &wait : NULL, NULL) < 0 && errno != EINTR) die("poll: %s", strerror(errno));
    now = now_ns();
    if (fds[2].revents) {
      struct signalfd_siginfo info;
      if (read(signals, &info, sizeof(info)) != sizeof(info)) continue;
      if (info.ssi_signo != SIGUSR1) return "signal";
      print_counters("signal");
    }
    if (fds[3].revents && !read_commands(now)) return "quit";
    if (fds[0].revents & POLLIN && !receive_from_stack(now)) return "stack-closed";
    if (!(fds[0].revents & POLLIN) && fds[0].revents & (POLLHUP | POLLERR) && !pause_stack_until) return "stack-closed";
    if (fds[1].revents & POLLIN) read_tap(now);
  }
}

int main(int argc, char **argv) {
  const char *tap = NULL, *path = NULL, *listen_path = NULL, *mac = NULL;
  int mtu = 65520, queue_len = 30000, timeout_ms = 5000, buffer = 16 << 20;
  bool commands = true;
  for (int i = 1; i < argc; i++) {
    const char *value = i + 1 < argc ? argv[i + 1] : "";
    if (!strcmp(argv[i], "--no-commands")) commands = false;
    else if (!strcmp(argv[i], "--tap")) tap = value, i++;
    else if (!strcmp(argv[i], "--socket")) path = value, i++;
    else if (!strcmp(argv[i], "--listen")) listen_path = value, i++;
    else if (!strcmp(argv[i], "--mac")) mac = value, i++;
    else if (!strcmp(argv[i], "--mtu")) mtu = atoi(value), i++;
    else if (!strcmp(argv[i], "--queue")) queue_len = atoi(value), i++;
    else if (!strcmp(argv[i], "--connect-timeout-ms")) timeout_ms = atoi(value), i++;
    else if (!strcmp(argv[i], "--buffer")) buffer = atoi(value), i++;
    else die("unknown option '%s'", argv[i]);
  }
  if (!tap || (!path && !listen_path)) die("--tap and one of --socket, --listen are needed");
  out_buf = malloc(BUFFER);
  in_buf = malloc(RECV_BATCH + PREFIX + MAX_FRAME);
  if (!out_buf || !in_buf) die("out of memory");
  open_tap(tap, mtu, queue_len, mac);
  stack_fd = path ? connect_stack(path, timeout_ms, buffer) : accept_stack(listen_path, buffer);
  /* Only from here on: while it waits for the stack, a signal ends the program at once. */
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigprocmask(SIG_BLOCK, &set, NULL);
  int signals = signalfd(-1, &set, SFD_CLOEXEC);
  printf("{\"event\":\"ready\"}\n");
  fflush(stdout);
  print_counters(run(signals, commands));
  return 0;
}
