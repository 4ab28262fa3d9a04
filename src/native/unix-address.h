#ifndef PASSEL_UNIX_ADDRESS_H
#define PASSEL_UNIX_ADDRESS_H

#include <sys/socket.h>
#include <sys/un.h>

#include "native.h"

/* The next argument, a path or a name that starts with NUL, as an address; its length. */
socklen_t next_unix_address(struct call *call, struct sockaddr_un *address);

#endif
