import { beforeEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Connection } from "../../../src/control/bridge/connection.ts";
import { BUFFERED_BYTES_MAX, Outbox } from "../../../src/control/bridge/outbox.ts";
import { RELAYED_TO_BRIDGE, REPLIES_SENT, SENT_BYTES } from "../../../src/shared/counters.ts";
import { dropsOf } from "../../../src/shared/drops.ts";
import { CLOCK_S, SharedMemory } from "../../../src/shared/memory.ts";
import { deliver } from "../../e2e/support/wire.ts";

const NODE_BYTES_MAX = 256 * 1024;
const DISCOVER_REPLY = 0x02;

/** A socket whose kernel takes so many bytes; what it does not take waits, as in Bun. */
class ScriptedSocket {
  readonly frames: Buffer[] = [];
  corks = 0;
  /** Whether it takes nothing, as one that is closing. */
  isClosing = false;
  #isCorked = false;
  #waiting = 0;

  /** @param room bytes that the kernel takes; not read, they stay there */
  constructor(public room = Number.POSITIVE_INFINITY) {}

  cork(run: () => void): void {
    this.corks++;
    this.#isCorked = true;
    run();
    this.#isCorked = false;
  }

  /** @returns bytes sent, or -1 if any of them wait, or 0 if none was taken */
  sendBinary(frame: Uint8Array): number {
    if (!this.#isCorked) throw new Error("sent alone");
    if (this.isClosing) return 0;
    this.frames.push(Buffer.from(frame));
    const taken = Math.min(this.room, frame.length);
    this.room -= taken;
    this.#waiting += frame.length - taken;
    return this.#waiting > 0 ? -1 : frame.length;
  }

  getBufferedAmount(): number {
    return this.#waiting;
  }

  /** What happens when it is terminated; what waited is gone then. */
  onClose = () => {};

  terminate(): void {
    this.#waiting = 0;
    this.onClose();
  }

  /** The node has read so much. */
  read(bytes: number): void {
    this.#waiting -= Math.min(bytes, this.#waiting);
  }
}

let memory: SharedMemory;
let outbox: Outbox;
beforeEach(() => {
  memory = new SharedMemory({ workers: 1, nodesMax: 10, routesMax: 10 });
  outbox = new Outbox(memory);
});

const relayed = () => memory.counters[memory.bridgeRow + RELAYED_TO_BRIDGE];

function connect(room?: number): { connection: Connection; socket: ScriptedSocket } {
  const connection = new Connection("127.0.0.1", 9001);
  const socket = new ScriptedSocket(room);
  connection.socket = socket as never;
  socket.onClose = () => {
    connection.isGone = true;
    outbox.update(connection);
  };
  return { connection, socket };
}

/** A RelayDeliver of so many bytes. */
const packet = (bytes: number, fill = 0) => deliver(7, new Uint8Array(bytes - 5).fill(fill));

/** Puts a frame in and flushes. @returns whether it was sent */
function send(connection: Connection, frame: Uint8Array): boolean {
  const before = outbox.sent;
  outbox.put(connection, frame);
  outbox.flush();
  return outbox.sent > before;
}

/** More frames than any bound leaves room for. */
const FRAMES_MAX = 10_000;

/**
 * Sends the same frame again and again until so many are dropped.
 * @throws Error if all are taken
 */
function sendUntilDropped(connection: Connection, frame: Uint8Array, drops = 1): void {
  const before = outbox.dropped;
  for (let i = 0; i < FRAMES_MAX; i++) {
    send(connection, frame);
    if (outbox.dropped - before >= drops) return;
  }
  throw new Error(`${FRAMES_MAX} frames found room`);
}

describe("frames", () => {
  test("leave with the flush, each connection's in one piece and in their order", () => {
    const [a, b] = [connect(), connect()];
    for (let i = 0; i < 10; i++) {
      outbox.put(a.connection, packet(10, i));
      if (i % 2 === 0) outbox.put(b.connection, packet(20, 100 + i));
    }
    expect([a.socket.frames, b.socket.frames]).toEqual([[], []]);
    outbox.flush();
    expect(a.socket.frames.map((frame) => frame.at(-1))).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(b.socket.frames.map((frame) => frame.at(-1))).toEqual([100, 102, 104, 106, 108]);
    expect([a.socket.corks, b.socket.corks]).toEqual([1, 1]);
    expect(outbox).toMatchObject({ sent: 15, dropped: 0, bufferedBytes: 0 });
  });

  test("count as relays or replies, with their bytes, once the connection takes them", () => {
    const [open, gone] = [connect(), connect()];
    gone.connection.isGone = true;
    const frames = [packet(100), packet(30), Uint8Array.of(DISCOVER_REPLY, 4, 127, 0, 0, 1, 0, 9)];
    for (const { connection } of [open, gone])
      for (const frame of frames) outbox.put(connection, frame);
    outbox.flush();
    const count = (column: number) => memory.counters[memory.bridgeRow + column];
    expect([relayed(), count(REPLIES_SENT), count(SENT_BYTES)]).toEqual([2, 1, 100 + 30 + 8]);
  });

  test("are sent once, and a flush without any does nothing", () => {
    const { connection, socket } = connect();
    outbox.put(connection, packet(10));
    for (let i = 0; i < 3; i++) outbox.flush();
    expect([socket.frames.length, socket.corks, outbox.sent]).toEqual([1, 1, 1]);
  });

  test("are what they were when they were put in, byte for byte, also an empty one", () => {
    const { connection, socket } = connect();
    const frames = [packet(1200, 3), new Uint8Array(), packet(65_536, 4)];
    for (const frame of frames) outbox.put(connection, frame);
    outbox.flush();
    expect(socket.frames.map((frame, i) => Buffer.compare(frame, frames[i]!))).toEqual([0, 0, 0]);
  });

  test("are counted as relayed if they are packets of another node", () => {
    const { connection } = connect();
    for (const frame of [packet(10), Uint8Array.of(DISCOVER_REPLY, 4), packet(10)])
      outbox.put(connection, frame);
    outbox.flush();
    expect([outbox.sent, relayed()]).toEqual([3, 2]);
  });

  test("that a slow node does not read are noted under it and their sender", () => {
    memory.words[CLOCK_S] = 1;
    const { connection } = connect(0);
    connection.nodeId = 9;
    sendUntilDropped(connection, packet(65_536), 2);
    send(connection, Uint8Array.of(DISCOVER_REPLY, ...new Uint8Array(NODE_BYTES_MAX)));
    expect(outbox.dropped).toBe(3);
    expect(dropsOf(memory, 9)).toEqual([
      { to: 9, from: 7, reason: "slow_reader", atS: 1, count: 2 },
    ]);
  });

  test("for a connection that is gone go nowhere, and those for others do", () => {
    const [gone, there] = [connect(), connect()];
    outbox.put(gone.connection, packet(10));
    outbox.put(there.connection, packet(10));
    gone.connection.isGone = true;
    outbox.flush();
    expect([gone.socket.frames.length, there.socket.frames.length]).toEqual([0, 1]);
    expect([outbox.sent, relayed()]).toEqual([1, 1]);
    expect(gone.connection.pending).toHaveLength(0);
  });
});

describe("a socket that takes no frame, as it is closing,", () => {
  test("leaves them counted as gone, and as nothing else", () => {
    const { connection, socket } = connect();
    send(connection, packet(10));
    socket.isClosing = true;
    const counters = memory.counters.slice();
    for (const frame of [packet(20), Uint8Array.of(DISCOVER_REPLY, 4), packet(30)])
      expect(send(connection, frame)).toBe(false);
    expect(outbox).toMatchObject({
      sent: 1,
      gone: 3,
      dropped: 0,
      disconnects: 0,
      bufferedBytes: 0,
    });
    expect(memory.counters).toEqual(counters);
    expect(connection.pending).toEqual([]);
  });

  test("keeps none from other nodes", () => {
    const [closing, there] = [connect(), connect()];
    closing.socket.isClosing = true;
    for (let i = 0; i < 3; i++)
      for (const { connection } of [closing, there]) outbox.put(connection, packet(10));
    outbox.flush();
    expect([closing.socket.frames.length, there.socket.frames.length]).toEqual([0, 3]);
    expect([outbox.sent, outbox.gone, relayed()]).toEqual([3, 3, 3]);
  });
});

describe("a node that does not read", () => {
  test("gets what fits below its bound; what does not is dropped and counted, and not as relayed", () => {
    const BYTES = 1200;
    const { connection, socket } = connect(0);
    for (let i = 0; i < 1000; i++) send(connection, packet(BYTES));
    const fit = Math.floor(NODE_BYTES_MAX / BYTES);
    expect(socket.frames).toHaveLength(fit);
    expect(outbox).toMatchObject({ sent: fit, dropped: 1000 - fit, bufferedBytes: fit * BYTES });
    expect(relayed()).toBe(fit);
    // A smaller one still has room.
    expect(send(connection, packet(NODE_BYTES_MAX - fit * BYTES))).toBe(true);
    expect(send(connection, packet(5))).toBe(false);
    expect(outbox.bufferedBytes).toBe(NODE_BYTES_MAX);
  });

  test("has the same bound when all comes with one flush", () => {
    const { connection, socket } = connect(0);
    for (let i = 0; i < 1000; i++) outbox.put(connection, packet(1200));
    outbox.flush();
    expect(outbox.bufferedBytes).toBeLessThanOrEqual(NODE_BYTES_MAX);
    expect(outbox.bufferedBytes).toBe(socket.getBufferedAmount());
    expect(outbox.sent + outbox.dropped).toBe(1000);
    expect(outbox.dropped).toBeGreaterThan(0);
  });

  test("does not keep others from theirs", () => {
    const [slow, quick] = [connect(0), connect()];
    for (let i = 0; i < 1000; i++) {
      outbox.put(slow.connection, packet(1200));
      outbox.put(quick.connection, packet(1200));
      outbox.flush();
    }
    expect(quick.socket.frames).toHaveLength(1000);
    expect(outbox.dropped).toBe(1000 - slow.socket.frames.length);
  });

  test("gets frames again once it has read, as many as there is room for", () => {
    const { connection, socket } = connect(0);
    sendUntilDropped(connection, packet(1000));
    const before = outbox.bufferedBytes;
    socket.read(3500);
    outbox.update(connection);
    expect(outbox.bufferedBytes).toBe(before - 3500);
    expect([1, 2, 3, 4].map(() => send(connection, packet(1000)))).toEqual([
      true,
      true,
      true,
      false,
    ]);
    socket.read(NODE_BYTES_MAX);
    outbox.update(connection);
    expect(outbox.bufferedBytes).toBe(0);
    expect(send(connection, packet(1000))).toBe(true);
  });

  test("gives back its room when it is gone", () => {
    const [gone, slow] = [connect(0), connect(0)];
    for (let i = 0; i < 100; i++)
      for (const { connection } of [gone, slow]) send(connection, packet(1000));
    expect(outbox.bufferedBytes).toBe(200_000);
    gone.connection.isGone = true;
    outbox.update(gone.connection);
    expect(outbox.bufferedBytes).toBe(100_000);
    outbox.put(gone.connection, packet(1000));
    outbox.flush();
    outbox.update(gone.connection);
    expect(outbox.bufferedBytes).toBe(100_000);
  });
});

describe("many nodes that do not read", () => {
  test("share one bound: what waits for each becomes less, and all of it never exceeds the bound", () => {
    const shares: number[] = [];
    for (let i = 0; i < 400; i++) {
      const { connection, socket } = connect(0);
      for (let at = 0; at < 300; at++) outbox.put(connection, packet(1000));
      outbox.flush();
      shares.push(socket.getBufferedAmount());
      expect(outbox.bufferedBytes).toBeLessThanOrEqual(BUFFERED_BYTES_MAX);
    }
    expect(shares[0]!).toBeGreaterThan(NODE_BYTES_MAX - 1000);
    expect(shares[300]!).toBeLessThan(shares[200]!);
    for (let i = 1; i < shares.length; i++) expect(shares[i]!).toBeLessThanOrEqual(shares[i - 1]!);
    expect(outbox.bufferedBytes).toBe(shares.reduce((all, share) => all + share));
  });

  test("and get the largest frames never exceed the bound either, however many they are", () => {
    for (let i = 0; i < 3000; i++) {
      const { connection } = connect(0);
      outbox.put(connection, packet(65_536));
      outbox.put(connection, packet(65_536));
      outbox.flush();
      expect(outbox.bufferedBytes).toBeLessThanOrEqual(BUFFERED_BYTES_MAX);
    }
    expect(outbox.disconnects).toBeGreaterThan(0);
  });

  test("keep their connections at the bound itself; one byte more, and the last one loses its own", () => {
    const BYTES = 65_536;
    for (let i = 0; i < BUFFERED_BYTES_MAX / BYTES; i++)
      expect(send(connect(0).connection, packet(BYTES))).toBe(true);
    expect(outbox).toMatchObject({ bufferedBytes: BUFFERED_BYTES_MAX, disconnects: 0, dropped: 0 });
    const last = connect(0);
    send(last.connection, packet(5));
    expect(last.connection.isGone).toBe(true);
    expect(outbox).toMatchObject({ bufferedBytes: BUFFERED_BYTES_MAX, disconnects: 1 });
  });

  test("cost no connection that reads its own, until what waits for those that end is gone", () => {
    for (let i = 0; i < BUFFERED_BYTES_MAX / 65_536; i++)
      send(connect(0).connection, packet(65_536));
    const [slow, quick] = [connect(0), connect()];
    slow.socket.terminate = () => {}; // its close comes later
    send(slow.connection, packet(5));
    expect(outbox).toMatchObject({ bufferedBytes: BUFFERED_BYTES_MAX + 5, disconnects: 1 });
    expect(send(quick.connection, packet(1200))).toBe(true);
    expect([quick.connection.isGone, outbox.disconnects]).toEqual([false, 1]);
  });

  test("leave room for those that read: nothing of theirs is dropped", () => {
    for (let i = 0; i < 300; i++) {
      const { connection } = connect(0);
      for (let at = 0; at < 300; at++) outbox.put(connection, packet(1000));
      outbox.flush();
    }
    const before = outbox.dropped;
    const { connection, socket } = connect();
    for (let i = 0; i < 1000; i++) outbox.put(connection, packet(1200));
    outbox.flush();
    expect(socket.frames).toHaveLength(1000);
    expect(outbox.dropped).toBe(before);
  });

  test("take up to their old bound again once the others have read", () => {
    const all = Array.from({ length: 300 }, () => connect(0));
    for (const { connection } of all) {
      for (let at = 0; at < 300; at++) outbox.put(connection, packet(1000));
      outbox.flush();
    }
    const last = all.pop()!;
    expect(last.socket.getBufferedAmount()).toBeLessThan(50_000);
    for (const { connection, socket } of all) {
      socket.read(NODE_BYTES_MAX);
      outbox.update(connection);
    }
    sendUntilDropped(last.connection, packet(1000));
    expect(last.socket.getBufferedAmount()).toBeGreaterThan(NODE_BYTES_MAX - 1000);
  });
});

test("whatever happens: every frame is sent or dropped, in order, and the bytes that wait are those that wait", () => {
  const NODES = 5;
  const step = fc.oneof(
    fc.record({
      kind: fc.constant("put"),
      node: fc.nat(NODES - 1),
      bytes: fc.integer({ min: 5, max: 65_536 }),
    }),
    fc.record({ kind: fc.constant("flush"), node: fc.constant(0), bytes: fc.constant(0) }),
    fc.record({ kind: fc.constant("read"), node: fc.nat(NODES - 1), bytes: fc.nat(300_000) }),
    fc.record({ kind: fc.constant("take"), node: fc.nat(NODES - 1), bytes: fc.nat(100_000) }),
    fc.record({ kind: fc.constant("go"), node: fc.nat(NODES - 1), bytes: fc.constant(0) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 100 }), (steps) => {
      memory.counters.fill(0);
      outbox = new Outbox(memory);
      const all = Array.from({ length: NODES }, () => connect(0));
      let put = 0;
      let lost = 0; // put in for one that was gone when they should have left
      for (const { kind, node, bytes } of steps) {
        const { connection, socket } = all[node]!;
        if (kind === "put" && !connection.isGone) {
          const frame = Buffer.alloc(bytes);
          frame.writeUInt32BE(put++, bytes - 4);
          outbox.put(connection, frame);
        } else if (kind === "flush") {
          outbox.flush();
        } else if (kind === "read") {
          socket.read(bytes);
          outbox.update(connection);
        } else if (kind === "take") {
          socket.room = bytes;
        } else if (kind === "go" && !connection.isGone) {
          lost += connection.pending.length;
          connection.isGone = true;
          outbox.update(connection);
        }
      }
      outbox.flush();
      expect(outbox.sent + outbox.dropped + lost).toBe(put);
      expect(outbox.sent).toBe(all.reduce((sum, { socket }) => sum + socket.frames.length, 0));
      let waiting = 0;
      for (const { connection, socket } of all) {
        const order = socket.frames.map((frame) => frame.readUInt32BE(frame.length - 4));
        expect(order).toEqual(order.toSorted((a, b) => a - b));
        if (!connection.isGone) waiting += socket.getBufferedAmount();
        expect(socket.getBufferedAmount()).toBeLessThanOrEqual(NODE_BYTES_MAX);
      }
      expect(outbox.bufferedBytes).toBe(waiting);
    }),
    { numRuns: 300 },
  );
});
