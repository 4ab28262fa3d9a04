#ifndef PASSEL_BROADCAST_H
#define PASSEL_BROADCAST_H

/* Async-signal-safe; 0 or an error number. */
typedef int thread_work(const void *data);

/*
 * Runs `work` in every thread of the process, the calling one last; `list` is a descriptor of /proc/self/task. The number of threads, or
 * -errno: -ETIMEDOUT when one did not answer, -EBUSY while another broadcast runs.
 */
int run_in_all_threads(int list, thread_work *work, const void *data);

#endif
