/**
 * Relays packets through a worker's loop, here in this thread, and prints by how much JavaScript's
 * heap grew meanwhile. A process of its own: nothing else allocates in it, and nothing instruments
 * its code. What the loop puts into its mailbox is taken out by another thread, which has a heap of
 * its own, as in a beacon.
 *
 * Arguments: "on" or "off" for offload, for whether grants are required, and for whether arrivals
 * are noted; and the number of packets.
 */
import { heapStats } from "bun:jsc";
import { once } from "node:events";
import { isMainThread, Worker, workerData } from "node:worker_threads";
import { AF_INET } from "../../ffi/abi.ts";
import { endpointOf } from "../../ffi/endpoint.ts";
import { kernel } from "../../ffi/libc.ts";
import { allocatePacketMemory, SendBatch } from "../../ffi/mmsg.ts";
import { UdpSocket } from "../../ffi/socket.ts";
import { RelayLoop } from "../../src/data/loop.ts";
import { DISCOVER, PUNCH_REQUEST, RELAY } from "../../src/protocol.ts";
import {
  DISCOVERS,
  grantColumn,
  PUNCHES_BRIDGED,
  PUNCHES_SENT,
  RELAY_NOT_FOUND,
  RELAYED_LOCAL,
} from "../../src/shared/counters.ts";
import { MailboxReader } from "../../src/shared/mailbox.ts";
import {
  ARRIVALS_NOTED,
  CLOCK_S,
  FRAMES,
  GRANTS,
  GRANTS_REQUIRED,
  HASH_SECRET,
  MAIL,
  MAILBOX_HEAD,
  MAILBOX_TAIL,
  MAILBOX_WORDS,
  MAIN_THREAD_LOCK,
  type MemoryShape,
  PUNCH_WATCH,
  SharedMemory,
} from "../../src/shared/memory.ts";
import { NodeTableOwner } from "../../src/shared/nodes-owner.ts";

export interface AllocationResult {
  /** Packets that went through the loop while it was measured. */
  readonly handled: number;
  /** What the heap took from the system meanwhile. */
  readonly growthBytes: number;
}

const GRANT_OVERLOAD = grantColumn("overload");
const SHAPE: MemoryShape = { workers: 1, nodesMax: 100, routesMax: 100 };
/** The last of them is behind the WebSocket bridge. */
const NODES = 5;
/**
 * Packets of one round: a burst of relays to each node, and one each of what else a loop handles.
 */
const BURST = 15;
const RELAYS = NODES * BURST;
const OTHERS = 4;
const MESSAGES = NODES + OTHERS;
const PACKET_ROOM = 256;
/** Until the compilers are done with every function of the path; compiling allocates. */
const WARM_UP_PACKETS = 150_000;

/** A minute in all. No closure, which would be on the heap. */
const WAIT_MS = 100;
const WAITS_MAX = 600;

if (!isMainThread) takeMail(workerData as SharedArrayBuffer);

/** The other thread: takes what is in the mailbox, for ever. */
function takeMail(buffer: SharedArrayBuffer): never {
  const memory = new SharedMemory(SHAPE, buffer);
  const mailboxes = [FRAMES, GRANTS].map((kind) => new MailboxReader(memory, kind, 0));
  for (;;) {
    const mail = Atomics.load(memory.words, MAIL);
    for (const mailbox of mailboxes) {
      while (mailbox.take() !== undefined);
      mailbox.release();
    }
    Atomics.wait(memory.words, MAIL, mail);
  }
}

const offload = process.argv[2] === "on";
const grants = process.argv[3] === "on";
const noted = process.argv[4] === "on";
const packets = Number(process.argv[5]);

const socket = UdpSocket.open(AF_INET);
socket.setBuffers(4 << 20, 4 << 20);
socket.setTimeouts(WAIT_MS, 1000);
if (offload && !socket.enableOffload()) throw new Error("this kernel has no offload");
socket.bind("127.0.0.1", 0);
const memory = new SharedMemory(SHAPE);
memory.words[CLOCK_S] = 1;
memory.words[HASH_SECRET] = 1;
memory.words[memory.rulesAt + GRANTS_REQUIRED] = Number(grants);
memory.words[memory.rulesAt + PUNCH_WATCH] = 1;
memory.words[memory.rulesAt + ARRIVALS_NOTED] = Number(noted);
const loop = new RelayLoop(kernel, memory, {
  worker: 0,
  fd: socket.fd,
  family: AF_INET,
  beaconId: 0,
  batchMax: 64,
  offload,
});

