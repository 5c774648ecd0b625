import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { closeSync, openSync } from "node:fs";
import fc from "fast-check";
import { AF_INET, MSG_TRUNC, SOL_UDP, UDP_GRO } from "../../ffi/abi.ts";
import { endpointOf } from "../../ffi/endpoint.ts";
import {
  EAGAIN,
  EBADF,
  EFAULT,
  EINTR,
  EINVAL,
  ENOMEM,
  ENOTSOCK,
  errnoName,
  SyscallError,
} from "../../ffi/errno.ts";
import { kernel } from "../../ffi/libc.ts";
import { UdpSocket } from "../../ffi/socket.ts";
import { RelayLoop } from "../../src/data/loop.ts";
import {
  DISCOVER,
  DISCOVER_EX,
  DISCOVER_REPLY,
  MESSAGE_NAMES,
  PUNCH_COMMAND,
  PUNCH_REQUEST,
  RELAY,
  RELAY_DELIVER,
  RELAY_DELIVER_DEST,
} from "../../src/protocol.ts";
import {
  BATCH_AT,
  BATCH_BUCKETS,
  BATCH_MESSAGES,
  DISCOVERS,
  DROP_REASONS,
  MALFORMED_AT,
  MALFORMED_REASONS,
  type MalformedReason,
  malformedColumn,
  PUNCHES_SENT,
  PUNCHES_TARGET_UNKNOWN,
  RECEIVE_ERRORS,
  RECEIVED_AT,
  RECEIVED_BYTES,
  REFUSED_AT,
  RELAY_DROPPED_AT,
  RELAY_NOT_FOUND,
  RELAYED_LOCAL,
  SEGMENTS_RECEIVED,
} from "../../src/shared/counters.ts";
import {
  CLOCK_S,
  HASH_SECRET,
  LAST_UNKNOWN_TARGET,
  SharedMemory,
  STOPPING,
} from "../../src/shared/memory.ts";
import { controlMessage, hex, int32Bytes, type ReceivedMessage, ScriptedKernel } from "../support/kernel.ts";
import { Peer } from "../support/peer.ts";

function sharedMemory(nodesMax = 100): SharedMemory {
  const memory = new SharedMemory({ workers: 1, nodesMax, routesMax: 100 });
  memory.words[CLOCK_S] = 1;
  memory.words[HASH_SECRET] = 0x7e57;
  return memory;
}

/** A loop on a scripted kernel. */
class Bench {
  readonly kernel = new ScriptedKernel(EAGAIN);
  readonly memory: SharedMemory;
  readonly loop: RelayLoop;

  constructor({ offload = true, batchMax = 8, nodesMax = 100 } = {}) {
    this.memory = sharedMemory(nodesMax);
    this.loop = new RelayLoop(this.kernel, this.memory, {
      worker: 0,
      fd: 5,
      family: AF_INET,
      beaconId: 0,
      batchMax,
      offload,
    });
  }

  step(...messages: ReceivedMessage[]): boolean {
    this.kernel.receives.push(messages);
    return this.loop.step();
  }

  count(column: number): number {
    return this.memory.counters[column]!;
  }

  sum(at: number, columns: number): number {
    return Array.from({ length: columns }, (_, i) => this.count(at + i)).reduce(
      (total, count) => total + count,
      0,
    );
  }

  malformed(): Partial<Record<MalformedReason, number>> {
    const counts = MALFORMED_REASONS.map((reason) => [reason, this.count(malformedColumn(reason))] as const);
    return Object.fromEntries(counts.filter(([, count]) => count !== 0));
  }
}

/** struct sockaddr_in of 10.0.0.`host`. */
function name(host: number, port = 4000 + host): Uint8Array {
  return new Uint8Array([AF_INET, 0, port >> 8, port & 0xff, 10, 0, 0, host, 0, 0, 0, 0, 0, 0, 0, 0]);
}

const u32 = (value: number): number[] => [
  value >>> 24,
  (value >>> 16) & 0xff,
  (value >>> 8) & 0xff,
  value & 0xff,
];
const message = (type: number, ids: readonly number[], tail: Uint8Array | number[] = []): Uint8Array =>
  new Uint8Array([type, ...ids.flatMap(u32), ...tail]);
