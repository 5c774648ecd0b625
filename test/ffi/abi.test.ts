import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import * as abi from "../../ffi/abi.ts";
import { temporaryFolder } from "../support/folder.ts";

type Constant = keyof typeof abi;

const words = (expression: string): string => `(${expression}) / 4`;

/** What each constant of ffi/abi.ts is in C. */
const IN_C: Record<Constant, string> = {
  AF_UNIX: "AF_UNIX",
  SO_DOMAIN: "SO_DOMAIN",
  SCM_RIGHTS: "SCM_RIGHTS",
  SCM_CREDENTIALS: "SCM_CREDENTIALS",
  SO_PASSCRED: "SO_PASSCRED",
  PR_SET_CHILD_SUBREAPER: "PR_SET_CHILD_SUBREAPER",
  P_ALL: "P_ALL",
  P_PID: "P_PID",
  WNOHANG: "WNOHANG",
  WEXITED: "WEXITED",
  WNOWAIT: "WNOWAIT",
  CLD_EXITED: "CLD_EXITED",
  SIGINFO_BYTES: "sizeof(siginfo_t)",
  SIGINFO_CODE_WORD: words("offsetof(siginfo_t, si_code)"),
  SIGINFO_PID_WORD: words("offsetof(siginfo_t, si_pid)"),
  SIGINFO_STATUS_WORD: words("offsetof(siginfo_t, si_status)"),
  POLLOUT: "POLLOUT",
  AF_INET: "AF_INET",
  AF_INET6: "AF_INET6",
  SOCK_STREAM: "SOCK_STREAM",
  SOCK_DGRAM: "SOCK_DGRAM",
  SOCK_SEQPACKET: "SOCK_SEQPACKET",
  SOCK_NONBLOCK: "SOCK_NONBLOCK",
  SOCK_CLOEXEC: "SOCK_CLOEXEC",
  SHUT_RD: "SHUT_RD",
  SOL_SOCKET: "SOL_SOCKET",
  SO_REUSEADDR: "SO_REUSEADDR",
  SO_ACCEPTCONN: "SO_ACCEPTCONN",
  SO_SNDBUF: "SO_SNDBUF",
  SO_RCVBUF: "SO_RCVBUF",
  SO_REUSEPORT: "SO_REUSEPORT",
  SO_RCVTIMEO: "SO_RCVTIMEO",
  SO_SNDTIMEO: "SO_SNDTIMEO",
  SO_ATTACH_REUSEPORT_CBPF: "SO_ATTACH_REUSEPORT_CBPF",
  SO_MEMINFO: "SO_MEMINFO",
  SK_MEMINFO_DROPS: "SK_MEMINFO_DROPS",
  SK_MEMINFO_VARS: "SK_MEMINFO_VARS",
  IPPROTO_TCP: "IPPROTO_TCP",
  TCP_DEFER_ACCEPT: "TCP_DEFER_ACCEPT",
  F_DUPFD_CLOEXEC: "F_DUPFD_CLOEXEC",
  O_CLOEXEC: "O_CLOEXEC",
  EPOLL_CTL_ADD: "EPOLL_CTL_ADD",
  IPPROTO_IPV6: "IPPROTO_IPV6",
  IPV6_V6ONLY: "IPV6_V6ONLY",
  IPPROTO_IP: "IPPROTO_IP",
  IP_PKTINFO: "IP_PKTINFO",
  IPV6_RECVPKTINFO: "IPV6_RECVPKTINFO",
  IPV6_PKTINFO: "IPV6_PKTINFO",
  IN_PKTINFO_BYTES: "sizeof(struct in_pktinfo)",
  IN_PKTINFO_LOCAL_WORD: words("offsetof(struct in_pktinfo, ipi_spec_dst)"),
  IN6_PKTINFO_BYTES: "sizeof(struct in6_pktinfo)",
  IN6_PKTINFO_INTERFACE_WORD: words("offsetof(struct in6_pktinfo, ipi6_ifindex)"),
  SOL_UDP: "IPPROTO_UDP",
  UDP_SEGMENT: "UDP_SEGMENT",
  UDP_GRO: "UDP_GRO",
  MSG_CTRUNC: "MSG_CTRUNC",
  MSG_TRUNC: "MSG_TRUNC",
  MSG_DONTWAIT: "MSG_DONTWAIT",
  MSG_NOSIGNAL: "MSG_NOSIGNAL",
  MSG_WAITFORONE: "MSG_WAITFORONE",
  MSG_CMSG_CLOEXEC: "MSG_CMSG_CLOEXEC",
  MESSAGES_MAX: "IOV_MAX", // the name that UIO_MAXIOV has for programs
  // The kernel's UDP_MAX_SEGMENTS is not in the headers for programs; the size of a UDP payload is
  // arithmetic.
  SEGMENTS_MAX: "64",
  UDP_PAYLOAD_MAX: "65535 - 20 - sizeof(struct udphdr)",
  MMSGHDR_BYTES: "sizeof(struct mmsghdr)",
  MMSGHDR_WORDS: words("sizeof(struct mmsghdr)"),
  MSGHDR_BYTES: "sizeof(struct msghdr)",
  MSG_NAME_WORD: words("offsetof(struct mmsghdr, msg_hdr.msg_name)"),
  MSG_NAMELEN_WORD: words("offsetof(struct mmsghdr, msg_hdr.msg_namelen)"),
  MSG_IOV_WORD: words("offsetof(struct mmsghdr, msg_hdr.msg_iov)"),
  MSG_IOVLEN_WORD: words("offsetof(struct mmsghdr, msg_hdr.msg_iovlen)"),
  MSG_CONTROL_WORD: words("offsetof(struct mmsghdr, msg_hdr.msg_control)"),
  MSG_CONTROLLEN_WORD: words("offsetof(struct mmsghdr, msg_hdr.msg_controllen)"),
  MSG_FLAGS_WORD: words("offsetof(struct mmsghdr, msg_hdr.msg_flags)"),
  MSG_LEN_WORD: words("offsetof(struct mmsghdr, msg_len)"),
  IOVEC_BYTES: "sizeof(struct iovec)",
  IOVEC_WORDS: words("sizeof(struct iovec)"),
  IOV_BASE_WORD: words("offsetof(struct iovec, iov_base)"),
  IOV_LEN_WORD: words("offsetof(struct iovec, iov_len)"),
  CMSG_HEADER_BYTES: "CMSG_LEN(0)",
  CMSG_LEN_WORD: words("offsetof(struct cmsghdr, cmsg_len)"),
  CMSG_LEVEL_WORD: words("offsetof(struct cmsghdr, cmsg_level)"),
  CMSG_TYPE_WORD: words("offsetof(struct cmsghdr, cmsg_type)"),
  CMSG_DATA_WORD: words("(char *)CMSG_DATA(&control) - (char *)&control"),
  CMSG_ALIGN_BYTES: "CMSG_SPACE(1) - CMSG_SPACE(0)",
  SOCKADDR_IN_BYTES: "sizeof(struct sockaddr_in)",
  SOCKADDR_IN6_BYTES: "sizeof(struct sockaddr_in6)",
  SUN_PATH_AT: "offsetof(struct sockaddr_un, sun_path)",
  SUN_PATH_BYTES: "sizeof(((struct sockaddr_un *)0)->sun_path)",
  SOCK_FILTER_BYTES: "sizeof(struct sock_filter)",
  SOCK_FPROG_BYTES: "sizeof(struct sock_fprog)",
  TIMEVAL_BYTES: "sizeof(struct timeval)",
  CLOCK_MONOTONIC: "CLOCK_MONOTONIC",
  CLOCK_MONOTONIC_COARSE: "CLOCK_MONOTONIC_COARSE",
  TIMESPEC_BYTES: "sizeof(struct timespec)",
  CPU_CLOCK_OF_THREAD: "6", // in no header for programs; test/ffi/threads.test.ts asks the kernel
  SYS_GETTID: "SYS_gettid",
};

