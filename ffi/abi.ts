/**
 * Linux constants and struct layouts for 64-bit little-endian hosts. The numbers are the same on
 * x86-64 and arm64, in glibc and in musl; test/ffi/abi.test.ts holds them against the C compiler's
 * own headers.
 *
 * Offsets ending in `Word` count 32-bit words, all others count bytes.
 */
import { endianness } from "node:os";

if (endianness() !== "LE")
  throw new Error("the struct layouts in ffi/ are for little-endian hosts");

// Address families and socket kinds: <bits/socket.h>
export const AF_UNIX = 1;
export const AF_INET = 2;
export const AF_INET6 = 10;
export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;
export const SOCK_SEQPACKET = 5;
export const SOCK_NONBLOCK = 0o4000;
export const SOCK_CLOEXEC = 0o2000000;
export const SHUT_RD = 0;

// setsockopt levels and names: <asm-generic/socket.h>, <linux/in6.h>, <linux/udp.h>
export const SOL_SOCKET = 1;
export const SO_REUSEADDR = 2;
export const SO_SNDBUF = 7;
export const SO_RCVBUF = 8;
export const SO_REUSEPORT = 15;
export const SO_RCVTIMEO = 20;
export const SO_SNDTIMEO = 21;
export const SO_ACCEPTCONN = 30;
export const SO_DOMAIN = 39;
export const SO_ATTACH_REUSEPORT_CBPF = 51;
export const SO_MEMINFO = 55;
/** Index of the drop counter in the u32 array that SO_MEMINFO returns: <linux/sock_diag.h>. */
export const SK_MEMINFO_DROPS = 8;
export const SK_MEMINFO_VARS = 9;
/** Type of a control message of SOL_SOCKET that carries files: <bits/socket.h>. */
export const SCM_RIGHTS = 1;
export const IPPROTO_TCP = 6;
export const TCP_DEFER_ACCEPT = 9;
/** Control message of SOL_SOCKET with the sender's struct ucred { pid; uid; gid }. */
export const SCM_CREDENTIALS = 2;
export const SO_PASSCRED = 16;
export const IPPROTO_IPV6 = 41;
export const IPV6_V6ONLY = 26;
/** IP level, option and control message of a datagram's local address: ip(7), ipv6(7). */
export const IPPROTO_IP = 0;
export const IP_PKTINFO = 8;
export const IPV6_RECVPKTINFO = 49;
export const IPV6_PKTINFO = 50;
export const SOL_UDP = 17;
export const UDP_SEGMENT = 103;
export const UDP_GRO = 104;

// Files and epoll: <fcntl.h>, <sys/epoll.h>
export const F_DUPFD_CLOEXEC = 1030;
export const O_CLOEXEC = 0o2000000;
export const EPOLL_CTL_ADD = 1;

// Flags of receive and send calls: <bits/socket.h>
export const MSG_CTRUNC = 0x08;
export const MSG_TRUNC = 0x20;
export const MSG_DONTWAIT = 0x40;
export const MSG_NOSIGNAL = 0x4000;
export const MSG_WAITFORONE = 0x10000;
export const MSG_CMSG_CLOEXEC = 0x4000_0000;

/** The most messages one sendmmsg or recvmmsg takes: UIO_MAXIOV, <linux/uio.h>. */
export const MESSAGES_MAX = 1024;
/** Segments of one merged send that every kernel since 4.18 accepts (UDP_MAX_SEGMENTS). */
export const SEGMENTS_MAX = 64;
/** Largest UDP payload over IPv4: 65,535 less 20 bytes of IP and 8 of UDP (RFC 768, 791). */
export const UDP_PAYLOAD_MAX = 65_507;

// struct mmsghdr { struct msghdr { name*, namelen, iov*, iovlen, control*, controllen, flags }, len
// }
export const MMSGHDR_BYTES = 64;
export const MMSGHDR_WORDS = MMSGHDR_BYTES / 4;
export const MSGHDR_BYTES = 56;
export const MSG_NAME_WORD = 0;
export const MSG_NAMELEN_WORD = 2;
export const MSG_IOV_WORD = 4;
export const MSG_IOVLEN_WORD = 6;
export const MSG_CONTROL_WORD = 8;
export const MSG_CONTROLLEN_WORD = 10;
export const MSG_FLAGS_WORD = 12;
export const MSG_LEN_WORD = 14;

// struct iovec { base*, len }
export const IOVEC_BYTES = 16;
export const IOVEC_WORDS = IOVEC_BYTES / 4;
export const IOV_BASE_WORD = 0;
export const IOV_LEN_WORD = 2;

// struct cmsghdr { size_t len; int level; int type; } and its data; every message is padded to 8
// bytes. musl declares len as a 32-bit number with padding, which reads the same on a little-endian
// host.
export const CMSG_HEADER_BYTES = 16;
export const CMSG_LEN_WORD = 0;
export const CMSG_LEVEL_WORD = 2;
export const CMSG_TYPE_WORD = 3;
export const CMSG_DATA_WORD = 4;
export const CMSG_ALIGN_BYTES = 8;

// struct in_pktinfo { ifindex i32; spec_dst 4 bytes; addr 4 bytes }
export const IN_PKTINFO_BYTES = 12;
export const IN_PKTINFO_LOCAL_WORD = 1;
// struct in6_pktinfo { addr 16 bytes; ifindex u32 }
export const IN6_PKTINFO_BYTES = 20;
export const IN6_PKTINFO_INTERFACE_WORD = 4;

// struct sockaddr_in { family u16; port be16; addr 4 bytes; zero[8] }
export const SOCKADDR_IN_BYTES = 16;
// struct sockaddr_in6 { family u16; port be16; flowinfo be32; addr 16 bytes; scope u32 }
export const SOCKADDR_IN6_BYTES = 28;
// struct sockaddr_un { family u16; path char[108] }
export const SUN_PATH_AT = 2;
export const SUN_PATH_BYTES = 108;

// struct sock_filter { code u16; jt u8; jf u8; k u32 } and struct sock_fprog { len u16; filter* }
export const SOCK_FILTER_BYTES = 8;
export const SOCK_FPROG_BYTES = 16;

// struct timeval { long sec; long usec }
export const TIMEVAL_BYTES = 16;

// Clocks: <bits/time.h>; struct timespec { long sec; long nsec }
export const CLOCK_MONOTONIC = 1;
export const CLOCK_MONOTONIC_COARSE = 6;
export const TIMESPEC_BYTES = 16;
/** Low bits of a thread's CPU clock number: CPUCLOCK_PERTHREAD | CPUCLOCK_SCHED. */
export const CPU_CLOCK_OF_THREAD = 6;

/** Number of the call gettid: <asm/unistd.h>, which is not the same for all. */
export const SYS_GETTID = process.arch === "arm64" ? 178 : 186;

// Processes: <sys/prctl.h>, <sys/wait.h>, <bits/waitflags.h>; siginfo_t as waitid(2) fills it
export const PR_SET_CHILD_SUBREAPER = 36;
export const P_ALL = 0;
export const P_PID = 1;
export const WNOHANG = 1;
export const WEXITED = 4;
export const WNOWAIT = 0x0100_0000;
export const CLD_EXITED = 1;
export const SIGINFO_BYTES = 128;
export const SIGINFO_CODE_WORD = 2;
export const SIGINFO_PID_WORD = 4;
export const SIGINFO_STATUS_WORD = 6;

/** Event of poll(2): a write does not wait. */
export const POLLOUT = 4;
