/* What an open file is, whether two descriptors are of the same one, and closing one that may take long. */
#include <fcntl.h>
#include <linux/kcmp.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "native.h"

/*
 * fileFacts(fd, out): st_mode, major and minor of st_dev, inode (low and high half). What the kernel knows already, without asking a server
 * behind a network or FUSE file system, which might never answer.
 */
static napi_value native_file_facts(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  int32_t *out = next_int_array(&call, 5);
  if (call.error != 0) return reply_refusal(&call);
  struct statx facts;
  memset(&facts, 0, sizeof facts);
  if (RETRY(statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE | STATX_MODE | STATX_INO, &facts)) < 0) {
    return reply(&call, -errno);
  }
  out[0] = facts.stx_mode;
  out[1] = (int32_t)facts.stx_dev_major;
  out[2] = (int32_t)facts.stx_dev_minor;
  out[3] = (int32_t)(uint32_t)facts.stx_ino;
  out[4] = (int32_t)(uint32_t)(facts.stx_ino >> 32);
  return reply(&call, 0);
}

/* compareFiles(a, b): kcmp(2) of two descriptors of this process; 0: the same open file, 1 to 3: not, or -errno */
static napi_value native_compare_files(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t a = next_int(&call);
  int32_t b = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  pid_t self = getpid();
  return reply_result(&call, syscall(SYS_kcmp, self, self, KCMP_FILE, (unsigned long)a, (unsigned long)b));
}

struct closing {
  int fd;
  int done;
  int32_t token;
};

static void *close_one(void *argument) {
  struct closing *closing = argument;
  close(closing->fd);
  /* Four bytes into a pipe arrive whole. Nobody reads any more at the end of the process, and nobody needs to. */
  while (write(closing->done, &closing->token, sizeof closing->token) < 0 && errno == EINTR) {
  }
  free(closing);
  return NULL;
}

/*
 * closeAside(fd, done, token): close(2) on a thread of its own, which then writes the token, four bytes, to the pipe `done`. The descriptor is
 * given away when the answer is 0.
 */
static napi_value native_close_aside(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  int32_t done = next_int(&call);
  int32_t token = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  struct closing *closing = malloc(sizeof *closing);
  if (closing == NULL) return reply(&call, -ENOMEM);
  *closing = (struct closing){.fd = fd, .done = done, .token = token};
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, 65536);
  /* Signals are Node's, on its own threads. */
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  int error = pthread_create(&thread, &attributes, close_one, closing);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  if (error != 0) free(closing);
  return reply(&call, -error);
}

const struct export_row OPEN_FILE_EXPORTS[] = {
    {"fileFacts", native_file_facts},
    {"compareFiles", native_compare_files},
    {"closeAside", native_close_aside},
    {NULL, NULL},
};
