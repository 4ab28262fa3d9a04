#ifndef PASSEL_FRONT_DETACH_H
#define PASSEL_FRONT_DETACH_H

#include <stdbool.h>

/*
 * Takes this process out of the namespaces of its caller, as far as the kernel allows: into mount, IPC and UTS namespaces of its own,
 * and for an ordinary user a user namespace that makes that possible, in which it stays who it is. With `with_pid`, the next child is the first
 * process of a PID namespace; this process stays, since the pid that its caller knows must remain the one that serves.
 *
 * Whoever holds capabilities, but not the one that it takes (CAP_SYS_ADMIN), was given them for a purpose, such as binding low ports:
 * in a user namespace they would count for nothing, so then nothing is done. Where it is refused nothing has changed.
 *
 * Node cannot do this: it has threads from the start.
 */
void detach(bool with_pid);

#endif
