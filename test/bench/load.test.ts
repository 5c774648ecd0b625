/**
 * The load generators, against a socket of this test in place of a target: what they send, and what
 * they count.
 */
import { afterEach, describe, expect, test } from "bun:test";
import { DiscoverGenerator, type DiscoverLoad } from "../../bench/harness/discovers.ts";
import { type Load, LoadGenerator, sendOnce } from "../../bench/harness/load.ts";
import { channelHeader } from "../../bench/harness/turn.ts";
import { AF_INET } from "../../ffi/abi.ts";
import { kernel } from "../../ffi/libc.ts";
import { allocatePacketMemory, ReceiveBatch } from "../../ffi/mmsg.ts";
import { UdpSocket } from "../../ffi/socket.ts";
import { DISCOVER, FIRST_ID_AT, RELAY, RELAY_BYTES, SECOND_ID_AT } from "../../src/protocol.ts";

const BATCH = 64;
const SILENCE_MS = 20;
/** Ids from here on are of nobody. */
const UNKNOWN_FROM = 0x8000_0000;

/** What a target would get. */
class Listener {
  readonly #socket = UdpSocket.open(AF_INET);
  readonly #receive: ReceiveBatch;

  constructor() {
    this.#socket.bind("127.0.0.1", 0);
    this.#socket.setBuffers(4 << 20, 4 << 20);
    this.#socket.setTimeouts(SILENCE_MS, SILENCE_MS);
    const memory = allocatePacketMemory(BATCH, 0);
    this.#receive = new ReceiveBatch(kernel, this.#socket.fd, AF_INET, BATCH, memory, false);
  }

