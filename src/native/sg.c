/*
 * SCSI commands on a descriptor of somebody else's: the SG_IO request of ioctl(2), linux/scsi/sg.h.
 *
 * SG_IO waits for the device, and no request of the kernel's makes it return early. So each command runs on a thread of its own, with
 * copies of all that it needs: a device that does not answer holds one thread and nothing else. libuv's pool would not do: it
 * has four threads for the whole process. Threads are started as they are needed, up to a bound, and stay; commands beyond it
 * wait in order. A pool lives until the environment and all of its threads have let go of it, since a thread cannot be ended while
 * the kernel has it.
 */
#include <pthread.h>
#include <scsi/sg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "native.h"
#include "sg.h"

enum {
  CDB_BYTES_MAX = 32,
  DATA_BYTES_MAX = 65536,
  THREADS_MAX = 4096,
  /* What take() tells about a command, in this order. */
  RESULT_FIELDS = 8,
};

struct command {
  struct command *next;
  uint32_t token;
  int fd;
  int direction;
  uint32_t timeout_ms;
  uint32_t cdb_length;
  uint32_t data_length;
  struct sg_outcome outcome;
  uint8_t cdb[CDB_BYTES_MAX];
  uint8_t sense[SG_SENSE_BYTES];
  uint8_t data[];
};

struct list {
  struct command *first;
  struct command *last;
};

struct sg_pool {
  pthread_mutex_t lock;
  pthread_cond_t work;
  struct list waiting;
  struct list done;
  uint32_t threads;
  uint32_t threads_max;
  uint32_t idle;
  /* The environment and every thread. */
  uint32_t holders;
  bool ending;
  int event_fd;
};

static void append(struct list *list, struct command *command) {
  command->next = NULL;
  if (list->last == NULL) {
    list->first = command;
  } else {
    list->last->next = command;
  }
  list->last = command;
}

static struct command *take_first(struct list *list) {
  struct command *command = list->first;
  if (command == NULL) return NULL;
  list->first = command->next;
  if (list->first == NULL) list->last = NULL;
  return command;
}

static void free_all(struct list *list) {
  for (struct command *command = take_first(list); command != NULL; command = take_first(list)) free(command);
}

/* With the lock held, which it gives up. */
static void release_pool(struct sg_pool *pool) {
  bool last = --pool->holders == 0;
  pthread_mutex_unlock(&pool->lock);
  if (!last) return;
  free_all(&pool->waiting);
  free_all(&pool->done);
  close(pool->event_fd);
  pthread_cond_destroy(&pool->work);
  pthread_mutex_destroy(&pool->lock);
  free(pool);
}

static void run_command(struct command *command) {
  const struct sg_request request = {
      .fd = command->fd,
      .direction = command->direction,
      .cdb = command->cdb,
      .cdb_length = (uint8_t)command->cdb_length,
      .data = command->data,
      .data_length = command->data_length,
      .sense = command->sense,
      .timeout_ms = command->timeout_ms,
  };
  run_sg_request(&request, &command->outcome);
}

static void *run_thread(void *data) {
  struct sg_pool *pool = data;
  pthread_mutex_lock(&pool->lock);
  for (;;) {
    struct command *command = pool->ending ? NULL : take_first(&pool->waiting);
    if (command != NULL) {
      pthread_mutex_unlock(&pool->lock);
      run_command(command);
      pthread_mutex_lock(&pool->lock);
      /* Whoever finds the list empty has cleared the event, so the first one on it tells of all. Not with the lock held: the
       * environment's thread would wake up only to wait for it. */
      bool first = pool->done.first == NULL;
      append(&pool->done, command);
      if (first) {
        pthread_mutex_unlock(&pool->lock);
        const uint64_t one = 1;
        RETRY(write(pool->event_fd, &one, sizeof one));
        pthread_mutex_lock(&pool->lock);
      }
    } else if (pool->ending) {
      pool->threads--;
      release_pool(pool);
      return NULL;
    } else {
      pool->idle++;
      pthread_cond_wait(&pool->work, &pool->lock);
      pool->idle--;
    }
  }
}

/* With the lock held. 0 or an error number. */
static int start_thread(struct sg_pool *pool) {
  int error = start_waiting_thread(run_thread, pool);
  if (error != 0) return error;
  pool->threads++;
  pool->holders++;
  return 0;
}

static void end_pool(void *data) {
  struct sg_pool *pool = data;
  pthread_mutex_lock(&pool->lock);
  pool->ending = true;
  pthread_cond_broadcast(&pool->work);
  release_pool(pool);
}

static void on_collected(napi_env env, void *data, void *hint) {
  (void)env;
  (void)hint;
  end_pool(data);
}

/* sgCreate(threads): a pool of at most so many threads, or -errno */
static napi_value native_sg_create(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  uint32_t threads = next_uint(&call);
  if (threads == 0 || threads > THREADS_MAX) fail_call(&call, EINVAL);
  if (call.error != 0) return reply_refusal(&call);
  struct sg_pool *pool = calloc(1, sizeof *pool);
  if (pool == NULL) return reply(&call, -ENOMEM);
  pool->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (pool->event_fd < 0) {
    int error = errno;
    free(pool);
    return reply(&call, -error);
  }
  pthread_mutex_init(&pool->lock, NULL);
  pthread_cond_init(&pool->work, NULL);
  pool->threads_max = threads;
  pool->holders = 1;
  napi_value external = NULL;
  if (napi_create_external(env, pool, on_collected, NULL, &external) != napi_ok) {
    end_pool(pool);
    return reply(&call, -ENOMEM);
  }
  return external;
}

