/**
 * Gossip as anybody may send it, a million times: counted, and handed on if it is what it should
 * be.
 */
import { heapStats } from "bun:jsc";
import { expect, test } from "bun:test";
import { AF_INET } from "../../ffi/abi.ts";
import { ENDPOINT_WORDS } from "../../ffi/endpoint.ts";
import { type LoopOptions, RelayLoop } from "../../src/data/loop.ts";
import { MESSAGE_NAMES, SYNC, SYNC_TRAILER_BYTES } from "../../src/protocol.ts";
import {
  DISCOVERS,
  GOSSIP_RECEIVED,
  GOSSIP_REJECTED_AT,
  GOSSIP_REJECTIONS,
  type GossipRejection,
  MALFORMED_AT,
  MALFORMED_REASONS,
  PUNCHES_SENT,
  PUNCHES_TARGET_UNKNOWN,
  RECEIVED_AT,
  RELAY_NOT_FOUND,
  RELAYED_LOCAL,
  RELAYED_TO_PEER,
} from "../../src/shared/counters.ts";
import { MailboxReader } from "../../src/shared/mailbox.ts";
import { CLOCK_S, GOSSIP, HASH_SECRET, SharedMemory } from "../../src/shared/memory.ts";
import { PeerTableOwner } from "../../src/shared/peers-owner.ts";
import { Random } from "../e2e/support/random.ts";
import { endpointFromBytes } from "../support/arbitraries.ts";
import { BulkKernel } from "../support/bulk-kernel.ts";

const MESSAGES = 1_000_000;
const BATCH = 256;
const OWN_ID = 0x8000_0007;
/**
 * Nodes of most messages, at most; so many that a batch never fills the mailbox, with one message
 * of the largest size.
 */
const NODES_MAX = 40;
const LARGEST_NODES = 16_375;
/** A retained object a message would be 12 MB and more. */
const HEAP_GROWTH_MAX = 4 << 20;

const random = new Random(20_261_122);

interface Source {
  readonly name: Uint8Array;
  readonly endpoint: Int32Array;
  readonly isPeer: boolean;
}

/** Peers, and strangers that resemble them. */
const sources: Source[] = (
  [
    [4, 4000, true],
    [5, 4000, true],
    [4, 4001, false],
    [6, 4000, false],
  ] as const
).map(([host, port, isPeer]) => ({
  name: new Uint8Array([
    AF_INET,
    0,
    port >> 8,
    port & 0xff,
    10,
    0,
    0,
    host,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
  ]),
  endpoint: endpointFromBytes(new Uint8Array([10, 0, 0, host]), port),
  isPeer,
}));

/** Writes a Sync as a peer would send it. @returns its bytes */
function writeGossip(view: DataView, nodes: number): number {
  view.setUint8(0, SYNC);
  view.setUint32(1, random.below(8) === 0 ? OWN_ID : random.word());
  view.setUint16(5, nodes);
  for (let i = 0; i < nodes; i++) view.setUint32(7 + 4 * i, random.word());
  return 7 + 4 * nodes;
}

/** Writes a Sync, most of them with something wrong. @returns its bytes */
function writeFuzz(bytes: Uint8Array, view: DataView): number {
  const nodes = random.below(NODES_MAX + 1);
  const length = writeGossip(view, nodes);
  switch (random.below(8)) {
    case 0: // cut short
      return 1 + random.below(length);
    case 1: // longer than it says
      return length + random.below(30);
    case 2: // of another count
      view.setUint16(
        5,
        random.below(2) === 0 ? random.below(2 * NODES_MAX) : random.word() & 0xffff,
      );
      return length;
    case 3: // some bytes changed, one of them perhaps the type
      for (let i = random.below(4); i >= 0; i--) bytes[random.below(length)] = random.word();
      return length;
    case 4: // nothing but noise
      for (let i = 1; i < length; i++) bytes[i] = random.word();
      return 1 + random.below(length);
    default:
      return length;
  }
}

/** What is wrong with a Sync, by what the protocol says. */
function rejection(view: DataView, length: number, isPeer: boolean): GossipRejection | undefined {
  if (length < 7) return "short";
  if (!isPeer) return "unknown_peer";
  if (length < 7 + 4 * view.getUint16(5)) return "count";
  return view.getUint32(1) === OWN_ID ? "own_id" : undefined;
}

