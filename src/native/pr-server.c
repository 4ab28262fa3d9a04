/*
 * The reservation helper's requests, from the client's socket to the device and back, on threads that do not wait for JavaScript.
 *
 * A request costs its client a wait for each thread that has to wake up for it. Through the event loop these are three: the loop, a thread
 * that may wait for the device, and the loop again. Here it is one. All connections are in an epoll set that a few threads wait on; the one
 * that is woken receives the request, lets the device carry it out, and sends the answer. There is always one more thread than are
 * in devices' hands, up to a bound, so a device that does not answer holds up nobody; and a device has at most so many of them, behind which
 * requests wait in order, so one that is stuck cannot take all.
 *
 * JavaScript decides. It gives the table of what becomes of which outcome. It is asked about a request unless it has granted the device,
 * which it does where nothing but the number decides; then it answers itself, or lets this one through. And it is told of
 * every request before that is answered, by records which it takes many at a time: at once after a pause, otherwise when it looks by itself.
 * Where it does not look, threads wait before they answer: memory is bounded, and no request goes untold.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "native.h"
#include "pr-server.h"

enum {
  THREADS_MAX = 4096,
  SLOTS_STEP = 64,
  /* What take() fills: a head, and for each record so many numbers and bytes. */
  TAKE_HEAD = 4,
  TAKE_NUMBERS = 16,
  TAKE_BYTES = PR_NOTED_BYTES + SG_SENSE_BYTES,
  QUESTION_NUMBERS = 8,
};

static void on_collected(napi_env env, void *data, void *hint) {
  struct pr_server *server = data;
  (void)env;
  (void)hint;
  pthread_mutex_lock(&server->lock);
  server->released = true;
  if (server->epoll_fd >= 0) pr_end_locked(server);
  pr_release_and_unlock(server);
}

static void discard(struct pr_server *server) {
  if (server->epoll_fd >= 0) close(server->epoll_fd);
  if (server->work_fd >= 0) close(server->work_fd);
  if (server->event_fd >= 0) close(server->event_fd);
  free(server);
}

/*
 * prCreate(threads, perDevice, timeoutMs, verdicts): a server of at most so many threads in devices' hands, or -errno. `verdicts`: one for
 * each errno, host status and driver status from 0 to 255, of 20 bytes: flags (1: it decides, 2: it has sense), status, sense.
 */
static napi_value native_pr_create(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  uint32_t threads = next_uint(&call);
  uint32_t per_device = next_uint(&call);
  uint32_t timeout_ms = next_uint(&call);
  uint32_t available = 0;
  const uint8_t *verdicts = next_bytes(&call, &available);
  if (threads == 0 || threads > THREADS_MAX || per_device == 0) fail_call(&call, EINVAL);
  if (call.error == 0 && available != 3 * PR_VERDICTS * sizeof(struct pr_verdict)) fail_call(&call, EFAULT);
  if (call.error != 0) return reply_refusal(&call);
  struct pr_server *server = calloc(1, sizeof *server);
  if (server == NULL) return reply(&call, -ENOMEM);
  server->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  server->work_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE);
  server->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
  if (server->epoll_fd < 0 || server->work_fd < 0 || server->event_fd < 0 ||
      epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, server->work_fd, &event) < 0) {
    int error = errno;
    discard(server);
    return reply(&call, -error);
  }
  server->threads_max = threads;
  server->per_device = per_device;
  server->timeout_ms = timeout_ms;
  server->armed = true;
  memcpy(server->by_errno, verdicts, sizeof server->by_errno);
  memcpy(server->by_host_status, verdicts + sizeof server->by_errno, sizeof server->by_host_status);
  memcpy(server->by_driver_status, verdicts + 2 * sizeof server->by_errno, sizeof server->by_driver_status);
  pthread_mutex_init(&server->lock, NULL);
  pthread_cond_init(&server->room, NULL);
  napi_value external = NULL;
  if (napi_create_external(env, server, on_collected, NULL, &external) != napi_ok) {
    discard(server);
    return reply(&call, -ENOMEM);
  }
  return external;
}

