/* Becoming Node with the program that lies beside an executable: NAME.cjs beside NAME. */
#ifndef PASSEL_FRONT_NODE_H
#define PASSEL_FRONT_NODE_H

#include <limits.h>

enum { OWN_PATH_BYTES = PATH_MAX };

/* This executable's file, links resolved. 0, or 1 after a message. */
int find_own_path(const char *typed, char path[OWN_PATH_BYTES]);

/*
 * Executes Node with `own`.cjs and the arguments behind argv[0]. Comes back only if that fails, after a message, with an exit
 * status.
 */
int become_node(const char *own, int argc, char **argv);

#endif
