/* The protocol of the reservation helper, one connection at a time: see pr-server.c, and helper-protocol.ts for its layout. */
#include <errno.h>
#include <fcntl.h>
#include <scsi/sg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "native.h"
#include "pr-server.h"
#include "scm.h"

enum {
  PERSISTENT_RESERVE_IN = 0x5e,
  PERSISTENT_RESERVE_OUT = 0x5f,
  STATUS_GOOD = 0,
  STATUS_CHECK_CONDITION = 2,
  /* A client that sends in small pieces gives way to others after so many. */
  ROUNDS_MAX = 64,
};

enum step { STEP_WAIT, STEP_REQUEST, STEP_AGAIN, STEP_OVER };

static bool is_out(const struct pr_connection *connection) { return connection->cdb[0] == PERSISTENT_RESERVE_OUT; }

static uint32_t transfer_length(const struct pr_connection *connection) {
  return (uint32_t)connection->cdb[7] << 8 | connection->cdb[8];
}

static void put_be32(uint8_t *at, uint32_t value) {
  at[0] = (uint8_t)(value >> 24);
  at[1] = (uint8_t)(value >> 16);
  at[2] = (uint8_t)(value >> 8);
  at[3] = (uint8_t)value;
}

int pr_arm(struct pr_server *server, struct pr_connection *connection, int operation) {
  struct epoll_event event = {
      .events = EPOLLONESHOT | (connection->state == PR_ANSWERING ? EPOLLOUT : EPOLLIN),
      .data.ptr = connection,
  };
  return epoll_ctl(server->epoll_fd, operation, connection->fd, &event) < 0 ? -errno : 0;
}

static void drop_device(struct pr_connection *connection) {
  if (connection->device_fd >= 0) close(connection->device_fd);
  connection->device_fd = -1;
}

/* The connection is JavaScript's to free afterwards. */
static void end_connection(struct pr_server *server, struct pr_connection *connection, enum pr_end end) {
  /* Closing may be the end of a device's last descriptor, and wait for that device: another thread takes care of the rest. */
  pthread_mutex_lock(&server->lock);
  server->executing++;
  pr_need_thread_locked(server);
  pthread_mutex_unlock(&server->lock);
  drop_device(connection);
  epoll_ctl(server->epoll_fd, EPOLL_CTL_DEL, connection->fd, NULL);
  pthread_mutex_lock(&server->lock);
  int fd = connection->fd;
  /* From here on nobody else uses its number, which may soon be another's. */
  connection->fd = -1;
  pthread_mutex_unlock(&server->lock);
  close(fd);
  free(connection->parameters);
  free(connection->unsent);
  connection->parameters = connection->unsent = NULL;
  pthread_mutex_lock(&server->lock);
  server->executing--;
  connection->state = PR_CLOSED;
  connection->end = end;
  pr_append(&server->ended, connection);
  pr_tell_and_unlock(server, false);
}

static void arm_or_end(struct pr_server *server, struct pr_connection *connection) {
  if (pr_arm(server, connection, EPOLL_CTL_MOD) < 0) end_connection(server, connection, PR_END_SOCKET);
}

/* ---------------------------------------------------------------------------------------------------------------- reading */

/* Descriptors belong to a CDB; with other bytes they mean nothing and are dropped. false: more than one came with it. */
static bool take_descriptors(struct pr_connection *connection, const struct received *received) {
  bool in_command = connection->state == PR_COMMAND;
  bool kept = in_command && received->count == 1 && connection->device_fd < 0;
  if (kept) {
    connection->device_fd = received->fds[0];
    return true;
  }
  for (size_t i = 0; i < received->count; i++) close(received->fds[i]);
  return !in_command || received->count == 0;
}

static void expect_command(struct pr_connection *connection) {
  free(connection->parameters);
  connection->parameters = NULL;
  connection->parameters_length = 0;
  connection->have = 0;
  connection->state = PR_COMMAND;
}

