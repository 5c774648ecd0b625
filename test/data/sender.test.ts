import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { AF_INET, UDP_PAYLOAD_MAX } from "../../ffi/abi.ts";
import {
  EACCES,
  EAGAIN,
  ECONNREFUSED,
  EHOSTUNREACH,
  EINTR,
  EINVAL,
  EIO,
  EMSGSIZE,
  ENETDOWN,
  ENETUNREACH,
  ENOBUFS,
  ENOMEM,
  EPERM,
} from "../../ffi/errno.ts";
import { allocatePacketMemory, SendBatch } from "../../ffi/mmsg.ts";
import { NO_SLOT, REPLY, Runs, TO_NODE, TO_PEER } from "../../src/data/runs.ts";
import { dropOffsetOfErrno, Sender } from "../../src/data/sender.ts";
import { SECOND_ID_AT } from "../../src/protocol.ts";
import {
  DROP_REASONS,
  type DropReason,
  RELAY_DROPPED_AT,
  RELAYED_LOCAL,
  RELAYED_TO_PEER,
  REPLY_DROPPED_AT,
  SEGMENTS_SENT,
  SENT_BYTES,
} from "../../src/shared/counters.ts";
import { dropsOf } from "../../src/shared/drops.ts";
import { CLOCK_S, OFFLOAD_ERRNO, SharedMemory, workerLock } from "../../src/shared/memory.ts";
import { NodeTable } from "../../src/shared/nodes.ts";
import { PeerTableOwner } from "../../src/shared/peers-owner.ts";
import { endpointFromBytes } from "../support/arbitraries.ts";
import { cut, hex, ScriptedKernel, type SendStep } from "../support/kernel.ts";

const CAPACITY = 16;
const WORKER = 1;
const PACKET_ROOM = 2048;

const all: SendStep = (messages) => messages.length;
const take =
  (count: number): SendStep =>
  (messages) =>
    Math.min(count, messages.length);
const fail =
  (errno: number): SendStep =>
  () =>
    -errno;
/**
 * Takes what stands before the first message of which `refused` holds; refuses that with `errno`
 * when it comes first.
 */
const refuse =
  (errno: number, refused: (message: Parameters<SendStep>[0][number]) => boolean): SendStep =>
  (messages) => {
    const at = messages.findIndex(refused);
    return at === 0 ? -errno : at < 0 ? messages.length : at;
  };

/**
 * A sender on a scripted kernel. Destinations are nodes 0, 1, 2…, and a peer beacon at the same
 * endpoint as each; each packet starts with its serial number, the lower three bytes of which stand
 * where its sender's id begins, and 1000 more than its node as whom it is for.
 */
class Bench {
  readonly kernel = new ScriptedKernel(EAGAIN);
  readonly memory: SharedMemory;
  readonly nodes: NodeTable;
  readonly peers: PeerTableOwner;
  readonly runs = new Runs(CAPACITY);
  readonly sender: Sender;
  /** Of every packet put in: its destination and size. */
  readonly packets: { node: number; kind: number; bytes: number }[] = [];
  readonly #bytes: DataView;
  readonly #room: number;

  constructor(
    offload = true,
    memory = new SharedMemory({ workers: 2, nodesMax: 100, routesMax: 100 }),
    mayWait = true,
  ) {
    this.memory = memory;
    this.nodes = new NodeTable(memory, workerLock(WORKER));
    this.peers = new PeerTableOwner(memory);
    for (let node = 0; node < 8; node++) {
      this.nodes.record(node + 1, this.endpoint(node), 0, 0, 1);
      this.peers.add(this.endpoint(node), 0);
    }
    const packets = allocatePacketMemory(4, 0);
    this.#bytes = new DataView(packets.buffer);
    this.#room = Math.floor(packets.buffer.byteLength / PACKET_ROOM);
    const batch = new SendBatch(this.kernel, 5, AF_INET, CAPACITY, packets);
    const row = memory.counterRow(WORKER);
    const { slots } = this.nodes;
    this.sender = new Sender(batch, this.runs, slots, memory, row, {
      offload,
      mayWait,
    });
  }

