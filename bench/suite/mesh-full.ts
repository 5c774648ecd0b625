/**
 * What a full mesh costs a beacon: gossip in and out, reaping and saving, in CPU time and in pauses
 * of the relay path.
 */
import { join } from "node:path";
import { AF_INET } from "../../ffi/abi.ts";
import { UdpSocket } from "../../ffi/socket.ts";
import { GOSSIP_NODES_MAX, gossipMessage, PEER_NODES_FROM } from "../harness/gossip.ts";
import { LoadGenerator, sendOnce } from "../harness/load.ts";
import type { BenchOptions } from "../harness/options.ts";
import { registerFromMany } from "../harness/register.ts";
import type { Recorder } from "../harness/results.ts";
import { quantile } from "../harness/statistics.ts";
import {
  compileReference,
  startBeacon,
  startReference,
  statsOf,
  type Target,
  temporaryFolder,
} from "../harness/targets.ts";
import { controlCpuNs } from "../harness/usage.ts";
import { pingSteadily } from "./latency.ts";

/**
 * A datagram holds 16,375 ids, so a peer with 65,535 nodes is four here, each with an address of
 * its own.
 */
const PEERS = 32;
const LOCAL_NODES = 500_000;
const PEERS_SMOKE = 2;
const LOCAL_NODES_SMOKE = 5_000;
/** Each time one node in a hundred is another one. */
const CHANGED = 0.01;
const GOSSIP_MS = 10_000;
const STATE_SAVES_EVERY_S = 60;
/** How long one target is loaded before the other: both see the same moods of the machine. */
const SLICE_S = 0.1;
const PAUSE_MS_MAX = 5;
const CPU_PERCENT_MAX = 2;

export async function measureFullMesh(
  { smoke, batch, seconds }: BenchOptions,
  recorder: Recorder,
): Promise<void> {
  const localNodes = smoke ? LOCAL_NODES_SMOKE : LOCAL_NODES;
  const peers = Array.from({ length: smoke ? PEERS_SMOKE : PEERS }, () => UdpSocket.open(AF_INET));
  for (const peer of peers) {
    peer.bind("127.0.0.1", 0);
    peer.setBuffers(4 << 20, 4 << 20);
  }
  const names = peers.map((peer) => `127.0.0.1:${peer.localAddress().port}`).join(",");
  const beacon = await startBeacon({ offload: true, batch }, [
    `--max-nodes=${LOCAL_NODES}`,
    "--self-check=off", // which takes a place
    `--peers=${names}`,
    `--state-file=${join(temporaryFolder(), "nodes")}`,
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
        const firstId = PEER_NODES_FROM + i * GOSSIP_NODES_MAX;
        sendOnce(peer, gossipMessage(firstId, GOSSIP_NODES_MAX, CHANGED, 1 + round), beacon);
      }
      round++;
    });
    const { mesh, nodes } = await statsOf(beacon);
    const routes = mesh.peers.reduce((sum, peer) => sum + peer.routes, 0);
    recorder.progress(
      `${runS} s with ${nodes} local nodes and ${routes} routes through ${mesh.peers.length} addresses of peers, ` +
        `gossip every ${GOSSIP_MS / 1000} s, the state saved every ${STATE_SAVES_EVERY_S} s`,
    );
    const figure = recorder.of("a full mesh", { group: "full mesh", nodes, routes, seconds: runS });
    const cpu = "gossip, reaping, saving: all threads but the workers'";
    figure(cpu, "% of a core", [cpuPercent], { bar: { atMost: CPU_PERCENT_MAX } });
    for (const pinger of pingers) pinger.report(figure, recorder);
  } finally {
    for (const pinger of pingers) pinger.close();
    for (const peer of peers) peer.close();
    for (const target of [beacon, reference]) await target.stop();
  }
}

/**
 * Relays through one target, one packet at a time. Beside the beacon, C shows what pauses the
 * machine makes by itself.
 */
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

  report(figure: ReturnType<Recorder["of"]>, recorder: Recorder): void {
    for (const q of [0.5, 0.99, 0.999, 0.9999]) {
      const name = `p${Number((q * 100).toFixed(2))} of relays meanwhile, ${this.name}`;
      figure(name, "ms", [quantile(this.#ms, q)]);
    }
    const longest = this.#ms.reduce((most, ms) => Math.max(most, ms), 0);
    const bar = this.name === "beacon" ? { bar: { atMost: PAUSE_MS_MAX } } : {};
    figure(`longest way of a relay, ${this.name}`, "ms", [longest], bar);
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
  const start = Bun.nanoseconds();
  const before = controlCpuNs(beacon.pid);
  for (let tellNs = start; Bun.nanoseconds() - start < runS * 1e9; ) {
    if (Bun.nanoseconds() >= tellNs) {
      tellNs += GOSSIP_MS * 1e6;
      tell();
    }
    for (const pinger of pingers) pinger.slice();
    await Bun.sleep(0); // signals and the time limit get their turn
  }
  return ((controlCpuNs(beacon.pid) - before) / (Bun.nanoseconds() - start)) * 100;
}
