/**
 * A probe of a beacon that relays nothing, mixes things up, or is not there: what it finds.
 * test/e2e/commands.test.ts has real ones.
 */
import { afterEach, expect, test } from "bun:test";
import { type ProbeOptions, probe, trips } from "../../../src/cli/probe/probe.ts";
import { exitCodeOf, problemsOf } from "../../../src/cli/probe/report.ts";
import { PATIENCE_MS } from "../../e2e/support/wait.ts";
import { discoverEx } from "../../e2e/support/wire.ts";

/** Each missing answer costs a test the timeout; answers come within it on a busy machine, too. */
const OPTIONS: ProbeOptions = { count: 5, intervalMs: 1, sizeBytes: 20, timeoutMs: 1000 };

interface From {
  readonly address: string;
  readonly port: number;
}
type Answer = (bytes: Buffer, from: From, send: (bytes: Uint8Array, to: From) => void) => void;

let close = () => {};
afterEach(() => close());

/** Something on UDP. @returns its port */
async function peer(answer: Answer): Promise<number> {
  const socket = await Bun.udpSocket({
    hostname: "127.0.0.1",
    binaryType: "buffer",
    socket: {
      error() {}, // whom it answers may have gone
      data: (socket, bytes, port, address) =>
        answer(
          Buffer.from(bytes),
          { address, port },
          (reply, to) => void socket.send(reply, to.port, to.address),
        ),
    },
  });
  close = () => socket.close();
  return socket.port;
}

const reply = (type: number, { address, port }: From) =>
  Buffer.from([type, 4, ...address.split(".").map(Number), port >> 8, port & 255]);

test("one that tells addresses, and relays nothing", async () => {
  const port = await peer((bytes, from, send) => {
    if (bytes[0] === 1) send(reply(2, from), from);
  });
  const found = await probe({ address: "127.0.0.1", port }, OPTIONS);
  expect(found).toMatchObject({
    seenAs: found.here,
    roundTrips: { sent: 5, lost: 0 },
    punch: { ok: false, requesterWasTold: null, attempts: 2 },
    relay: { sent: 5, lost: 5, p50Ms: null },
  });
  expect(problemsOf(found)).toEqual([
    expect.stringContaining("no punch: punching is switched off"),
    expect.stringContaining("relays nothing"),
  ]);
  expect(exitCodeOf(found)).toBe(1);
});

test("one that tells wrong addresses, and damages, loses and repeats", async () => {
  const nodes = new Map<number, From>();
  let relays = 0;
  const port = await peer((bytes, from, send) => {
    const [first, second] = [bytes.readUInt32BE(1), bytes.length >= 9 ? bytes.readUInt32BE(5) : 0];
    if (bytes[0] === 1) {
      nodes.set(first, from);
      send(reply(2, from), from);
    } else if (bytes[0] === 3) {
      send(reply(4, from), from); // about itself
      send(reply(4, from), nodes.get(second)!);
    } else if (bytes[0] === 5) {
      const delivery = Buffer.concat([Buffer.from([6]), bytes.subarray(1, 5), bytes.subarray(9)]);
      relays++;
      if (relays === 1) return; // lost
      if (relays === 2) delivery[delivery.length - 1]! ^= 1; // damaged
      send(delivery, nodes.get(second)!);
      send(delivery, nodes.get(second)!);
    }
  });
  const found = await probe({ address: "127.0.0.1", port }, OPTIONS);
  expect(found.punch).toMatchObject({ ok: false, attempts: 1 });
  expect(found.relay).toMatchObject({ sent: 5, lost: 2 });
  expect(problemsOf(found)).toEqual([
    expect.stringContaining("told wrong addresses"),
    expect.stringContaining("2 of 5 relays were lost"),
  ]);
});

test("one that takes no new node", async () => {
  const port = await peer((bytes, from, send) => {
    if (bytes[0] === 1 && bytes.readUInt32BE(1) === 0) send(reply(2, from), from);
  });
  const found = await probe({ address: "127.0.0.1", port }, OPTIONS);
  expect(found).toMatchObject({ registered: false, punch: null, relay: null });
  expect(problemsOf(found)).toEqual([expect.stringContaining("takes no new node")]);
});

test("something that answers otherwise; nothing that answers", async () => {
  const port = await peer((_, from, send) => send(discoverEx(1), from));
  const other = await probe({ address: "127.0.0.1", port }, { ...OPTIONS, timeoutMs: 20 });
  expect(other).toMatchObject({ seenAs: null, error: null });
  expect(problemsOf(other)).toEqual([expect.stringContaining("no answer: a firewall")]);
  close();
  close = () => {};
  const nothing = await probe(
    { address: "127.0.0.1", port },
    { ...OPTIONS, timeoutMs: PATIENCE_MS },
  );
  expect(nothing).toMatchObject({ seenAs: null, error: "ECONNREFUSED" });
  expect(problemsOf(nothing)).toEqual([
    expect.stringContaining("nothing listens on that UDP port"),
  ]);
  expect(exitCodeOf(nothing)).toBe(3);
});

test("an answer that comes too late is not the next question's", async () => {
  const asked: From[] = [];
  const port = await peer((bytes, from, send) => {
    if (bytes[0] !== 1 || bytes.readUInt32BE(1) !== 0) return;
    asked.push(from);
    // The answer to the second question is sent when the third arrives.
    const late = asked.length === 3 ? asked[1]! : from;
    if (asked.length !== 2) send(reply(2, late), late);
  });
  const found = await probe(
    { address: "127.0.0.1", port },
    { ...OPTIONS, count: 3, timeoutMs: 300 },
  );
  expect(asked.length).toBeGreaterThanOrEqual(3);
  // The first asked for the address, the next one's answer is late, the one after has none.
  expect(found.roundTrips).toMatchObject({ sent: 3, lost: 2 });
});

test("quantiles", () => {
  const times = Float64Array.from({ length: 100 }, (_, i) => 100 - i);
  expect(trips(times)).toEqual({ sent: 100, lost: 0, p50Ms: 50, p99Ms: 99 });
  times[0] = Number.NaN;
  expect(trips(times)).toEqual({ sent: 100, lost: 1, p50Ms: 50, p99Ms: 99 });
  expect(trips(Float64Array.of(Number.NaN))).toEqual({
    sent: 1,
    lost: 1,
    p50Ms: null,
    p99Ms: null,
  });
});
