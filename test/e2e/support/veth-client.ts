/**
 * Run inside a network namespace: relays bursts through a beacon on the other side of a veth pair
 * and prints what became of them, as JSON.
 *
 *   bun veth-client.ts <own address> <beacon address> <beacon port> <beacon's http url> <its admin token>
 */
import type { Stats } from "../../../src/beacon.ts";
import { sum, sumByName } from "./beacon.ts";
import { BurstSocket } from "./bursts.ts";
import { Random } from "./random.ts";
import { until } from "./wait.ts";
import { deliver, discover, relay } from "./wire.ts";

export interface BurstReport {
  readonly name: string;
  /** Whether all packets arrived, as they were and in order. */
  readonly intact: boolean;
  /** Most packets that arrived in one message. */
  readonly togetherMax: number;
  /** What the beacon's segment counters gained. */
  readonly segmentsReceived: number;
  readonly segmentsSent: number;
}

export interface VethReport {
  readonly bursts: readonly BurstReport[];
  readonly forwarded: number;
  readonly dropped: Record<string, number>;
}

const NODE_ID = 77;
const SENDER_ID = 88;

if (import.meta.main) {
  const [host = "", address = "", port = "", http = "", token = ""] = process.argv.slice(2);
  const beacon = { address, port: Number(port) };
  const receiver = new BurstSocket(host, beacon, true);
  const sender = new BurstSocket(host, beacon);
  const random = new Random(3);
  let expectedForwarded = 0;

  const headers = { authorization: `Bearer ${token}` };
  const stats = async () =>
    (await (await fetch(new URL("api/stats", http), { headers })).json()) as Stats;
  const forwarded = (now: Stats) => sum(now, (w) => w.relayForwarded["local"]!);
  /** The numbers once everything sent so far is counted; a batch is counted after it was sent. */
  const settled = () =>
    until("everything is counted", async () => {
      const now = await stats();
      return forwarded(now) >= expectedForwarded && now;
    });

  async function burst(
    name: string,
    payloadBytes: readonly number[],
    send: (packets: Uint8Array[]) => void,
  ): Promise<BurstReport> {
    const before = await settled();
    const payloads = payloadBytes.map((bytes) => random.bytes(bytes));
    send(payloads.map((payload) => relay(SENDER_ID, NODE_ID, payload)));
    const arrived = await receiver.arrivals(payloads.length);
    expectedForwarded += payloads.length;
    const after = await settled();
    const segments = (now: Stats, direction: "received" | "sent") =>
      sum(now, (w) => w.offloadSegments[direction]!);
    return {
      name,
      intact: arrived.every(
        ({ bytes }, i) => Buffer.compare(bytes, deliver(SENDER_ID, payloads[i]!)) === 0,
      ),
      togetherMax: Math.max(...arrived.map(({ together }) => together)),
      segmentsReceived: segments(after, "received") - segments(before, "received"),
      segmentsSent: segments(after, "sent") - segments(before, "sent"),
    };
  }

  receiver.sendEach([discover(NODE_ID)]);
  await receiver.arrivals(1);
  const bursts: BurstReport[] = [];
  const small: number[] = Array(40).fill(1200);
  bursts.push(await burst("small", small, (packets) => sender.send(packets)));
  for (const bytes of [1480, 2000, 4200]) {
    const large: number[] = Array(30).fill(bytes);
    bursts.push(await burst(`large ${bytes}`, large, (packets) => sender.sendEach(packets)));
    bursts.push(await burst(`small after ${bytes}`, small, (packets) => sender.send(packets)));
  }
  const mixed = Array.from({ length: 60 }, (_, i) => (i % 20 < 3 ? 4200 : 700));
  bursts.push(await burst("mixed", mixed, (packets) => sender.sendEach(packets)));
  bursts.push(await burst("small at last", small, (packets) => sender.send(packets)));
  const now = await settled();
  const report: VethReport = {
    bursts,
    forwarded: forwarded(now),
    dropped: sumByName(now, (w) => w.relayDropped),
  };
  console.log(JSON.stringify(report));
  process.exit(0);
}