const gro = (segmentBytes: number): Uint8Array => controlMessage(SOL_UDP, UDP_GRO, int32Bytes(segmentBytes));
const text = (value: string): Uint8Array => new TextEncoder().encode(value);

describe("RelayLoop on real sockets", () => {
  let socket: UdpSocket;
  let memory: SharedMemory;
  let loop: RelayLoop;
  const [alice, bob] = [new Peer(), new Peer()];
  const beacon = new Int32Array(6);

  beforeAll(() => {
    socket = UdpSocket.open(AF_INET);
    socket.setTimeouts(1, 1000);
    socket.enableOffload();
    socket.bind("127.0.0.1", 0);
    memory = sharedMemory();
    loop = new RelayLoop(kernel, memory, {
      worker: 0,
      fd: socket.fd,
      family: AF_INET,
      beaconId: 0,
      batchMax: 64,
      offload: true,
    });
    beacon.set(endpointOf("127.0.0.1", socket.localAddress().port));
  });
  afterAll(() => {
    for (const open of [socket, alice, bob]) open.close();
  });

  /** Steps until `column` has reached `count`; the runner's time limit bounds it. */
  function stepUntil(column: number, count: number): void {
    while (memory.counters[column]! < count) expect(loop.step()).toBe(true);
  }

  test("a receive that times out is no error and counts nothing", () => {
    const before = memory.counters.slice();
    expect(loop.step()).toBe(true);
    expect(memory.counters).toEqual(before);
  });

  test("answers Discover, carries a burst in order, and sends both ends of a punch", () => {
    alice.send(message(DISCOVER, [1]), beacon);
    bob.send(message(DISCOVER_EX, [2]), beacon);
    stepUntil(DISCOVERS, 2);
    const own = (peer: Peer): number[] => [127, 0, 0, 1, peer.port >> 8, peer.port & 0xff];
    expect(alice.receive()?.bytes).toEqual(new Uint8Array([DISCOVER_REPLY, 4, ...own(alice)]));
    expect(bob.receive()?.bytes).toEqual(new Uint8Array([DISCOVER_REPLY, 4, ...own(bob)]));
    const packets = 40;
    for (let i = 0; i < packets; i++)
      alice.send(message(RELAY, [1, 2], new Uint8Array(1000).fill(i)), beacon);
    stepUntil(RELAYED_LOCAL, packets);
    for (let i = 0; i < packets; i++) {
      expect(bob.receive()?.bytes).toEqual(message(RELAY_DELIVER_DEST, [1, 2], new Uint8Array(1000).fill(i)));
    }
    bob.send(message(RELAY, [2, 1], text("back")), beacon);
    stepUntil(RELAYED_LOCAL, packets + 1);
    expect(alice.receive()?.bytes).toEqual(message(RELAY_DELIVER, [2], text("back")));
    alice.send(message(PUNCH_REQUEST, [1, 2]), beacon);
    stepUntil(PUNCHES_SENT, 1);
    expect(alice.receive()?.bytes).toEqual(new Uint8Array([PUNCH_COMMAND, 4, ...own(bob)]));
    expect(bob.receive()?.bytes).toEqual(new Uint8Array([PUNCH_COMMAND, 4, ...own(alice)]));
  });

  test("ends when the main thread says so, after what it received", () => {
    Atomics.store(memory.words, STOPPING, 1);
    expect(loop.step()).toBe(false);
    loop.run(); // returns
    Atomics.store(memory.words, STOPPING, 0);
  });

  test("a descriptor that is none, or no socket, is fatal at once", () => {
    const failure = (fd: number): unknown => {
      const options = { worker: 0, fd, family: AF_INET, beaconId: 0, batchMax: 4, offload: true } as const;
      try {
        new RelayLoop(kernel, sharedMemory(), options).run();
      } catch (error) {
        return error;
      }
      return undefined;
    };
    expect(failure(-1)).toBeInstanceOf(SyscallError);
    expect(failure(-1)).toMatchObject({ call: "recvmmsg", code: "EBADF" });
    const file = openSync("/dev/null", "r");
    expect(failure(file)).toMatchObject({ call: "recvmmsg", code: "ENOTSOCK" });
    closeSync(file);
  });
});

