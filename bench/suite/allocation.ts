/**
 * Whether the packet path allocates: the worker's own loop, in this thread, where its heap can be
 * watched.
 */
import { heapStats } from "bun:jsc";
import { AF_INET } from "../../ffi/abi.ts";
import { endpointOf } from "../../ffi/endpoint.ts";
import { kernel } from "../../ffi/libc.ts";
import { openReusePortGroup } from "../../ffi/socket.ts";
import { RelayLoop } from "../../src/data/loop.ts";
import { HASH_SECRET, SharedMemory } from "../../src/shared/memory.ts";
import { PeerTableOwner } from "../../src/shared/peers-owner.ts";
import { RouteTableOwner } from "../../src/shared/routes-owner.ts";
import { type Load, LoadGenerator } from "../harness/load.ts";
import type { BenchOptions } from "../harness/options.ts";
import type { Recorder } from "../harness/results.ts";

const PACKETS = 5_000_000;
const PACKETS_SMOKE = 100_000;
/** Until everything is compiled; compiling allocates. */
const WARM_UP_PACKETS = 300_000;
/**
 * Steps, of at most the receive timeout of 100 ms, in which nothing arrives before what was sent
 * counts as lost.
 */
const IDLE_STEPS_MAX = 20;
/** For what the measuring itself allocates. An object a packet would be 100 MB and more. */
const GROWTH_BYTES_MAX = 65_536;

/**
 * What the heap has taken from the system. It grows with the first objects that find no free cell
 * after a collection; heapSize() would not do, it stands still until the next collection.
 */
const heapBytes = () => heapStats().heapCapacity;

/**
 * Every packet to another node, bursts that are merged, and nodes of a peer: all branches of the
 * relay path.
 */
const LOADS: readonly [string, Load, offload: boolean, toPeer: boolean][] = [
  ["scattered, offload off", { payloadBytes: 200, nodes: 64, burst: 1 }, false, false],
  ["scattered, offload on", { payloadBytes: 200, nodes: 64, burst: 1 }, true, false],
  ["bursts, offload on", { payloadBytes: 1200, nodes: 64, burst: 48 }, true, false],
  ["scattered to a peer, offload off", { payloadBytes: 200, nodes: 64, burst: 1 }, false, true],
  ["bursts to a peer, offload on", { payloadBytes: 1200, nodes: 64, burst: 48 }, true, true],
];

export async function benchAllocation(
  { smoke, batch, only }: BenchOptions,
  recorder: Recorder,
): Promise<void> {
  const packets = smoke ? PACKETS_SMOKE : PACKETS;
  for (const [title, load, offload, toPeer] of LOADS) {
    if (!title.includes(only)) continue;
    recorder.title(title);
    const [socket] = openReusePortGroup(AF_INET, "127.0.0.1", 0, 1, (opened) => {
      opened.setBuffers(4 << 20, 4 << 20);
      opened.setTimeouts(100, 100);
      if (offload) opened.enableOffload();
    });
    const memory = new SharedMemory({ workers: 1, nodesMax: 1000, routesMax: 100 });
    memory.words[HASH_SECRET] = 1;
    const loop = new RelayLoop(kernel, memory, {
      worker: 0,
      fd: socket!.fd,
      family: AF_INET,
      beaconId: 0,
      batchMax: batch,
      offload,
    });
    const generator = new LoadGenerator(load);
    generator.aim({ host: "127.0.0.1", port: socket!.localAddress().port });
    if (toPeer) announce(memory, load.nodes, generator.sinkPort);
    else generator.register(() => loop.step());
    relay(generator, loop, WARM_UP_PACKETS);
    Bun.gc(true);
    heapBytes(); // measuring allocates too, the first time
    relay(generator, loop, 1000);
    const before = heapBytes();
    const relayed = relay(generator, loop, packets);
    const growth = heapBytes() - before;
    recorder.progress(`${relayed} packets relayed, heap of ${before} bytes before`);
    const figure = recorder.of(title, { group: "allocation", packets: relayed });
    figure("heap growth", "bytes", [growth], { bar: { atMost: GROWTH_BYTES_MAX } });
    generator.close();
    socket!.close();
    await Bun.sleep(0); // signals and the time limit get their turn
  }
}

/** Makes the nodes known as those of a peer on this port. */
function announce(memory: SharedMemory, nodes: number, port: number): void {
  const routes = new RouteTableOwner(memory);
  const peer = new PeerTableOwner(memory).add(endpointOf("127.0.0.1", port), 0);
  for (let node = 0; node < nodes; node++) routes.claim(1 + node, peer);
}

/** @returns packets that came out again */
function relay(generator: LoadGenerator, loop: RelayLoop, packets: number): number {
  let relayed = 0;
  while (relayed < packets) {
    const offered = generator.offer();
    for (let arrived = 0, idle = 0; arrived < offered; idle++) {
      if (idle > IDLE_STEPS_MAX)
        throw new Error(`${offered - arrived} of ${offered} packets were lost`);
      loop.step();
      const more = generator.drain();
      if (more > 0) idle = 0;
      arrived += more;
    }
    relayed += offered;
  }
  return relayed;
}
