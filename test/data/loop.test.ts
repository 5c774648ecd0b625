import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { closeSync, openSync } from "node:fs";
import fc from "fast-check";
import {
  AF_INET,
  AF_INET6,
  IP_PKTINFO,
  IPPROTO_IP,
  MSG_TRUNC,
  SOL_UDP,
  UDP_GRO,
  UDP_PAYLOAD_MAX,
} from "../../ffi/abi.ts";
import type { Clock } from "../../ffi/clock.ts";
import {
  ENDPOINT_LOCAL_MASK,
  ENDPOINT_LOCAL_SHIFT,
  ENDPOINT_WORDS,
  endpointFromName,
  endpointOf,
  type Family,
} from "../../ffi/endpoint.ts";
import {
  EAGAIN,
  EBADF,
  EFAULT,
  EINTR,
  EINVAL,
  ENOMEM,
  ENOTSOCK,
  EPERM,
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
  SYNC,
  SYNC_TRAILER_BYTES,
} from "../../src/protocol.ts";
import {
  BATCH_AT,
  BATCH_BUCKETS,
  BATCH_MESSAGES,
  COLUMN,
  DISCOVERS,
  DROP_REASONS,
  type DropReason,
  GOSSIP_RECEIVED,
  GOSSIP_REJECTED_AT,
  GOSSIP_REJECTIONS,
  type GossipRejection,
  GRANT_OUTCOMES,
  type GrantOutcome,
  KEYS_REFUSED,
  MALFORMED_AT,
  MALFORMED_REASONS,
  type MalformedReason,
  PUNCHES_BRIDGED,
  PUNCHES_SENT,
  PUNCHES_TARGET_UNKNOWN,
  RECEIVE_ERRORS,
  RECEIVED_AT,
  RECEIVED_BYTES,
  REFUSED_AT,
  RELAY_DROPPED_AT,
  RELAY_NOT_FOUND,
  RELAYED_LOCAL,
  RELAYED_TO_PEER,
  REPLY_DROPPED_AT,
  SEGMENTS_RECEIVED,
  SEGMENTS_SENT,
} from "../../src/shared/counters.ts";
import { GRANT_RATE, RateLimitOwner } from "../../src/shared/limits.ts";
import { LocalAddresses } from "../../src/shared/local-addresses.ts";
import { MailboxReader } from "../../src/shared/mailbox.ts";
import {
  CLOCK_S,
  ENDPOINT_HOLD_S,
  FRAMES,
  GOSSIP,
  GRANTS,
  GRANTS_MAILBOX_WORDS,
  GRANTS_REQUIRED,
  HASH_SECRET,
  HEARTBEAT,
  LAST_REJECTED_SOURCE,
  LAST_REJECTION,
  LAST_UNKNOWN_TARGET,
  LIMITS_SHADOW,
  MAIL,
  MAILBOX_WORDS,
  MAIN_THREAD_LOCK,
  PEERS_MAX,
  SharedMemory,
  STOPPING,
  STRANGERS_BELIEVED,
} from "../../src/shared/memory.ts";
import { ADDED, MOVED } from "../../src/shared/nodes.ts";
import { NodeTableOwner } from "../../src/shared/nodes-owner.ts";
import { PeerTableOwner } from "../../src/shared/peers-owner.ts";
import { RouteTableOwner } from "../../src/shared/routes-owner.ts";
import { endpointFromBytes, nameFromBytes } from "../support/arbitraries.ts";
import {
  controlMessage,
  hex,
  int32Bytes,
  type ReceivedMessage,
  ScriptedKernel,
} from "../support/kernel.ts";
import { patience } from "../support/patience.ts";
import { Peer } from "../support/peer.ts";

function sharedMemory(nodesMax = 100): SharedMemory {
  const memory = new SharedMemory({ workers: 1, nodesMax, routesMax: 100 });
  memory.words[CLOCK_S] = 1;
  memory.words[HASH_SECRET] = 0x7e57;
  return memory;
}

interface BenchOptions {
  readonly offload?: boolean;
  readonly batchMax?: number;
  readonly nodesMax?: number;
  readonly beaconId?: number;
  readonly family?: Family;
  readonly clock?: Clock;
}

/** A loop on a scripted kernel, and what the main thread has in its memory. */
class Bench {
  readonly kernel = new ScriptedKernel(EAGAIN);
  readonly memory: SharedMemory;
  readonly loop: RelayLoop;
  readonly peers: PeerTableOwner;
  readonly routes: RouteTableOwner;
  readonly nodes: NodeTableOwner;
  readonly gossip: MailboxReader;
  readonly frames: MailboxReader;
  readonly grants: MailboxReader;
  #nowNs = 0;

  constructor({
    offload = true,
    batchMax = 8,
    nodesMax = 100,
    beaconId = 0,
    family = AF_INET,
    clock,
  }: BenchOptions = {}) {
    this.memory = sharedMemory(nodesMax);
    const options = { worker: 0, fd: 5, family, beaconId, batchMax, offload };
    this.loop = new RelayLoop(
      this.kernel,
      this.memory,
      options,
      clock ?? { nowNs: () => this.#tick() },
    );
    this.peers = new PeerTableOwner(this.memory);
    this.routes = new RouteTableOwner(this.memory);
    this.nodes = new NodeTableOwner(this.memory, MAIN_THREAD_LOCK);
    this.gossip = new MailboxReader(this.memory, GOSSIP, 0);
    this.frames = new MailboxReader(this.memory, FRAMES, 0);
    this.grants = new MailboxReader(this.memory, GRANTS, 0);
  }

  /** So much time between any two messages that no limit by time is met. */
  #tick(): number {
    this.#nowNs += 1e9;
    return this.#nowNs;
  }

  /** Makes whoever has this sockaddr a peer. @returns its number */
  addPeer(peerName: Uint8Array): number {
    return this.peers.add(endpointOfName(peerName), 0);
  }

  /** Takes the gossip out of the mailbox: source and message, in hex. */
  takeMail(): Mail[] {
    return this.#take(this.gossip);
  }

  /** Takes the punch requests whose grants are to be verified, likewise. */
  takeGrants(): Mail[] {
    return this.#take(this.grants);
  }

  #take(mailbox: MailboxReader): Mail[] {
    const { memory } = this;
    const taken: Mail[] = [];
    for (let mail = mailbox.take(); mail !== undefined; mail = mailbox.take()) {
      const source = memory.words.slice(mail.labelAt, mail.labelAt + ENDPOINT_WORDS);
      const bytes = hex(memory.bytes.slice(mail.at, mail.at + mail.bytes));
      taken.push({ source: [...source].join(), bytes });
    }
    mailbox.release();
    return taken;
  }

  /** Asks for grants from now on, or not. */
  requireGrants(required = true): void {
    this.memory.words[this.memory.rulesAt + GRANTS_REQUIRED] = Number(required);
  }

  /** What workers themselves refused of punch requests. */
  grantsRefused(): Partial<Record<GrantOutcome, number>> {
    return this.#named(COLUMN.punchGrants, GRANT_OUTCOMES);
  }

  /** Takes the frames for nodes behind the bridge out of the mailbox. */
  takeFrames(): Frame[] {
    const { memory, frames } = this;
    const taken: Frame[] = [];
    for (let mail = frames.take(); mail !== undefined; mail = frames.take()) {
      const bytes = memory.bytes.slice(mail.at, mail.at + mail.bytes);
      taken.push({ nodeId: memory.words[mail.labelAt]! >>> 0, bytes });
    }
    frames.release();
    return taken;
  }

  /** Gossip that was rejected, by reason. */
  rejected(): Partial<Record<GossipRejection, number>> {
    return this.#named(GOSSIP_REJECTED_AT, GOSSIP_REJECTIONS);
  }

  /** The last rejection as it is told to the main thread. */
  lastRejection(): Rejection | undefined {
    const { words } = this.memory;
    const at = this.memory.workerWords(0);
    const reason = GOSSIP_REJECTIONS[words[at + LAST_REJECTION]! - 1];
    const source = words.slice(
      at + LAST_REJECTED_SOURCE,
      at + LAST_REJECTED_SOURCE + ENDPOINT_WORDS,
    );
    return reason && { reason, source: [...source].join() };
  }

  relaysDropped(): Partial<Record<DropReason, number>> {
    return this.#named(RELAY_DROPPED_AT, DROP_REASONS);
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
    return this.#named(MALFORMED_AT, MALFORMED_REASONS);
  }

  /** Counts by name, without those that stand at 0. */
  #named<Name extends string>(at: number, names: readonly Name[]): Partial<Record<Name, number>> {
    const counts = names.map((one, i) => [one, this.count(at + i)] as const);
    return Object.fromEntries(counts.filter(([, count]) => count !== 0)) as Partial<
      Record<Name, number>
    >;
  }
}

interface Mail {
  readonly source: string;
  readonly bytes: string;
}

interface Frame {
  readonly nodeId: number;
  readonly bytes: Uint8Array;
}

interface Rejection {
  readonly reason: GossipRejection;
  readonly source: string;
}

/** The endpoint of a struct sockaddr_in. */
function endpointOfName(bytes: Uint8Array): Int32Array {
  const endpoint = new Int32Array(ENDPOINT_WORDS);
  endpointFromName(AF_INET, new Int32Array(bytes.slice().buffer), 0, endpoint, 0);
  return endpoint;
}

/** struct sockaddr_in of 10.0.0.`host`. */
function name(host: number, port = 4000 + host): Uint8Array {
  return new Uint8Array([
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
  ]);
}

const u32 = (value: number): number[] => [
  value >>> 24,
  (value >>> 16) & 0xff,
  (value >>> 8) & 0xff,
  value & 0xff,
];
const message = (
  type: number,
  ids: readonly number[],
  tail: Uint8Array | number[] = [],
): Uint8Array => new Uint8Array([type, ...ids.flatMap(u32), ...tail]);
/** A Sync that says it names `count` nodes. */
const sync = (beaconId: number, nodeIds: readonly number[], count = nodeIds.length): Uint8Array =>
  new Uint8Array([SYNC, ...u32(beaconId), ...u32(count).slice(2), ...nodeIds.flatMap(u32)]);
