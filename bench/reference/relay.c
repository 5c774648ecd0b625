/*
 * The yardstick: the least that a relay on Linux can do. One thread, one IPv4 socket, recvmmsg -> table -> sendmmsg,
 * headers rewritten in place. It knows Discover (recorded and answered) and Relay, and trusts what it is sent: it
 * is for measuring, not for use.
 *
 *   relay BATCH OFFLOAD     messages a receive call; 1 = UDP_GRO in and UDP_SEGMENT out, 0 = plain
 *
 * Prints the port it chose on 127.0.0.1 and runs until it is killed.
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
  SLOTS = 1 << 20,
  MAP = 4096,
  SOCKET_BUFFER = 4 << 20,
};

struct node {
  uint32_t id;
  struct sockaddr_in endpoint;
};

struct run {
  uint32_t dest;
  int packets, bytes, segment, open;
  struct iovec iov[SEGMENTS + 1];
  struct sockaddr_in name;
  union {
    char bytes[CMSG_SPACE(sizeof(uint16_t))];
    struct cmsghdr align;
  } control;
  uint8_t reply[8];
};

static struct node *nodes;
static struct run runs[RUNS];
static struct mmsghdr out[RUNS];
static int run_count, fd, offload;
static uint32_t batch_number = 1;
static struct { uint32_t batch; int run; } newest[MAP];

static uint32_t load32(const uint8_t *p) {
  uint32_t v;
  memcpy(&v, p, 4);
  return ntohl(v);
}

static struct node *slot_of(uint32_t id) {
  uint32_t at = (id * 0x9e3779b1u) >> 12;
  while (nodes[at].id != id && nodes[at].id != 0) at = (at + 1) & (SLOTS - 1);
  return &nodes[at];
}

static void flush(void) {
  for (int i = 0; i < run_count; i++) {
    struct run *run = &runs[i];
    struct msghdr *header = &out[i].msg_hdr;
    header->msg_name = &run->name;
    header->msg_namelen = sizeof run->name;
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

static struct run *start_run(uint32_t dest, const struct sockaddr_in *to, void *packet, int bytes) {
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

static void discover(const uint8_t *packet, const struct sockaddr_in *from) {
  uint32_t id = load32(packet + 1);
  if (id != 0) {
    struct node *node = slot_of(id);
    node->id = id;
    node->endpoint = *from;
  }
  struct run *run = start_run(0, from, NULL, 8);
  run->reply[0] = 2;
  run->reply[1] = 4;
  memcpy(run->reply + 2, &from->sin_addr, 4);
  memcpy(run->reply + 6, &from->sin_port, 2);
  run->iov[0].iov_base = run->reply;
}

static void handle(uint8_t *packet, int bytes, const struct sockaddr_in *from) {
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
  if (argc != 3) {
    fprintf(stderr, "usage: relay BATCH OFFLOAD\n");
    return 2;
  }
  int batch = atoi(argv[1]);
  offload = atoi(argv[2]);
  if (batch < 1 || batch > BATCH_MAX) {
    fprintf(stderr, "BATCH must be 1..%d\n", BATCH_MAX);
    return 2;
  }
  nodes = calloc(SLOTS, sizeof *nodes);
  uint8_t *memory = aligned_alloc(64, (size_t)batch * BUFFER);
  struct mmsghdr *in = calloc(batch, sizeof *in);
  struct iovec *iov = calloc(batch, sizeof *iov);
  struct sockaddr_in *from = calloc(batch, sizeof *from);
  char(*control)[64] = calloc(batch, sizeof *control);
  if (!nodes || !memory || !in || !iov || !from || !control) fail("memory");

  fd = socket(AF_INET, SOCK_DGRAM, 0);
  if (fd < 0) fail("socket");
  int size = SOCKET_BUFFER, one = 1;
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  if (offload && setsockopt(fd, SOL_UDP, UDP_GRO, &one, sizeof one) < 0) fail("UDP_GRO");
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  if (bind(fd, (struct sockaddr *)&address, length) < 0) fail("bind");
  if (getsockname(fd, (struct sockaddr *)&address, &length) < 0) fail("getsockname");
  printf("%d\n", ntohs(address.sin_port));
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
