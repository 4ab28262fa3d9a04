/* The parts of the namespace agent; agent.c says what it is. Every function that cannot do its work reports the step and ends the process. */
#ifndef PASSEL_AGENT_H
#define PASSEL_AGENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "protocol.h"

enum { ITEMS_MAX = 512 };

/* The command line: words NAME=VALUE, and behind "--" a file to execute and its arguments, the zeroth included. */
struct settings {
  /* Whom to become; -1: stay. */
  int64_t uid;
  int64_t gid;
  /* To join: paths of namespaces, NULL: none. */
  const char *user_path;
  const char *net_path;
  /* Whose namespaces those are; 0: nobody's. */
  pid_t pid;
  /* Report when net_path or pid go away. */
  bool watch;
  /* Name of the tap; NULL: none is made. */
  const char *tap;
  bool vnet;
  const char *mac;
  int mtu;
  /* Addresses and routes as words; see netconf.c. */
  const char *items[ITEMS_MAX];
  size_t item_count;
  bool up;
  /* NULL: no command; existing namespaces are joined. */
  const char *file;
  char **arguments;
  /* The command is an interactive shell: see take_terminal() of command.c. */
  bool shell;
};

/* Sends a REPORT_FAILED with errno and ends the process. */
_Noreturn void fail_step(enum agent_step step, const char *subject);
_Noreturn void fail_step_with(enum agent_step step, int error, const char *subject);

/* namespaces.c */
struct guest {
  /* Descriptors of the namespaces to work in; -1: it is ours. */
  int user;
  int net;
  /* The first process of new namespaces, which waits for the go; 0: none. */
  pid_t init;
  /* Closed, it ends init; a byte lets the command start. */
  int go;
  /* The command's wait status comes from here. */
  int ended;
  /* The terminal that an interactive shell takes, and the group that had it; -1: none. */
  int terminal;
  pid_t terminal_group;
};
void open_namespaces(const struct settings *settings, struct guest *guest);
void make_namespaces(const struct settings *settings, struct guest *guest);
/* Gives up being root, but for capabilities, which confine() takes. */
void become_user(const struct settings *settings);
/* Enters the namespaces and opens /dev/net/tun there, if wanted. @returns the descriptor, -1: not wanted */
int enter_namespaces(const struct settings *settings, struct guest *guest);
/* No privileges but binding low ports. */
void confine(void);

/* filter.c: system calls of the service only; `init` may be ended. 0 or -1 */
int load_filter(pid_t init);

/* command.c: the first process of the new namespaces. */
_Noreturn void run_init(const struct settings *settings, int go, int ended);

/* netconf.c */
/* Makes the device of a tun descriptor. @returns READY_* flags */
int32_t make_tap(int tun, const struct settings *settings);
void configure_network(const struct settings *settings);

/* watch.c */
struct watch {
  /* A process descriptor or an inotify descriptor; -1: none. */
  int pidfd;
  int inotify;
  /* Looked at each second where there is no inotify; its directory and name. */
  int directory;
  char name[256];
  /* It was gone before it could be watched. */
  bool lost;
};
void start_watch(const struct settings *settings, struct watch *watch);
/* After poll(2). */
bool is_gone(const struct watch *watch);

#endif
