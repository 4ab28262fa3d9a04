/*
 * Loaded into QEMU (LD_PRELOAD): makes any block device look like a SCSI disk to scsi-block, as far as it looks when the device is
 * made. Of what a guest sends only what is answered here works; reservations do not come by here, QEMU gives them to its helper.
 */
#include <dlfcn.h>
#include <scsi/sg.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

enum { VERSION = 30536, TEST_UNIT_READY = 0x00, INQUIRY = 0x12, READ_CAPACITY_10 = 0x25, BLOCK_BYTES = 512, BLOCKS = 2048 };

static void fill(sg_io_hdr_t *io, const uint8_t *data, unsigned int length) {
  if (length > io->dxfer_len) length = io->dxfer_len;
  memset(io->dxferp, 0, io->dxfer_len);
  memcpy(io->dxferp, data, length);
  io->resid = (int)(io->dxfer_len - length);
}

static void refuse(sg_io_hdr_t *io) {
  const uint8_t sense[18] = {0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0};
  io->status = 2;
  io->sb_len_wr = io->mx_sb_len < sizeof sense ? io->mx_sb_len : (unsigned char)sizeof sense;
  memcpy(io->sbp, sense, io->sb_len_wr);
  io->driver_status = 8;
}

static int answer(sg_io_hdr_t *io) {
  io->status = io->host_status = io->driver_status = 0;
  io->sb_len_wr = 0;
  io->resid = 0;
  io->info = 0;
  const uint8_t *cdb = io->cmdp;
  if (cdb[0] == INQUIRY && (cdb[1] & 1) == 0) {
    uint8_t data[36] = {0, 0, 5, 2, 31};
    memcpy(data + 8, "PASSEL  test disk       0001", 28);
    fill(io, data, sizeof data);
  } else if (cdb[0] == INQUIRY && cdb[2] == 0) {
    const uint8_t pages[6] = {0, 0, 0, 2, 0x00, 0x83};
    fill(io, pages, sizeof pages);
  } else if (cdb[0] == INQUIRY && cdb[2] == 0x83) {
    const uint8_t page[4] = {0, 0x83, 0, 0};
    fill(io, page, sizeof page);
  } else if (cdb[0] == READ_CAPACITY_10) {
    const uint8_t data[8] = {0, 0, (BLOCKS - 1) >> 8, (BLOCKS - 1) & 0xff, 0, 0, BLOCK_BYTES >> 8, 0};
    fill(io, data, sizeof data);
  } else if (cdb[0] != TEST_UNIT_READY) {
    refuse(io);
  }
  return 0;
}

int ioctl(int fd, unsigned long request, ...) {
  va_list arguments;
  va_start(arguments, request);
  void *argument = va_arg(arguments, void *);
  va_end(arguments);
  if (request == SG_GET_VERSION_NUM) {
    *(int *)argument = VERSION;
    return 0;
  }
  if (request == SG_IO) return answer(argument);
  int (*next)(int, unsigned long, ...) = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
  return next(fd, request, argument);
}