describe("receive errors", () => {
  test.each([EBADF, ENOTSOCK, EFAULT, EINVAL])("errno %d ends the loop at once", (errno) => {
    const { kernel: calls, loop } = new Bench();
    calls.receives.push(-errno);
    expect(() => loop.step()).toThrow(`recvmmsg: ${errnoName(errno)}`);
  });

  test("timeouts and signals are none, however many", () => {
    const bench = new Bench();
    for (let i = 0; i < 5000; i++) bench.kernel.receives.push(i % 2 === 0 ? -EAGAIN : -EINTR);
    for (let i = 0; i < 5000; i++) expect(bench.loop.step()).toBe(true);
    expect(bench.count(RECEIVE_ERRORS)).toBe(0);
  });

  test("an error that may pass is counted, and ends the loop when it does not pass", () => {
    const bench = new Bench();
    const bound = 1000;
    const fail = (times: number): void => {
      for (let i = 0; i < times; i++) bench.kernel.receives.push(-ENOMEM);
      for (let i = 0; i < times; i++) expect(bench.loop.step()).toBe(true);
    };
    fail(bound);
    expect(bench.count(RECEIVE_ERRORS)).toBe(bound);
    bench.step({ bytes: message(DISCOVER, [1]), name: name(1) }); // it passed
    fail(bound);
    bench.kernel.receives.push(-ENOMEM);
    expect(() => bench.loop.step()).toThrow("recvmmsg: ENOMEM");
    expect(bench.count(RECEIVE_ERRORS)).toBe(2 * bound + 1);
  });
});