/** Offsets that the sources write as plain numbers, next to where they are used. */
const OFFSETS: Record<string, readonly [inC: string, bytes: number]> = {
  // ffi/endpoint.ts, endpointFromName and nameFromEndpoint: words of a sockaddr
  sin_family: ["offsetof(struct sockaddr_in, sin_family)", 0],
  sin_port: ["offsetof(struct sockaddr_in, sin_port)", 2],
  sin_addr: ["offsetof(struct sockaddr_in, sin_addr)", 4],
  sin6_family: ["offsetof(struct sockaddr_in6, sin6_family)", 0],
  sin6_port: ["offsetof(struct sockaddr_in6, sin6_port)", 2],
  sin6_flowinfo: ["offsetof(struct sockaddr_in6, sin6_flowinfo)", 4],
  sin6_addr: ["offsetof(struct sockaddr_in6, sin6_addr)", 8],
  sin6_scope_id: ["offsetof(struct sockaddr_in6, sin6_scope_id)", 24],
  // ffi/bpf.ts, attachReusePortProgram
  "sock_filter.code": ["offsetof(struct sock_filter, code)", 0],
  "sock_filter.jt": ["offsetof(struct sock_filter, jt)", 2],
  "sock_filter.jf": ["offsetof(struct sock_filter, jf)", 3],
  "sock_filter.k": ["offsetof(struct sock_filter, k)", 4],
  "sock_fprog.len": ["offsetof(struct sock_fprog, len)", 0],
  "sock_fprog.filter": ["offsetof(struct sock_fprog, filter)", 8],
  // ffi/socket.ts, setTimeouts: two 64-bit numbers
  "timeval.tv_sec": ["offsetof(struct timeval, tv_sec)", 0],
  "timeval.tv_usec": ["offsetof(struct timeval, tv_usec)", 8],
  // ffi/libc.ts, monotonicUs: two 64-bit numbers
  "timespec.tv_sec": ["offsetof(struct timespec, tv_sec)", 0],
  "timespec.tv_nsec": ["offsetof(struct timespec, tv_nsec)", 8],
  // ffi/event-loop.ts: packed on x86-64 alone
  "epoll_event.data": ["offsetof(struct epoll_event, data)", process.arch === "x64" ? 4 : 8],
  // ffi/unix.ts, sendUnixDatagram: a u16
  sun_family: ["offsetof(struct sockaddr_un, sun_family)", 0],
  "size of sun_family": ["sizeof(((struct sockaddr_un *)0)->sun_family)", 2],
  // ffi/mmsg.ts: room for the control messages
  "space of a u16": ["CMSG_SPACE(sizeof(uint16_t))", 24],
  "space of an int": ["CMSG_SPACE(sizeof(int))", 24],
};