/* All bytes of a state are there. */
static enum step take_state(struct pr_connection *connection, enum pr_end *end) {
  if (connection->state == PR_FEATURES) {
    static const uint8_t none[PR_FEATURE_BYTES] = {0};
    if (memcmp(connection->cdb, none, sizeof none) != 0) {
      *end = PR_END_FEATURES;
      return STEP_OVER;
    }
    expect_command(connection);
    return STEP_AGAIN;
  }
  if (connection->state == PR_PARAMETERS) return STEP_REQUEST;
  if (connection->device_fd < 0) {
    *end = PR_END_NO_DESCRIPTOR;
    return STEP_OVER;
  }
  if (!is_out(connection) && connection->cdb[0] != PERSISTENT_RESERVE_IN) {
    *end = PR_END_OPCODE;
    return STEP_OVER;
  }
  if (transfer_length(connection) > PR_TRANSFER_MAX) {
    *end = PR_END_LENGTH;
    return STEP_OVER;
  }
  if (!is_out(connection) || transfer_length(connection) == 0) return STEP_REQUEST;
  connection->parameters = malloc(transfer_length(connection));
  if (connection->parameters == NULL) {
    *end = PR_END_SOCKET;
    return STEP_OVER;
  }
  connection->parameters_length = transfer_length(connection);
  connection->have = 0;
  connection->state = PR_PARAMETERS;
  return STEP_AGAIN;
}

/* One read of what the state wants. */
static enum step read_once(struct pr_connection *connection, enum pr_end *end) {
  bool in_parameters = connection->state == PR_PARAMETERS;
  uint8_t *bytes = in_parameters ? connection->parameters : connection->cdb;
  uint32_t wanted = in_parameters                      ? connection->parameters_length
                    : connection->state == PR_FEATURES ? PR_FEATURE_BYTES
                                                       : PR_CDB_BYTES;
  struct received received;
  ssize_t got = receive_message(connection->fd, bytes + connection->have, wanted - connection->have, &received);
  if (got == -EAGAIN) return STEP_WAIT;
  if (got < 0) {
    *end = got == -EMSGSIZE ? PR_END_DESCRIPTORS : PR_END_SOCKET;
    return STEP_OVER;
  }
  if (!take_descriptors(connection, &received)) {
    *end = PR_END_DESCRIPTORS;
    return STEP_OVER;
  }
  if (got == 0) {
    *end = connection->have > 0 || in_parameters ? PR_END_INSIDE : PR_END_CLIENT;
    return STEP_OVER;
  }
  connection->have += (uint32_t)got;
  return connection->have == wanted ? take_state(connection, end) : STEP_AGAIN;
}

/* -------------------------------------------------------------------------------------------------------------- answering */

/* Sends what there is to send; what the socket does not take is kept. */
static enum step send_answer(struct pr_connection *connection, const uint8_t *answer, uint32_t length, enum pr_end *end) {
  ssize_t sent = RETRY(send(connection->fd, answer, length, MSG_DONTWAIT | MSG_NOSIGNAL));
  *end = PR_END_SOCKET;
  if (sent < 0 && errno != EAGAIN) return STEP_OVER;
  if (sent < 0) sent = 0;
  uint32_t rest = length - (uint32_t)sent;
  if (connection->unsent != NULL) {
    connection->unsent_at += (uint32_t)sent;
    connection->unsent_length = rest;
  } else if (rest > 0) {
    connection->unsent = malloc(rest);
    if (connection->unsent == NULL) return STEP_OVER;
    memcpy(connection->unsent, answer + sent, rest);
    connection->unsent_at = 0;
    connection->unsent_length = rest;
  }
  if (rest > 0) return STEP_WAIT;
  free(connection->unsent);
  connection->unsent = NULL;
  expect_command(connection);
  return STEP_AGAIN;
}

