/* Reads a program to execute out of a JavaScript object, and the steps that fork and exec have in common. */
#include "exec-request.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static napi_value property_of(struct call *call, napi_value object, const char *name) {
  napi_value value = NULL;
  napi_valuetype type = napi_undefined;
  if (napi_get_named_property(call->env, object, name, &value) != napi_ok) {
    fail_call(call, EINVAL);
    return NULL;
  }
  napi_typeof(call->env, value, &type);
  return type == napi_undefined ? NULL : value;
}

/*
 * A malloc()ed copy of a string, as UTF-8 or, with `bytes`, a byte for each character. One that holds a NUL is refused, since what is
 * executed would not be what was meant.
 */
static char *copy_string(struct call *call, napi_value value, bool bytes) {
  size_t length = 0;
  napi_status (*get)(napi_env, napi_value, char *, size_t, size_t *) =
      bytes ? napi_get_value_string_latin1 : napi_get_value_string_utf8;
  if (get(call->env, value, NULL, 0, &length) != napi_ok) {
    fail_call(call, EINVAL);
    return NULL;
  }
  char *text = malloc(length + 1);
  if (text == NULL) {
    fail_call(call, ENOMEM);
    return NULL;
  }
  get(call->env, value, text, length + 1, &length);
  if (strlen(text) != length) fail_call(call, EINVAL);
  return text;
}

static char *string_property(struct call *call, napi_value object, const char *name, bool bytes) {
  napi_value value = property_of(call, object, name);
  return value == NULL ? NULL : copy_string(call, value, bytes);
}

/* An array of strings with NULL behind the last. */
static char **strings_property(struct call *call, napi_value object, const char *name, bool bytes) {
  napi_value array = property_of(call, object, name);
  uint32_t count = 0;
  if (array == NULL || napi_get_array_length(call->env, array, &count) != napi_ok) {
    fail_call(call, EINVAL);
    return NULL;
  }
  char **strings = calloc((size_t)count + 1, sizeof *strings);
  if (strings == NULL) {
    fail_call(call, ENOMEM);
    return NULL;
  }
  for (uint32_t i = 0; i < count; i++) {
    napi_value element = NULL;
    if (napi_get_element(call->env, array, i, &element) != napi_ok) fail_call(call, EINVAL);
    if (call->error == 0) strings[i] = copy_string(call, element, bytes);
    if (strings[i] == NULL) break;
  }
  return strings;
}

/* A copy of an Int32Array; none is the same as an empty one. */
static int32_t *ints_property(struct call *call, napi_value object, const char *name, size_t *count) {
  napi_value value = property_of(call, object, name);
  *count = 0;
  if (value == NULL) return NULL;
  napi_typedarray_type type;
  void *data = NULL;
  if (napi_get_typedarray_info(call->env, value, &type, count, &data, NULL, NULL) != napi_ok || type != napi_int32_array) {
    *count = 0;
    fail_call(call, EINVAL);
    return NULL;
  }
  int32_t *copy = malloc(*count * sizeof *copy + 1);
  if (copy == NULL) {
    *count = 0;
    fail_call(call, ENOMEM);
    return NULL;
  }
  if (*count > 0) memcpy(copy, data, *count * sizeof *copy);
  return copy;
}

static uint32_t number_property(struct call *call, napi_value object, const char *name) {
  napi_value value = property_of(call, object, name);
  uint32_t number = 0;
  if (value != NULL && napi_get_value_uint32(call->env, value, &number) != napi_ok) fail_call(call, EINVAL);
  return number;
}

static bool flag_property(struct call *call, napi_value object, const char *name) {
  napi_value value = property_of(call, object, name);
  bool flag = false;
  if (value != NULL && napi_get_value_bool(call->env, value, &flag) != napi_ok) fail_call(call, EINVAL);
  return flag;
}