describe("a scripted batch", () => {
  test("segments of a merged message are packets of their own, the last one shorter", () => {
    const bench = new Bench();
    bench.step(
      { bytes: message(DISCOVER, [1]), name: name(1) },
      { bytes: message(DISCOVER, [2]), name: name(2) },
    );
    const packet = (tail: number[]): Uint8Array => message(RELAY, [1, 2], tail);
    const bytes = new Uint8Array([...packet([1, 1, 1]), ...packet([2, 2, 2]), ...packet([3])]);
    const before = bench.kernel.datagrams.length;
    bench.step({ bytes, name: name(1), control: gro(12) });
    expect(bench.kernel.datagrams.slice(before).map((sent) => hex(sent.bytes))).toEqual(
      [[1, 1, 1], [2, 2, 2], [3]].map((tail) => hex(message(RELAY_DELIVER, [1], tail))),
    );
    expect(bench.count(RECEIVED_AT + RELAY)).toBe(3);
    expect(bench.count(SEGMENTS_RECEIVED)).toBe(3);
    expect(bench.count(RECEIVED_BYTES)).toBe(10 + bytes.length);
    expect(bench.count(BATCH_MESSAGES)).toBe(3);
  });

  test.each([0, -1, 9, 10, 65_536, -(2 ** 31)])(
    "a segment size of %d leaves 9 bytes as one packet",
    (segmentBytes) => {
      const bench = new Bench();
      bench.step({ bytes: message(RELAY, [1, 2]), name: name(1), control: gro(segmentBytes) });
      expect(bench.count(RECEIVED_AT + RELAY)).toBe(1);
      expect(bench.count(SEGMENTS_RECEIVED)).toBe(0);
    },
  );

  test("what the kernel cut short is dropped whole, merged or not", () => {
    const bench = new Bench();
    const relay = message(RELAY, [1, 2], new Uint8Array(100));
    bench.step(
      { bytes: relay, name: name(1), flags: MSG_TRUNC },
      { bytes: relay, name: name(1), flags: MSG_TRUNC, control: gro(20) },
    );
    expect(bench.malformed()).toEqual({ truncated: 2 });
    expect(bench.sum(RECEIVED_AT, MESSAGE_NAMES.length)).toBe(0);
    expect(bench.kernel.sent).toEqual([]);
  });

  test("an empty datagram is counted, an empty message from nobody is not", () => {
    const bench = new Bench();
    bench.step({ bytes: new Uint8Array(), name: name(1) }, { bytes: new Uint8Array() });
    expect(bench.malformed()).toEqual({ empty: 1 });
    expect(bench.sum(RECEIVED_AT, MESSAGE_NAMES.length)).toBe(0);
  });

  test("a source port of 0 gets no answer and no entry", () => {
    const bench = new Bench();
    bench.step(
      { bytes: message(DISCOVER, [1]), name: name(1, 0) },
      { bytes: message(PUNCH_REQUEST, [1, 2]), name: name(1, 0) },
    );
    expect(bench.malformed()).toEqual({ no_source_port: 2 });
    expect(bench.kernel.sent).toEqual([]);
  });

  test("id 0 is answered, and leaves no trace in the table", () => {
    const bench = new Bench();
    bench.step({ bytes: message(DISCOVER, [2]), name: name(2) });
    const table = bench.memory.words.slice(bench.memory.slotsAt);
    for (const bytes of [message(DISCOVER, [0]), message(DISCOVER_EX, [0]), message(PUNCH_REQUEST, [0, 2])]) {
      bench.step({ bytes, name: name(1) });
    }
    expect(bench.kernel.sent).toHaveLength(1 + 1 + 1 + 2);
    expect(bench.memory.words.slice(bench.memory.slotsAt)).toEqual(table);
  });

  test("each batch falls into the bucket of its size", () => {
    const bench = new Bench({ batchMax: 1024 });
    const batches = [1, 2, 3, 4, 5, 8, 9, 64, 65, 1024];
    for (const messages of batches)
      bench.step(...new Array<ReceivedMessage>(messages).fill({ bytes: new Uint8Array() }));
    const buckets = BATCH_BUCKETS.map((_, i) => bench.count(BATCH_AT + i));
    expect(buckets).toEqual(
      BATCH_BUCKETS.map(
        (most, i) => batches.filter((n) => n <= most && n > (BATCH_BUCKETS[i - 1] ?? 0)).length,
      ),
    );
  });

  test("more packets than a send takes leave in parts", () => {
    const bench = new Bench({ batchMax: 1024, nodesMax: 1000, offload: false });
    const messages = Array.from({ length: 1000 }, (_, i) => ({
      bytes: message(DISCOVER, [i + 1]),
      name: name(i & 0xff, i + 1),
    }));
    bench.step(...messages);
    expect(bench.kernel.sendCalls.map(({ offered }) => offered)).toEqual([256, 256, 256, 232]);
    for (const [i, { bytes }] of bench.kernel.datagrams.entries()) {
      expect(bytes).toEqual(new Uint8Array([DISCOVER_REPLY, 4, 10, 0, 0, i & 0xff, ...u32(i + 1).slice(2)]));
    }
  });
});

