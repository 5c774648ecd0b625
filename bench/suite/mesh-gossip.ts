/** What a peer's message costs the beacon that gets it: CPU time of all its threads but the workers. */
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
/** Longer than any message takes to be in force. */
const MESSAGE_MS = 40;
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
  { rounds, seconds, batch }: BenchOptions,
  recorder: Recorder,
): Promise<void> {
  recorder.note("gossip: what the beacon uses without any is measured in turn with it, and taken off");
  const kinds = NODES.flatMap((nodes) => CHANGED.map((changed) => new Kind(nodes, changed)));
  const peer = UdpSocket.open(AF_INET);
  peer.bind("127.0.0.1", 0);
  peer.setBuffers(4 << 20, 4 << 20);
  const beacon = await startBeacon({ offload: true, batch }, [
    `--peers=127.0.0.1:${peer.localAddress().port}`,
  ]);
  try {
    for (const kind of kinds) await measure(kind, peer, beacon, seconds / 4); // compiled code
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
    recorder.figure({
      ...{ case: title, name: `CPU of ${nodes} nodes, ${changed * 100} % changed`, unit: "µs" },
      ...{ better: "less", values: us, params: { group: "gossip", nodes, changed } },
    });
  }
}

/** @returns microseconds a message @throws Error if the nodes have no routes: then it would be those of something else */
async function measure(kind: Kind, peer: UdpSocket, beacon: Target, seconds: number): Promise<number> {
  const tell = () => kind.tell(peer, beacon);
  await controlNsIn(beacon, tell); // it replaces what another kind left
  const messages = Math.ceil((seconds * 1000) / MESSAGE_MS);
  let ns = 0;
  for (let i = 0; i < messages; i++) {
    ns += await controlNsIn(beacon, tell);
    ns -= await controlNsIn(beacon, () => {});
  }
  const routes = (await statsOf(beacon)).mesh.peers[0]?.routes;
  if (routes !== kind.nodes) throw new Error(`${kind.title}: the beacon has ${routes} routes`);
  await Bun.sleep(MESSAGE_MS); // what the question cost is not counted
  return ns / messages / 1000;
}

/** CPU time of the control plane while it does something. */
async function controlNsIn({ pid }: Target, act: () => void): Promise<number> {
  const before = controlCpuNs(pid);
  act();
  await Bun.sleep(MESSAGE_MS);
  return controlCpuNs(pid) - before;
}
