/*
 * The yardstick: the least that a relay on Linux can do. One thread, one socket, recvmmsg -> table -> sendmmsg, headers
 * rewritten in place. It knows Discover (recorded and answered) and Relay, and trusts what it is sent: it is for
 * measuring, not for use.
 *
 *   relay BATCH OFFLOAD FAMILY ADDRESS SLOTS_LOG2
 *
 *   BATCH       messages a receive call
 *   OFFLOAD     1 = UDP_GRO in and UDP_SEGMENT out, 0 = plain
 *   FAMILY      4 or 6
 *   ADDRESS     where it listens
 *   SLOTS_LOG2  the table has two to the power of this slots; nodes may fill half of it
 *
 * Prints the port that it was given and runs until it is killed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum {
  BATCH_MAX = 1024,
  BUFFER = 65536 + 64,
  RUNS = 256,
  SEGMENTS = 64,
  PAYLOAD_MAX = 65507,
  MAP = 4096,
  SOCKET_BUFFER = 4 << 20,
};

union name {
  struct sockaddr any;
  struct sockaddr_in v4;
  struct sockaddr_in6 v6;
};

struct node {
  uint32_t id;
  union name endpoint;
};

struct run {
  uint32_t dest;
  int packets, bytes, segment, open;
  struct iovec iov[SEGMENTS + 1];
  union name name;
  union {
    char bytes[CMSG_SPACE(sizeof(uint16_t))];
    struct cmsghdr align;
  } control;
  uint8_t reply[20];
};

static struct node *nodes;
static struct run runs[RUNS];
static struct mmsghdr out[RUNS];
static int run_count, fd, offload, slots_log2;
static socklen_t name_bytes;
static uint32_t batch_number = 1;
static struct { uint32_t batch; int run; } newest[MAP];

static uint32_t load32(const uint8_t *p) {
  uint32_t v;
  memcpy(&v, p, 4);
  return ntohl(v);
}

static struct node *slot_of(uint32_t id) {
  uint32_t last = (1u << slots_log2) - 1;
  uint32_t at = (id * 0x9e3779b1u) >> (32 - slots_log2);
  while (nodes[at].id != id && nodes[at].id != 0) at = (at + 1) & last;
  return &nodes[at];
}

static void flush(void) {
  for (int i = 0; i < run_count; i++) {
    struct run *run = &runs[i];
    struct msghdr *header = &out[i].msg_hdr;
    header->msg_name = &run->name;
    header->msg_namelen = name_bytes;
    header->msg_iov = run->iov;
    header->msg_iovlen = run->packets;
    header->msg_control = NULL;
    header->msg_controllen = 0;
    if (run->packets > 1) {
      header->msg_control = run->control.bytes;
      header->msg_controllen = sizeof run->control.bytes;
      struct cmsghdr *control = CMSG_FIRSTHDR(header);
      control->cmsg_level = SOL_UDP;
      control->cmsg_type = UDP_SEGMENT;
      control->cmsg_len = CMSG_LEN(sizeof(uint16_t));
      uint16_t segment = run->segment;
      memcpy(CMSG_DATA(control), &segment, sizeof segment);
    }
  }
  for (int first = 0; first < run_count;) {
    int sent = sendmmsg(fd, out + first, run_count - first, 0);
    first += sent > 0 ? sent : 1;
  }
  run_count = 0;
  batch_number++;
}

static struct run *start_run(uint32_t dest, const union name *to, void *packet, int bytes) {
  if (run_count == RUNS) flush();
  struct run *run = &runs[run_count];
  run->dest = dest;
  run->packets = 1;
  run->bytes = run->segment = bytes;
  run->open = 1;
  run->iov[0].iov_base = packet;
  run->iov[0].iov_len = bytes;
  run->name = *to;
  if (dest != 0 && offload) {
    uint32_t entry = (dest * 0x9e3779b1u) >> 20;
    newest[entry].batch = batch_number;
    newest[entry].run = run_count;
  }
  run_count++;
  return run;
}

static void relay(uint8_t *packet, int bytes) {
  uint32_t dest = load32(packet + 5);
  struct node *node = slot_of(dest);
  if (node->id == 0) return;
  memmove(packet + 5, packet + 1, 4);
  packet[4] = 6;
  packet += 4;
  bytes -= 4;
  if (offload) {
    uint32_t entry = (dest * 0x9e3779b1u) >> 20;
    struct run *run = &runs[newest[entry].run];
    if (newest[entry].batch == batch_number && run->dest == dest && run->open && bytes <= run->segment &&
        run->bytes + bytes <= PAYLOAD_MAX) {
      run->iov[run->packets].iov_base = packet;
      run->iov[run->packets].iov_len = bytes;
      run->bytes += bytes;
      if (++run->packets == SEGMENTS || bytes < run->segment) run->open = 0;
      return;
    }
  }
  start_run(dest, &node->endpoint, packet, bytes);
}

static void discover(const uint8_t *packet, const union name *from) {
  uint32_t id = load32(packet + 1);
  if (id != 0) {
    struct node *node = slot_of(id);
    node->id = id;
    node->endpoint = *from;
  }
  int v4 = from->any.sa_family == AF_INET;
  int address_bytes = v4 ? 4 : 16;
  struct run *run = start_run(0, from, NULL, 4 + address_bytes);
  run->reply[0] = 2;
  run->reply[1] = address_bytes;
  memcpy(run->reply + 2, v4 ? (void *)&from->v4.sin_addr : (void *)&from->v6.sin6_addr, address_bytes);
  memcpy(run->reply + 2 + address_bytes, &from->v4.sin_port, 2); /* at the same place in both */
  run->iov[0].iov_base = run->reply;
}

