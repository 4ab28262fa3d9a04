/*
 * The system calls that the agent makes once all is set up, and no others: seccomp(2). It opens no file, starts nothing, and signals
 * nobody but the command's namespace. The one ioctl gives a terminal back.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent.h"

#if defined(__x86_64__)
#define OWN_ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OWN_ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

#ifdef OWN_ARCHITECTURE

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, field))
#define GIVE(result) BPF_STMT(BPF_RET | BPF_K, (result))
#define REFUSED (SECCOMP_RET_ERRNO | EPERM)
/* Skips so many instructions unless the accumulator is the value. */
#define UNLESS(value, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(value), 0, (skip))
#define ALLOW(number) UNLESS(number, 1), GIVE(SECCOMP_RET_ALLOW)

int load_filter(pid_t init) {
  const struct sock_filter instructions[] = {
      LOAD(arch),
      UNLESS(OWN_ARCHITECTURE, 1),
      BPF_JUMP(BPF_JMP | BPF_JA, 1, 0, 0),
      GIVE(SECCOMP_RET_KILL_PROCESS),
      LOAD(nr),
#ifdef SYS_poll
      ALLOW(SYS_poll),
#endif
      ALLOW(SYS_ppoll),
      ALLOW(SYS_recvmsg),
      ALLOW(SYS_sendmsg),
      ALLOW(SYS_bind),
      ALLOW(SYS_read),
      ALLOW(SYS_write),
      ALLOW(SYS_close),
      ALLOW(SYS_wait4),
      ALLOW(SYS_newfstatat),
      ALLOW(SYS_restart_syscall),
      ALLOW(SYS_rt_sigreturn),
      ALLOW(SYS_exit),
      ALLOW(SYS_exit_group),
      /* The first process of the new namespaces, if there are any. */
      UNLESS(SYS_kill, 4),
      LOAD(args[0]),
      UNLESS(init, 1),
      GIVE(init > 0 ? SECCOMP_RET_ALLOW : REFUSED),
      GIVE(REFUSED),
      UNLESS(SYS_ioctl, 4),
      LOAD(args[1]),
      UNLESS(TIOCSPGRP, 1),
      GIVE(SECCOMP_RET_ALLOW),
      GIVE(REFUSED),
      UNLESS(SYS_socket, 5),
      LOAD(args[0]),
      UNLESS(AF_INET, 1),
      GIVE(SECCOMP_RET_ALLOW),
      UNLESS(AF_INET6, 1),
      GIVE(SECCOMP_RET_ALLOW),
      GIVE(REFUSED),
  };
  struct sock_fprog program = {.len = sizeof instructions / sizeof instructions[0],
                               .filter = (struct sock_filter *)(uintptr_t)instructions};
  if (prctl(PR_SET_SECCOMP, (unsigned long)SECCOMP_MODE_FILTER, &program, 0UL, 0UL) == 0) return 0;
  /* A kernel without filters. */
  return errno == EINVAL ? 0 : -1;
}

#else

int load_filter(pid_t init) {
  (void)init;
  return 0;
}

#endif
