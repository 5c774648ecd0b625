/**
 * What a peer's message costs the beacon that gets it: CPU time of all its threads but the workers.
 */
import { AF_INET } from "../../ffi/abi.ts";
import { UdpSocket } from "../../ffi/socket.ts";
import { GOSSIP_NODES_MAX, gossipMessage, PEER_NODES_FROM } from "../harness/gossip.ts";
import { sendOnce } from "../harness/load.ts";
import type { BenchOptions } from "../harness/options.ts";
import type { Recorder } from "../harness/results.ts";
import { showNumber } from "../harness/statistics.ts";
import { startBeacon, statsOf, type Target } from "../harness/targets.ts";
import { controlCpuNs } from "../harness/usage.ts";

const NODES = [1_000, 4_000, GOSSIP_NODES_MAX];
/** Shares of a message's nodes that are others than in the one before. */
const CHANGED = [0, 0.01, 1];
const NODES_SMOKE = [1_000];
/** Longer than most messages take to be in force. */
const MESSAGE_MS = 40;
/**
 * Messages between two stretches without any; one takes longer on a busy machine, and has until the
 * end of its stretch.
 */
const STRETCH = 5;
const IN_FORCE_MS_MAX = 5_000;
/** Ids of different ages are different ones; so many are told apart. */
const AGES = 4;

/** One kind of message, and what it cost in each round. */
class Kind {
  readonly us: number[] = [];
  readonly title: string;
  readonly #messages: readonly Uint8Array[];
  #told = 0;

  constructor(
    readonly nodes: number,
    readonly changed: number,
  ) {
    this.title = `gossip of ${nodes} nodes, ${changed * 100} % changed`;
    this.#messages = Array.from({ length: AGES }, (_, age) =>
      gossipMessage(PEER_NODES_FROM, nodes, changed, age),
    );
  }

  tell(peer: UdpSocket, beacon: Target): void {
    sendOnce(peer, this.#messages[this.#told++ % AGES]!, beacon);
  }
}

export async function measureGossip(
  { rounds, seconds, batch, smoke }: BenchOptions,
  recorder: Recorder,
): Promise<void> {
  recorder.note(
    "gossip: what the beacon uses without any is measured in turn with it, and taken off",
  );
  const sizes = smoke ? NODES_SMOKE : NODES;
  const kinds = sizes.flatMap((nodes) => CHANGED.map((changed) => new Kind(nodes, changed)));
  const peer = UdpSocket.open(AF_INET);
  peer.bind("127.0.0.1", 0);
  peer.setBuffers(4 << 20, 4 << 20);
  const beacon = await startBeacon({ offload: true, batch }, [
    `--peers=127.0.0.1:${peer.localAddress().port}`,
  ]);
  try {
    for (let round = 0; round < rounds; round++) {
      for (const kind of kinds) kind.us.push(await measure(kind, peer, beacon, seconds));
      recorder.progress(
        `round ${round + 1}  µs: ${kinds.map(({ us }) => showNumber(us.at(-1)!)).join(", ")}`,
      );
    }
  } finally {
    await beacon.stop();
    peer.close();
  }
  for (const { title, nodes, changed, us } of kinds) {
    const figure = recorder.of(title, { group: "gossip", nodes, changed });
    figure(`CPU of ${nodes} nodes, ${changed * 100} % changed`, "µs", us);
  }
}

/** @returns microseconds a message */
async function measure(
  kind: Kind,
  peer: UdpSocket,
  beacon: Target,
  seconds: number,
): Promise<number> {
  const tell = () => kind.tell(peer, beacon);
  tell(); // it replaces what another kind left
  await inForce(kind, beacon);
  const stretch = Math.min(STRETCH, Math.ceil((seconds * 1000) / MESSAGE_MS));
  const stretches = Math.ceil((seconds * 1000) / MESSAGE_MS / stretch);
  let ns = 0;
  for (let i = 0; i < stretches; i++) {
    ns += await controlNsIn(beacon, stretch, tell);
    ns -= await controlNsIn(beacon, stretch, () => {});
  }
  await inForce(kind, beacon);
  return ns / stretches / stretch / 1000;
}

/** CPU time of the control plane while it gets so many messages, and then one's time more. */
async function controlNsIn({ pid }: Target, messages: number, tell: () => void): Promise<number> {
  const before = controlCpuNs(pid);
  for (let i = 0; i < messages; i++) {
    tell();
    await Bun.sleep(MESSAGE_MS);
  }
  await Bun.sleep(MESSAGE_MS);
  return controlCpuNs(pid) - before;
}

/**
 * Waits until the nodes of a message have routes.
 * @throws Error if they never do: then it would be something else that costs
 */
async function inForce({ title, nodes }: Kind, beacon: Target): Promise<void> {
  const deadline = performance.now() + IN_FORCE_MS_MAX;
  do {
    if (performance.now() > deadline) throw new Error(`${title}: its nodes have no routes`);
    await Bun.sleep(MESSAGE_MS);
  } while ((await statsOf(beacon)).mesh.peers[0]?.routes !== nodes);
  await Bun.sleep(MESSAGE_MS); // what the question cost is not counted
}
