/**
 * Relays packets through a worker's loop, here in this thread, and prints by how much JavaScript's heap grew meanwhile.
 * A process of its own: nothing else allocates in it, and nothing instruments its code.
 *
 * Arguments: "on" or "off" for offload, and the number of packets.
 */
import { heapStats } from "bun:jsc";
import { AF_INET } from "../../ffi/abi.ts";
import { endpointOf } from "../../ffi/endpoint.ts";
import { kernel } from "../../ffi/libc.ts";
import { allocatePacketMemory, SendBatch } from "../../ffi/mmsg.ts";
import { UdpSocket } from "../../ffi/socket.ts";
import { RelayLoop } from "../../src/data/loop.ts";
import { DISCOVER, PUNCH_REQUEST, RELAY } from "../../src/protocol.ts";
import { DISCOVERS, PUNCHES_SENT, RELAY_NOT_FOUND, RELAYED_LOCAL } from "../../src/shared/counters.ts";
import { CLOCK_S, HASH_SECRET, SharedMemory } from "../../src/shared/memory.ts";

export interface AllocationResult {
  /** Packets that went through the loop while it was measured. */
  readonly handled: number;
  /** What the heap took from the system meanwhile. */
  readonly growthBytes: number;
}

const NODES = 4;
/** Packets of one round: bursts of relays, and one each of what else a loop handles. */
const RELAYS = 60;
const PACKET_ROOM = 256;
/** Until the compilers are done with every function of the path; compiling allocates. */
const WARM_UP_PACKETS = 150_000;

const offload = process.argv[2] === "on";
const packets = Number(process.argv[3]);

const socket = UdpSocket.open(AF_INET);
socket.setBuffers(4 << 20, 4 << 20);
socket.setTimeouts(100, 1000);
if (offload && !socket.enableOffload()) throw new Error("this kernel has no offload");
socket.bind("127.0.0.1", 0);
const memory = new SharedMemory({ workers: 1, nodesMax: 100, routesMax: 100 });
memory.words[CLOCK_S] = 1;
memory.words[HASH_SECRET] = 1;
const loop = new RelayLoop(kernel, memory, {
  worker: 0,
  fd: socket.fd,
  family: AF_INET,
  beaconId: 0,
  batchMax: 64,
  offload,
});

// The nodes all sit behind one socket that nobody reads: the kernel drops what its buffer does not hold.
const nodes = UdpSocket.open(AF_INET);
nodes.setTimeouts(1000, 1000);
nodes.bind("127.0.0.1", 0);
const sending = allocatePacketMemory(1, 0);
const view = new DataView(sending.buffer);
const batch = new SendBatch(kernel, nodes.fd, AF_INET, 8, sending);
const beacon = endpointOf("127.0.0.1", socket.localAddress().port);

function put(
  m: number,
  piece: number,
  at: number,
  bytes: number,
  type: number,
  first: number,
  second: number,
): void {
  view.setUint8(at, type);
  view.setInt32(at + 1, first);
  view.setInt32(at + 5, second);
  batch.setPiece(m, piece, at, bytes);
}

// Messages 0 to NODES - 1: a burst of relays to one node. Then a Discover, a PunchRequest, a Relay to nobody.
const burst = RELAYS / NODES;
for (let m = 0; m < NODES + 3; m++) batch.setDestination(m, beacon, 0);
for (let node = 0; node < NODES; node++) {
  for (let i = 0; i < burst; i++) {
    put(node, i, (node * burst + i) * PACKET_ROOM, 209, RELAY, 1, node + 1);
  }
  batch.finish(node, burst, 209);
}
put(NODES, 0, RELAYS * PACKET_ROOM, 9, DISCOVER, 1, 0);
put(NODES + 1, 0, (RELAYS + 1) * PACKET_ROOM, 9, PUNCH_REQUEST, 1, 2);
put(NODES + 2, 0, (RELAYS + 2) * PACKET_ROOM, 209, RELAY, 1, 9999);
for (let m = NODES; m < NODES + 3; m++) batch.finish(m, 1, 209);

function handled(): number {
  const { counters } = memory;
  return (
    counters[RELAYED_LOCAL]! + counters[DISCOVERS]! + counters[PUNCHES_SENT]! + counters[RELAY_NOT_FOUND]!
  );
}

/** Sends `count` messages from `first` on and lets the loop handle all that is in them. */
function offer(first: number, count: number, packetsInside: number): void {
  const target = handled() + packetsInside;
  if (batch.send(first, first + count, true) !== count) throw new Error("the kernel took less than all");
  while (handled() < target) loop.step();
}

for (let node = 1; node <= NODES; node++) {
  view.setInt32(RELAYS * PACKET_ROOM + 1, node);
  offer(NODES, 1, 1);
}

function relay(count: number): void {
  for (let done = 0; done < count; done += RELAYS + 3) offer(0, NODES + 3, RELAYS + 3);
}

/**
 * What the heap has taken from the system: it grows in blocks of 16 KiB as soon as the free cells are used up.
 * heapSize() would not do: it is brought up to date by a collection and tells nothing of garbage before.
 */
const heapBytes = (): number => heapStats().heapCapacity;

relay(WARM_UP_PACKETS);
Bun.gc(true);
heapBytes(); // measuring allocates too, most the first time
relay(5000);
const before = handled();
const beforeBytes = heapBytes();
relay(packets);
const growthBytes = heapBytes() - beforeBytes;
console.log(JSON.stringify({ handled: handled() - before, growthBytes } satisfies AllocationResult));
