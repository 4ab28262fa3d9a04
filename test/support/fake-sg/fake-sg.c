/*
 * SCSI devices that do what a test says: a library to be loaded before the C library (LD_PRELOAD), which answers SG_IO in the kernel's place.
 *
 * What a command's device does stands in the bytes of its CDB that nobody else looks at:
 *
 *   15      0: none of this, the kernel is asked; otherwise 1, and 2 to wait until FAKE_SG_RELEASE has a byte for it, a FIFO, after
 *           having written one to FAKE_SG_ENTERED, another one
 *   10      errno of the ioctl
 *   11      SCSI status
 *   6, 12   host status
 *   13      driver status
 *   3, 4    bytes of data that it transfers, of value 14; 65535: it says that more are left than were asked for
 *   2       bytes that it says it transfers, and does not write
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <scsi/sg.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int (*next_ioctl)(int, unsigned long, void *);
static int release_fd = -1;
static int entered_fd = -1;

static int open_fifo(const char *variable) {
  const char *path = getenv(variable);
  /* For both directions: opening does not wait then, and neither end is ever missing. */
  return path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
}

__attribute__((constructor)) static void prepare(void) {
  void *symbol = dlsym(RTLD_NEXT, "ioctl");
  memcpy(&next_ioctl, &symbol, sizeof symbol);
  release_fd = open_fifo("FAKE_SG_RELEASE");
  entered_fd = open_fifo("FAKE_SG_ENTERED");
}

static void wait_for_release(void) {
  char byte = 1;
  if (write(entered_fd, &byte, 1) != 1) abort();
  while (read(release_fd, &byte, 1) != 1) {
    if (errno != EINTR) abort();
  }
}

static int act(struct sg_io_hdr *header) {
  const uint8_t *cdb = header->cmdp;
  if ((cdb[15] & 2) != 0) wait_for_release();
  if (cdb[10] != 0) {
    errno = cdb[10];
    return -1;
  }
  unsigned written = (unsigned)cdb[3] << 8 | cdb[4];
  header->status = cdb[11];
  header->host_status = (unsigned short)(cdb[6] << 8 | cdb[12]);
  header->driver_status = cdb[13];
  header->resid = 0;
  if (written == 0xffff) {
    header->resid = (int)header->dxfer_len + 1;
  } else if (header->dxfer_direction == SG_DXFER_FROM_DEV) {
    unsigned transferred = written + cdb[2];
    if (transferred > header->dxfer_len) abort();
    memset(header->dxferp, cdb[14], written);
    header->resid = (int)(header->dxfer_len - transferred);
  }
  if (cdb[11] == 2) {
    static const uint8_t sense[] = {0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x2a, 3, 0, 0, 0, 0};
    memcpy(header->sbp, sense, sizeof sense);
    header->sb_len_wr = sizeof sense;
  }
  return 0;
}

int ioctl(int fd, unsigned long request, ...) {
  va_list arguments;
  va_start(arguments, request);
  void *argument = va_arg(arguments, void *);
  va_end(arguments);
  struct sg_io_hdr *header = argument;
  if (request == SG_IO && header->cmd_len == 16 && header->cmdp[15] != 0) return act(header);
  return next_ioctl(fd, request, argument);
}
