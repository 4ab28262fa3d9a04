/* Threads of the reservation helper, whose turn it is at a device, and what JavaScript is told: see pr-server.c. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "native.h"
#include "pr-server.h"

void pr_append(struct pr_list *list, struct pr_connection *connection) {
  connection->next = NULL;
  if (list->last == NULL) {
    list->first = connection;
  } else {
    list->last->next = connection;
  }
  list->last = connection;
}

struct pr_connection *pr_take_first(struct pr_list *list) {
  struct pr_connection *connection = list->first;
  if (connection == NULL) return NULL;
  list->first = connection->next;
  if (list->first == NULL) list->last = NULL;
  return connection;
}

void pr_close_locked(struct pr_server *server) {
  if (server->epoll_fd < 0) return;
  for (uint32_t slot = 0; slot < server->slots_length; slot++) {
    struct pr_connection *connection = server->slots[slot];
    if (connection == NULL) continue;
    if (connection->fd >= 0) close(connection->fd);
    if (connection->device_fd >= 0) close(connection->device_fd);
    free(connection->parameters);
    free(connection->unsent);
    free(connection);
  }
  free(server->slots);
  server->slots = NULL;
  server->slots_length = 0;
  server->questions = server->told = server->ended = (struct pr_list){NULL, NULL};
  close(server->epoll_fd);
  close(server->work_fd);
  close(server->event_fd);
  server->epoll_fd = server->work_fd = server->event_fd = -1;
}

void pr_end_locked(struct pr_server *server) {
  if (server->ending) return;
  server->ending = true;
  const uint64_t one = 1;
  RETRY(write(server->work_fd, &one, sizeof one));
  pthread_cond_broadcast(&server->room);
}

void pr_release_and_unlock(struct pr_server *server) {
  if (!server->released || server->threads > 0) {
    pthread_mutex_unlock(&server->lock);
    return;
  }
  pr_close_locked(server);
  pthread_mutex_unlock(&server->lock);
  for (size_t i = 0; i < PR_DEVICE_BUCKETS; i++) {
    while (server->devices[i] != NULL) {
      struct pr_device *device = server->devices[i];
      server->devices[i] = device->chain;
      free(device);
    }
  }
  pthread_cond_destroy(&server->room);
  pthread_mutex_destroy(&server->lock);
  free(server);
}

/* With the lock held, which it gives up. The server may be gone afterwards. */
static void leave(struct pr_server *server) {
  server->threads--;
  const uint64_t one = 1;
  /* JavaScript closes when the last one has left; where it has let go, nobody else does. */
  if (server->threads == 0 && !server->released) RETRY(write(server->event_fd, &one, sizeof one));
  pr_release_and_unlock(server);
}

static void *run_thread(void *data) {
  struct pr_server *server = data;
  uint8_t answer[PR_ANSWER_MAX];
  for (;;) {
    struct epoll_event event;
    if (epoll_wait(server->epoll_fd, &event, 1, -1) < 1) continue;
    if (event.data.ptr != NULL) {
      pr_serve(server, event.data.ptr, answer);
      continue;
    }
    pthread_mutex_lock(&server->lock);
    if (server->ending) {
      /* The event stays for the others. */
      leave(server);
      return NULL;
    }
    uint64_t count;
    RETRY(read(server->work_fd, &count, sizeof count));
    struct pr_connection *connection = pr_take_first(&server->told);
    pthread_mutex_unlock(&server->lock);
    if (connection != NULL) pr_carry_out(server, connection, answer);
  }
}

int pr_need_thread_locked(struct pr_server *server) {
  if (server->threads > server->executing || server->threads >= server->threads_max) return 0;
  int error = start_waiting_thread(run_thread, server);
  if (error == 0) server->threads++;
  /* One that comes back from its device is better than none. */
  return server->threads > 0 ? 0 : error;
}

/* ---------------------------------------------------------------------------------------------------------------- devices */

static struct pr_device **bucket_of(struct pr_server *server, const struct file_facts *file) {
  uint32_t hash = (file->major * 0x9e3779b1U) ^ (file->minor * 0x85ebca6bU) ^ file->type;
  return &server->devices[(hash ^ hash >> 16) % PR_DEVICE_BUCKETS];
}

static bool is_same(const struct file_facts *a, const struct file_facts *b) {
  return a->type == b->type && a->major == b->major && a->minor == b->minor;
}

struct pr_device *pr_find_device_locked(struct pr_server *server, const struct file_facts *file, bool make) {
  struct pr_device **bucket = bucket_of(server, file);
  for (struct pr_device *device = *bucket; device != NULL; device = device->chain) {
    if (is_same(&device->file, file)) return device;
  }
  struct pr_device *device = make ? calloc(1, sizeof *device) : NULL;
  if (device == NULL) return NULL;
  device->file = *file;
  device->chain = *bucket;
  *bucket = device;
  return device;
}

static void drop_device_locked(struct pr_server *server, struct pr_device *device) {
  struct pr_device **at = bucket_of(server, &device->file);
  while (*at != device) at = &(*at)->chain;
  *at = device->chain;
  free(device);
}

/* A record to be filled in, or NULL when there is no room. */
static struct pr_record *next_record_locked(struct pr_server *server) {
  if (server->records_count == PR_RECORDS) return NULL;
  return &server->records[(server->records_at + server->records_count++) % PR_RECORDS];
}

bool pr_take_turn_locked(struct pr_server *server, struct pr_device *device, struct pr_connection *connection) {
  if (device->running < server->per_device) {
    device->running++;
    server->executing++;
    pr_need_thread_locked(server);
    return true;
  }
  pr_append(&device->queue, connection);
  if (!device->told) {
    struct pr_record *record = next_record_locked(server);
    if (record != NULL) {
      device->told = true;
      memset(record, 0, sizeof *record);
      record->kind = PR_RECORD_CROWDED;
      record->slot = connection->slot;
      record->file = connection->file;
    }
  }
  return false;
}

struct pr_connection *pr_end_turn(struct pr_server *server, struct pr_connection *connection, const struct pr_record *record) {
  pthread_mutex_lock(&server->lock);
  if (record != NULL) {
    /* Nothing is answered that is not told. */
    while (server->records_count == PR_RECORDS && !server->ending) pthread_cond_wait(&server->room, &server->lock);
    struct pr_record *place = next_record_locked(server);
    if (place != NULL) *place = *record;
  }
  struct pr_device *device = pr_find_device_locked(server, &connection->file, false);
  server->in_flight--;
  connection->state = PR_ANSWERING;
  struct pr_connection *next = NULL;
  if (device != NULL) {
    next = server->ending ? NULL : pr_take_first(&device->queue);
    /* Whoever is next has the turn, and the thread. */
    if (next == NULL) {
      device->running--;
      server->executing--;
      device->told = device->told && device->queue.first != NULL;
      if (device->running == 0 && !device->granted) drop_device_locked(server, device);
    }
  }
  pr_tell_and_unlock(server, server->records_count == PR_RECORDS / 2);
  return next;
}

void pr_tell_and_unlock(struct pr_server *server, bool now) {
  bool tell = server->armed || now;
  server->armed = false;
  pthread_mutex_unlock(&server->lock);
  /* It stays open as long as there are threads, and JavaScript's calls. */
  const uint64_t one = 1;
  if (tell) RETRY(write(server->event_fd, &one, sizeof one));
}
