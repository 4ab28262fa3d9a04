/* One SCSI command by SG_IO, and the threads that wait for devices: what the queue of sg.c and the server of pr-server.c share. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <scsi/sg.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "native.h"
#include "sg.h"

enum { STACK_BYTES = 128 * 1024 };

void run_sg_request(const struct sg_request *request, struct sg_outcome *outcome) {
  struct sg_io_hdr header;
  memset(&header, 0, sizeof header);
  header.interface_id = 'S';
  header.dxfer_direction = request->direction;
  header.cmd_len = request->cdb_length;
  header.mx_sb_len = SG_SENSE_BYTES;
  header.dxfer_len = request->data_length;
  header.dxferp = request->data;
  header.cmdp = request->cdb;
  header.sbp = request->sense;
  header.timeout = request->timeout_ms;
  int64_t start_ns = monotonic_ns();
  outcome->error = RETRY(ioctl(request->fd, SG_IO, &header)) < 0 ? errno : 0;
  int64_t microseconds = (monotonic_ns() - start_ns) / 1000;
  outcome->duration_us = microseconds > INT32_MAX ? INT32_MAX : (uint32_t)microseconds;
  outcome->status = header.status;
  outcome->host_status = header.host_status;
  outcome->driver_status = header.driver_status;
  outcome->sense_written = header.sb_len_wr;
  outcome->transferred = 0;
  /* A driver that counts wrongly must not make us read what is not there. */
  if (outcome->error == 0 && header.resid >= 0 && (uint32_t)header.resid <= request->data_length) {
    outcome->transferred = request->data_length - (uint32_t)header.resid;
  }
}

int read_file_facts(int fd, struct file_facts *facts) {
  struct stat status;
  memset(facts, 0, sizeof *facts);
  if (fstat(fd, &status) < 0) return errno;
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0) return errno;
  facts->type = status.st_mode & S_IFMT;
  facts->major = major(status.st_rdev);
  facts->minor = minor(status.st_rdev);
  facts->flags = (uint32_t)flags & (O_ACCMODE | O_PATH);
  return 0;
}

int start_waiting_thread(void *(*run)(void *), void *data) {
  pthread_attr_t attributes;
  sigset_t all;
  sigset_t before;
  pthread_t thread;
  int error = pthread_attr_init(&attributes);
  if (error != 0) return error;
  pthread_attr_setstacksize(&attributes, STACK_BYTES);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  /* Signals are for Node's threads; those that the C library keeps for itself stay open. */
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  error = pthread_create(&thread, &attributes, run, data);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  return error;
}
