#ifndef PASSEL_SCM_H
#define PASSEL_SCM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
  /* SCM_MAX_FD of the kernel. */
  MAX_FDS = 253,
};

/* What came with a message: descriptors, close-on-exec and the receiver's, and pid, uid, gid of its sender, or -1. */
struct received {
  size_t count;
  int fds[MAX_FDS];
  int32_t credentials[3];
};

/*
 * Receives without waiting: bytes, 0 at the end of a stream, or -errno. -EMSGSIZE: descriptors or payload were cut; everything that came
 * is closed and lost.
 */
ssize_t receive_message(int fd, void *data, size_t length, struct received *received);

#endif