static struct pr_server *next_any_server(struct call *call) {
  void *data = NULL;
  napi_value value = next_value(call);
  napi_valuetype type = napi_undefined;
  napi_typeof(call->env, value, &type);
  if (type == napi_external && napi_get_value_external(call->env, value, &data) == napi_ok) return data;
  fail_call(call, EINVAL);
  return NULL;
}

/* The next argument, a server that has not been ended. */
static struct pr_server *next_server(struct call *call) {
  struct pr_server *server = next_any_server(call);
  /* Only this thread ends it. */
  if (server != NULL && server->ending) fail_call(call, EBADF);
  return server;
}

/* prEventFd(server): an eventfd, the server's, that is readable when there is something to take */
static napi_value native_pr_event_fd(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct pr_server *server = next_server(&call);
  if (call.error != 0) return reply_refusal(&call);
  return reply(&call, server->event_fd);
}

/* A free slot, or -errno. */
static int64_t find_slot_locked(struct pr_server *server) {
  for (uint32_t slot = 0; slot < server->slots_length; slot++) {
    if (server->slots[slot] == NULL) return slot;
  }
  uint32_t length = server->slots_length + SLOTS_STEP;
  struct pr_connection **slots = realloc(server->slots, length * sizeof(struct pr_connection *));
  if (slots == NULL) return -ENOMEM;
  memset(slots + server->slots_length, 0, SLOTS_STEP * sizeof(struct pr_connection *));
  int64_t slot = server->slots_length;
  server->slots = slots;
  server->slots_length = length;
  return slot;
}

/* prAttach(server, fd): greets a client; its slot, and the socket is the server's; or -errno, and it stays the caller's */
static napi_value native_pr_attach(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct pr_server *server = next_server(&call);
  int32_t fd = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  static const uint8_t greeting[PR_FEATURE_BYTES] = {0};
  ssize_t sent = RETRY(send(fd, greeting, sizeof greeting, MSG_DONTWAIT | MSG_NOSIGNAL));
  if (sent < 0) return reply(&call, -errno);
  if (sent != sizeof greeting) return reply(&call, -EAGAIN);
  struct pr_connection *connection = calloc(1, sizeof *connection);
  if (connection == NULL) return reply(&call, -ENOMEM);
  connection->fd = fd;
  connection->device_fd = -1;
  connection->state = PR_FEATURES;
  pthread_mutex_lock(&server->lock);
  int64_t slot = find_slot_locked(server);
  if (slot >= 0) {
    connection->slot = (uint32_t)slot;
    int error = pr_need_thread_locked(server);
    if (error == 0) error = -pr_arm(server, connection, EPOLL_CTL_ADD);
    if (error == 0) server->slots[slot] = connection;
    else slot = -error;
  }
  pthread_mutex_unlock(&server->lock);
  if (slot < 0) free(connection);
  return reply(&call, slot);
}

static int32_t clip(uint64_t value) { return value > INT32_MAX ? INT32_MAX : (int32_t)value; }

static void put_file(int32_t *at, const struct file_facts *file) {
  at[0] = (int32_t)file->type;
  at[1] = (int32_t)file->major;
  at[2] = (int32_t)file->minor;
  at[3] = (int32_t)file->flags;
}

/*
 * prTake(server, numbers, bytes, ended, arm): takes records, as many as there is room for, and when none are left the connections that have
 * ended, as far as `ended` has room. numbers: records taken, connections ended, 1 when there is more, requests that are not answered; then 16
 * for each record: kind, slot, type, major, minor, flags, status, size, length of the request, errno, host status, driver status,
 * microseconds. bytes: 136 for each record, the begin of the request and the sense. ended: slot and reason of each, whose slot is free then.
 * With `arm`, when there was nothing, the eventfd tells of the next. 0 or -errno.
 */
