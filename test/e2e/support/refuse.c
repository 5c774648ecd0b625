/*
 * Runs a program under a kernel that refuses one thing, or does not come back from it, by a seccomp filter:
 *
 *   refuse ipv6 COMMAND...       socket(AF_INET6, ...) fails with EAFNOSUPPORT, as without IPv6
 *   refuse offload COMMAND...    setsockopt(SOL_UDP, UDP_GRO) fails with ENOPROTOOPT, as before Linux 5.0
 *   refuse steering COMMAND...   setsockopt(SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF) fails with EPERM
 *   refuse meminfo COMMAND...    getsockopt(SOL_SOCKET, SO_MEMINFO) fails with ENOPROTOOPT, as on gVisor and before Linux 4.12
 *   refuse rusage COMMAND...     getrusage(RUSAGE_SELF) fails with EPERM
 *   refuse disk COMMAND...       fsync hangs, as on a disk that went away
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ARGUMENT(i) (offsetof(struct seccomp_data, args) + 8 * (i))

/* Refuses one call whose arguments `first` and `second` have these values. */
static int refuse(unsigned call, int first, unsigned first_is, int second, unsigned second_is, unsigned error) {
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 5),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ARGUMENT(first)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, first_is, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ARGUMENT(second)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, second_is, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -1;
  return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* Has a call wait for a supervisor's verdict. The supervisor is whoever holds the descriptor, and nobody reads it. */
static int hang(unsigned call) {
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -1;
  int verdicts = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
  if (verdicts < 0) return -1;
  return fcntl(verdicts, F_SETFD, 0); /* it stays open in the program: without it the calls would fail */
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  int result = -1;
  if (strcmp(argv[1], "ipv6") == 0) {
    result = refuse(SYS_socket, 0, AF_INET6, 0, AF_INET6, EAFNOSUPPORT);
  } else if (strcmp(argv[1], "offload") == 0) {
    result = refuse(SYS_setsockopt, 1, 17 /* SOL_UDP */, 2, 104 /* UDP_GRO */, ENOPROTOOPT);
  } else if (strcmp(argv[1], "steering") == 0) {
    result = refuse(SYS_setsockopt, 1, SOL_SOCKET, 2, 51 /* SO_ATTACH_REUSEPORT_CBPF */, EPERM);
  } else if (strcmp(argv[1], "meminfo") == 0) {
    result = refuse(SYS_getsockopt, 1, SOL_SOCKET, 2, 55 /* SO_MEMINFO */, ENOPROTOOPT);
  } else if (strcmp(argv[1], "rusage") == 0) {
    result = refuse(SYS_getrusage, 0, 0 /* RUSAGE_SELF */, 0, 0, EPERM);
  } else if (strcmp(argv[1], "disk") == 0) {
    result = hang(SYS_fsync);
  }
  if (result != 0) {
    perror(argv[1]);
    return 1;
  }
  execvp(argv[2], argv + 2);
  perror(argv[2]);
  return 1;
}