static struct sg_pool *next_pool(struct call *call) {
  void *data = NULL;
  napi_value value = next_value(call);
  napi_valuetype type = napi_undefined;
  napi_typeof(call->env, value, &type);
  if (type != napi_external || napi_get_value_external(call->env, value, &data) != napi_ok) fail_call(call, EINVAL);
  return data;
}

/* sgEventFd(pool): an eventfd, the pool's, that is readable when commands are done */
static napi_value native_sg_event_fd(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct sg_pool *pool = next_pool(&call);
  if (call.error != 0) return reply_refusal(&call);
  return reply(&call, pool->event_fd);
}

/*
 * sgSubmit(pool, token, fd, bytes, cdbLength, transferLength, direction, timeoutMs): `bytes` hold the CDB and, behind it, data that go
 * to the device. All is copied. `fd` must stay open until the command is taken. 0 or -errno.
 */
static napi_value native_sg_submit(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct sg_pool *pool = next_pool(&call);
  uint32_t token = next_uint(&call);
  int32_t fd = next_int(&call);
  uint32_t available = 0;
  const uint8_t *bytes = next_bytes(&call, &available);
  uint32_t cdb_length = next_uint(&call);
  uint32_t data_length = next_uint(&call);
  int32_t direction = next_int(&call);
  uint32_t timeout_ms = next_uint(&call);
  if (cdb_length == 0 || cdb_length > CDB_BYTES_MAX || data_length > DATA_BYTES_MAX) fail_call(&call, EINVAL);
  if (direction != SG_DXFER_NONE && direction != SG_DXFER_TO_DEV && direction != SG_DXFER_FROM_DEV) {
    fail_call(&call, EINVAL);
  }
  uint32_t given = direction == SG_DXFER_TO_DEV ? data_length : 0;
  if (call.error == 0 && (uint64_t)cdb_length + given > available) fail_call(&call, EFAULT);
  if (call.error != 0) return reply_refusal(&call);
  struct command *command = calloc(1, sizeof *command + data_length);
  if (command == NULL) return reply(&call, -ENOMEM);
  command->token = token;
  command->fd = fd;
  command->direction = direction;
  command->timeout_ms = timeout_ms;
  command->cdb_length = cdb_length;
  command->data_length = data_length;
  memcpy(command->cdb, bytes, cdb_length);
  memcpy(command->data, bytes + cdb_length, given);
  pthread_mutex_lock(&pool->lock);
  int error = 0;
  if (pool->idle == 0 && pool->threads < pool->threads_max) {
    error = start_thread(pool);
    /* One that waits its turn is better than none. */
    if (pool->threads > 0) error = 0;
  }
  if (error == 0) {
    append(&pool->waiting, command);
  }
  pthread_mutex_unlock(&pool->lock);
  /* Its thread needs the lock at once. */
  if (error == 0) pthread_cond_signal(&pool->work);
  else free(command);
  return reply(&call, -error);
}

/*
 * sgTake(pool, result, bytes, senseOffset, dataOffset): one command that is done. result: token, errno of the ioctl, status,
 * host_status, driver_status, bytes of sense that were written, bytes of data transferred, microseconds. 96 bytes go to
 * senseOffset, of a command that reads the data to dataOffset. 1, 0 when there is none, or -errno.
 */
static napi_value native_sg_take(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct sg_pool *pool = next_pool(&call);
  int32_t *result = next_int_array(&call, RESULT_FIELDS);
  uint32_t available = 0;
  uint8_t *bytes = next_bytes(&call, &available);
  uint32_t sense_offset = next_uint(&call);
  uint32_t data_offset = next_uint(&call);
  if (call.error == 0 && (uint64_t)sense_offset + SG_SENSE_BYTES > available) fail_call(&call, EFAULT);
  if (call.error != 0) return reply_refusal(&call);
  pthread_mutex_lock(&pool->lock);
  struct command *command = pool->done.first;
  if (command == NULL) {
    uint64_t count;
    RETRY(read(pool->event_fd, &count, sizeof count));
    pthread_mutex_unlock(&pool->lock);
    return reply(&call, 0);
  }
  const struct sg_outcome *outcome = &command->outcome;
  uint32_t back = command->direction == SG_DXFER_FROM_DEV ? outcome->transferred : 0;
  if ((uint64_t)data_offset + back > available) {
    pthread_mutex_unlock(&pool->lock);
    return reply(&call, -EFAULT);
  }
  take_first(&pool->done);
  pthread_mutex_unlock(&pool->lock);
  result[0] = (int32_t)command->token;
  result[1] = outcome->error;
  result[2] = outcome->status;
  result[3] = outcome->host_status;
  result[4] = outcome->driver_status;
  result[5] = outcome->sense_written;
  result[6] = (int32_t)outcome->transferred;
  result[7] = (int32_t)outcome->duration_us;
  memcpy(bytes + sense_offset, command->sense, SG_SENSE_BYTES);
  memcpy(bytes + data_offset, command->data, back);
  free(command);
  return reply(&call, 1);
}

/* describeFile(fd, out): type bits of st_mode, major and minor of st_rdev, O_ACCMODE and O_PATH bits of the open file */
static napi_value native_describe_file(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  int32_t *out = next_int_array(&call, 4);
  if (call.error != 0) return reply_refusal(&call);
  struct file_facts facts;
  int error = read_file_facts(fd, &facts);
  if (error != 0) return reply(&call, -error);
  out[0] = (int32_t)facts.type;
  out[1] = (int32_t)facts.major;
  out[2] = (int32_t)facts.minor;
  out[3] = (int32_t)facts.flags;
  return reply(&call, 0);
}

const struct export_row SG_EXPORTS[] = {
    {"sgCreate", native_sg_create},
    {"sgEventFd", native_sg_event_fd},
    {"sgSubmit", native_sg_submit},
    {"sgTake", native_sg_take},
    {"describeFile", native_describe_file},
    {NULL, NULL},
};