static napi_value native_pr_take(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct pr_server *server = next_server(&call);
  size_t numbers_length = 0;
  int32_t *numbers = next_ints(&call, &numbers_length);
  uint32_t available = 0;
  uint8_t *bytes = next_bytes(&call, &available);
  size_t ended_length = 0;
  int32_t *ended = next_ints(&call, &ended_length);
  int32_t arm = next_int(&call);
  if (call.error == 0 && (numbers_length < TAKE_HEAD + TAKE_NUMBERS || available < TAKE_BYTES || ended_length < 2)) {
    fail_call(&call, EFAULT);
  }
  if (call.error != 0) return reply_refusal(&call);
  size_t records_max = (numbers_length - TAKE_HEAD) / TAKE_NUMBERS;
  if (records_max > available / TAKE_BYTES) records_max = available / TAKE_BYTES;
  uint64_t count;
  RETRY(read(server->event_fd, &count, sizeof count));
  struct pr_list gone = {NULL, NULL};
  uint32_t taken = 0;
  uint32_t over = 0;
  pthread_mutex_lock(&server->lock);
  for (; taken < records_max && server->records_count > 0; taken++) {
    const struct pr_record *record = &server->records[server->records_at];
    int32_t *at = numbers + TAKE_HEAD + taken * TAKE_NUMBERS;
    at[0] = (int32_t)record->kind;
    at[1] = (int32_t)record->slot;
    put_file(at + 2, &record->file);
    at[6] = (int32_t)record->status;
    at[7] = (int32_t)record->size;
    at[8] = (int32_t)record->request_length;
    at[9] = record->outcome.error;
    at[10] = record->outcome.host_status;
    at[11] = record->outcome.driver_status;
    at[12] = (int32_t)record->outcome.duration_us;
    uint8_t *to = bytes + taken * TAKE_BYTES;
    memcpy(to, record->request, PR_NOTED_BYTES);
    memcpy(to + PR_NOTED_BYTES, record->sense, SG_SENSE_BYTES);
    server->records_at = (server->records_at + 1) % PR_RECORDS;
    server->records_count--;
  }
  if (server->records_count == 0) {
    /* Only now: the records of a connection are told before its end. */
    for (; over < ended_length / 2 && server->ended.first != NULL; over++) {
      struct pr_connection *connection = pr_take_first(&server->ended);
      ended[over * 2] = (int32_t)connection->slot;
      ended[over * 2 + 1] = (int32_t)connection->end;
      server->slots[connection->slot] = NULL;
      pr_append(&gone, connection);
    }
  }
  bool more = server->records_count > 0 || server->ended.first != NULL;
  if (arm != 0 && taken == 0 && over == 0) server->armed = true;
  numbers[0] = (int32_t)taken;
  numbers[1] = (int32_t)over;
  numbers[2] = more ? 1 : 0;
  numbers[3] = clip(server->in_flight);
  if (taken > 0) pthread_cond_broadcast(&server->room);
  pthread_mutex_unlock(&server->lock);
  for (struct pr_connection *connection = pr_take_first(&gone); connection != NULL; connection = pr_take_first(&gone)) {
    free(connection);
  }
  return reply(&call, 0);
}

/*
 * prQuestion(server, numbers, bytes): takes a request that is to be decided about. numbers: slot, type, major, minor, flags, errno where
 * the descriptor could not be looked at, the descriptor, length of the request. 1, 0 when there is none, or -errno.
 */
