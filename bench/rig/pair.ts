/** Two nodes that want to reach each other: what becomes of it. */
import type { WireAddress } from "../../test/e2e/support/wire.ts";
import type { Door } from "./line.ts";
import type { Outcome } from "./nat-theory.ts";
import type { NodeHost, RemoteNode } from "./remote.ts";

/** How long both ends try to get through. A way that is open, opens in some milliseconds. */
const PUNCH_MS = 1500;
const RELAYS = 5;
const RELAY_EVERY_MS = 5;
const RELAY_PATIENCE_MS = 1000;

/** Sockets get ports of their own, so that no NAT remembers anything of an earlier pair. */
let nextPort = 10_000;
let nextId = 1;

/** Where a node is opened. */
export interface Corner {
  readonly host: NodeHost;
  /** Its address, of the family that it speaks with the beacon. */
  readonly address: string;
  readonly beacon: WireAddress;
}

/** Opens a node and registers it, as daemons do. */
export async function join({ host, address, beacon }: Corner): Promise<RemoteNode> {
  await host.discoverNameless({ host: address, beacon });
  const node = await host.open({ id: nextId++, host: address, port: nextPort++, beacon });
  if ((await node.call("discover")) === undefined)
    throw new Error(`${address}: the beacon does not answer`);
  return node;
}

/** Opens a node at the beacon's bridge. @throws Error if it is not let in */
export async function joinBridged(
  { host, address, beacon }: Corner,
  door: Door,
): Promise<RemoteNode> {
  return host.open({ id: nextId++, host: address, port: 0, beacon, door });
}

/** Lets one end ask for the other, and both try; what does not get through is relayed. */
export async function bringTogether(requester: RemoteNode, target: RemoteNode): Promise<Outcome> {
  const [one, other] = await Promise.all([
    requester.call("punch", PUNCH_MS, target.id),
    target.call("punch", PUNCH_MS),
  ]);
  if (one.direct !== undefined && other.direct !== undefined) return "direct";
  const forth = await relayed(requester, target);
  const back = forth && (await relayed(target, requester));
  return back ? "relay" : "unreachable";
}

/** Whether a handful of relays all arrive. */
async function relayed(from: RemoteNode, to: RemoteNode): Promise<boolean> {
  const sent = await from.call("stream", {
    to: to.id,
    paddingBytes: 100,
    everyMs: RELAY_EVERY_MS,
    forMs: RELAYS * RELAY_EVERY_MS,
  });
  return (await to.call("arrived", from.id, sent, RELAY_PATIENCE_MS)) === sent;
}

/** Joins both, brings them together, and closes them. */
export async function tryPair(requester: Corner, target: Corner): Promise<Outcome> {
  const nodes = await Promise.all([join(requester), join(target)]);
  const outcome = await bringTogether(...nodes);
  for (const node of nodes) await node.call("close");
  return outcome;
}
