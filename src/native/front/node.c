#include "node.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int find_own_path(const char *typed, char path[OWN_PATH_BYTES]) {
  ssize_t length = readlink("/proc/self/exe", path, OWN_PATH_BYTES - 1);
  if (length < 0) {
    fprintf(stderr, "%s: cannot find its own folder: /proc/self/exe: %s\n", typed, strerror(errno));
    return 1;
  }
  path[length] = '\0';
  return 0;
}

int become_node(const char *own, int argc, char **argv) {
  static char script[OWN_PATH_BYTES + 8];
  snprintf(script, sizeof script, "%s.cjs", own);
  char **words = calloc((size_t)argc + 2, sizeof *words);
  if (words == NULL) return 1;
  words[0] = "node";
  words[1] = script;
  for (int i = 1; i < argc; i++) words[i + 1] = argv[i];
  /* The Node that the package was built with; it may have been replaced since, and callers may have a PATH without it. */
  execv(NODE_EXECUTABLE, words);
  execvp("node", words);
  fprintf(stderr, "%s: cannot start Node ('%s', or 'node' in PATH): %s\n", argv[0], NODE_EXECUTABLE, strerror(errno));
  free(words);
  return 1;
}