describe("any traffic at all", () => {
  const anyName = fc
    .tuple(fc.integer({ min: 1, max: 5 }), fc.constantFrom(0, 4000, 5000))
    .map((from) => name(...from));
  const ids = fc.constantFrom(0, 1, 2, 3, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff);
  const valid = fc
    .tuple(fc.constantFrom(DISCOVER, DISCOVER_EX, PUNCH_REQUEST, RELAY, RELAY, RELAY), ids, ids, fc.nat(30))
    .map(([type, a, b, tail]) =>
      message(type, type === DISCOVER || type === DISCOVER_EX ? [a] : [a, b], new Uint8Array(tail)),
    );
  const random = fc.uint8Array({ maxLength: 100 });
  const lowType = fc.tuple(fc.nat(0x0f), random).map(([type, tail]) => new Uint8Array([type, ...tail]));
  const messages = fc.record({
    bytes: fc.oneof(
      valid,
      random,
      lowType,
      fc.array(valid, { maxLength: 5 }).map((list) => new Uint8Array(Buffer.concat(list))),
    ),
    name: anyName,
    control: fc.oneof(fc.constant(new Uint8Array()), fc.integer({ min: 1, max: 40 }).map(gro)),
    flags: fc.constantFrom(0, 0, 0, 0, 0, MSG_TRUNC),
  });
  const batches = fc.array(fc.array(messages, { minLength: 1, maxLength: 8 }), {
    minLength: 1,
    maxLength: 6,
  });

  const isMerged = (bytes: number, segmentBytes: number): boolean => segmentBytes > 0 && segmentBytes < bytes;
  const segmentBytesOf = (control: Uint8Array): number =>
    control.length === 0 ? 0 : new DataView(control.buffer).getInt32(16, true);

  test("never throws, and counts every datagram exactly once", () => {
    fc.assert(
      fc.property(batches, fc.boolean(), fc.constantFrom(2, 100), (list, offload, nodesMax) => {
        const bench = new Bench({ offload, nodesMax });
        let datagrams = 0;
        for (const batch of list) {
          bench.step(...batch);
          for (const { bytes, control, flags } of batch) {
            const segmentBytes = offload ? segmentBytesOf(control) : 0;
            const whole = flags === MSG_TRUNC || !isMerged(bytes.length, segmentBytes);
            datagrams += whole ? 1 : Math.ceil(bytes.length / segmentBytes);
          }
        }
        const received = bench.sum(RECEIVED_AT, MESSAGE_NAMES.length);
        const { empty = 0, truncated = 0 } = bench.malformed();
        expect(received + empty + truncated).toBe(datagrams);
        // And by what became of it.
        expect(
          bench.sum(MALFORMED_AT, MALFORMED_REASONS.length) +
            bench.count(RELAYED_LOCAL) +
            bench.count(RELAY_NOT_FOUND) +
            bench.sum(RELAY_DROPPED_AT, DROP_REASONS.length) +
            bench.count(DISCOVERS) +
            bench.count(PUNCHES_SENT) +
            bench.count(PUNCHES_TARGET_UNKNOWN),
        ).toBe(datagrams);
      }),
      { numRuns: 300 },
    );
  });

  /** One datagram that leaves: to whom, what, and for relays the node it is for. */
  interface Expected {
    readonly name: string;
    readonly bytes: string;
    readonly lane: string;
  }

  /** The protocol over a map of nodes, one datagram after the other. */
  class Model {
    readonly nodes = new Map<number, { name: Uint8Array; wantsDest: boolean }>();
    readonly out: Expected[] = [];
    lastUnknown = 0;
    refused = 0;

    constructor(private readonly nodesMax: number) {}

    #send(to: Uint8Array, bytes: Uint8Array, lane: string): void {
      this.out.push({ name: hex(to), bytes: hex(bytes), lane });
    }

    #address(type: number, about: Uint8Array): Uint8Array {
      return new Uint8Array([type, 4, ...about.subarray(4, 8), ...about.subarray(2, 4)]);
    }

    #record(id: number, from: Uint8Array, wantsDest: boolean | undefined): boolean {
      const known = this.nodes.get(id);
      if (known === undefined && this.nodes.size >= this.nodesMax) {
        this.refused++;
        return false;
      }
      this.nodes.set(id, { name: from, wantsDest: wantsDest ?? known?.wantsDest ?? false });
      return true;
    }

    datagram(bytes: Uint8Array, from: Uint8Array): void {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
      const noPort = from[2] === 0 && from[3] === 0;
      const type = bytes[0];
      if ((type === DISCOVER || type === DISCOVER_EX) && bytes.length >= 5 && !noPort) {
        const id = view.getUint32(1);
        if (id === 0 || this.#record(id, from, type === DISCOVER_EX)) {
          this.#send(from, this.#address(DISCOVER_REPLY, from), "reply");
        }
      } else if (type === PUNCH_REQUEST && bytes.length >= 9 && !noPort) {
        const [requester, target] = [view.getUint32(1), view.getUint32(5)];
        if (requester !== 0) this.#record(requester, from, undefined);
        const node = this.nodes.get(target);
        if (node === undefined) {
          this.lastUnknown = target;
          return;
        }
        this.#send(from, this.#address(PUNCH_COMMAND, node.name), "reply");
        this.#send(node.name, this.#address(PUNCH_COMMAND, from), "reply");
      } else if (type === RELAY && bytes.length >= 9) {
        const dest = view.getUint32(5);
        const node = this.nodes.get(dest);
        if (node === undefined) return;
        const sent = node.wantsDest
          ? new Uint8Array([RELAY_DELIVER_DEST, ...bytes.subarray(1)])
          : new Uint8Array([RELAY_DELIVER, ...bytes.subarray(1, 5), ...bytes.subarray(9)]);
        this.#send(node.name, sent, `relay to ${dest}`);
      }
    }
  }

  /** A sender id that no other packet has, so that each can be told where it comes out. */
  const numbered = (bytes: Uint8Array, serial: number): Uint8Array => {
    if (bytes[0] !== RELAY || bytes.length < 9) return bytes;
    const copy = bytes.slice();
    new DataView(copy.buffer).setUint32(1, serial);
    return copy;
  };

  test("does what the protocol says, in order for each destination, with offload and without", () => {
    const plain = fc.record({ bytes: fc.oneof(valid, valid, valid, lowType), name: anyName });
    const merged = fc
      .record({
        tails: fc.array(ids, { minLength: 2, maxLength: 6 }),
        tail: fc.nat(20),
        last: fc.nat(20),
        name: anyName,
      })
      .map(({ tails, tail, last, name: from }) => ({ tails, tail, last, name: from }));
    const item = fc.oneof({ weight: 3, arbitrary: plain }, { weight: 1, arbitrary: merged });
    const known = [1, 2, 3].map((id) => ({
      bytes: message(id === 3 ? DISCOVER_EX : DISCOVER, [id]),
      name: name(id),
    }));
    fc.assert(
      fc.property(
        fc.array(fc.array(item, { maxLength: 8 }), { minLength: 1, maxLength: 6 }),
        fc.boolean(),
        fc.constantFrom(3, 100),
        (rounds, offload, nodesMax) => {
          const bench = new Bench({ offload, nodesMax });
          const model = new Model(nodesMax);
          let serial = 1;
          for (const round of [known, ...rounds]) {
            const batch: ReceivedMessage[] = [];
            for (const entry of round) {
              if ("bytes" in entry) {
                const bytes = numbered(entry.bytes, serial++);
                model.datagram(bytes, entry.name);
                batch.push({ bytes, name: entry.name });
                continue;
              }
              const { tails, tail, last } = entry;
              const packets = tails.map((dest, i) => {
                const size = i === tails.length - 1 ? Math.min(tail, last) : tail;
                return message(RELAY, [serial++, dest], new Uint8Array(size).fill(serial));
              });
              for (const packet of packets) model.datagram(packet, entry.name);
              if (offload) {
                const bytes = new Uint8Array(Buffer.concat(packets));
                batch.push({ bytes, name: entry.name, control: gro(9 + tail) });
              } else {
                batch.push(...packets.map((bytes) => ({ bytes, name: entry.name })));
              }
            }
            for (let at = 0; at < batch.length; at += 8) bench.step(...batch.slice(at, at + 8));
          }
          const sent = bench.kernel.datagrams.map((datagram) => ({
            name: datagram.name,
            bytes: hex(datagram.bytes),
          }));
          const key = (to: string, bytes: string): string => `${to} ${bytes}`;
          const lanes = new Map(
            model.out.map((out) => [key(out.name, out.bytes), `${out.lane} at ${out.name}`]),
          );
          const byLane = (list: readonly { name: string; bytes: string }[]): Record<string, string[]> => {
            const result: Record<string, string[]> = {};
            for (const { name: to, bytes } of list) {
              const lane = lanes.get(key(to, bytes)) ?? "nobody expected these";
              result[lane] ??= [];
              result[lane].push(bytes);
            }
            return result;
          };
          expect(byLane(sent)).toEqual(byLane(model.out));
          expect(bench.sum(REFUSED_AT, 1)).toBe(model.refused);
          const unknown = bench.memory.words[bench.memory.workerWords(0) + LAST_UNKNOWN_TARGET]! >>> 0;
          expect(unknown).toBe(model.lastUnknown);
        },
      ),
      { numRuns: 300 },
    );
  });
});
