/*
 * What a command line asks of the launcher. The options are read as getopt_long(3) has them, from a table that the bundler writes beside
 * the executable (NAME.options, see front-table.ts), so that no option is defined twice. Whatever is wrong with a command line is for the program
 * to say.
 */
#ifndef PASSEL_FRONT_PLAN_H
#define PASSEL_FRONT_PLAN_H

#include <stdbool.h>

struct plan {
  /* Go to the background. Without a table it is not known, and the program sees to it itself. */
  bool background;
  /* The program will enter a sandbox that is meant to be tight from the start. */
  bool confined;
  /* A program for a virtual machine, which needs nothing of its caller's namespaces but the network. */
  bool of_guest;
  /* A descriptor that the program was given by number; -1: none. */
  int keep_fd;
};

struct plan read_plan(const char *own, int argc, char **argv);

#endif
