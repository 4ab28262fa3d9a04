/*
 * The part of the reservation helper that runs beside Node: see pr-server.c for how it works. What is shared by its files.
 *
 * A connection belongs to one party at a time: to the epoll set (armed, once), to the thread that has taken it from there, to a device's
 * queue, or to JavaScript that was asked about its request. Only that party touches it; what others read (the counts, the request in
 * flight, whether it has ended) is changed with the server's lock held.
 */
#ifndef PASSEL_PR_SERVER_H
#define PASSEL_PR_SERVER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "sg.h"

enum {
  PR_FEATURE_BYTES = 4,
  PR_CDB_BYTES = 16,
  PR_TRANSFER_MAX = 8192,
  PR_SENSE_OFFSET = 8,
  PR_HEADER_BYTES = PR_SENSE_OFFSET + SG_SENSE_BYTES,
  PR_ANSWER_MAX = PR_HEADER_BYTES + PR_TRANSFER_MAX,
  /* What a record keeps of a request: its CDB, and keys and flags of the parameters. */
  PR_NOTED_BYTES = PR_CDB_BYTES + 24,
  PR_RECORDS = 1024,
  PR_DEVICE_BUCKETS = 1024,
  PR_GRANTS_MAX = 4096,
};

enum pr_state { PR_FEATURES, PR_COMMAND, PR_PARAMETERS, PR_EXECUTING, PR_ANSWERING, PR_CLOSED };

/* Why a connection ended; JavaScript has the same list. */
enum pr_end {
  PR_END_CLIENT,
  PR_END_INSIDE,
  PR_END_FEATURES,
  PR_END_NO_DESCRIPTOR,
  PR_END_DESCRIPTORS,
  PR_END_OPCODE,
  PR_END_LENGTH,
  PR_END_SOCKET,
  PR_END_STOPPED,
};

struct pr_connection {
  /* In the list that it is in: of a device's queue, of questions, of those told what to do, of those that have ended. */
  struct pr_connection *next;
  uint32_t slot;
  int fd;
  int device_fd;
  enum pr_state state;
  enum pr_end end;
  /* Bytes of the current state that are there. */
  uint32_t have;
  uint8_t cdb[PR_CDB_BYTES];
  uint8_t *parameters;
  uint32_t parameters_length;
  /* Of the request in flight. */
  struct file_facts file;
  int file_error;
  int64_t since_ns;
  /* JavaScript has it to decide about. */
  bool asked;
  /* What the socket has not taken of an answer. */
  uint8_t *unsent;
  uint32_t unsent_at;
  uint32_t unsent_length;
};

struct pr_list {
  struct pr_connection *first;
  struct pr_connection *last;
};

/* A device that is granted, or has commands. */
struct pr_device {
  struct pr_device *chain;
  struct file_facts file;
  /* Its commands need not be asked about. */
  bool granted;
  /* It was told that commands wait for others to end. */
  bool told;
  uint32_t running;
  struct pr_list queue;
};

enum pr_record_kind { PR_RECORD_DONE, PR_RECORD_CROWDED };

/* What JavaScript is told. */
struct pr_record {
  enum pr_record_kind kind;
  uint32_t slot;
  struct file_facts file;
  uint32_t status;
  uint32_t size;
  uint32_t request_length;
  struct sg_outcome outcome;
  uint8_t request[PR_NOTED_BYTES];
  uint8_t sense[SG_SENSE_BYTES];
};

/* What becomes of an outcome: made by JavaScript for each errno, host status and driver status, the first of each for those beyond. */
enum { PR_VERDICT_DECIDES = 1, PR_VERDICT_SENSE = 2, PR_VERDICT_SENSE_BYTES = 18, PR_VERDICTS = 256 };
struct pr_verdict {
  uint8_t flags;
  uint8_t status;
  uint8_t sense[PR_VERDICT_SENSE_BYTES];
};

struct pr_server {
  pthread_mutex_t lock;
  /* There is room for records again. */
  pthread_cond_t room;
  int epoll_fd;
  /* Readable while the threads have something to do that comes from JavaScript: requests that are let through, or the end. */
  int work_fd;
  /* Readable when there is something for JavaScript. */
  int event_fd;
  uint32_t timeout_ms;
  uint32_t threads;
  uint32_t threads_max;
  uint32_t per_device;
  /* Threads that a device has. */
  uint32_t executing;
  /* Requests that are not answered. */
  uint32_t in_flight;
  uint32_t grants;
  bool stopping;
  bool ending;
  /* JavaScript looks when told, and not by itself. */
  bool armed;
  /* JavaScript holds it no more. */
  bool released;
  struct pr_connection **slots;
  uint32_t slots_length;
  struct pr_list questions;
  struct pr_list told;
  struct pr_list ended;
  struct pr_device *devices[PR_DEVICE_BUCKETS];
  uint32_t records_at;
  uint32_t records_count;
  struct pr_record records[PR_RECORDS];
  struct pr_verdict by_errno[PR_VERDICTS];
  struct pr_verdict by_host_status[PR_VERDICTS];
  struct pr_verdict by_driver_status[PR_VERDICTS];
};

/* pr-connection.c: the protocol */

/*
 * Goes on with a connection whose socket is ready, until it waits for something.
 * @param answer - PR_ANSWER_MAX bytes, the thread's
 */
void pr_serve(struct pr_server *server, struct pr_connection *connection, uint8_t *answer);
/* Carries out what JavaScript has let through; the connection has its turn. */
void pr_carry_out(struct pr_server *server, struct pr_connection *connection, uint8_t *answer);
/* Sends the answer of a request that JavaScript was asked about. Never waits. */
void pr_answer(struct pr_server *server, struct pr_connection *connection, const uint8_t *answer, uint32_t length);
/* Waits once for the socket; -errno. */
int pr_arm(struct pr_server *server, struct pr_connection *connection, int operation);

/* pr-turns.c: threads, devices' turns, what is told; functions that end in _locked want the lock */

void pr_append(struct pr_list *list, struct pr_connection *connection);
struct pr_connection *pr_take_first(struct pr_list *list);
/* Makes sure that a thread waits for connections; an error number when there is none at all. */
int pr_need_thread_locked(struct pr_server *server);
/* @returns NULL when `file` has none and none is to be made, or there is no memory */
struct pr_device *pr_find_device_locked(struct pr_server *server, const struct file_facts *file, bool make);
/* true: the calling thread carries the connection's command out now. false: it waits in the queue of its device. */
bool pr_take_turn_locked(struct pr_server *server, struct pr_device *device, struct pr_connection *connection);
/*
 * Records what was done, NULL for nothing, and gives the turn on.
 * @returns the connection whose command is to be carried out next, by the calling thread; or NULL
 */
struct pr_connection *pr_end_turn(struct pr_server *server, struct pr_connection *connection, const struct pr_record *record);
/* Tells JavaScript to look, now or where it waits to be told. Gives the lock up. */
void pr_tell_and_unlock(struct pr_server *server, bool now);
/* Ends the threads; those that a device has, when it lets them. */
void pr_end_locked(struct pr_server *server);
/* Closes everything. There must be no thread any more. */
void pr_close_locked(struct pr_server *server);
/* Frees the server if nobody holds it any more. Gives the lock up. */
void pr_release_and_unlock(struct pr_server *server);

#endif
