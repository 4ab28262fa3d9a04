/* Events of an epoll set as JavaScript reads them. */
#ifndef PASSEL_EPOLL_H
#define PASSEL_EPOLL_H

#include <stdint.h>

/* What one event is: u32 LE events, kind, index. */
enum { EVENT_BYTES = 12 };

/* The kind of the event that says that libuv's own set, a member of this one, is ready: see event-loop.c. */
enum { UV_KIND = 0 };

/* Waits, and writes at most `max` events to `out`. Their number, or -errno; a signal ends a wait early, with no events. */
int take_events(int set, uint8_t *out, uint32_t max, int timeout_ms);

#endif