static const struct pr_verdict *verdict_of(const struct pr_verdict *table, uint32_t value) {
  return &table[value < PR_VERDICTS ? value : 0];
}

/* Status and sense, where the device's own do not stand. */
static const struct pr_verdict *judge(const struct pr_server *server, const struct sg_outcome *outcome) {
  if (outcome->error != 0) return verdict_of(server->by_errno, (uint32_t)outcome->error);
  if (outcome->host_status != 0) return verdict_of(server->by_host_status, (uint32_t)outcome->host_status);
  /* Of the driver's status only bits count, and all of those are in its lower half. */
  return &server->by_driver_status[outcome->driver_status & 0xff];
}

/* Lets the device carry the request out. The answer is in `answer`, what there is to tell in `record`. @returns its length */
static uint32_t run_request(struct pr_server *server, struct pr_connection *connection, uint8_t *answer, struct pr_record *record) {
  bool out = is_out(connection);
  uint8_t *sense = answer + PR_SENSE_OFFSET;
  /* What a device does not write must not be what another one wrote. */
  memset(answer, 0, out ? PR_HEADER_BYTES : PR_ANSWER_MAX);
  const struct sg_request request = {
      .fd = connection->device_fd,
      .direction = out ? SG_DXFER_TO_DEV : SG_DXFER_FROM_DEV,
      .cdb = connection->cdb,
      .cdb_length = PR_CDB_BYTES,
      .data = out ? connection->parameters : answer + PR_HEADER_BYTES,
      .data_length = out ? connection->parameters_length : PR_TRANSFER_MAX,
      .sense = sense,
      .timeout_ms = server->timeout_ms,
  };
  run_sg_request(&request, &record->outcome);
  const struct pr_verdict *verdict = judge(server, &record->outcome);
  uint32_t status = (uint32_t)record->outcome.status;
  if ((verdict->flags & PR_VERDICT_DECIDES) != 0) status = verdict->status;
  if ((verdict->flags & PR_VERDICT_SENSE) != 0) {
    memset(sense, 0, SG_SENSE_BYTES);
    memcpy(sense, verdict->sense, sizeof verdict->sense);
  }
  uint32_t size = 0;
  if (!out && status == STATUS_GOOD) {
    size = record->outcome.transferred;
    if (size > transfer_length(connection)) size = transfer_length(connection);
  }
  put_be32(answer, status);
  put_be32(answer + 4, size);
  record->kind = PR_RECORD_DONE;
  record->slot = connection->slot;
  record->file = connection->file;
  record->status = status;
  record->size = size;
  record->request_length = PR_CDB_BYTES + connection->parameters_length;
  memcpy(record->request, connection->cdb, PR_CDB_BYTES);
  uint32_t noted = connection->parameters_length;
  if (noted > PR_NOTED_BYTES - PR_CDB_BYTES) noted = PR_NOTED_BYTES - PR_CDB_BYTES;
  if (noted > 0) memcpy(record->request + PR_CDB_BYTES, connection->parameters, noted);
  memcpy(record->sense, sense, SG_SENSE_BYTES);
  return PR_HEADER_BYTES + size;
}

/* ------------------------------------------------------------------------------------------------------------------ turns */