static napi_value native_pr_question(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct pr_server *server = next_server(&call);
  int32_t *numbers = next_int_array(&call, QUESTION_NUMBERS);
  uint32_t available = 0;
  uint8_t *bytes = next_bytes(&call, &available);
  if (call.error == 0 && available < PR_CDB_BYTES + PR_TRANSFER_MAX) fail_call(&call, EFAULT);
  if (call.error != 0) return reply_refusal(&call);
  pthread_mutex_lock(&server->lock);
  struct pr_connection *connection = pr_take_first(&server->questions);
  if (connection != NULL) connection->asked = true;
  pthread_mutex_unlock(&server->lock);
  if (connection == NULL) return reply(&call, 0);
  numbers[0] = (int32_t)connection->slot;
  put_file(numbers + 1, &connection->file);
  numbers[5] = connection->file_error;
  numbers[6] = connection->device_fd;
  numbers[7] = (int32_t)(PR_CDB_BYTES + connection->parameters_length);
  memcpy(bytes, connection->cdb, PR_CDB_BYTES);
  if (connection->parameters_length > 0) {
    memcpy(bytes + PR_CDB_BYTES, connection->parameters, connection->parameters_length);
  }
  return reply(&call, 1);
}

/* The next argument, the slot of a connection that was asked about. */
static struct pr_connection *next_asked(struct call *call, struct pr_server *server) {
  uint32_t slot = next_uint(call);
  if (call->error != 0) return NULL;
  pthread_mutex_lock(&server->lock);
  struct pr_connection *connection = slot < server->slots_length ? server->slots[slot] : NULL;
  bool ours = connection != NULL && connection->state == PR_EXECUTING && connection->asked;
  pthread_mutex_unlock(&server->lock);
  if (!ours) fail_call(call, EINVAL);
  return ours ? connection : NULL;
}

/*
 * prRun(server, slot, grant): lets a request through that was asked about, and with `grant` all others for its device, unless a
 * descriptor that is not writable is shown with a change. 0 or -errno, and it is still to be answered.
 */
static napi_value native_pr_run(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct pr_server *server = next_server(&call);
  struct pr_connection *connection = next_asked(&call, server);
  int32_t grant = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  pthread_mutex_lock(&server->lock);
  struct pr_device *device = pr_find_device_locked(server, &connection->file, true);
  if (device == NULL) {
    pthread_mutex_unlock(&server->lock);
    return reply(&call, -ENOMEM);
  }
  if (grant != 0 && !device->granted && server->grants < PR_GRANTS_MAX) {
    device->granted = true;
    server->grants++;
  }
  connection->asked = false;
  if (pr_take_turn_locked(server, device, connection)) {
    pr_append(&server->told, connection);
    const uint64_t one = 1;
    RETRY(write(server->work_fd, &one, sizeof one));
  }
  pr_tell_and_unlock(server, false);
  return reply(&call, 0);
}

/* prAnswer(server, slot, bytes, length): the answer to a request that was asked about. 0 or -errno. */
static napi_value native_pr_answer(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct pr_server *server = next_server(&call);
  struct pr_connection *connection = next_asked(&call, server);
  uint32_t available = 0;
  const uint8_t *bytes = next_bytes(&call, &available);
  uint32_t length = next_uint(&call);
  if (call.error == 0 && (length < PR_HEADER_BYTES || length > available)) fail_call(&call, EFAULT);
  if (call.error != 0) return reply_refusal(&call);
  pr_answer(server, connection, bytes, length);
  return reply(&call, 0);
}

/*
 * prPending(server, numbers, bytes): requests that are not answered, as far as there is room: for each 8 numbers (slot, type, major, minor,
 * flags, milliseconds since it came, length of the request, errno where the descriptor could not be looked at) and 40 bytes, the begin of the
 * request. How many, or -errno.
 */
