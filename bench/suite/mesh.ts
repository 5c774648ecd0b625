/** What a full mesh costs: gossip in and out, reaping and saving, in CPU time and in pauses of the relay path. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AF_INET, UDP_PAYLOAD_MAX } from "../../ffi/abi.ts";
import { UdpSocket } from "../../ffi/socket.ts";
import type { Stats } from "../../src/beacon.ts";
import { SYNC, SYNC_BYTES } from "../../src/protocol.ts";
import { LoadGenerator, sendOnce } from "../harness/load.ts";
import type { BenchOptions } from "../harness/options.ts";
import { registerFromMany } from "../harness/register.ts";
import type { Recorder } from "../harness/results.ts";
import { quantile } from "../harness/statistics.ts";
import {
  compileReference,
  cpuNs,
  pinGenerator,
  startBeacon,
  startReference,
  type Target,
} from "../harness/targets.ts";
import { pingSteadily } from "./latency.ts";

/** A datagram holds 16,375 ids, so a peer with 65,535 nodes is four here, each with an address of its own. */
const PEERS = 32;
const NODES_PER_PEER = Math.floor((UDP_PAYLOAD_MAX - SYNC_BYTES) / 4);
const LOCAL_NODES = 500_000;
const PEERS_SMOKE = 2;
const LOCAL_NODES_SMOKE = 5_000;
/** First id of the peers' nodes. */
const PEER_NODES_FROM = 0x4000_0000;
const GOSSIP_MS = 10_000;
const STATE_SAVES_EVERY_S = 60;
/** How long one target is loaded before the other: both see the same moods of the machine. */
const SLICE_S = 0.1;
const PAUSE_MS_MAX = 5;
const CPU_PERCENT_MAX = 2;

export async function benchMesh({ smoke, batch, seconds }: BenchOptions, recorder: Recorder): Promise<void> {
  pinGenerator();
  const localNodes = smoke ? LOCAL_NODES_SMOKE : LOCAL_NODES;
  const peers = Array.from({ length: smoke ? PEERS_SMOKE : PEERS }, () => UdpSocket.open(AF_INET));
  for (const peer of peers) {
    peer.bind("127.0.0.1", 0);
    peer.setBuffers(4 << 20, 4 << 20);
  }
  const folder = mkdtempSync(join(tmpdir(), "beacon-bench-"));
  const names = peers.map((peer) => `127.0.0.1:${peer.localAddress().port}`).join(",");
  const beacon = await startBeacon({ offload: true, batch }, [
    `--max-nodes=${LOCAL_NODES}`,
    `--peers=${names}`,
    `--state-file=${join(folder, "nodes")}`,
  ]);
  const reference = await startReference(compileReference(), { offload: true, batch });
  const pingers = [new Pinger("beacon", beacon), new Pinger("C", reference)] as const;
  try {
    registerFromMany(beacon, localNodes);
    for (const pinger of pingers) pinger.register();
    // As long as it takes to save the state once, but for a run in seconds.
    const runS = smoke ? 1 : Math.max(STATE_SAVES_EVERY_S, seconds * 30);
    let round = 0;
    const cpuPercent = await pingInTurn(pingers, beacon, runS, () => {
      for (const [i, peer] of peers.entries()) {
        sendOnce(peer, gossip(PEER_NODES_FROM + i * NODES_PER_PEER, round), beacon);
      }
      round++;
    });
    const { mesh, nodes } = (await (await fetch(new URL("api/stats", beacon.http))).json()) as Stats;
    const routes = mesh.peers.reduce((sum, peer) => sum + peer.routes, 0);
    recorder.title(
      `${runS} s with ${nodes} local nodes and ${routes} routes through ${mesh.peers.length} addresses of peers, ` +
        `gossip every ${GOSSIP_MS / 1000} s, the state saved every ${STATE_SAVES_EVERY_S} s`,
    );
    const title = "a full mesh";
    const params = { nodes, routes, seconds: runS };
    recorder.figure({
      ...{ case: title, name: "gossip, reaping, saving: all threads but the workers'", unit: "% of a core" },
      ...{ better: "less", values: [cpuPercent], bar: { atMost: CPU_PERCENT_MAX }, params },
    });
    for (const pinger of pingers) pinger.report(title, params, recorder);
  } finally {
    for (const pinger of pingers) pinger.close();
    for (const peer of peers) peer.close();
    for (const target of [beacon, reference]) await target.stop();
    rmSync(folder, { recursive: true });
  }
}

/** Relays through one target, one packet at a time. Beside the beacon, C shows what pauses the machine makes by itself. */
class Pinger {
  readonly #generator = new LoadGenerator({ payloadBytes: 200, nodes: 1 });
  readonly #ms: number[] = [];
  #lost = 0;

  constructor(
    private readonly name: string,
    target: Target,
  ) {
    this.#generator.aim(target);
  }

  register(): void {
    this.#generator.register();
  }

  slice(): void {
    const us = pingSteadily(this.#generator, SLICE_S);
    for (const one of us) {
      if (one === Infinity) this.#lost++;
      else this.#ms.push(one / 1000);
    }
  }

  report(title: string, params: Record<string, number>, recorder: Recorder): void {
    const figure = { case: title, unit: "ms", better: "less" as const, params };
    for (const q of [0.5, 0.99, 0.999, 0.9999]) {
      const name = `p${Number((q * 100).toFixed(2))} of relays meanwhile, ${this.name}`;
      recorder.figure({ ...figure, name, values: [quantile(this.#ms, q)] });
    }
    const longest = this.#ms.reduce((most, ms) => Math.max(most, ms), 0);
    recorder.figure({
      ...{ ...figure, name: `longest way of a relay, ${this.name}`, values: [longest] },
      ...(this.name === "beacon" && { bar: { atMost: PAUSE_MS_MAX } }),
    });
    recorder.progress(`${this.name}: ${this.#ms.length} relays, ${this.#lost} lost`);
    if (this.#lost > 0) recorder.note(`${this.#lost} relays through ${this.name} were lost`);
  }

  close(): void {
    this.#generator.close();
  }
}

/**
 * Loads all pingers in turn for `runS` seconds, with `tell` called every GOSSIP_MS.
 * @returns the share of a core, in percent, that the beacon's threads used, without its workers
 */
async function pingInTurn(
  pingers: readonly Pinger[],
  beacon: Target,
  runS: number,
  tell: () => void,
): Promise<number> {
  const isControl = (thread: string) => thread !== "Worker";
  const start = Bun.nanoseconds();
  const before = cpuNs(beacon.pid, isControl);
  for (let tellNs = start; Bun.nanoseconds() - start < runS * 1e9; ) {
    if (Bun.nanoseconds() >= tellNs) {
      tellNs += GOSSIP_MS * 1e6;
      tell();
    }
    for (const pinger of pingers) pinger.slice();
  }
  return ((cpuNs(beacon.pid, isControl) - before) / (Bun.nanoseconds() - start)) * 100;
}

/** A peer's message. Each time one node in a hundred is another one. */
function gossip(firstId: number, round: number): Uint8Array {
  const message = new DataView(new ArrayBuffer(SYNC_BYTES + 4 * NODES_PER_PEER));
  message.setUint8(0, SYNC);
  message.setUint16(5, NODES_PER_PEER);
  for (let i = 0; i < NODES_PER_PEER; i++) {
    const moved = i % 100 === 0 ? (1 + round) * 0x0100_0000 : 0;
    message.setUint32(SYNC_BYTES + 4 * i, firstId + i + moved);
  }
  return new Uint8Array(message.buffer);
}