test("a million random messages: each counted once, and the mailbox gets what a peer said and nothing else", () => {
  const memory = new SharedMemory({ workers: 1, nodesMax: 1000, routesMax: 1 });
  memory.words[CLOCK_S] = 1;
  memory.words[HASH_SECRET] = 0x7e57;
  const peers = new PeerTableOwner(memory);
  for (const { endpoint, isPeer } of sources) if (isPeer) peers.add(endpoint, 0);
  const mailbox = new MailboxReader(memory, GOSSIP, 0);

  const room = 7 + 4 * LARGEST_NODES;
  const messages = Array.from({ length: BATCH }, () => new Uint8Array(room));
  const views = messages.map(({ buffer }) => new DataView(buffer));
  // Of the batch: what must come out of the mailbox, by message.
  const expected: { m: number; length: number; source: Source }[] = [];
  const rejected = Object.fromEntries(GOSSIP_REJECTIONS.map((reason) => [reason, 0])) as Record<
    GossipRejection,
    number
  >;
  let accepted = 0;
  let gossip = 0;

  const kernel = new BulkKernel(() => {
    for (let m = 0; m < BATCH; m++) {
      const [bytes, view] = [messages[m]!, views[m]!];
      const source = sources[random.below(sources.length)]!;
      const isLargest = m === 0 && random.below(16) === 0;
      const length = isLargest ? writeGossip(view, LARGEST_NODES) : writeFuzz(bytes, view);
      kernel.put(m, source.name, bytes.subarray(0, length));
      if (bytes[0] !== SYNC) continue;
      gossip++;
      const reason = rejection(view, length, source.isPeer);
      const taken = Math.min(length, 7 + 4 * view.getUint16(5) + SYNC_TRAILER_BYTES);
      if (reason === undefined) expected.push({ m, length: taken, source });
      else rejected[reason]++;
    }
    return BATCH;
  });
  const options: LoopOptions = {
    worker: 0,
    fd: 5,
    family: AF_INET,
    beaconId: OWN_ID,
    batchMax: BATCH,
    offload: false,
  };
  // So much time between any two messages that no limit by time is met.
  let nowNs = 0;
  const loop = new RelayLoop(kernel, memory, options, { nowNs: () => (nowNs += 1e9) });

  /** Takes what the batch put into the mailbox. @returns whether it is what it should be */
  function takeExpected(): boolean {
    for (const { m, length, source } of expected) {
      const mail = mailbox.take();
      if (mail?.bytes !== length) return false;
      const bytes = memory.bytes.subarray(mail.at, mail.at + length);
      if (Buffer.compare(bytes, messages[m]!.subarray(0, length)) !== 0) return false;
      for (let word = 0; word < ENDPOINT_WORDS; word++)
        if (memory.words[mail.labelAt + word] !== source.endpoint[word]) return false;
    }
    accepted += expected.length;
    expected.length = 0;
    const isEmpty = mailbox.take() === undefined;
    mailbox.release();
    return isEmpty;
  }

  const heapBytes = (): number => {
    Bun.gc(true);
    return heapStats().heapSize;
  };
  let heapBefore = 0;
  let received = 0;
  for (; received < MESSAGES; received += BATCH) {
    loop.step();
    expect(takeExpected()).toBe(true);
    // A quarter of the way, all code is compiled and all buffers are there.
    if (heapBefore === 0 && received > MESSAGES / 4) heapBefore = heapBytes();
  }
  expect(heapBytes() - heapBefore).toBeLessThan(HEAP_GROWTH_MAX);

  const { counters } = memory;
  const sum = (at: number, columns: number) =>
    counters.subarray(at, at + columns).reduce((total, count) => total + count, 0);
  expect(sum(RECEIVED_AT, MESSAGE_NAMES.length)).toBe(received);
  expect(counters[RECEIVED_AT + SYNC]).toBe(gossip);
  expect(counters[GOSSIP_RECEIVED]).toBe(accepted);
  expect(
    Object.fromEntries(
      GOSSIP_REJECTIONS.map((reason, i) => [reason, counters[GOSSIP_REJECTED_AT + i]]),
    ),
  ).toEqual(rejected);
  const others = [
    DISCOVERS,
    PUNCHES_SENT,
    PUNCHES_TARGET_UNKNOWN,
    RELAY_NOT_FOUND,
    RELAYED_LOCAL,
    RELAYED_TO_PEER,
  ];
  expect(
    accepted +
      sum(GOSSIP_REJECTED_AT, GOSSIP_REJECTIONS.length) +
      sum(MALFORMED_AT, MALFORMED_REASONS.length) +
      others.reduce((total, column) => total + counters[column]!, 0),
  ).toBe(received);
  // Else this was no test of anything.
  for (const reason of ["short", "unknown_peer", "count", "own_id"] as const)
    expect(rejected[reason]).toBeGreaterThan(10_000);
  expect(accepted).toBeGreaterThan(100_000);
  expect(rejected.mailbox_full).toBe(0);
}, 120_000);