  get address() {
    return { host: "127.0.0.1", port: this.#socket.localAddress().port };
  }

  /** All that has arrived, until nothing more does, and the ports that it came from. */
  take(): { packets: DataView[]; ports: number[] } {
    const packets: DataView[] = [];
    const ports: number[] = [];
    const from = new Int32Array(6);
    for (;;) {
      const messages = this.#receive.receive(true);
      if (messages <= 0) return { packets, ports };
      for (let m = 0; m < messages; m++) {
        const at = this.#receive.packetAt(m);
        const bytes = this.#receive.packets.buffer.slice(at, at + this.#receive.length(m));
        packets.push(new DataView(bytes));
        this.#receive.readSource(m, from);
        ports.push(new DataView(from.buffer).getUint16(2));
      }
    }
  }

  /** Answers from here, once for each of `packets`. */
  answer(port: number, packets: number): void {
    for (let i = 0; i < packets; i++) {
      sendOnce(this.#socket, new Uint8Array(8), { host: "127.0.0.1", port });
    }
  }

  close(): void {
    this.#socket.close();
  }
}

const closing: { close(): void }[] = [];
const closes = <T extends { close(): void }>(one: T): T => {
  closing.push(one);
  return one;
};
afterEach(() => {
  for (const one of closing.splice(0)) one.close();
});

function aimed(load: Load): { generator: LoadGenerator; listener: Listener } {
  const listener = closes(new Listener());
  const generator = closes(new LoadGenerator(load));
  generator.aim(listener.address);
  return { generator, listener };
}

const destinations = (packets: readonly DataView[]) =>
  packets.map((packet) => packet.getUint32(SECOND_ID_AT));

describe("a load of Relays", () => {
  test("goes to all nodes in turn, across calls", () => {
    const { generator, listener } = aimed({ payloadBytes: 20, nodes: 7, firstId: 100 });
    const sent = generator.offer() + generator.offer();
    const { packets } = listener.take();
    expect(packets).toHaveLength(sent);
    expect(destinations(packets)).toEqual(packets.map((_, i) => 100 + (i % 7)));
    for (const packet of packets) {
      expect([packet.getUint8(0), packet.byteLength]).toEqual([RELAY, RELAY_BYTES + 20]);
    }
  });

  test("in bursts gives each node a burst", () => {
    const { generator, listener } = aimed({ payloadBytes: 1200, nodes: 3, burst: 10 });
    const sent = generator.offer();
    const { packets } = listener.take();
    expect(packets).toHaveLength(sent);
    expect(destinations(packets)).toEqual(packets.map((_, i) => 1 + (Math.floor(i / 10) % 3)));
  });

  for (const unknown of [0, 0.3, 0.5, 0.9]) {
    test(`${unknown * 100} % to unknown nodes, each another one`, () => {
      const { generator, listener } = aimed({ payloadBytes: 20, nodes: 5, unknown });
      let known = 0;
      for (let i = 0; i < 4; i++) known += generator.offer();
      const all = destinations(listener.take().packets);
      const strangers = all.filter((id) => id >= UNKNOWN_FROM);
      expect(all.length - strangers.length).toBe(known);
      expect(Math.abs(strangers.length - all.length * unknown)).toBeLessThanOrEqual(1);
      expect(new Set(strangers).size).toBe(strangers.length);
      const rest = all.filter((id) => id < UNKNOWN_FROM);
      expect(rest).toEqual(rest.map((_, i) => 1 + (i % 5)));
    });
  }

  test("comes from its sockets in turn", () => {
    const { generator, listener } = aimed({ payloadBytes: 20, nodes: 5, senders: 3 });
    const calls = Array.from({ length: 6 }, () => {
      generator.offer();
      return new Set(listener.take().ports);
    });
    expect(calls.map((ports) => ports.size)).toEqual([1, 1, 1, 1, 1, 1]);
    const [first = 0, second = 0, third = 0, ...again] = calls.map((ports) => [...ports][0]!);
    expect(new Set([first, second, third]).size).toBe(3);
    expect(again).toEqual([first, second, third]);
  });

  test("counts what comes back to its sink, and what does not as lost", () => {
    const { generator, listener } = aimed({ payloadBytes: 20, nodes: 5 });
    listener.answer(generator.sinkPort, 3);
    const { sent, received, lost, handled } = generator.run(1);
    expect(sent).toBeGreaterThan(3);
    expect({ received, lost, handled }).toEqual({ received: 3, lost: sent - 3, handled: 3 });
  });

  test("refuses what it cannot do", () => {
    expect(() => new LoadGenerator({ payloadBytes: 20, nodes: 1, burst: 65 })).toThrow(RangeError);
    expect(() => new LoadGenerator({ payloadBytes: 20, nodes: 1, unknown: 0.95 })).toThrow(
      RangeError,
    );
    const header = channelHeader(20);
    expect(() => new LoadGenerator({ payloadBytes: 20, nodes: 1, unknown: 0.5, header })).toThrow(
      RangeError,
    );
  });
});

test("a load of data in TURN channels goes to all channels in turn", () => {
  const { generator, listener } = aimed({ payloadBytes: 20, nodes: 3, header: channelHeader(20) });
  generator.offer();
  const { packets, ports } = listener.take();
  expect(packets.map((packet) => packet.getUint16(0))).toEqual(
    packets.map((_, i) => 0x4000 + (i % 3)),
  );
  for (const packet of packets) expect([packet.getUint16(2), packet.byteLength]).toEqual([20, 24]);
  expect(new Set(ports)).toEqual(new Set([generator.sender.localAddress().port]));
});

describe("a load of Discovers", () => {
  /** A run to a target that never answers. */
  function discovers(
    load: DiscoverLoad,
    runs: readonly number[],
  ): { ids: number[]; ports: number[] }[] {
    const listener = closes(new Listener());
    const generator = closes(new DiscoverGenerator(load));
    generator.aim(listener.address);
    return runs.map((most) => {
      const { sent, received, lost } = generator.run(1e9, most);
      const { packets, ports } = listener.take();
      expect({ received, lost, arrived: packets.length }).toEqual({
        received: 0,
        lost: sent,
        arrived: sent,
      });
      for (const packet of packets)
        expect([packet.getUint8(0), packet.byteLength]).toEqual([DISCOVER, 5]);
      return { ids: packets.map((packet) => packet.getUint32(FIRST_ID_AT)), ports };
    });
  }

  test("again: all nodes in turn, each from its own socket", () => {
    const [one, two] = discovers({ kind: "again", nodes: 300, firstId: 5 }, [300, 300]);
    expect(one!.ids.toSorted((a, b) => a - b)).toEqual(
      Array.from({ length: 300 }, (_, i) => 5 + i),
    );
    const socketOf = ({ ids, ports }: { ids: number[]; ports: number[] }) =>
      new Map(ids.map((id, i) => [id, ports[i]!]));
    expect(socketOf(two!)).toEqual(socketOf(one!));
    expect(new Set(one!.ports).size).toBe(2);
  });

  test("moving: from another socket each time", () => {
    const [one, two] = discovers({ kind: "moving", nodes: 100 }, [100, 100]);
    expect(new Set(one!.ports).size).toBe(1);
    expect(new Set([...one!.ports, ...two!.ports]).size).toBe(2);
  });

  test("new: each node just once, and then no more", () => {
    const [one, two, three] = discovers({ kind: "new", nodes: 150 }, [100, 100, 100]);
    expect([...one!.ids, ...two!.ids]).toEqual(Array.from({ length: 150 }, (_, i) => 1 + i));
    expect(three!.ids).toEqual([]);
  });
});