  endpoint(node: number): Int32Array {
    return endpointFromBytes(new Uint8Array([10, 0, 0, node]), 9000 + node);
  }

  slot(node: number, kind = TO_NODE): number {
    if (kind === REPLY) return NO_SLOT;
    return kind === TO_PEER ? this.peers.slot(node) : this.nodes.find(node + 1);
  }

  /** Puts a packet into a run, as the packet handler does. */
  put(node: number, bytes: number, kind = TO_NODE): void {
    const { sender, runs } = this;
    const serial = this.packets.length;
    this.packets.push({ node, kind, bytes });
    const at = (serial % this.#room) * PACKET_ROOM;
    this.#bytes.setUint32(at, serial);
    this.#bytes.setUint32(at + SECOND_ID_AT, 1000 + node);
    const slot = this.slot(node, kind);
    const newest = sender.merging && slot !== NO_SLOT ? runs.newest(slot, 1) : -1;
    const place = newest < 0 ? -1 : runs.join(newest, bytes);
    if (place >= 0) {
      sender.batch.setPiece(newest, place, at, bytes);
      return;
    }
    if (runs.count === runs.capacity) sender.flush();
    const limit = slot !== NO_SLOT ? sender.mergeBytesMax(slot) : 0;
    const run = runs.start(kind, slot, 1, 0, bytes, limit);
    sender.batch.setDestination(run, this.endpoint(node), 0);
    sender.batch.setPiece(run, 0, at, bytes);
  }

  script(...steps: SendStep[]): void {
    this.kernel.sends.push(...steps);
  }

  count(column: number): number {
    return this.memory.counters[this.memory.counterRow(WORKER) + column]!;
  }

  dropped(at: number): Partial<Record<DropReason, number>> {
    const counts = DROP_REASONS.map((reason, i) => [reason, this.count(at + i)] as const);
    return Object.fromEntries(counts.filter(([, count]) => count !== 0));
  }

  /** Serial numbers of the packets that left, in order. */
  get left(): number[] {
    return this.kernel.datagrams.map(({ bytes }) =>
      new DataView(bytes.buffer).getUint32(bytes.byteOffset),
    );
  }

  /**
   * What holds whatever the kernel did: nothing twice, order kept, and every packet counted as what
   * became of it.
   */
  check(): void {
    const { left, packets, kernel } = this;
    expect(new Set(left).size).toBe(left.length);
    for (let node = 0; node < 8; node++) {
      for (const kind of [TO_NODE, TO_PEER, REPLY]) {
        const mine = left.filter(
          (serial) => packets[serial]!.node === node && packets[serial]!.kind === kind,
        );
        expect(mine).toEqual(mine.toSorted((a, b) => a - b));
      }
    }
    for (const { name, bytes } of kernel.datagrams) {
      const packet = packets[new DataView(bytes.buffer).getUint32(bytes.byteOffset)]!;
      expect(bytes.length).toBe(packet.bytes);
      const { node } = packet;
      const port = (9000 + node).toString(16).padStart(4, "0");
      expect(name.slice(4, 16)).toBe(`${port}${hex(new Uint8Array([10, 0, 0, node]))}`);
    }
    const relays = packets.filter(({ kind }) => kind !== REPLY).length;
    const leftOf = (kind: number) => left.filter((serial) => packets[serial]!.kind === kind).length;
    const relaysLeft = leftOf(TO_NODE) + leftOf(TO_PEER);
    const sum = (at: number): number =>
      DROP_REASONS.reduce((total, _, i) => total + this.count(at + i), 0);
    expect(this.count(RELAYED_LOCAL)).toBe(leftOf(TO_NODE));
    expect(this.count(RELAYED_TO_PEER)).toBe(leftOf(TO_PEER));
    expect(sum(RELAY_DROPPED_AT)).toBe(relays - relaysLeft);
    expect(sum(REPLY_DROPPED_AT)).toBe(packets.length - relays - (left.length - relaysLeft));
    expect(this.count(SENT_BYTES)).toBe(
      left.reduce((bytes, serial) => bytes + packets[serial]!.bytes, 0),
    );
    const merged = kernel.sent.map((message) => cut(message).length).filter((count) => count > 1);
    expect(this.count(SEGMENTS_SENT)).toBe(merged.reduce((total, count) => total + count, 0));
    // Nobody else's row was written.
    expect(
      this.memory.counters
        .subarray(0, this.memory.counterRow(WORKER))
        .every((value) => value === 0),
    ).toBe(true);
  }
}

/** Three merged packets to node 0, one each to nodes 1 and 2, two merged to node 3. */
function mixed(bench: Bench): void {
  for (const node of [0, 1, 0, 2, 3, 0, 3]) bench.put(node, 100);
}

describe("Sender", () => {
  test("sends all runs in one call and forgets them", () => {
    const bench = new Bench();
    mixed(bench);
    bench.sender.flush();
    expect(bench.kernel.sendCalls).toEqual([{ wait: true, offered: 4 }]);
    expect(bench.left).toEqual([0, 2, 5, 1, 3, 4, 6]);
    bench.check();
    expect(bench.runs.count).toBe(0);
    bench.sender.flush();
    expect(bench.kernel.sendCalls).toHaveLength(1);
  });

  test("sends each packet by itself without offload", () => {
    const bench = new Bench(false);
    mixed(bench);
    bench.sender.flush();
    expect(bench.left).toEqual([0, 1, 2, 3, 4, 5, 6]);
    expect(bench.kernel.sent.every(({ segmentBytes }) => segmentBytes === 0)).toBe(true);
    expect(bench.sender.mergeBytesMax(bench.slot(0))).toBe(0);
    bench.check();
  });

  test("goes on after a short send", () => {
    const bench = new Bench();
    mixed(bench);
    bench.script(take(1), take(2), all);
    bench.sender.flush();
    expect(bench.kernel.sendCalls.map(({ offered }) => offered)).toEqual([4, 3, 1]);
    expect(bench.left).toEqual([0, 2, 5, 1, 3, 4, 6]);
    bench.check();
  });

  test("tries again when a signal interrupts", () => {
    const bench = new Bench();
    mixed(bench);
    bench.script(
      ...new Array<SendStep>(10).fill(fail(EINTR)),
      take(2),
      ...new Array<SendStep>(10).fill(fail(EINTR)),
    );
    bench.sender.flush();
    expect(bench.left).toHaveLength(7);
    expect(bench.dropped(RELAY_DROPPED_AT)).toEqual({});
    bench.check();
  });

  test("an endless storm of signals ends", () => {
    const bench = new Bench();
    mixed(bench);
    bench.script(...new Array<SendStep>(1000).fill(fail(EINTR)));
    bench.sender.flush();
    expect(bench.left).toEqual([]);
    expect(bench.dropped(RELAY_DROPPED_AT)).toEqual({ send_error: 7 });
    expect(bench.kernel.sendCalls.length).toBeLessThan(100);
    bench.check();
  });

  test("waits for a full buffer once a flush, and drops what finds it full", () => {
    const bench = new Bench();
    mixed(bench);
    bench.script(fail(EAGAIN), take(1), fail(EAGAIN), all);
    bench.sender.flush();
    expect(bench.kernel.sendCalls.map(({ wait }) => wait)).toEqual([true, false, false, false]);
    expect(bench.left).toEqual([1, 4, 6]);
    expect(bench.dropped(RELAY_DROPPED_AT)).toEqual({ buffer_full: 4 });
    bench.check();
    bench.put(5, 10);
    bench.sender.flush();
    expect(bench.kernel.sendCalls.at(-1)?.wait).toBe(true);
  });

  test("one that may not wait never does, whatever the kernel answers, and goes on all the same", () => {
    const bench = new Bench(true, undefined, false);
    mixed(bench);
    bench.script(fail(EAGAIN), fail(EINTR), take(1), fail(EAGAIN), all);
    bench.sender.flush();
    expect(bench.left).toEqual([1, 4, 6]);
    expect(bench.dropped(RELAY_DROPPED_AT)).toEqual({ buffer_full: 4 });
    bench.check();
    // A merge that is refused, its packets one by one, and in the next flush again.
    mixed(bench);
    bench.script(fail(EMSGSIZE), fail(EAGAIN), all, fail(EAGAIN), fail(EAGAIN));
    bench.sender.flush();
    expect(bench.left.slice(3)).toEqual([9, 10, 11, 13]);
    bench.check();
    expect(bench.kernel.sendCalls.length).toBeGreaterThan(8);
    expect(bench.kernel.sendCalls.every(({ wait }) => !wait)).toBe(true);
  });

  test("a refused message costs its packets and no others", () => {
    const bench = new Bench();
    mixed(bench);
    const toNode2 = bench.packets.findIndex(({ node }) => node === 2);
    bench.script(
      refuse(EPERM, ({ pieces }) => pieces[0]![3] === toNode2),
      fail(EPERM),
      all,
    );
    bench.sender.flush();
    expect(bench.left).toEqual([0, 2, 5, 1, 4, 6]);
    expect(bench.dropped(RELAY_DROPPED_AT)).toEqual({ denied: 1 });
    expect(bench.sender.merging).toBe(true);
    bench.check();
  });

  test("a merged message refused for another reason is lost whole", () => {
    const bench = new Bench();
    mixed(bench);
    bench.script(fail(ENETUNREACH), all);
    bench.sender.flush();
    expect(bench.left).toEqual([1, 3, 4, 6]);
    expect(bench.dropped(RELAY_DROPPED_AT)).toEqual({ unreachable: 3 });
    expect(bench.sender.merging).toBe(true);
    bench.check();
  });

  test("EIO on a merged message: its packets go one by one, and merging ends for good", () => {
    const bench = new Bench();
    mixed(bench);
    const merged = refuse(EIO, ({ segmentBytes }) => segmentBytes !== 0);
    bench.script(merged, all, all, all, merged, merged, all, all);
    bench.sender.flush();
    expect(bench.left).toEqual([0, 2, 5, 1, 3, 4, 6]);
    expect(bench.dropped(RELAY_DROPPED_AT)).toEqual({});
    expect(bench.sender.merging).toBe(false);
    expect(bench.memory.words[OFFLOAD_ERRNO]).toBe(EIO);
    bench.check();
    const before = bench.kernel.sent.length;
    mixed(bench);
    bench.sender.flush();
    expect(bench.kernel.sent.slice(before).every(({ segmentBytes }) => segmentBytes === 0)).toBe(
      true,
    );
    bench.check();
    // A worker that is started anew does not try again.
    expect(new Bench(true, bench.memory).sender.merging).toBe(false);
  });

  test("EIO on a packet that was not merged is no reason to stop merging", () => {
    const bench = new Bench();
    bench.put(1, 100);
    bench.script(fail(EIO));
    bench.sender.flush();
    expect(bench.sender.merging).toBe(true);
    expect(bench.memory.words[OFFLOAD_ERRNO]).toBe(0);
    expect(bench.dropped(RELAY_DROPPED_AT)).toEqual({ send_error: 1 });
    bench.check();
  });

  test.each([EMSGSIZE, EINVAL])(
    "errno %d on a merged message: one by one, and less merging to that node",
    (errno) => {
      const bench = new Bench();
      mixed(bench);
      bench.script(fail(errno));
      bench.sender.flush();
      expect(bench.left).toEqual([0, 2, 5, 1, 3, 4, 6]);
      expect(bench.sender.merging).toBe(true);
      expect(bench.memory.words[OFFLOAD_ERRNO]).toBe(0);
      expect(bench.nodes.slots.mergeLimit(bench.slot(0))).toBe(99);
      expect(bench.sender.mergeBytesMax(bench.slot(0))).toBe(99);
      expect(bench.sender.mergeBytesMax(bench.slot(3))).toBe(UDP_PAYLOAD_MAX);
      bench.check();
      const before = bench.kernel.sent.length;
      mixed(bench);
      for (let i = 0; i < 3; i++) bench.put(0, 99);
      bench.sender.flush();
      const sizes = bench.kernel.sent
        .slice(before)
        .map((message) => cut(message).map(({ bytes }) => bytes.length));
      expect(sizes).toEqual([[100], [100], [100], [100], [100, 100], [100], [99, 99, 99]]);
      bench.check();
    },
  );

  test("a packet of a refused merge that is refused again is lost alone", () => {
    const bench = new Bench();
    mixed(bench);
    bench.script(fail(EMSGSIZE), all, fail(EMSGSIZE), all, all);
    bench.sender.flush();
    expect(bench.left).toEqual([0, 5, 1, 3, 4, 6]);
    expect(bench.dropped(RELAY_DROPPED_AT)).toEqual({ too_big: 1 });
    bench.check();
  });

  test("a call that takes nothing and names no error does not hang the loop", () => {
    const bench = new Bench();
    mixed(bench);
    bench.script(take(0), take(1), take(0), take(0));
    bench.sender.flush();
    expect(bench.left).toEqual([1]);
    expect(bench.dropped(RELAY_DROPPED_AT)).toEqual({ send_error: 6 });
    bench.check();
  });

  test("replies are counted apart", () => {
    const bench = new Bench();
    bench.put(0, 8, REPLY);
    bench.put(0, 100);
    bench.put(1, 20, REPLY);
    bench.script(fail(EPERM), all);
    bench.sender.flush();
    expect(bench.dropped(REPLY_DROPPED_AT)).toEqual({ denied: 1 });
    expect(bench.dropped(RELAY_DROPPED_AT)).toEqual({});
    expect(bench.left).toEqual([1, 2]);
    bench.check();
  });

  test("relays to peers are counted by themselves, their drops as any relay's", () => {
    const bench = new Bench();
    bench.put(0, 100, TO_PEER);
    bench.put(0, 100);
    bench.put(0, 100, TO_PEER);
    bench.put(1, 100, TO_PEER);
    bench.put(2, 100, TO_PEER);
    bench.put(2, 100, TO_PEER);
    bench.script(take(2), fail(EPERM), fail(ENETUNREACH), all);
    bench.sender.flush();
    expect(bench.left).toEqual([0, 2, 1]);
    expect([bench.count(RELAYED_TO_PEER), bench.count(RELAYED_LOCAL)]).toEqual([2, 1]);
    expect(bench.dropped(RELAY_DROPPED_AT)).toEqual({ denied: 1, unreachable: 2 });
    expect(bench.dropped(REPLY_DROPPED_AT)).toEqual({});
    bench.check();
  });

  test("each relay that was dropped is noted under its node and its own sender, and no reply", () => {
    const bench = new Bench();
    bench.memory.words[CLOCK_S] = 1;
    bench.put(0, 100);
    bench.put(0, 100);
    bench.put(1, 100, TO_PEER);
    bench.put(2, 100, REPLY);
    bench.put(3, 100);
    bench.script(fail(ENETUNREACH), fail(EPERM), fail(EPERM), all);
    bench.sender.flush();
    const drop = { atS: 1, count: 1 };
    expect(dropsOf(bench.memory, 1)).toEqual([
      { ...drop, to: 1, from: 0, reason: "unreachable" },
      { ...drop, to: 1, from: 1 << 8, reason: "unreachable" },
    ]);
    expect(dropsOf(bench.memory, 1001)).toEqual([
      { ...drop, to: 1001, from: 2 << 8, reason: "denied" },
    ]);
    for (const nodeId of [3, 1002, 4]) expect(dropsOf(bench.memory, nodeId)).toEqual([]);
  });

  test("a merge to a peer that is refused goes one by one, and is remembered by the peer's slot alone", () => {
    const bench = new Bench();
    for (let i = 0; i < 3; i++) bench.put(0, 100, TO_PEER);
    bench.script(fail(EMSGSIZE), all, fail(EPERM), all);
    bench.sender.flush();
    expect(bench.left).toEqual([0, 2]);
    expect(bench.count(RELAYED_TO_PEER)).toBe(2);
    expect(bench.dropped(RELAY_DROPPED_AT)).toEqual({ denied: 1 });
    expect(bench.sender.mergeBytesMax(bench.slot(0, TO_PEER))).toBe(99);
    expect(bench.sender.mergeBytesMax(bench.slot(0))).toBe(UDP_PAYLOAD_MAX);
    bench.peers.refresh(0);
    expect(bench.sender.mergeBytesMax(bench.slot(0, TO_PEER))).toBe(UDP_PAYLOAD_MAX);
    bench.check();
  });

  test("whatever the kernel answers: nothing twice, order kept, everything counted", () => {
    const errnos = [
      EINTR,
      EAGAIN,
      EPERM,
      EIO,
      EMSGSIZE,
      EINVAL,
      ENOBUFS,
      ENETUNREACH,
      ECONNREFUSED,
    ];
    const step = fc.oneof(
      fc.constantFrom(...errnos).map(fail),
      fc.integer({ min: 0, max: 4 }).map(take),
      fc.constant(all),
    );
    const packet = fc.record({
      node: fc.nat(7),
      bytes: fc.constantFrom(50, 100, 100, 100, 1200),
      kind: fc.constantFrom(TO_NODE, TO_NODE, TO_PEER, TO_PEER, REPLY),
    });
    const flushes = fc.array(
      fc.tuple(fc.array(packet, { maxLength: 40 }), fc.array(step, { maxLength: 20 })),
      {
        minLength: 1,
        maxLength: 3,
      },
    );
    fc.assert(
      fc.property(flushes, fc.boolean(), fc.boolean(), (rounds, offload, mayWait) => {
        const bench = new Bench(offload, undefined, mayWait);
        for (const [packets, steps] of rounds) {
          bench.script(...steps);
          for (const { node, bytes, kind } of packets) bench.put(node, bytes, kind);
          bench.sender.flush();
          bench.check();
        }
        if (!mayWait) expect(bench.kernel.sendCalls.every(({ wait }) => !wait)).toBe(true);
      }),
      { numRuns: 150 },
    );
  });

  test("wants a message for each run", () => {
    const { sender, nodes, memory } = new Bench();
    expect(
      () =>
        new Sender(sender.batch, new Runs(CAPACITY + 1), nodes.slots, memory, 0, {
          offload: true,
          mayWait: true,
        }),
    ).toThrow("capacities");
  });
});

test.each<[number, DropReason]>([
  [EAGAIN, "buffer_full"],
  [ENOBUFS, "buffer_full"],
  [ENOMEM, "buffer_full"],
  [ENETUNREACH, "unreachable"],
  [EHOSTUNREACH, "unreachable"],
  [ENETDOWN, "unreachable"],
  [EINVAL, "unreachable"],
  [EPERM, "denied"],
  [EACCES, "denied"],
  [EMSGSIZE, "too_big"],
  [EIO, "send_error"],
  [ECONNREFUSED, "send_error"],
  [0, "send_error"],
])("errno %d is a drop for %s", (errno, reason) => {
  expect(DROP_REASONS[dropOffsetOfErrno(errno)]).toBe(reason);
});
