/*
 * What passes between the namespace agent and the process that started it, over two SOCK_SEQPACKET sockets: one message for one record,
 * in the byte order of the machine. namespace.ts and namespace.c know it too.
 */
#ifndef PASSEL_AGENT_PROTOCOL_H
#define PASSEL_AGENT_PROTOCOL_H

#include <stdint.h>
#include <sys/socket.h>

/* Descriptors of the agent. */
enum { REQUEST_FD = 3, REPORT_FD = 4, FIRST_FREE_FD = 5 };

/* Requests, answered by an int32_t: a result or -errno. */
enum request_kind {
  /* `count` sockets of `family` (4, 6) and `type` (SOCK_*): their number, and they come along. */
  REQUEST_SOCKETS = 1,
  /* bind(2) of the descriptor that comes along. */
  REQUEST_BIND = 2,
  /* The command may start; no answer. */
  REQUEST_GO = 3,
};

enum { SOCKETS_MAX = 64 };

struct request {
  uint8_t kind;
  uint8_t family;
  uint8_t type;
  uint8_t count;
  socklen_t address_length;
  struct sockaddr_storage address;
};

enum report_kind {
  /* All is set up. a: READY_* flags, b: the first process of the new namespaces, text: name of the tap. Descriptors: tap, and tables of sockets. */
  REPORT_READY = 1,
  /* a: enum agent_step, b: errno, text: what it was about */
  REPORT_FAILED = 2,
  /* a: the command's wait status */
  REPORT_ENDED = 3,
  /* The namespace has lost its name, or its process. */
  REPORT_GONE = 4,
};

enum { READY_TAP = 1, READY_VNET = 2, TEXT_BYTES = 116 };

struct report {
  int32_t kind;
  int32_t a;
  int32_t b;
  char text[TEXT_BYTES];
};

/* What the agent was about when it failed; namespace.ts has words for it. */
enum agent_step {
  STEP_ARGUMENTS = 0,
  STEP_FIND_PROCESS = 1,
  STEP_OPEN_USER = 2,
  STEP_OPEN_NET = 3,
  STEP_CHANGE_USER = 4,
  STEP_JOIN_USER = 5,
  STEP_JOIN_NET = 6,
  STEP_MAKE_USER = 7,
  STEP_ID_MAP = 8,
  STEP_MAKE_OTHERS = 9,
  STEP_FORK = 10,
  STEP_OPEN_TUN = 11,
  STEP_MAKE_TAP = 12,
  STEP_CONFIGURE = 13,
  STEP_TABLES = 14,
  STEP_WATCH = 15,
  STEP_CONFINE = 16,
};

#endif
