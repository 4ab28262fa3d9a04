#ifndef PASSEL_EXEC_REQUEST_H
#define PASSEL_EXEC_REQUEST_H

#include <signal.h>

#include "native.h"

/*
 * What is to be executed, copied out of JavaScript before a fork: a forked child must not touch V8's memory, nor allocate any.
 */
struct exec_request {
  char *file;
  char **arguments;
  char **environment;
  /* NULL: stay where we are. */
  char *directory;
  /* Pairs of (descriptor in the new program, descriptor here). */
  int32_t *fds;
  size_t fd_pairs;
  /* Room for one descriptor per pair: where they are moved out of each other's way, and what a target held before. */
  int32_t *staged;
  int32_t *saved;
  /* Namespace descriptors to join, in order. */
  int32_t *joins;
  size_t join_count;
  /* CLONE_NEW* to unshare. */
  uint32_t namespaces;
  /* Contents of /proc/self/uid_map and gid_map, or NULL. */
  char *uid_map;
  char *gid_map;
  int32_t *ignored_signals;
  size_t ignored_count;
  int32_t *blocked_signals;
  size_t blocked_count;
  /* Soft RLIMIT_NOFILE of the program; 0: as it is here. */
  uint32_t file_limit;
  int32_t death_signal;
  bool new_session;
  bool keep_inherited;
};

/* Fills a request from a JavaScript object; false with the call failed when it is not one or a field has the wrong type. */
bool read_exec_request(struct call *call, napi_value object, struct exec_request *request);
void free_exec_request(struct exec_request *request);

/* The lowest number above stdio and every target, so that nothing staged there is in the way. */
int32_t first_free_above(const struct exec_request *request);
/* Puts the descriptors in place, inheritable. With `save`, what the targets held is kept for restore_descriptors(). 0 or -1. */
int place_descriptors(struct exec_request *request, int32_t base, bool save);
void restore_descriptors(struct exec_request *request);
/* All signals default or ignored as requested. Async-signal-safe, as is place_descriptors(). */
void reset_signal_actions(const struct exec_request *request);
/* Last of all, since the steps before may need more descriptors than the program may have. */
void lower_file_limit(const struct exec_request *request);
void fill_blocked_set(const struct exec_request *request, sigset_t *set);

#endif