// The nodes all sit behind one socket that nobody reads: the kernel drops what its buffer does not
// hold.
const nodes = UdpSocket.open(AF_INET);
nodes.setTimeouts(1000, 1000);
nodes.bind("127.0.0.1", 0);
const sending = allocatePacketMemory(1, 0);
const view = new DataView(sending.buffer);
const batch = new SendBatch(kernel, nodes.fd, AF_INET, MESSAGES, sending);
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

// Messages 0 to NODES - 1: a burst of relays to one node. Then a Discover with a key, a
// PunchRequest with a grant, one for the bridge's node, a Relay to nobody.
for (let m = 0; m < MESSAGES; m++) batch.setDestination(m, beacon, 0);
for (let node = 0; node < NODES; node++) {
  for (let i = 0; i < BURST; i++) {
    put(node, i, (node * BURST + i) * PACKET_ROOM, 209, RELAY, 1, node + 1);
  }
  batch.finish(node, BURST, 209);
}
put(NODES, 0, RELAYS * PACKET_ROOM, 37, DISCOVER, 1, 0);
view.setInt32(RELAYS * PACKET_ROOM + 33, 1);
put(NODES + 1, 0, (RELAYS + 1) * PACKET_ROOM, 81, PUNCH_REQUEST, 1, 2);
put(NODES + 2, 0, (RELAYS + 2) * PACKET_ROOM, 81, PUNCH_REQUEST, 1, NODES);
put(NODES + 3, 0, (RELAYS + 3) * PACKET_ROOM, 209, RELAY, 1, 9999);
for (let m = NODES; m < MESSAGES; m++) batch.finish(m, 1, 209); // of one piece, however long

function handled(): number {
  const { counters, words } = memory;
  return (
    counters[RELAYED_LOCAL]! +
    counters[DISCOVERS]! +
    counters[PUNCHES_SENT]! +
    counters[PUNCHES_BRIDGED]! +
    counters[RELAY_NOT_FOUND]! +
    counters[GRANT_OVERLOAD]! +
    words[MAIL]!
  );
}

/** Sends `count` messages from `first` on and lets the loop handle all that is in them. */
function offer(first: number, count: number, packetsInside: number): void {
  const target = handled() + packetsInside;
  if (batch.send(first, first + count, true) !== count)
    throw new Error("the kernel took less than all");
  for (let steps = 0; handled() < target; steps++) {
    if (steps > WAITS_MAX) throw new Error(`${packetsInside} packets are not handled`);
    loop.step();
  }
}

for (let node = 1; node < NODES; node++) {
  view.setInt32(RELAYS * PACKET_ROOM + 1, node);
  offer(NODES, 1, 1);
}
new NodeTableOwner(memory, MAIN_THREAD_LOCK).bridge(NODES, 1);
const reader = new Worker(import.meta.path, { workerData: memory.buffer });
await once(reader, "online");
const mailbox = memory.mailbox(FRAMES, 0);

function relay(count: number): void {
  const { words } = memory;
  for (let done = 0; done < count; done += RELAYS + OTHERS) {
    offer(0, MESSAGES, RELAYS + OTHERS);
    // Where the other thread gets no core, its mailbox would be full in time.
    for (let waits = 0; ; waits++) {
      if (waits > WAITS_MAX) throw new Error("the other thread takes no mail");
      const tail = Atomics.load(words, mailbox + MAILBOX_TAIL);
      if (((words[mailbox + MAILBOX_HEAD]! - tail) | 0) < MAILBOX_WORDS / 2) break;
      Atomics.wait(words, mailbox + MAILBOX_TAIL, tail, WAIT_MS);
    }
  }
}

/**
 * What the heap has taken from the system: it grows in blocks of 16 KiB as soon as the free cells
 * are used up. heapSize() would not do: it is brought up to date by a collection and tells nothing
 * of garbage before.
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
console.log(
  JSON.stringify({ handled: handled() - before, growthBytes } satisfies AllocationResult),
);
process.exit(); // the other thread takes mail for ever
