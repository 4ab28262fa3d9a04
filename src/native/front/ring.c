#include "ring.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#if defined(__x86_64__)
static const unsigned int OWN_ARCHITECTURE = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
static const unsigned int OWN_ARCHITECTURE = AUDIT_ARCH_AARCH64;
#else
/* None: the filter allows everything. */
static const unsigned int OWN_ARCHITECTURE = 0;
#endif

void refuse_ring(void) {
  /* no_new_privs, which a filter needs, takes such capabilities away. */
  if (getxattr(NODE_EXECUTABLE, "security.capability", NULL, 0) > 0) return;
  struct sock_filter instructions[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OWN_ARCHITECTURE, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {.len = sizeof instructions / sizeof *instructions, .filter = instructions};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1UL, 0UL, 0UL, 0UL) == 0) {
    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0UL, &program);
  }
}