static napi_value native_pr_pending(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct pr_server *server = next_server(&call);
  size_t numbers_length = 0;
  int32_t *numbers = next_ints(&call, &numbers_length);
  uint32_t available = 0;
  uint8_t *bytes = next_bytes(&call, &available);
  if (call.error != 0) return reply_refusal(&call);
  size_t most = numbers_length / 8;
  if (most > available / PR_NOTED_BYTES) most = available / PR_NOTED_BYTES;
  int64_t now_ns = monotonic_ns();
  uint32_t found = 0;
  pthread_mutex_lock(&server->lock);
  for (uint32_t slot = 0; slot < server->slots_length && found < most; slot++) {
    const struct pr_connection *connection = server->slots[slot];
    if (connection == NULL || connection->state != PR_EXECUTING) continue;
    int32_t *at = numbers + (size_t)found * 8;
    at[0] = (int32_t)slot;
    put_file(at + 1, &connection->file);
    int64_t age_ns = now_ns - connection->since_ns;
    at[5] = age_ns > 0 ? clip((uint64_t)age_ns / 1000000) : 0;
    at[6] = (int32_t)(PR_CDB_BYTES + connection->parameters_length);
    at[7] = connection->file_error;
    uint8_t *to = bytes + (size_t)found * PR_NOTED_BYTES;
    memset(to, 0, PR_NOTED_BYTES);
    memcpy(to, connection->cdb, PR_CDB_BYTES);
    uint32_t noted = connection->parameters_length;
    if (noted > PR_NOTED_BYTES - PR_CDB_BYTES) noted = PR_NOTED_BYTES - PR_CDB_BYTES;
    if (noted > 0) memcpy(to + PR_CDB_BYTES, connection->parameters, noted);
    found++;
  }
  pthread_mutex_unlock(&server->lock);
  return reply(&call, found);
}

/* prStop(server): ends every connection that waits for nothing, and each of the others when it has its answer. */
static napi_value native_pr_stop(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct pr_server *server = next_server(&call);
  if (call.error != 0) return reply_refusal(&call);
  pthread_mutex_lock(&server->lock);
  __atomic_store_n(&server->stopping, true, __ATOMIC_RELEASE);
  for (uint32_t slot = 0; slot < server->slots_length; slot++) {
    struct pr_connection *connection = server->slots[slot];
    /* Its own direction of receiving: answers are still sent. */
    if (connection != NULL && connection->fd >= 0) shutdown(connection->fd, SHUT_RD);
  }
  pthread_mutex_unlock(&server->lock);
  return reply(&call, 0);
}

/*
 * prEnd(server): its threads end when their devices let them; whoever is connected still is left alone. How many threads there are still: the
 * eventfd tells when the last one has left. Nothing but this and prClose() may be called afterwards.
 */
static napi_value native_pr_end(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct pr_server *server = next_any_server(&call);
  if (call.error != 0) return reply_refusal(&call);
  uint64_t count;
  if (server->event_fd >= 0) RETRY(read(server->event_fd, &count, sizeof count));
  pthread_mutex_lock(&server->lock);
  if (server->epoll_fd >= 0) pr_end_locked(server);
  uint32_t threads = server->threads;
  pthread_mutex_unlock(&server->lock);
  return reply(&call, threads);
}

/* prClose(server): closes what it has open. 0, or -EBUSY while it has threads. */
static napi_value native_pr_close(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct pr_server *server = next_any_server(&call);
  if (call.error != 0) return reply_refusal(&call);
  pthread_mutex_lock(&server->lock);
  bool busy = !server->ending || server->threads > 0;
  if (!busy) pr_close_locked(server);
  pthread_mutex_unlock(&server->lock);
  return reply(&call, busy ? -EBUSY : 0);
}

const struct export_row PR_SERVER_EXPORTS[] = {
    {"prCreate", native_pr_create},
    {"prEventFd", native_pr_event_fd},
    {"prAttach", native_pr_attach},
    {"prTake", native_pr_take},
    {"prQuestion", native_pr_question},
    {"prRun", native_pr_run},
    {"prAnswer", native_pr_answer},
    {"prPending", native_pr_pending},
    {"prStop", native_pr_stop},
    {"prEnd", native_pr_end},
    {"prClose", native_pr_close},
    {NULL, NULL},
};
