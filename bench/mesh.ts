/** What a full mesh costs: gossip in and out, reaping and saving, in CPU time and in pauses of the relay path. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AF_INET, UDP_PAYLOAD_MAX } from "../ffi/abi.ts";
import { UdpSocket } from "../ffi/socket.ts";
import type { Stats } from "../src/beacon.ts";
import { SYNC, SYNC_BYTES } from "../src/protocol.ts";
import { ping } from "./latency.ts";
import { LoadGenerator, sendOnce } from "./load.ts";
import { registerAll } from "./memory.ts";
import type { BenchOptions } from "./options.ts";
import { printMachine, quantile, showBar } from "./report.ts";
import { cpuNs, pinGenerator, startBeacon, type Target } from "./targets.ts";

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
const PAUSE_MS_MAX = 5;
const CPU_PERCENT_MAX = 2;

export async function benchMesh({ smoke, batch, seconds }: BenchOptions): Promise<void> {
  printMachine();
  pinGenerator();
  const localNodes = smoke ? LOCAL_NODES_SMOKE : LOCAL_NODES;
  const peers = Array.from({ length: smoke ? PEERS_SMOKE : PEERS }, () => UdpSocket.open(AF_INET));
  for (const peer of peers) {
    peer.bind("127.0.0.1", 0);
    peer.setBuffers(4 << 20, 4 << 20);
  }
  const folder = mkdtempSync(join(tmpdir(), "beacon-bench-"));
  const generator = new LoadGenerator({ payloadBytes: 200, nodes: 1, burst: 1 });
  const names = peers.map((peer) => `127.0.0.1:${peer.localAddress().port}`).join(",");
  const target = await startBeacon({ offload: true, batch }, [
    `--max-nodes=${LOCAL_NODES + 1}`,
    `--peers=${names}`,
    `--state-file=${join(folder, "nodes")}`,
  ]);
  try {
    generator.aim(target.port);
    registerAll(target.port, localNodes);
    generator.register();
    // As long as it takes to save the state once, but for a run in seconds.
    const runS = smoke ? 1 : Math.max(STATE_SAVES_EVERY_S, seconds * 30);
    await measure("without gossip of peers", target, generator, runS, () => {});
    let round = 0;
    const control = await measure("with gossip of peers", target, generator, runS, () => {
      for (const [i, peer] of peers.entries()) {
        sendOnce(peer, gossip(PEER_NODES_FROM + i * NODES_PER_PEER, round), target.port);
      }
      round++;
    });
    const { mesh, nodes } = (await (await fetch(new URL("api/stats", target.http))).json()) as Stats;
    const routes = mesh.peers.reduce((sum, peer) => sum + peer.routes, 0);
    console.log(`  ${nodes} local nodes, ${routes} routes through ${mesh.peers.length} peers`);
    console.log(
      `  gossip, reaping and saving: ${control.cpuPercent.toFixed(2)} % of a core; ${showBar(control.cpuPercent, { atMost: CPU_PERCENT_MAX })}`,
    );
    console.log(
      `  longest way of a relay: ${control.maxMs.toFixed(2)} ms; ${showBar(control.maxMs, { atMost: PAUSE_MS_MAX })}`,
    );
  } finally {
    generator.close();
    for (const peer of peers) peer.close();
    await target.stop();
    rmSync(folder, { recursive: true });
  }
}

/** Relays one packet at a time for `runS` seconds, with `tell` called every GOSSIP_MS. */
async function measure(
  title: string,
  target: Target,
  generator: LoadGenerator,
  runS: number,
  tell: () => void,
): Promise<{ cpuPercent: number; maxMs: number }> {
  const isControl = (thread: string) => thread !== "Worker";
  const start = Bun.nanoseconds();
  const before = cpuNs(target.pid, isControl);
  const times: number[] = [];
  for (let toldNs = -Infinity; Bun.nanoseconds() - start < runS * 1e9; ) {
    if (Bun.nanoseconds() - toldNs > GOSSIP_MS * 1e6) {
      toldNs = Bun.nanoseconds();
      tell();
    }
    times.push(...ping(generator, 0.1));
  }
  const cpuPercent = ((cpuNs(target.pid, isControl) - before) / (Bun.nanoseconds() - start)) * 100;
  const ms = times.filter((time) => time >= 0).map((time) => time / 1e6);
  const shown = [0.5, 0.9, 0.99, 0.999, 0.9999].map(
    (q) => `p${(q * 100).toFixed(2).replace(/\.?0+$/, "")} ${quantile(ms, q).toFixed(3)}`,
  );
  const maxMs = ms.reduce((most, time) => Math.max(most, time), 0);
  console.log(
    `  ${title}, ${runS} s: ${ms.length} relays, ${times.length - ms.length} lost, ms: ${shown.join(", ")}, ` +
      `longest ${maxMs.toFixed(3)}; main thread ${cpuPercent.toFixed(2)} % of a core`,
  );
  return { cpuPercent, maxMs };
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