bool read_exec_request(struct call *call, napi_value object, struct exec_request *request) {
  memset(request, 0, sizeof *request);
  napi_valuetype type = napi_undefined;
  napi_typeof(call->env, object, &type);
  if (type != napi_object) {
    fail_call(call, EINVAL);
    return false;
  }
  size_t fd_numbers = 0;
  bool bytes = flag_property(call, object, "bytes");
  request->file = string_property(call, object, "file", bytes);
  request->arguments = strings_property(call, object, "args", bytes);
  request->environment = strings_property(call, object, "env", bytes);
  request->directory = string_property(call, object, "cwd", bytes);
  request->file_limit = number_property(call, object, "fileLimit");
  request->fds = ints_property(call, object, "fds", &fd_numbers);
  request->joins = ints_property(call, object, "joins", &request->join_count);
  request->ignored_signals = ints_property(call, object, "ignoredSignals", &request->ignored_count);
  request->blocked_signals = ints_property(call, object, "blockedSignals", &request->blocked_count);
  request->namespaces = number_property(call, object, "namespaces");
  request->uid_map = string_property(call, object, "uidMap", false);
  request->gid_map = string_property(call, object, "gidMap", false);
  request->death_signal = (int32_t)number_property(call, object, "deathSignal");
  request->new_session = flag_property(call, object, "newSession");
  request->keep_inherited = flag_property(call, object, "keepInherited");
  request->fd_pairs = fd_numbers / 2;
  request->staged = calloc(request->fd_pairs + 1, sizeof *request->staged);
  request->saved = calloc(request->fd_pairs + 1, sizeof *request->saved);
  if (request->staged == NULL || request->saved == NULL) fail_call(call, ENOMEM);
  if (request->file == NULL || fd_numbers % 2 != 0) fail_call(call, EINVAL);
  for (size_t i = 0; i < fd_numbers; i++) {
    if (request->fds[i] < 0) fail_call(call, EBADF);
  }
  return call->error == 0;
}

static void free_strings(char **strings) {
  if (strings == NULL) return;
  for (char **string = strings; *string != NULL; string++) free(*string);
  free(strings);
}

void free_exec_request(struct exec_request *request) {
  free(request->file);
  free_strings(request->arguments);
  free_strings(request->environment);
  free(request->directory);
  free(request->fds);
  free(request->staged);
  free(request->saved);
  free(request->joins);
  free(request->uid_map);
  free(request->gid_map);
  free(request->ignored_signals);
  free(request->blocked_signals);
}

int32_t first_free_above(const struct exec_request *request) {
  int32_t highest = STDERR_FILENO;
  for (size_t i = 0; i < request->fd_pairs; i++) {
    if (request->fds[2 * i] > highest) highest = request->fds[2 * i];
  }
  return highest + 1;
}

static void close_copies(const struct exec_request *request) {
  for (size_t i = 0; i < request->fd_pairs; i++) {
    if (request->saved[i] >= 0) close(request->saved[i]);
    if (request->staged[i] >= 0) close(request->staged[i]);
  }
}

int place_descriptors(struct exec_request *request, int32_t base, bool save) {
  int error = 0;
  /* All sources are copied out of the way before the first target is written: (3, 4) and (4, 3) swap. */
  for (size_t i = 0; i < request->fd_pairs; i++) {
    request->staged[i] = fcntl(request->fds[2 * i + 1], F_DUPFD_CLOEXEC, base);
    if (request->staged[i] < 0) error = errno;
    request->saved[i] = -1;
    if (!save) continue;
    request->saved[i] = fcntl(request->fds[2 * i], F_DUPFD_CLOEXEC, base);
    /* A target that is not open holds nothing to save. */
    if (request->saved[i] < 0 && errno != EBADF) error = errno;
  }
  if (error != 0) {
    close_copies(request);
    errno = error;
    return -1;
  }
  for (size_t i = 0; i < request->fd_pairs; i++) {
    if (dup2(request->staged[i], request->fds[2 * i]) >= 0) continue;
    error = errno;
    if (save) restore_descriptors(request);
    errno = error;
    return -1;
  }
  return 0;
}

/*
 * Gives the targets back what they held. An event loop that watches one of them notices nothing: the set knows it by
 * number and open file, and the file has been open all the time.
 */
void restore_descriptors(struct exec_request *request) {
  for (size_t i = 0; i < request->fd_pairs; i++) {
    int32_t target = request->fds[2 * i];
    if (request->saved[i] >= 0) {
      dup3(request->saved[i], target, O_CLOEXEC);
    } else {
      close(target);
    }
  }
  close_copies(request);
}

void reset_signal_actions(const struct exec_request *request) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  /* Those that cannot be changed refuse, which is all right. */
  for (int number = 1; number <= SIGRTMAX; number++) {
    action.sa_handler = SIG_DFL;
    for (size_t i = 0; i < request->ignored_count; i++) {
      if (request->ignored_signals[i] == number) action.sa_handler = SIG_IGN;
    }
    sigaction(number, &action, NULL);
  }
}

void lower_file_limit(const struct exec_request *request) {
  struct rlimit limit;
  if (request->file_limit == 0 || getrlimit(RLIMIT_NOFILE, &limit) < 0) return;
  limit.rlim_cur = request->file_limit;
  /* Above the hard limit it fails, and the limit stays as it is. */
  setrlimit(RLIMIT_NOFILE, &limit);
}

void fill_blocked_set(const struct exec_request *request, sigset_t *set) {
  sigemptyset(set);
  for (size_t i = 0; i < request->blocked_count; i++) sigaddset(set, request->blocked_signals[i]);
}