static void handle(uint8_t *packet, int bytes, const union name *from) {
  if (bytes >= 9 && packet[0] == 5) relay(packet, bytes);
  else if (bytes >= 5 && packet[0] == 1) discover(packet, from);
}

static int segment_of(struct msghdr *header) {
  for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c != NULL; c = CMSG_NXTHDR(header, c)) {
    if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
      int segment;
      memcpy(&segment, CMSG_DATA(c), sizeof segment);
      return segment;
    }
  }
  return 0;
}

static void fail(const char *what) {
  perror(what);
  exit(1);
}

int main(int argc, char **argv) {
  if (argc != 6) {
    fprintf(stderr, "usage: relay BATCH OFFLOAD FAMILY ADDRESS SLOTS_LOG2\n");
    return 2;
  }
  int batch = atoi(argv[1]);
  offload = atoi(argv[2]);
  int family = atoi(argv[3]) == 6 ? AF_INET6 : AF_INET;
  slots_log2 = atoi(argv[5]);
  if (batch < 1 || batch > BATCH_MAX || slots_log2 < 1 || slots_log2 > 28) {
    fprintf(stderr, "BATCH must be 1..%d, SLOTS_LOG2 1..28\n", BATCH_MAX);
    return 2;
  }
  union name address = {.any.sa_family = family};
  name_bytes = family == AF_INET ? sizeof address.v4 : sizeof address.v6;
  void *host = family == AF_INET ? (void *)&address.v4.sin_addr : (void *)&address.v6.sin6_addr;
  if (inet_pton(family, argv[4], host) != 1) {
    fprintf(stderr, "ADDRESS is none of IPv%s: %s\n", argv[3], argv[4]);
    return 2;
  }
  nodes = calloc((size_t)1 << slots_log2, sizeof *nodes);
  uint8_t *memory = aligned_alloc(64, (size_t)batch * BUFFER);
  struct mmsghdr *in = calloc(batch, sizeof *in);
  struct iovec *iov = calloc(batch, sizeof *iov);
  union name *from = calloc(batch, sizeof *from);
  char(*control)[64] = calloc(batch, sizeof *control);
  if (!nodes || !memory || !in || !iov || !from || !control) fail("memory");

  fd = socket(family, SOCK_DGRAM, 0);
  if (fd < 0) fail("socket");
  int size = SOCKET_BUFFER, one = 1;
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  if (offload && setsockopt(fd, SOL_UDP, UDP_GRO, &one, sizeof one) < 0) fail("UDP_GRO");
  socklen_t length = name_bytes;
  if (bind(fd, &address.any, length) < 0) fail("bind");
  if (getsockname(fd, &address.any, &length) < 0) fail("getsockname");
  printf("%d\n", ntohs(address.v4.sin_port));
  fflush(stdout);

  for (int i = 0; i < batch; i++) {
    iov[i].iov_base = memory + (size_t)i * BUFFER;
    iov[i].iov_len = BUFFER;
    in[i].msg_hdr.msg_name = &from[i];
    in[i].msg_hdr.msg_iov = &iov[i];
    in[i].msg_hdr.msg_iovlen = 1;
  }
  for (int count = batch;;) {
    for (int i = 0; i < count; i++) {
      in[i].msg_hdr.msg_namelen = sizeof from[i];
      in[i].msg_hdr.msg_control = offload ? control[i] : NULL;
      in[i].msg_hdr.msg_controllen = offload ? sizeof control[i] : 0;
    }
    count = recvmmsg(fd, in, batch, MSG_WAITFORONE, NULL);
    if (count < 0) {
      if (errno != EINTR) fail("recvmmsg");
      count = 0;
      continue;
    }
    for (int i = 0; i < count; i++) {
      uint8_t *datagram = memory + (size_t)i * BUFFER;
      int bytes = in[i].msg_len;
      int segment = offload ? segment_of(&in[i].msg_hdr) : 0;
      if (segment <= 0) segment = bytes;
      for (int at = 0; at < bytes; at += segment) {
        handle(datagram + at, bytes - at < segment ? bytes - at : segment, &from[i]);
      }
    }
    flush();
  }
}
