/* Makes the addon's instance and hangs every file's functions on the exports object. */
#include <stdlib.h>

#include "native.h"

static void destroy_addon(napi_env env, void *data, void *hint) {
  struct addon *addon = data;
  (void)hint;
  if (addon->arena_ref != NULL) napi_delete_reference(env, addon->arena_ref);
  free(addon->scratch);
  free(addon);
}

/* The addon travels with each function as its data: one call into Node gives arguments and instance. */
static bool add_exports(napi_env env, napi_value exports, struct addon *addon, const struct export_row *rows) {
  for (const struct export_row *row = rows; row->name != NULL; row++) {
    napi_value function = NULL;
    if (napi_create_function(env, row->name, NAPI_AUTO_LENGTH, row->function, addon, &function) != napi_ok ||
        napi_set_named_property(env, exports, row->name, function) != napi_ok) {
      return false;
    }
  }
  return true;
}

NAPI_MODULE_INIT() {
  const struct export_row *const tables[] = {
      ARENA_EXPORTS, SOCKET_EXPORTS,      STREAM_IO_EXPORTS, DATAGRAM_IO_EXPORTS, CHECKSUM_EXPORTS,
      EPOLL_EXPORTS, EVENT_LOOP_EXPORTS,  POLL_EXPORTS, UNIX_SOCKET_EXPORTS, SCM_EXPORTS,       DESCRIPTOR_EXPORTS, OPEN_EXPORTS,
      MEMORY_EXPORTS, TAP_EXPORTS,        NETIF_EXPORTS,     PROCESS_EXPORTS,     EXEC_EXPORTS,
      SANDBOX_EXPORTS, SPLICE_EXPORTS,    TAP_IO_EXPORTS,
      NAMESPACE_EXPORTS, SG_EXPORTS,      PRIVILEGES_EXPORTS,
      ROOT_EXPORTS, PR_SERVER_EXPORTS, OPEN_FILE_EXPORTS,
      FRAME_IO_EXPORTS, CONNECTOR_EXPORTS,
  };
  struct addon *addon = calloc(1, sizeof *addon);
  if (addon == NULL || napi_set_instance_data(env, addon, destroy_addon, NULL) != napi_ok) {
    free(addon);
    napi_throw_error(env, NULL, "the addon's instance cannot be made");
    return NULL;
  }
  for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
    if (!add_exports(env, exports, addon, tables[i])) {
      napi_throw_error(env, NULL, "the addon's functions cannot be exported");
      return NULL;
    }
  }
  return exports;
}