/* The client has closed its end; only having ended its own direction, after which it still reads, is not that. */
static bool has_left(const struct pr_connection *connection) {
  return send(connection->fd, "", 0, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno == EPIPE;
}

/* Begins a request that has come whole. true: the calling thread carries it out. */
static bool begin_request(struct pr_server *server, struct pr_connection *connection) {
  int64_t now_ns = monotonic_ns();
  connection->file_error = read_file_facts(connection->device_fd, &connection->file);
  pthread_mutex_lock(&server->lock);
  if (server->stopping) {
    pthread_mutex_unlock(&server->lock);
    end_connection(server, connection, PR_END_STOPPED);
    return false;
  }
  connection->since_ns = now_ns;
  connection->state = PR_EXECUTING;
  server->in_flight++;
  struct pr_device *device =
      connection->file_error == 0 ? pr_find_device_locked(server, &connection->file, false) : NULL;
  bool may_run = device != NULL && device->granted &&
                 (!is_out(connection) || (connection->file.flags & O_ACCMODE) != O_RDONLY);
  if (may_run) {
    bool turn = pr_take_turn_locked(server, device, connection);
    if (turn) pthread_mutex_unlock(&server->lock);
    else pr_tell_and_unlock(server, false);
    return turn;
  }
  pr_append(&server->questions, connection);
  pr_tell_and_unlock(server, true);
  return false;
}

/* Carries out the request of a connection that has the turn, and those whose turn it is then. */
static void run_turns(struct pr_server *server, struct pr_connection *connection, uint8_t *answer) {
  bool waited = false;
  while (connection != NULL) {
    struct pr_record record;
    enum pr_end end = PR_END_CLIENT;
    enum step step = STEP_OVER;
    struct pr_connection *next;
    /* A change that waited while its client gave up is not made late: somebody else may have made another meanwhile. */
    if (waited && has_left(connection)) {
      drop_device(connection);
      next = pr_end_turn(server, connection, NULL);
    } else {
      uint32_t length = run_request(server, connection, answer, &record);
      drop_device(connection);
      next = pr_end_turn(server, connection, &record);
      step = send_answer(connection, answer, length, &end);
    }
    if (step == STEP_OVER) end_connection(server, connection, end);
    else arm_or_end(server, connection);
    connection = next;
    waited = true;
  }
}

/* Without the lock: whoever stops makes every socket ready afterwards. */
static bool is_stopping(const struct pr_server *server) { return __atomic_load_n(&server->stopping, __ATOMIC_ACQUIRE); }

/*
 * Reads, and carries out what has come, until the connection waits for something or others shall have their turn. What comes behind an answer
 * is left to the epoll set: looked for at once, it would hardly be there yet.
 */
static void go_on(struct pr_server *server, struct pr_connection *connection, uint8_t *answer) {
  enum step step = STEP_AGAIN;
  for (int round = 0; step == STEP_AGAIN && round < ROUNDS_MAX; round++) {
    enum pr_end end = PR_END_STOPPED;
    step = is_stopping(server) ? STEP_OVER : read_once(connection, &end);
    if (step == STEP_OVER) {
      /* Then the end of the stream is our own doing. */
      end_connection(server, connection, is_stopping(server) ? PR_END_STOPPED : end);
      return;
    }
  }
  if (step == STEP_REQUEST) {
    if (!begin_request(server, connection)) return;
    run_turns(server, connection, answer);
  } else {
    arm_or_end(server, connection);
  }
}

void pr_serve(struct pr_server *server, struct pr_connection *connection, uint8_t *answer) {
  if (connection->state == PR_ANSWERING) {
    enum pr_end end;
    enum step step = send_answer(connection, connection->unsent + connection->unsent_at, connection->unsent_length, &end);
    if (step == STEP_OVER) {
      end_connection(server, connection, end);
      return;
    }
    if (step == STEP_WAIT) {
      arm_or_end(server, connection);
      return;
    }
  }
  go_on(server, connection, answer);
}

void pr_carry_out(struct pr_server *server, struct pr_connection *connection, uint8_t *answer) {
  run_turns(server, connection, answer);
}

void pr_answer(struct pr_server *server, struct pr_connection *connection, const uint8_t *answer, uint32_t length) {
  enum pr_end end;
  drop_device(connection);
  connection->asked = false;
  pthread_mutex_lock(&server->lock);
  server->in_flight--;
  connection->state = PR_ANSWERING;
  pthread_mutex_unlock(&server->lock);
  if (send_answer(connection, answer, length, &end) == STEP_OVER) end_connection(server, connection, end);
  else arm_or_end(server, connection);
}