const gro = (segmentBytes: number): Uint8Array =>
  controlMessage(SOL_UDP, UDP_GRO, int32Bytes(segmentBytes));
const text = (value: string): Uint8Array => new TextEncoder().encode(value);

describe("RelayLoop on real sockets", () => {
  let socket: UdpSocket;
  let memory: SharedMemory;
  let loop: RelayLoop;
  const [alice, bob, carol] = [new Peer(), new Peer(), new Peer()];
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
    for (const open of [socket, alice, bob, carol]) open.close();
  });

  /** Steps until `column` has reached `count`. @throws Error if it never does */
  function stepUntil(column: number, count: number): void {
    const check = patience(`column ${column} reaches ${count}`);
    while (memory.counters[column]! < count) {
      expect(loop.step()).toBe(true);
      check();
    }
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
      expect(bob.receive()?.bytes).toEqual(
        message(RELAY_DELIVER_DEST, [1, 2], new Uint8Array(1000).fill(i)),
      );
    }
    bob.send(message(RELAY, [2, 1], text("back")), beacon);
    stepUntil(RELAYED_LOCAL, packets + 1);
    expect(alice.receive()?.bytes).toEqual(message(RELAY_DELIVER, [2], text("back")));
    alice.send(message(PUNCH_REQUEST, [1, 2]), beacon);
    stepUntil(PUNCHES_SENT, 1);
    expect(alice.receive()?.bytes).toEqual(new Uint8Array([PUNCH_COMMAND, 4, ...own(bob)]));
    expect(bob.receive()?.bytes).toEqual(new Uint8Array([PUNCH_COMMAND, 4, ...own(alice)]));
  });

  test("forwards to a peer what is for a node of its, unchanged, and takes its gossip", () => {
    const peers = new PeerTableOwner(memory);
    const peer = peers.add(carol.endpoint, 0);
    new RouteTableOwner(memory).claim(11, peer);
    const packets = 40;
    const relayTo = (dest: number, i: number) =>
      message(RELAY, [1, dest], new Uint8Array(1000).fill(i));
    for (let i = 0; i < packets; i++) alice.send(relayTo(11, i), beacon);
    stepUntil(RELAYED_TO_PEER, packets);
    for (let i = 0; i < packets; i++) expect(carol.receive()?.bytes).toEqual(relayTo(11, i));
    const local = memory.counters[RELAYED_LOCAL]!;
    const unknown = memory.counters[RELAY_NOT_FOUND]!;
    for (const dest of [11, 1]) carol.send(relayTo(dest, 7), beacon);
    stepUntil(RELAYED_LOCAL, local + 1);
    stepUntil(RELAY_NOT_FOUND, unknown + 1);
    expect(alice.receive()?.bytes).toEqual(
      message(RELAY_DELIVER, [1], new Uint8Array(1000).fill(7)),
    );
    carol.send(sync(8, [21, 22]), beacon);
    stepUntil(GOSSIP_RECEIVED, 1);
    const mail = new MailboxReader(memory, GOSSIP, 0).take()!;
    expect(hex(memory.bytes.slice(mail.at, mail.at + mail.bytes))).toBe(hex(sync(8, [21, 22])));
    expect(peers.find(memory.words, mail.labelAt)).toBe(peer);
  });

  test("hands over what is for a node behind the bridge, and carries what it sends by UDP", () => {
    const nodes = new NodeTableOwner(memory, MAIN_THREAD_LOCK);
    const frames = new MailboxReader(memory, FRAMES, 0);
    expect(nodes.bridge(2, 1)).toBe(MOVED); // bob
    const packets = 40;
    const payload = (i: number): Uint8Array => new Uint8Array(1001).fill(i);
    const relays = memory.counters[RECEIVED_AT + RELAY]!;
    for (let i = 0; i < packets; i++) alice.send(message(RELAY, [1, 2], payload(i)), beacon);
    stepUntil(RECEIVED_AT + RELAY, relays + packets);
    for (let i = 0; i < packets; i++) {
      const mail = frames.take()!;
      expect(memory.words[mail.labelAt]).toBe(2);
      expect(hex(memory.bytes.slice(mail.at, mail.at + mail.bytes))).toBe(
        hex(message(RELAY_DELIVER, [1], payload(i))),
      );
    }
    expect(frames.take()).toBeUndefined();
    frames.release();
    const local = memory.counters[RELAYED_LOCAL]!;
    bob.send(message(RELAY, [2, 1], text("by UDP")), beacon);
    stepUntil(RELAYED_LOCAL, local + 1);
    expect(alice.receive()?.bytes).toEqual(message(RELAY_DELIVER, [2], text("by UDP")));
    expect(nodes.unbridge(2)).toBe(true);
    alice.send(message(RELAY, [1, 2], text("again")), beacon);
    stepUntil(RELAYED_LOCAL, local + 2);
    expect(bob.receive()?.bytes).toEqual(message(RELAY_DELIVER_DEST, [1, 2], text("again")));
  });

  test("ends when the main thread says so, after what it received", () => {
    Atomics.store(memory.words, STOPPING, 1);
    expect(loop.step()).toBe(false);
    loop.run(); // returns
    Atomics.store(memory.words, STOPPING, 0);
  });

  test("a descriptor that is none, or no socket, is fatal at once", () => {
    const failure = (fd: number): unknown => {
      const options = {
        worker: 0,
        fd,
        family: AF_INET,
        beaconId: 0,
        batchMax: 4,
        offload: true,
      } as const;
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

test("each step moves the worker's own heartbeat, be it with packets or without", () => {
  const memory = new SharedMemory({ workers: 2, nodesMax: 100, routesMax: 100 });
  const options = {
    worker: 1,
    fd: 5,
    family: AF_INET as Family,
    beaconId: 0,
    batchMax: 8,
    offload: true,
  };
  const loop = new RelayLoop(new ScriptedKernel(EAGAIN), memory, options);
  const beats = () => [0, 1].map((worker) => memory.words[memory.workerWords(worker) + HEARTBEAT]);
  for (let steps = 1; steps <= 3; steps++) {
    expect(loop.step()).toBe(true);
    expect(beats()).toEqual([0, steps]);
  }
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

  describe("a series for one node in a merged message", () => {
    /** Node 2 is there, at name(2). */
    function registered(): Bench {
      const bench = new Bench();
      bench.step({ bytes: message(DISCOVER, [2]), name: name(2) });
      bench.kernel.sent.length = 0;
      return bench;
    }
    const merged = (...packets: Uint8Array[]) => ({
      bytes: new Uint8Array(Buffer.concat(packets)),
      name: name(1),
      control: gro(packets[0]!.length),
    });
    const relays = (count: number, bytes: number, dest = 2) =>
      Array.from({ length: count }, (_, i) =>
        message(RELAY, [i, dest], new Uint8Array(bytes - 9).fill(i)),
      );
    const delivered = (relay: Uint8Array) =>
      hex(new Uint8Array([RELAY_DELIVER, ...relay.slice(1, 5), ...relay.slice(9)]));
    const sent = (bench: Bench) => bench.kernel.datagrams.map(({ bytes }) => hex(bytes));

    test("ends where another message stands, whose bytes look like that node's id", () => {
      const bench = registered();
      const others = [PUNCH_REQUEST, DISCOVER, RELAY_DELIVER, 0xff].map((type) =>
        message(type, [7, 2], [1, 2, 3]),
      );
      const [first, second, third] = relays(3, 12);
      for (const other of others) {
        bench.kernel.sent.length = 0;
        bench.step(merged(first!, second!, other, third!));
        expect(sent(bench).filter((bytes) => bytes.startsWith("06"))).toEqual(
          [first, second, third].map((relay) => delivered(relay!)),
        );
      }
      expect(bench.count(RECEIVED_AT + RELAY)).toBe(12);
      expect(bench.malformed()).toEqual({ not_for_beacon: 1, unknown_type: 1 });
    });

    test.each([1, 5, 8])(
      "is none where packets of %d bytes are too short, whatever stands behind them",
      (bytes) => {
        const bench = registered();
        const [relay] = relays(1, 12);
        const short = new Uint8Array(Buffer.concat(relays(4, 12))).slice(0, 4 * bytes);
        for (let at = 0; at < short.length; at += bytes) short[at] = RELAY;
        bench.step(
          { bytes: relay!, name: name(1) },
          { bytes: short, name: name(1), control: gro(bytes) },
        );
        expect(sent(bench)).toEqual([delivered(relay!)]);
        expect(bench.malformed()).toEqual({ short: 4 });
      },
    );

    test("fills runs of 64 packets, over messages too, and starts new ones", () => {
      const bench = registered();
      const packets = relays(150, 30);
      bench.step(
        merged(...packets.slice(0, 50)),
        merged(...packets.slice(50, 100)),
        merged(...packets.slice(100)),
      );
      expect(sent(bench)).toEqual(packets.map(delivered));
      expect(bench.kernel.sent.map(({ pieces }) => pieces.length)).toEqual([64, 64, 22]);
    });

    test("fills runs up to the largest UDP payload, and starts new ones", () => {
      const bench = registered();
      const packets = relays(40, 2004);
      bench.step(merged(...packets.slice(0, 20)), merged(...packets.slice(20)));
      expect(sent(bench)).toEqual(packets.map(delivered));
      // 32 × 2,000 bytes
      expect(bench.kernel.sent.map(({ pieces }) => pieces.length)).toEqual([32, 8]);
    });
  });

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
    for (const bytes of [
      message(DISCOVER, [0]),
      message(DISCOVER_EX, [0]),
      message(PUNCH_REQUEST, [0, 2]),
    ]) {
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
      expect(bytes).toEqual(
        new Uint8Array([DISCOVER_REPLY, 4, 10, 0, 0, i & 0xff, ...u32(i + 1).slice(2)]),
      );
    }
  });
});

describe("peers", () => {
  const [PEER, OTHER_PEER, NODE] = [name(4, 4000), name(5, 4000), name(1)];
  /** Its route leads to the peer; nobody here has it. */
  const REMOTE = 11;
  const OTHER_REMOTE = 12;

  /**
   * A beacon with two peers, a node of its own, and a route to each of two nodes at the first peer.
   */
  function mesh(options: BenchOptions = {}): Bench {
    const bench = new Bench(options);
    for (const [number, peerName] of [PEER, OTHER_PEER].entries())
      expect(bench.addPeer(peerName)).toBe(number);
    for (const id of [REMOTE, OTHER_REMOTE]) bench.routes.claim(id, 0);
    bench.step({ bytes: message(DISCOVER, [1]), name: NODE });
    bench.kernel.sent.length = 0;
    return bench;
  }

  const relayTo = (dest: number, serial: number, tail = 20): Uint8Array =>
    message(RELAY, [serial, dest], new Uint8Array(tail).fill(serial));
  const sent = (bench: Bench) =>
    bench.kernel.datagrams.map(({ name: to, bytes }) => ({ to, bytes: hex(bytes) }));
  const forwarded = (dest: number, serials: readonly number[], to = PEER) =>
    serials.map((serial) => ({ to: hex(to), bytes: hex(relayTo(dest, serial)) }));

  test.each(["on", "off"])("a relay for a peer's node leaves as it came, offload %s", (offload) => {
    const bench = mesh({ offload: offload === "on" });
    bench.step(
      ...[1, 2, 3].map((serial) => ({ bytes: relayTo(REMOTE, serial), name: name(serial) })),
    );
    expect(sent(bench)).toEqual(forwarded(REMOTE, [1, 2, 3]));
    expect(bench.kernel.sent).toHaveLength(offload === "on" ? 1 : 3);
    expect(
      [RELAYED_LOCAL, RELAYED_TO_PEER, RELAY_NOT_FOUND].map((column) => bench.count(column)),
    ).toEqual([0, 3, 0]);
  });

  test("relays for several nodes of one peer leave as one message", () => {
    const bench = mesh();
    const packets = [REMOTE, OTHER_REMOTE, REMOTE, OTHER_REMOTE].map((dest, i) => relayTo(dest, i));
    bench.step({ bytes: new Uint8Array(Buffer.concat(packets)), name: NODE, control: gro(29) });
    expect(bench.kernel.sent).toHaveLength(1);
    expect(sent(bench)).toEqual(packets.map((bytes) => ({ to: hex(PEER), bytes: hex(bytes) })));
  });

  test("a node that is here and at a peer is here", () => {
    const bench = mesh();
    bench.routes.claim(1, 1);
    bench.step({ bytes: relayTo(1, 5), name: name(2) });
    expect(sent(bench)).toEqual([
      { to: hex(NODE), bytes: hex(message(RELAY_DELIVER, [5], relayTo(1, 5).subarray(9))) },
    ]);
    expect([bench.count(RELAYED_LOCAL), bench.count(RELAYED_TO_PEER)]).toEqual([1, 0]);
  });

  test("a node that comes here in the midst of a burst gets the rest of it here", () => {
    const bench = mesh();
    bench.step(
      { bytes: relayTo(REMOTE, 1), name: name(2) },
      { bytes: message(DISCOVER, [REMOTE]), name: name(3) },
      { bytes: relayTo(REMOTE, 2), name: name(2) },
    );
    expect(sent(bench).filter(({ to }) => to === hex(PEER))).toEqual(forwarded(REMOTE, [1]));
    expect([bench.count(RELAYED_LOCAL), bench.count(RELAYED_TO_PEER)]).toEqual([1, 1]);
  });

  describe("what a peer relays is never forwarded", () => {
    const all = (dest: number, serials: readonly number[]) =>
      new Uint8Array(Buffer.concat(serials.map((serial) => relayTo(dest, serial))));

    test.each(["on", "off"])("behind a node's to the same destination, offload %s", (offload) => {
      const bench = mesh({ offload: offload === "on" });
      bench.step(
        { bytes: relayTo(REMOTE, 1), name: NODE },
        { bytes: relayTo(REMOTE, 2), name: PEER },
        { bytes: relayTo(REMOTE, 3), name: NODE },
        { bytes: relayTo(REMOTE, 4), name: OTHER_PEER },
        { bytes: relayTo(OTHER_REMOTE, 5), name: OTHER_PEER },
        { bytes: relayTo(REMOTE, 6), name: NODE },
      );
      expect(sent(bench)).toEqual(forwarded(REMOTE, [1, 3, 6]));
      expect([bench.count(RELAYED_TO_PEER), bench.count(RELAY_NOT_FOUND)]).toEqual([3, 3]);
    });

    test("behind a node's merged burst, and merged itself", () => {
      const bench = mesh();
      bench.step(
        { bytes: all(REMOTE, [1, 2, 3]), name: NODE, control: gro(29) },
        { bytes: all(REMOTE, [4, 5, 6]), name: PEER, control: gro(29) },
        { bytes: all(REMOTE, [7, 8]), name: NODE, control: gro(29) },
        { bytes: all(OTHER_REMOTE, [9, 10]), name: OTHER_PEER, control: gro(29) },
        { bytes: all(OTHER_REMOTE, [11, 12]), name: NODE, control: gro(29) },
      );
      expect(sent(bench)).toEqual([
        ...forwarded(REMOTE, [1, 2, 3, 7, 8]),
        ...forwarded(OTHER_REMOTE, [11, 12]),
      ]);
      expect([bench.count(RELAYED_TO_PEER), bench.count(RELAY_NOT_FOUND)]).toEqual([7, 5]);
    });

    test("in a batch that is sent in parts", () => {
      const nodes = 255;
      const bench = mesh({ batchMax: 1024, nodesMax: 1000 });
      const filling = Array.from({ length: nodes }, (_, i) => ({
        bytes: message(DISCOVER, [1000 + i]),
        name: name(9, i + 1),
      }));
      const both = [NODE, PEER].map((from, i) => ({ bytes: relayTo(REMOTE, i), name: from }));
      // The node's relay takes the last run of the first part; after the second, it stands behind
      // the peer's.
      bench.step(
        ...filling,
        ...both,
        ...filling,
        ...filling.slice(0, 1),
        ...both.toReversed(),
        ...both,
      );
      expect(bench.kernel.sendCalls.length).toBeGreaterThan(2);
      expect(sent(bench).filter(({ to }) => to === hex(PEER))).toEqual(
        forwarded(REMOTE, [0, 0, 0]),
      );
      expect([bench.count(RELAYED_TO_PEER), bench.count(RELAY_NOT_FOUND)]).toEqual([3, 3]);
    });

    test("but delivered to a node of this beacon, before and behind a node's", () => {
      const bench = mesh();
      bench.step(
        ...[PEER, NODE, PEER].map((from, serial) => ({ bytes: relayTo(1, serial), name: from })),
      );
      expect(sent(bench).map(({ bytes }) => bytes)).toEqual(
        [0, 1, 2].map((serial) =>
          hex(message(RELAY_DELIVER, [serial], relayTo(1, serial).subarray(9))),
        ),
      );
      expect(bench.kernel.sent).toHaveLength(1);
    });
  });

  test("the message before tells nothing of where this one comes from", () => {
    const bench = mesh();
    // One message a batch, so all are number 0; then the same places with other sources.
    for (const [serial, from] of [PEER, NODE, PEER, NODE].entries())
      bench.step({ bytes: relayTo(REMOTE, serial), name: from });
    bench.step(...[NODE, PEER].map((from, i) => ({ bytes: relayTo(REMOTE, 4 + i), name: from })));
    bench.step(...[PEER, NODE].map((from, i) => ({ bytes: relayTo(REMOTE, 6 + i), name: from })));
    expect(sent(bench)).toEqual(forwarded(REMOTE, [1, 3, 4, 7]));
  });

  test("who is no peer any more is a node like others; its number's next owner gets what is for it", () => {
    const bench = mesh();
    bench.step({ bytes: relayTo(REMOTE, 1), name: NODE });
    bench.peers.disown(0);
    bench.step({ bytes: relayTo(REMOTE, 2), name: PEER });
    bench.peers.remove(0);
    bench.step({ bytes: relayTo(REMOTE, 3), name: NODE });
    expect(bench.relaysDropped()).toEqual({ contended: 1 });
    expect(bench.addPeer(name(6))).toBe(0);
    bench.step({ bytes: relayTo(REMOTE, 4), name: NODE });
    expect(sent(bench)).toEqual([...forwarded(REMOTE, [1, 2]), ...forwarded(REMOTE, [4], name(6))]);
    expect(bench.count(RELAYED_TO_PEER)).toBe(3);
  });

  test("a relay that the kernel does not take is a relay dropped", () => {
    const bench = mesh();
    bench.kernel.sends.push(() => -EPERM);
    bench.step({ bytes: relayTo(REMOTE, 1), name: NODE });
    expect(bench.relaysDropped()).toEqual({ denied: 1 });
    expect(bench.count(RELAYED_TO_PEER)).toBe(0);
  });

  test("a peer on an IPv6 socket is known whatever interface its packets come in by", () => {
    const bench = new Bench({ family: AF_INET6, offload: false });
    const address = new Uint8Array([0xfe, 0x80, ...Array<number>(13).fill(0), 9]);
    const from = (scope: number, portNumber = 4000): Uint8Array =>
      new Uint8Array(nameFromBytes(AF_INET6, address, portNumber, scope).buffer).slice(0, 28);
    bench.peers.add(endpointFromBytes(address, 4000, 2), 0);
    bench.routes.claim(REMOTE, 0);
    for (const [serial, of] of [from(2), from(3), from(2, 4001)].entries())
      bench.step({ bytes: relayTo(REMOTE, serial), name: of });
    expect(sent(bench)).toEqual(forwarded(REMOTE, [2], from(2)));
    bench.step({ bytes: sync(8, []), name: from(3) });
    expect(bench.count(GOSSIP_RECEIVED)).toBe(1);
  });

  describe("gossip", () => {
    const OWN = 7;
    const FROM_PEER = [...endpointOfName(PEER)].join();

    test.each<[string, Uint8Array]>([
      ["of no nodes", sync(8, [])],
      ["of some", sync(8, [1, 2, 0xffff_ffff, 0, 2])],
      ["of a beacon without an id", sync(0, [1])],
      ["of the highest ids", sync(0xffff_ffff, [0xffff_ffff])],
      [
        "of as many as a datagram takes",
        sync(
          8,
          Array.from({ length: 16_375 }, (_, i) => i),
        ),
      ],
    ])("from a peer: %s", (_, bytes) => {
      const bench = mesh({ beaconId: OWN });
      bench.step({ bytes, name: PEER });
      expect(bench.takeMail()).toEqual([{ source: FROM_PEER, bytes: hex(bytes) }]);
      expect(bench.count(GOSSIP_RECEIVED)).toBe(1);
      expect(bench.count(RECEIVED_AT + SYNC)).toBe(1);
      expect(bench.rejected()).toEqual({});
      expect(bench.lastRejection()).toBeUndefined();
      expect(bench.kernel.sent).toEqual([]);
    });

    test("bytes behind the last node are taken as far as a signature may reach", () => {
      const bench = mesh();
      const behind = (bytes: number) =>
        new Uint8Array([...sync(8, [1, 2]), ...Array<number>(bytes).fill(9)]);
      for (const bytes of [5, SYNC_TRAILER_BYTES, SYNC_TRAILER_BYTES + 1, 1000])
        bench.step({ bytes: behind(bytes), name: PEER });
      expect(bench.takeMail().map(({ bytes }) => bytes)).toEqual(
        [5, SYNC_TRAILER_BYTES, SYNC_TRAILER_BYTES, SYNC_TRAILER_BYTES].map((bytes) =>
          hex(behind(bytes)),
        ),
      );
    });

    test.each<[GossipRejection, string, Uint8Array, Uint8Array]>([
      ["short", "a type alone", new Uint8Array([SYNC]), PEER],
      ["short", "six bytes", sync(8, []).subarray(0, 6), PEER],
      ["short", "six bytes of a stranger", sync(8, []).subarray(0, 6), NODE],
      ["unknown_peer", "a stranger's", sync(8, [1]), NODE],
      ["unknown_peer", "a peer's address, another port", sync(8, [1]), name(4, 4001)],
      ["unknown_peer", "a peer's port, another address", sync(8, [1]), name(6, 4000)],
      ["unknown_peer", "a stranger's of a wrong count", sync(8, [1], 2), NODE],
      ["count", "no node of one", sync(8, [], 1), PEER],
      ["count", "one node of two", sync(8, [1], 2), PEER],
      ["count", "half a node", sync(8, [1]).subarray(0, 9), PEER],
      ["count", "as many as can be said", sync(8, [1, 2, 3], 0xffff), PEER],
      ["count", "of the own id, and a wrong count", sync(OWN, [1], 2), PEER],
      ["own_id", "of the own id", sync(OWN, [1]), PEER],
      ["own_id", "of the own id, without nodes", sync(OWN, []), PEER],
    ])("is rejected as %s: %s", (reason, _, bytes, from) => {
      const bench = mesh({ beaconId: OWN });
      bench.step({ bytes, name: from });
      expect(bench.rejected()).toEqual({ [reason]: 1 });
      expect(bench.lastRejection()).toEqual({ reason, source: [...endpointOfName(from)].join() });
      expect(bench.count(RECEIVED_AT + SYNC)).toBe(1);
      expect(bench.count(GOSSIP_RECEIVED)).toBe(0);
      expect(bench.takeMail()).toEqual([]);
      expect(bench.malformed()).toEqual({});
      expect(bench.kernel.sent).toEqual([]);
    });

    test("of a stranger is taken where strangers are believed, if it is right otherwise", () => {
      const bench = mesh({ beaconId: OWN });
      bench.memory.words[bench.memory.rulesAt + STRANGERS_BELIEVED] = 1;
      bench.step({ bytes: sync(8, [1, 2]), name: NODE }, { bytes: sync(8, [1], 2), name: NODE });
      bench.step({ bytes: sync(OWN, [1]), name: NODE }, { bytes: sync(8, [3]), name: PEER });
      expect(bench.takeMail()).toEqual([
        { source: [...endpointOfName(NODE)].join(), bytes: hex(sync(8, [1, 2])) },
        { source: FROM_PEER, bytes: hex(sync(8, [3])) },
      ]);
      expect(bench.rejected()).toEqual({ count: 1, own_id: 1 });
    });

    test("of a learned peer is taken, and what it relays goes to no other peer", () => {
      const bench = mesh({ beaconId: OWN });
      bench.peers.addLearned(endpointOfName(NODE), 0);
      bench.step({ bytes: sync(8, [1]), name: NODE }, { bytes: relayTo(REMOTE, 1), name: NODE });
      expect(bench.takeMail()).toHaveLength(1);
      expect([bench.count(RELAYED_TO_PEER), bench.count(RELAY_NOT_FOUND)]).toEqual([0, 1]);
    });

    test("of a beacon without an id is no news of its own to one that has none either", () => {
      const bench = mesh({ beaconId: 0 });
      bench.step({ bytes: sync(0, [1]), name: PEER });
      expect(bench.count(GOSSIP_RECEIVED)).toBe(1);
    });

    test("own ids count in all their bits", () => {
      const bench = mesh({ beaconId: 0xffff_fff0 });
      bench.step(
        ...[0xffff_fff0, 0xffff_fff1, 0x7fff_fff0].map((id) => ({
          bytes: sync(id, []),
          name: PEER,
        })),
      );
      expect([bench.count(GOSSIP_RECEIVED), bench.rejected()]).toEqual([2, { own_id: 1 }]);
    });

    test("what finds the mailbox full is rejected, what is in it stays, and there is room again once it is taken", () => {
      const bench = mesh({ batchMax: 64 });
      const messages = Array.from({ length: 192 }, (_, i) =>
        sync(100 + i, Array<number>(16_375).fill(i)),
      );
      expect(messages[0]!.length).toBe(UDP_PAYLOAD_MAX);
      for (let from = 0; from < messages.length; from += 64)
        bench.step(...messages.slice(from, from + 64).map((bytes) => ({ bytes, name: PEER })));
      const accepted = bench.count(GOSSIP_RECEIVED);
      expect(accepted).toBeGreaterThan(0.9 * PEERS_MAX); // nearly all may speak at once
      expect(bench.rejected()).toEqual({ mailbox_full: messages.length - accepted });
      expect(bench.lastRejection()?.reason).toBe("mailbox_full");
      expect(bench.takeMail()).toEqual(
        messages.slice(0, accepted).map((bytes) => ({ source: FROM_PEER, bytes: hex(bytes) })),
      );
      bench.step({ bytes: messages[0]!, name: PEER });
      expect(bench.takeMail()).toEqual([{ source: FROM_PEER, bytes: hex(messages[0]!) }]);
    });

    test("in segments of a merged message is taken one by one", () => {
      const bench = mesh({ beaconId: OWN });
      const segments = [sync(8, [1, 2]), relayTo(REMOTE, 1, 6), sync(OWN, [3, 4]), sync(9, [5, 6])];
      const last = sync(10, []);
      bench.step({
        bytes: new Uint8Array(Buffer.concat([...segments, last])),
        name: PEER,
        control: gro(15),
      });
      expect(bench.takeMail().map(({ bytes }) => bytes)).toEqual(
        [segments[0]!, segments[3]!, last].map(hex),
      );
      expect(bench.rejected()).toEqual({ own_id: 1 });
      expect(bench.count(RELAY_NOT_FOUND)).toBe(1);
    });
  });
});

describe("nodes behind the bridge", () => {
  const [NODE, WANTS_DEST_NODE, OTHER, PEER] = [name(1), name(2), name(3), name(4, 4000)];
  const BRIDGED = 9;
  const HIGH_BRIDGED = 0xffff_fff9;

  /**
   * A beacon with two nodes heard by UDP, the second of which asked for RelayDeliverDest, and two
   * others behind the bridge.
   */
  function bridged(options: BenchOptions = {}): Bench {
    const bench = new Bench(options);
    bench.step(
      { bytes: message(DISCOVER, [1]), name: NODE },
      { bytes: message(DISCOVER_EX, [2]), name: WANTS_DEST_NODE },
    );
    for (const id of [BRIDGED, HIGH_BRIDGED]) expect(bench.nodes.bridge(id, 1)).toBe(ADDED);
    bench.kernel.sent.length = 0;
    bench.memory.counters.fill(0);
    return bench;
  }

  const relayTo = (dest: number, serial: number, tail = 20): Uint8Array =>
    message(RELAY, [serial, dest], new Uint8Array(tail).fill(serial));
  const delivered = (serial: number, tail = 20): Uint8Array =>
    message(RELAY_DELIVER, [serial], new Uint8Array(tail).fill(serial));
  const framesTo = (nodeId: number, serials: readonly number[]): Frame[] =>
    serials.map((serial) => ({ nodeId, bytes: delivered(serial) }));
  const sent = (bench: Bench) =>
    bench.kernel.datagrams.map(({ name: to, bytes }) => ({ to, bytes: hex(bytes) }));
  const relays = (bench: Bench) => ({
    local: bench.count(RELAYED_LOCAL),
    peer: bench.count(RELAYED_TO_PEER),
    notFound: bench.count(RELAY_NOT_FOUND),
    dropped: bench.relaysDropped(),
  });
  const NONE = { local: 0, peer: 0, notFound: 0, dropped: {} };

  test.each(["on", "off"])(
    "get relays as RelayDeliver, each node its own, offload %s",
    (offload) => {
      const bench = bridged({ offload: offload === "on" });
      const to = [BRIDGED, HIGH_BRIDGED, BRIDGED, BRIDGED, HIGH_BRIDGED];
      const mailsBefore = bench.memory.words[MAIL]!;
      bench.step(
        ...to.map((dest, serial) => ({ bytes: relayTo(dest, serial), name: name(20 + serial) })),
      );
      expect(bench.takeFrames()).toEqual(to.flatMap((dest, serial) => framesTo(dest, [serial])));
      expect(bench.memory.words[MAIL]).toBe(mailsBefore + 5);
      expect(bench.kernel.sent).toEqual([]);
      expect(bench.count(RECEIVED_AT + RELAY)).toBe(5);
      expect(relays(bench)).toEqual(NONE); // the main thread counts what its nodes get
    },
  );

  test("get payloads as they were, from none to the largest", () => {
    const bench = bridged({ batchMax: 64 });
    const largest = UDP_PAYLOAD_MAX - 9;
    const sizes = [
      ...Array.from({ length: 2049 }, (_, i) => i),
      ...Array.from({ length: 250 }, (_, i) => 2100 + 251 * i),
      ...Array.from({ length: 9 }, (_, i) => largest - 8 + i),
    ];
    const noise = new Uint8Array(largest + 16).map((_, i) => i * 31 + (i >>> 8));
    const payload = (size: number): Uint8Array => noise.subarray(size % 16, (size % 16) + size);
    for (let from = 0; from < sizes.length; from += 64) {
      const some = sizes.slice(from, from + 64);
      bench.step(
        ...some.map((size) => ({
          bytes: message(RELAY, [size, BRIDGED], payload(size)),
          name: NODE,
        })),
      );
      const frames = bench.takeFrames();
      expect(frames.map(({ nodeId, bytes }) => [nodeId, bytes.length])).toEqual(
        some.map((size) => [BRIDGED, 5 + size]),
      );
      for (const [i, { bytes }] of frames.entries()) {
        const size = some[i]!;
        expect(Buffer.compare(bytes, message(RELAY_DELIVER, [size], payload(size)))).toBe(0);
      }
    }
    expect(bench.relaysDropped()).toEqual({});
  });

  test("get segments of a merged message, at whatever byte they start, among those of others", () => {
    for (let tail = 0; tail <= 40; tail++) {
      const bench = bridged();
      const to = [BRIDGED, 1, HIGH_BRIDGED, 2, BRIDGED, 404, BRIDGED, 1, BRIDGED];
      const last = tail >> 1;
      const tails = to.map((_, i) => (i === to.length - 1 ? last : tail));
      const packets = to.map((dest, i) => relayTo(dest, 100 + i, tails[i]));
      bench.step({
        bytes: new Uint8Array(Buffer.concat(packets)),
        name: OTHER,
        control: gro(9 + tail),
      });
      const of = (serial: number, nodeId: number): Frame => ({
        nodeId,
        bytes: delivered(100 + serial, tails[serial]),
      });
      expect(bench.takeFrames()).toEqual([
        of(0, BRIDGED),
        of(2, HIGH_BRIDGED),
        of(4, BRIDGED),
        of(6, BRIDGED),
        of(8, BRIDGED),
      ]);
      expect(sent(bench)).toEqual([
        { to: hex(NODE), bytes: hex(delivered(101, tail)) },
        { to: hex(NODE), bytes: hex(delivered(107, tail)) },
        {
          to: hex(WANTS_DEST_NODE),
          bytes: hex(message(RELAY_DELIVER_DEST, [103, 2], packets[3]!.subarray(9))),
        },
      ]);
      expect(bench.kernel.sent).toHaveLength(2); // those to one node are merged as ever
      expect([bench.count(SEGMENTS_RECEIVED), bench.count(SEGMENTS_SENT)]).toEqual([9, 2]);
      expect(relays(bench)).toEqual({ ...NONE, local: 3, notFound: 1 });
    }
  });

  test("get RelayDeliver, whatever they asked for by UDP", () => {
    const bench = bridged();
    expect(bench.nodes.bridge(2, 1)).toBe(MOVED);
    bench.step({ bytes: relayTo(2, 1), name: NODE });
    bench.step({ bytes: message(DISCOVER_EX, [BRIDGED]), name: OTHER });
    bench.step({ bytes: relayTo(BRIDGED, 2), name: NODE });
    expect(bench.takeFrames()).toEqual([...framesTo(2, [1]), ...framesTo(BRIDGED, [2])]);
  });

  test.each(["on", "off"])(
    "get what follows their coming, and the rest goes to where they were heard, offload %s",
    (offload) => {
      const bench = bridged({ offload: offload === "on" });
      const burst = (...serials: number[]) =>
        bench.step(...serials.map((serial) => ({ bytes: relayTo(1, serial), name: OTHER })));
      burst(1, 2, 3);
      bench.nodes.bridge(1, 1);
      burst(4, 5, 6);
      bench.nodes.unbridge(1);
      burst(7, 8);
      bench.nodes.bridge(1, 1);
      burst(9);
      expect(bench.takeFrames()).toEqual(framesTo(1, [4, 5, 6, 9]));
      expect(sent(bench)).toEqual(
        [1, 2, 3, 7, 8].map((serial) => ({ to: hex(NODE), bytes: hex(delivered(serial)) })),
      );
      expect(relays(bench)).toEqual({ ...NONE, local: 5 });
    },
  );

  test("that are heard by UDP get an answer there, and their packets through the bridge until they leave it", () => {
    const bench = bridged();
    bench.step({ bytes: message(DISCOVER, [BRIDGED]), name: OTHER });
    const address = [DISCOVER_REPLY, 4, ...OTHER.subarray(4, 8), ...OTHER.subarray(2, 4)];
    expect(sent(bench)).toEqual([{ to: hex(OTHER), bytes: hex(new Uint8Array(address)) }]);
    bench.kernel.sent.length = 0;
    // In one batch, too.
    bench.step(
      { bytes: relayTo(BRIDGED, 1), name: NODE },
      { bytes: message(DISCOVER_EX, [BRIDGED]), name: OTHER },
      { bytes: relayTo(BRIDGED, 2), name: NODE },
      { bytes: message(PUNCH_REQUEST, [BRIDGED, 404]), name: OTHER },
      { bytes: relayTo(BRIDGED, 3), name: NODE },
    );
    expect(bench.takeFrames()).toEqual(framesTo(BRIDGED, [1, 2, 3]));
    bench.kernel.sent.length = 0;
    expect(bench.nodes.unbridge(BRIDGED)).toBe(true);
    bench.step({ bytes: relayTo(BRIDGED, 4), name: NODE });
    expect(bench.takeFrames()).toEqual([]);
    expect(sent(bench)).toEqual([
      {
        to: hex(OTHER),
        bytes: hex(new Uint8Array([RELAY_DELIVER_DEST, ...relayTo(BRIDGED, 4).subarray(1)])),
      },
    ]);
  });

  test("that were never heard by UDP are not found once they left, here; a peer may have them", () => {
    const bench = bridged();
    expect(bench.addPeer(PEER)).toBe(0);
    bench.routes.claim(BRIDGED, 0);
    bench.step({ bytes: relayTo(BRIDGED, 1), name: NODE });
    bench.step({ bytes: relayTo(BRIDGED, 2), name: PEER }); // to a node of this beacon
    expect(bench.takeFrames()).toEqual(framesTo(BRIDGED, [1, 2]));
    for (const id of [BRIDGED, HIGH_BRIDGED]) expect(bench.nodes.unbridge(id)).toBe(true);
    for (const id of [BRIDGED, HIGH_BRIDGED]) bench.step({ bytes: relayTo(id, 3), name: NODE });
    expect(bench.takeFrames()).toEqual([]);
    expect(sent(bench)).toEqual([{ to: hex(PEER), bytes: hex(relayTo(BRIDGED, 3)) }]);
    expect(relays(bench)).toEqual({ ...NONE, peer: 1, notFound: 1 });
  });

  test("get frames beside the gossip of peers, each in a mailbox of its own", () => {
    const bench = bridged();
    bench.addPeer(PEER);
    bench.step(
      { bytes: sync(8, [1]), name: PEER },
      { bytes: relayTo(BRIDGED, 1), name: PEER },
      { bytes: sync(8, [2]), name: PEER },
    );
    expect(bench.takeFrames()).toEqual(framesTo(BRIDGED, [1]));
    expect(bench.takeMail().map(({ bytes }) => bytes)).toEqual(
      [sync(8, [1]), sync(8, [2])].map(hex),
    );
  });

  test("what finds the mailbox full is dropped and counted, all else goes on, and there is room once it is released", () => {
    const bench = bridged({ batchMax: 64 });
    const tail = UDP_PAYLOAD_MAX - 9;
    const each = 4 * Math.ceil((tail + 5) / 4) + 32;
    const room = Math.floor((MAILBOX_WORDS * 4) / each);
    let serial = 0;
    const fill = (count: number): void => {
      const messages = Array.from({ length: count }, () => [
        { bytes: relayTo(BRIDGED, serial++, tail), name: NODE },
        { bytes: relayTo(1, serial++), name: OTHER },
      ]);
      bench.step(...messages.flat());
    };
    for (let count = 0; count < 160; count += 32) fill(32);
    const full = 160 - room;
    expect(full).toBeGreaterThan(0);
    expect(relays(bench)).toEqual({ ...NONE, local: 160, dropped: { bridge_full: full } });
    expect(bench.sum(REPLY_DROPPED_AT, DROP_REASONS.length)).toBe(0);
    expect(bench.kernel.datagrams).toHaveLength(160);
    // Taken, they still have their room.
    const mails = Array.from({ length: room }, () => bench.frames.take()!);
    expect(bench.frames.take()).toBeUndefined();
    bench.step({ bytes: relayTo(BRIDGED, 1, tail), name: NODE });
    expect(bench.relaysDropped()).toEqual({ bridge_full: full + 1 });
    for (const [i, { at, bytes }] of mails.entries())
      expect(
        Buffer.compare(bench.memory.bytes.subarray(at, at + bytes), delivered(2 * i, tail)),
      ).toBe(0);
    bench.frames.release();
    bench.step({ bytes: relayTo(BRIDGED, 7), name: NODE });
    expect(bench.takeFrames()).toEqual(framesTo(BRIDGED, [7]));
    expect(bench.relaysDropped()).toEqual({ bridge_full: full + 1 });
  });

  describe("cannot be punched to", () => {
    test("whether they were heard by UDP or not: nothing is sent, the requester is recorded all the same", () => {
      const bench = bridged();
      // it has an endpoint, where nobody may be any more
      expect(bench.nodes.bridge(2, 1)).toBe(MOVED);
      const requests = [BRIDGED, 2, HIGH_BRIDGED].map((target, i) => ({
        bytes: message(PUNCH_REQUEST, [30 + i, target]),
        name: name(30 + i),
      }));
      bench.step(...requests, { bytes: message(PUNCH_REQUEST, [0, BRIDGED]), name: OTHER });
      expect(bench.kernel.sent).toEqual([]);
      expect(bench.takeFrames()).toEqual([]);
      expect([
        bench.count(PUNCHES_BRIDGED),
        bench.count(PUNCHES_SENT),
        bench.count(PUNCHES_TARGET_UNKNOWN),
      ]).toEqual([4, 0, 0]);
      expect(bench.memory.words[bench.memory.workerWords(0) + LAST_UNKNOWN_TARGET]).toBe(0);
      bench.step(...[30, 31, 32].map((id) => ({ bytes: relayTo(id, id), name: OTHER })));
      expect(sent(bench)).toEqual(
        [30, 31, 32].map((id) => ({ to: hex(name(id)), bytes: hex(delivered(id)) })),
      );
    });

    test("but may ask for it by UDP, and be punched to once they left", () => {
      const bench = bridged();
      bench.step({ bytes: message(PUNCH_REQUEST, [BRIDGED, 1]), name: OTHER });
      const command = (about: Uint8Array): string =>
        hex(new Uint8Array([PUNCH_COMMAND, 4, ...about.subarray(4, 8), ...about.subarray(2, 4)]));
      const both = [
        { to: hex(OTHER), bytes: command(NODE) },
        { to: hex(NODE), bytes: command(OTHER) },
      ];
      expect(sent(bench)).toEqual(both);
      bench.nodes.unbridge(BRIDGED);
      bench.step({ bytes: message(PUNCH_REQUEST, [1, BRIDGED]), name: NODE });
      expect(sent(bench).slice(2)).toEqual(both.toReversed());
      expect([bench.count(PUNCHES_BRIDGED), bench.count(PUNCHES_SENT)]).toEqual([0, 2]);
    });
  });
});

describe("while grants are required", () => {
  const [REQUESTER, TARGET] = [1, 2];
  const NODE = name(2);
  const ASKING = name(9);
  const GRANT = new Uint8Array(72).map((_, i) => 3 * i + 1);
  const punch = (target = TARGET, tail: Uint8Array = GRANT) =>
    message(PUNCH_REQUEST, [REQUESTER, target], tail);
  /** The target is known. */
  function required(options: BenchOptions = {}): Bench {
    const bench = new Bench(options);
    bench.step({ bytes: message(DISCOVER, [TARGET]), name: NODE });
    bench.kernel.sent.length = 0;
    bench.requireGrants();
    return bench;
  }
  const punches = (bench: Bench) => ({
    sent: bench.count(PUNCHES_SENT),
    unknown: bench.count(PUNCHES_TARGET_UNKNOWN),
    bridged: bench.count(PUNCHES_BRIDGED),
  });
  const NONE = { sent: 0, unknown: 0, bridged: 0 };
  const mailFrom = (source: Uint8Array, bytes: Uint8Array): Mail => ({
    source: [...endpointOfName(source)].join(),
    bytes: hex(bytes),
  });

  test("a punch request is handed over whole, with where it came from, and nothing is sent", () => {
    const bench = required();
    bench.step({ bytes: punch(), name: ASKING });
    expect(bench.takeGrants()).toEqual([mailFrom(ASKING, punch())]);
    expect(bench.kernel.sent).toEqual([]);
    expect([punches(bench), bench.grantsRefused()]).toEqual([NONE, {}]);
    const slot = bench.nodes.find(REQUESTER);
    expect(slot).toBeGreaterThanOrEqual(0); // it is recorded as ever
  });

  test("bytes behind the grant are left out, and one that is a byte short is none", () => {
    const bench = required({ batchMax: 8 });
    const extra = (count: number) => ({
      bytes: punch(TARGET, new Uint8Array([...GRANT, ...new Uint8Array(count)])),
      name: ASKING,
    });
    bench.step(extra(1), extra(3), extra(1000));
    expect(bench.takeGrants()).toEqual(Array(3).fill(mailFrom(ASKING, punch())));
    bench.step(
      ...[71, 64, 8, 1, 0].map((bytes) => ({
        bytes: punch(TARGET, GRANT.subarray(0, bytes)),
        name: ASKING,
      })),
    );
    expect(bench.takeGrants()).toEqual([]);
    expect(bench.grantsRefused()).toEqual({ missing: 5 });
    expect(bench.kernel.sent).toEqual([]);
  });

  test("of merged ones, each is handed over by itself, the last one shorter", () => {
    const bench = required();
    const whole = [punch(2), punch(2, GRANT.toReversed())];
    bench.step({
      bytes: new Uint8Array(Buffer.concat([...whole, punch().subarray(0, 80)])),
      name: ASKING,
      control: gro(81),
    });
    expect(bench.takeGrants()).toEqual(whole.map((bytes) => mailFrom(ASKING, bytes)));
    expect(bench.grantsRefused()).toEqual({ missing: 1 });
  });

  test("a target that is unknown, or behind the bridge, is counted, and looks the same from outside", () => {
    const bench = required();
    bench.nodes.bridge(7, 1);
    bench.step({ bytes: punch(404), name: ASKING });
    bench.step({ bytes: punch(7), name: ASKING });
    expect(punches(bench)).toEqual({ ...NONE, unknown: 1, bridged: 1 });
    expect(bench.memory.words[bench.memory.workerWords(0) + LAST_UNKNOWN_TARGET]).toBe(404);
    expect(bench.takeGrants()).toEqual([]);
    expect(bench.kernel.sent).toEqual([]);
  });

  test("what finds the mailbox full is dropped and counted, all else goes on, and there is room again", () => {
    const bench = required({ batchMax: 64 });
    const room = Math.floor(GRANTS_MAILBOX_WORDS / (2 + ENDPOINT_WORDS + Math.ceil(81 / 4)));
    const batch = Array.from({ length: 64 }, () => ({ bytes: punch(), name: ASKING }));
    let asked = 0;
    for (; asked <= room; asked += 64) bench.step(...batch);
    expect(bench.grantsRefused()).toEqual({ overload: asked - room });
    bench.step({ bytes: message(DISCOVER, [5]), name: NODE });
    expect(bench.kernel.datagrams).toHaveLength(1);
    expect(bench.takeGrants()).toHaveLength(room);
    bench.step({ bytes: punch(), name: ASKING });
    expect(bench.takeGrants()).toEqual([mailFrom(ASKING, punch())]);
  });

  test("no more are handed over than are verified a second; what is beyond is counted, and wakes nobody", () => {
    let nowNs = 1e9;
    const bench = required({ batchMax: 64, clock: { nowNs: () => nowNs } });
    new RateLimitOwner(bench.memory, GRANT_RATE).set(1000, 10);
    const batch = Array.from({ length: 64 }, () => ({ bytes: punch(), name: ASKING }));
    bench.step(...batch);
    expect([bench.takeGrants().length, bench.grantsRefused()]).toEqual([10, { overload: 54 }]);
    // it is no limit of the operator's
    bench.memory.words[bench.memory.rulesAt + LIMITS_SHADOW] = 1;
    nowNs += 3e6;
    const mailsBefore = bench.memory.words[MAIL]!;
    bench.step(...batch);
    expect([bench.takeGrants().length, bench.memory.words[MAIL]! - mailsBefore]).toEqual([3, 3]);
    // Only what would be verified takes of it.
    nowNs += 1e6;
    bench.step(
      { bytes: punch(404), name: ASKING },
      { bytes: punch(TARGET, GRANT.subarray(1)), name: ASKING },
    );
    bench.step({ bytes: punch(), name: ASKING });
    expect(bench.takeGrants()).toHaveLength(1);
  });

  test("from the moment they are not, a request is served at once, with a grant or without", () => {
    const bench = required();
    bench.requireGrants(false);
    bench.step({ bytes: punch(), name: ASKING });
    bench.step({ bytes: punch(TARGET, new Uint8Array()), name: ASKING });
    expect(bench.kernel.datagrams.map(({ name: to }) => to)).toEqual(
      [ASKING, NODE, ASKING, NODE].map(hex),
    );
    expect([bench.takeGrants(), bench.grantsRefused()]).toEqual([[], {}]);
    expect(punches(bench)).toEqual({ ...NONE, sent: 2 });
  });

  const KEY = new Uint8Array(32).map((_, i) => 200 - i);
  const OTHER_KEY = KEY.toReversed();

  test.each([
    ["Discover", DISCOVER],
    ["DiscoverEx", DISCOVER_EX],
  ] as const)(
    "the first key that a node's %s brings is kept, and another one is counted",
    (_name, type) => {
      const bench = required();
      const hear = (id: number, tail: Uint8Array, from = NODE) =>
        bench.step({ bytes: message(type, [id], tail), name: from });
      hear(TARGET, KEY.subarray(0, 31));
      expect(bench.nodes.keyOf(TARGET)).toBeUndefined();
      hear(TARGET, new Uint8Array([...KEY, 1, 2, 3]));
      hear(TARGET, KEY);
      expect([bench.nodes.keyOf(TARGET), bench.count(KEYS_REFUSED)]).toEqual([KEY, 0]);
      hear(TARGET, OTHER_KEY);
      hear(TARGET, OTHER_KEY, ASKING); // it moves, as far as there is no hold
      hear(TARGET, new Uint8Array());
      expect([bench.nodes.keyOf(TARGET), bench.count(KEYS_REFUSED)]).toEqual([KEY, 2]);
      hear(0, KEY);
      hear(8, OTHER_KEY); // new
      expect([bench.nodes.keyOf(0), bench.nodes.keyOf(8)]).toEqual([undefined, OTHER_KEY]);
      expect(bench.kernel.datagrams).toHaveLength(8); // each is answered
    },
  );

  test("only then: before, and after, keys are not looked at", () => {
    const bench = required();
    bench.requireGrants(false);
    bench.step({ bytes: message(DISCOVER, [TARGET], KEY), name: NODE });
    expect(bench.nodes.keyOf(TARGET)).toBeUndefined();
    bench.requireGrants();
    bench.step({ bytes: message(DISCOVER, [TARGET], KEY), name: NODE });
    bench.requireGrants(false);
    bench.step({ bytes: message(DISCOVER, [TARGET], OTHER_KEY), name: NODE });
    expect([bench.nodes.keyOf(TARGET), bench.count(KEYS_REFUSED)]).toEqual([KEY, 0]);
  });

  test("a claim to a node that is held brings no key", () => {
    const bench = required();
    bench.memory.words[bench.memory.rulesAt + ENDPOINT_HOLD_S] = 30;
    bench.step({ bytes: message(DISCOVER, [TARGET], OTHER_KEY), name: ASKING });
    expect(bench.nodes.keyOf(TARGET)).toBeUndefined();
    bench.step({ bytes: message(DISCOVER, [TARGET], KEY), name: NODE });
    expect(bench.nodes.keyOf(TARGET)).toEqual(KEY);
  });

  test("relays to a node with a key go where and as they went", () => {
    const bench = required();
    bench.step({ bytes: message(DISCOVER_EX, [TARGET], KEY), name: NODE });
    bench.kernel.sent.length = 0;
    const relays = [1, 2, 3].map((serial) => message(RELAY, [REQUESTER, TARGET], [serial]));
    bench.step(...relays.map((bytes) => ({ bytes: bytes.slice(), name: ASKING })));
    expect(bench.kernel.datagrams).toEqual(
      [1, 2, 3].map((serial) => ({
        name: hex(NODE),
        bytes: message(RELAY_DELIVER_DEST, [REQUESTER, TARGET], [serial]),
      })),
    );
    expect(bench.kernel.sent).toHaveLength(1); // merged
  });
});

describe("any traffic at all", () => {
  const PEERS = [name(4, 4000), name(5, 4000)] as const;
  const anyName = fc.oneof(
    fc
      .tuple(fc.integer({ min: 1, max: 5 }), fc.constantFrom(0, 4000, 5000))
      .map(([host, port]) => name(host, port)),
    fc.constantFrom(...PEERS),
  );
  const localIds = fc.constantFrom(0, 1, 2, 3, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff);
  const remoteIds = fc.constantFrom(2, 11, 12, 0x8000_0001, 0xffff_fffe);
  const ids = fc.oneof(localIds, remoteIds);
  const nodeMessage = fc
    .tuple(
      fc.constantFrom(DISCOVER, DISCOVER_EX, PUNCH_REQUEST, RELAY, RELAY, RELAY),
      ids,
      fc.oneof(ids, remoteIds),
      fc.nat(30),
    )
    .map(([type, a, b, tail]) =>
      message(type, type === DISCOVER || type === DISCOVER_EX ? [a] : [a, b], new Uint8Array(tail)),
    );
  /**
   * A beacon id that may be the own one, perhaps more nodes than there are, or fewer, perhaps cut.
   */
  const gossip = fc
    .record({
      beaconId: fc.constantFrom(0, 7, 8, 0xffff_ffff),
      nodeIds: fc.array(ids, { maxLength: 6 }),
      more: fc.constantFrom(0, 0, 0, 0, 1, -1, -5, 0xff00),
      trailing: fc.constantFrom(0, 0, 0, 1, 3, 4, 9),
      length: fc.oneof(fc.constant(1000), fc.constant(1000), fc.nat(40)),
    })
    .map(({ beaconId, nodeIds, more, trailing, length }) => {
      const whole = sync(beaconId, nodeIds, Math.max(0, nodeIds.length + more));
      return new Uint8Array(
        [...whole, ...new Uint8Array(trailing).fill(0xee)].slice(0, Math.max(length, 1)),
      );
    });
  const valid = fc.oneof({ weight: 4, arbitrary: nodeMessage }, { weight: 1, arbitrary: gossip });
  /** Routes as the main thread changes them, to the number of a peer or -1 to none. */
  const routeChanges = fc.array(fc.tuple(remoteIds, fc.constantFrom(0, 1, 1, -1)), {
    maxLength: 4,
  });

  function applyRoutes(bench: Bench, changes: readonly (readonly [number, number])[]): void {
    for (const [id, peer] of changes) {
      if (peer >= 0) bench.routes.claim(id, peer);
      else for (const [of] of PEERS.entries()) bench.routes.withdraw(id, of);
    }
  }
  /** Nodes that come to the bridge, or leave it. */
  const bridgeChanges = fc.array(
    fc.tuple(fc.constantFrom(1, 2, 3, 11, 0x8000_0000), fc.boolean()),
    {
      maxLength: 3,
    },
  );

  function applyBridge(bench: Bench, changes: readonly (readonly [number, boolean])[]): void {
    for (const [id, comes] of changes) {
      if (comes) bench.nodes.bridge(id, 1);
      else bench.nodes.unbridge(id);
    }
  }
  const random = fc.uint8Array({ maxLength: 100 });
  const lowType = fc
    .tuple(fc.nat(0x0f), random)
    .map(([type, tail]) => new Uint8Array([type, ...tail]));
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

  const isMerged = (bytes: number, segmentBytes: number): boolean =>
    segmentBytes > 0 && segmentBytes < bytes;
  const segmentBytesOf = (control: Uint8Array): number =>
    control.length === 0 ? 0 : new DataView(control.buffer).getInt32(16, true);

  test("never throws, and counts every datagram exactly once", () => {
    fc.assert(
      fc.property(
        batches,
        routeChanges,
        bridgeChanges,
        fc.boolean(),
        fc.constantFrom(2, 100),
        (list, changes, bridged, offload, nodesMax) => {
          const bench = new Bench({ offload, nodesMax, beaconId: 7 });
          for (const peer of PEERS) bench.addPeer(peer);
          applyRoutes(bench, changes);
          applyBridge(bench, bridged);
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
              bench.count(RELAYED_TO_PEER) +
              bench.count(RELAY_NOT_FOUND) +
              bench.sum(RELAY_DROPPED_AT, DROP_REASONS.length) +
              bench.takeFrames().length +
              bench.count(GOSSIP_RECEIVED) +
              bench.sum(GOSSIP_REJECTED_AT, GOSSIP_REJECTIONS.length) +
              bench.count(DISCOVERS) +
              bench.count(PUNCHES_SENT) +
              bench.count(PUNCHES_BRIDGED) +
              bench.count(PUNCHES_TARGET_UNKNOWN),
          ).toBe(datagrams);
          expect(bench.takeMail()).toHaveLength(bench.count(GOSSIP_RECEIVED));
        },
      ),
      { numRuns: 300 },
    );
  });

  /**
   * One datagram that leaves: to whom, what, and for relays the node it is for, or the peer that it
   * is forwarded to.
   */
  interface Expected {
    readonly name: string;
    readonly bytes: string;
    readonly lane: string;
  }

  /** The protocol over maps of nodes and routes, one datagram after the other. */
  class Model {
    /** A node of the bridge may never have been heard by UDP. */
    readonly nodes = new Map<
      number,
      { name: Uint8Array | undefined; wantsDest: boolean; isBridged: boolean }
    >();
    readonly peers: readonly string[] = PEERS.map(hex);
    /** Node → number of the peer that has it. */
    readonly routes = new Map<number, number>();
    readonly out: Expected[] = [];
    readonly mail: Mail[] = [];
    readonly frames: { readonly nodeId: number; readonly bytes: string }[] = [];
    readonly rejected: Partial<Record<GossipRejection, number>> = {};
    lastRejection: Rejection | undefined;
    readonly relays = { local: 0, peer: 0, notFound: 0 };
    lastUnknown = 0;
    punchesBridged = 0;
    refused = 0;

    constructor(
      private readonly nodesMax: number,
      private readonly beaconId: number,
    ) {}

    route(id: number, peer: number): void {
      if (peer >= 0) this.routes.set(id, peer);
      else this.routes.delete(id);
    }

    bridge(id: number, comes: boolean): void {
      const node = this.nodes.get(id);
      if (comes && node === undefined) {
        if (this.nodes.size < this.nodesMax)
          this.nodes.set(id, { name: undefined, wantsDest: false, isBridged: true });
      } else if (node !== undefined) {
        node.isBridged = comes;
        if (node.name === undefined && !comes) this.nodes.delete(id);
      }
    }

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
      this.nodes.set(id, {
        name: from,
        wantsDest: wantsDest ?? known?.wantsDest ?? false,
        isBridged: known?.isBridged ?? false,
      });
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
        if (node.isBridged) {
          this.punchesBridged++;
          return;
        }
        this.#send(from, this.#address(PUNCH_COMMAND, node.name!), "reply");
        this.#send(node.name!, this.#address(PUNCH_COMMAND, from), "reply");
      } else if (type === SYNC) {
        const source = [...endpointOfName(from)].join();
        const reason = this.#rejection(bytes, view, from);
        if (reason === undefined) {
          this.mail.push({
            source,
            bytes: hex(bytes.slice(0, 7 + 4 * view.getUint16(5) + SYNC_TRAILER_BYTES)),
          });
        } else {
          this.rejected[reason] = (this.rejected[reason] ?? 0) + 1;
          this.lastRejection = { reason, source };
        }
      } else if (type === RELAY && bytes.length >= 9) {
        const dest = view.getUint32(5);
        const node = this.nodes.get(dest);
        if (node === undefined) {
          const peer = this.peers.includes(hex(from)) ? undefined : this.routes.get(dest);
          this.relays[peer === undefined ? "notFound" : "peer"]++;
          if (peer !== undefined) this.#send(PEERS[peer]!, bytes, `relay to peer ${peer}`);
          return;
        }
        const deliver = new Uint8Array([
          RELAY_DELIVER,
          ...bytes.subarray(1, 5),
          ...bytes.subarray(9),
        ]);
        if (node.isBridged) {
          this.frames.push({ nodeId: dest, bytes: hex(deliver) });
          return;
        }
        this.relays.local++;
        const sent = node.wantsDest
          ? new Uint8Array([RELAY_DELIVER_DEST, ...bytes.subarray(1)])
          : deliver;
        this.#send(node.name!, sent, `relay to ${dest}`);
      }
    }

    #rejection(bytes: Uint8Array, view: DataView, from: Uint8Array): GossipRejection | undefined {
      if (bytes.length < 7) return "short";
      if (!this.peers.includes(hex(from))) return "unknown_peer";
      if (bytes.length < 7 + 4 * view.getUint16(5)) return "count";
      return this.beaconId !== 0 && view.getUint32(1) === this.beaconId ? "own_id" : undefined;
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
    /** Relays, and in between a gossip of the same size; the last may be shorter. */
    const merged = fc.record({
      contents: fc.array(
        fc.oneof(
          { weight: 3, arbitrary: ids },
          { weight: 3, arbitrary: remoteIds },
          { weight: 1, arbitrary: gossip },
        ),
        { minLength: 2, maxLength: 6 },
      ),
      tail: fc.nat(20),
      last: fc.nat(20),
      name: anyName,
    });
    const item = fc.oneof({ weight: 3, arbitrary: plain }, { weight: 1, arbitrary: merged });
    const known = [1, 2, 3].map((id) => ({
      bytes: message(id === 3 ? DISCOVER_EX : DISCOVER, [id]),
      name: name(id),
    }));
    fc.assert(
      fc.property(
        fc.array(fc.tuple(routeChanges, bridgeChanges, fc.array(item, { maxLength: 8 })), {
          minLength: 1,
          maxLength: 6,
        }),
        fc.boolean(),
        fc.constantFrom(3, 100),
        fc.constantFrom(0, 7),
        (rounds, offload, nodesMax, beaconId) => {
          const bench = new Bench({ offload, nodesMax, beaconId });
          const model = new Model(nodesMax, beaconId);
          for (const peer of PEERS) bench.addPeer(peer);
          let serial = 1;
          for (const [changes, bridged, round] of [[[], [], known] as const, ...rounds]) {
            applyRoutes(bench, changes);
            for (const change of changes) model.route(...change);
            applyBridge(bench, bridged);
            for (const change of bridged) model.bridge(...change);
            const batch: ReceivedMessage[] = [];
            for (const entry of round) {
              if ("bytes" in entry) {
                const bytes = numbered(entry.bytes, serial++);
                model.datagram(bytes, entry.name);
                batch.push({ bytes, name: entry.name });
                continue;
              }
              const { contents, tail, last } = entry;
              const packets = contents.map((content, i) => {
                const size = 9 + (i === contents.length - 1 ? Math.min(tail, last) : tail);
                if (typeof content !== "number")
                  return new Uint8Array(
                    [...content, ...Array<number>(size).fill(0xdd)].slice(0, size),
                  );
                return message(RELAY, [serial++, content], new Uint8Array(size - 9).fill(serial));
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
          const byLane = (
            list: readonly { name: string; bytes: string }[],
          ): Record<string, string[]> => {
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
          const unknown =
            bench.memory.words[bench.memory.workerWords(0) + LAST_UNKNOWN_TARGET]! >>> 0;
          expect(unknown).toBe(model.lastUnknown);
          expect({
            local: bench.count(RELAYED_LOCAL),
            peer: bench.count(RELAYED_TO_PEER),
            notFound: bench.count(RELAY_NOT_FOUND),
          }).toEqual(model.relays);
          const frames = bench.takeFrames();
          expect(frames.map(({ nodeId, bytes }) => ({ nodeId, bytes: hex(bytes) }))).toEqual(
            model.frames,
          );
          expect(bench.count(PUNCHES_BRIDGED)).toBe(model.punchesBridged);
          expect(bench.takeMail()).toEqual(model.mail);
          expect(bench.count(GOSSIP_RECEIVED)).toBe(model.mail.length);
          expect(bench.rejected()).toEqual(model.rejected);
          expect(bench.lastRejection()).toEqual(model.lastRejection);
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe("where gossip of unlisted beacons is accepted", () => {
  /** A node of a stranger's, and a bench that has a route to it. */
  function learnedRoute(): Bench {
    const bench = new Bench();
    bench.memory.words[bench.memory.rulesAt + STRANGERS_BELIEVED] = 1;
    const peer = bench.peers.addLearned(endpointOfName(name(77, 9001)), 0);
    bench.routes.claim(777, peer);
    return bench;
  }
  const packet = (from: Uint8Array, senderId = 5): ReceivedMessage => ({
    bytes: message(RELAY, [senderId, 777], [1]),
    name: from,
  });
  const discovered = (bench: Bench, id: number, from: Uint8Array) =>
    bench.step({ bytes: message(DISCOVER, [id]), name: from });

  test("a relay of a node of this beacon goes on to the beacon that announced its destination", () => {
    const bench = learnedRoute();
    discovered(bench, 5, name(1));
    bench.step(packet(name(1)));
    expect(bench.count(RELAYED_TO_PEER)).toBe(1);
  });

  test("a relay of any other source does not, whatever sender it names", () => {
    const bench = learnedRoute();
    discovered(bench, 5, name(1));
    bench.step(packet(name(2)), packet(name(1, 9999)), packet(name(1), 6), packet(name(1), 0));
    expect(bench.count(RELAYED_TO_PEER)).toBe(0);
    expect(bench.count(RELAY_NOT_FOUND)).toBe(4);
  });

  test("it goes on from any source where only listed beacons' gossip is accepted", () => {
    const bench = learnedRoute();
    bench.memory.words[bench.memory.rulesAt + STRANGERS_BELIEVED] = 0;
    bench.step(packet(name(2)));
    expect(bench.count(RELAYED_TO_PEER)).toBe(1);
  });
});

describe("local addresses", () => {
  const sentTo = (host: number) =>
    controlMessage(
      IPPROTO_IP,
      IP_PKTINFO,
      Uint8Array.of(2, 0, 0, 0, 192, 0, 2, host, 192, 0, 2, host),
    );
  const sourceOf = (host: number) => hex(Uint8Array.of(0, 0, 0, 0, 192, 0, 2, host, 0, 0, 0, 0));
  const from = (id: number, host: number, local: number): ReceivedMessage => ({
    bytes: message(DISCOVER, [id]),
    name: name(host),
    control: sentTo(local),
  });

  test("answers, relays and punch commands leave from where their destination sent to", () => {
    const bench = new Bench();
    bench.step(from(1, 1, 11), from(2, 2, 12));
    bench.step({ bytes: message(RELAY, [1, 2], [1]), name: name(1), control: sentTo(13) });
    bench.step({ bytes: message(PUNCH_REQUEST, [1, 2]), name: name(1), control: sentTo(11) });
    const sources = bench.kernel.sent.map(({ name: to, source }) => [to, source]);
    const [one, two] = [hex(name(1)), hex(name(2))];
    expect(sources).toEqual([
      [one, sourceOf(11)],
      [two, sourceOf(12)],
      [two, sourceOf(12)],
      [one, sourceOf(11)],
      [two, sourceOf(12)],
    ]);
  });

  test("packets merge only with those that leave from the same address", () => {
    const bench = new Bench();
    bench.step(from(2, 2, 11));
    const relayed = (): ReceivedMessage => ({ bytes: message(RELAY, [1, 2], [1]), name: name(1) });
    bench.step(relayed(), relayed(), from(2, 2, 12), relayed(), relayed());
    const sources = bench.kernel.sent.slice(1).map(({ pieces, source }) => [pieces.length, source]);
    expect(sources).toEqual([
      [2, sourceOf(11)],
      [1, sourceOf(12)],
      [2, sourceOf(12)],
    ]);
  });

  test("a node without one gets one within the hold, and keeps it for the hold", () => {
    const bench = new Bench();
    bench.memory.words[bench.memory.rulesAt + ENDPOINT_HOLD_S] = 60;
    bench.step({ bytes: message(DISCOVER, [2]), name: name(2) });
    bench.step(from(2, 2, 11));
    bench.step(from(2, 2, 12));
    bench.step({ bytes: message(RELAY, [1, 2], [1]), name: name(1) });
    expect(bench.kernel.sent.map(({ source }) => source)).toEqual([
      "",
      sourceOf(11),
      sourceOf(12),
      sourceOf(11),
    ]);
  });

  test("packets that are refused take no place among the addresses", () => {
    const bench = new Bench();
    bench.step({ bytes: sync(1, [9]), name: name(3), control: sentTo(12) });
    bench.step({ bytes: message(RELAY, [1, 2], [1]), name: name(1), control: sentTo(13) });
    expect(new LocalAddresses(bench.memory).address(1)).toBeUndefined();
  });

  test("gossip carries the one that it was sent to", () => {
    const bench = new Bench();
    bench.addPeer(name(3));
    bench.step({ bytes: sync(1, [9]), name: name(3), control: sentTo(12) });
    const [words] = bench.takeMail().map(({ source }) => source.split(",").map(Number));
    expect((words![0]! & ENDPOINT_LOCAL_MASK) >>> ENDPOINT_LOCAL_SHIFT).toBe(1);
  });
});