const compiler = Bun.which("cc");
const directory = temporaryFolder();

/** What the C compiler says each expression is. */
function evaluateInC(expressions: Record<string, string>): Record<string, number> {
  const prints = Object.entries(expressions).map(
    ([name, expression]) => `  printf("%s\\t%lld\\n", "${name}", (long long)(${expression}));`,
  );
  const source = join(directory, "abi.c");
  const program = join(directory, "abi");
  writeFileSync(
    source,
    `#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <linux/filter.h>
#include <linux/sock_diag.h>
#include <linux/udp.h>
#ifndef SO_ATTACH_REUSEPORT_CBPF
#include <asm/socket.h>
#endif
int main(void) {
  struct cmsghdr control;
${prints.join("\n")}
  return 0;
}
`,
  );
  const compiled = Bun.spawnSync([compiler!, "-o", program, source]);
  expect(compiled.stderr.toString()).toBe("");
  const printed = Bun.spawnSync([program]).stdout.toString().trimEnd();
  return Object.fromEntries(
    printed
      .split("\n")
      .map((line) => line.split("\t"))
      .map(([name, value]) => [name, Number(value)]),
  );
}

describe.skipIf(compiler === null)("what the C headers say (needs cc)", () => {
  test("every constant", () => {
    const constants = evaluateInC(IN_C);
    expect(Object.keys(constants)).toHaveLength(Object.keys(IN_C).length);
    expect(constants).toEqual({ ...abi });
  }, 60_000);

  test("every offset that is written as a number", () => {
    const offsets = evaluateInC(
      Object.fromEntries(Object.entries(OFFSETS).map(([name, [inC]]) => [name, inC])),
    );
    expect(offsets).toEqual(
      Object.fromEntries(Object.entries(OFFSETS).map(([name, [, bytes]]) => [name, bytes])),
    );
  }, 60_000);
});
