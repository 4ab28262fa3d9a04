#ifndef PASSEL_SG_H
#define PASSEL_SG_H

#include <stdint.h>

enum { SG_SENSE_BYTES = 96 };

/* A command for SG_IO of ioctl(2). */
struct sg_request {
  int fd;
  /* SG_DXFER_*. */
  int direction;
  uint8_t *cdb;
  uint8_t cdb_length;
  uint8_t *data;
  uint32_t data_length;
  /* SG_SENSE_BYTES. */
  uint8_t *sense;
  uint32_t timeout_ms;
};

/* How it ended. The statuses mean something when `error`, the errno of the ioctl, is 0. */
struct sg_outcome {
  int error;
  int32_t status;
  int32_t host_status;
  int32_t driver_status;
  int32_t sense_written;
  uint32_t transferred;
  uint32_t duration_us;
};

/* Waits for the device. */
void run_sg_request(const struct sg_request *request, struct sg_outcome *outcome);

/* What an open file is: the type bits of st_mode, the number of the device, O_ACCMODE and O_PATH bits. */
struct file_facts {
  uint32_t type;
  uint32_t major;
  uint32_t minor;
  uint32_t flags;
};

/* 0 or an error number. */
int read_file_facts(int fd, struct file_facts *facts);

/* A detached thread with a small stack that no signal of the process's is given to; 0 or an error number. */
int start_waiting_thread(void *(*run)(void *), void *data);

#endif
