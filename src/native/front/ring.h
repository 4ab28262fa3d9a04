#ifndef PASSEL_FRONT_RING_H
#define PASSEL_FRONT_RING_H

/*
 * From now on this process and what it becomes can make no io_uring. From version 22 on Node's event loop has one from the start and
 * does without where it cannot be had; through a ring the kernel does what a filter of system calls refuses, so a process with one cannot be
 * confined. Where this fails, or would cost Node capabilities that its file has, the program sees to it (io-uring.ts).
 */
void refuse_ring(void);

#endif
