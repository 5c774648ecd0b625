/**
 * Lookups of every node at every beacon that does not have it. A lookup is a relay; the source
 * address of the delivered packet shows which beacon the relay reached.
 */
import { type FleetShape, nodesOf } from "./fleet.ts";
import type { FleetNodes } from "./fleet-nodes.ts";
import type { Moves } from "./moves.ts";

/** Relays sent for one lookup at most: a lost packet is no wrong route. */
const TRIES = 5;
/** Time for relays to arrive before the next try, ms. */
const ARRIVE_MS = 200;
/** Relays sent at once; a socket's default receive buffer holds as many. */
const WINDOW = 64;

export interface Lookups {
  readonly asked: number;
  /** Lookups that reached no beacon, or a beacon that does not have the node. */
  readonly wrong: number;
  /** Nodes with at least one wrong lookup. */
  readonly nodesWrong: number;
}

/** Looks up all nodes. No moves may run meanwhile. */
export async function lookUpAll(
  nodes: FleetNodes,
  moves: Moves,
  shape: FleetShape,
): Promise<Lookups> {
  const lookups: { readonly node: number; readonly via: number }[] = [];
  for (let node = 0; node < nodesOf(shape); node++)
    for (let via = 0; via < shape.beacons; via++)
      if (via !== moves.ownerOf(node)) lookups.push({ node, via });
  nodes.drain();
  const open = new Set(lookups.keys());
  const drain = () =>
    nodes.drain((beacon, lookup) => {
      if (lookups[lookup] !== undefined && beacon === moves.ownerOf(lookups[lookup].node))
        open.delete(lookup);
    });
  for (let tried = 0; tried < TRIES && open.size > 0; tried++) {
    for (const [i, lookup] of [...open].entries()) {
      const { node, via } = lookups[lookup]!;
      nodes.relay(via, 1 + node, lookup, tried);
      if ((i + 1) % WINDOW !== 0) continue;
      nodes.flush();
      await Bun.sleep(1);
      drain();
    }
    nodes.flush();
    await Bun.sleep(ARRIVE_MS);
    drain();
  }
  const nodesWrong = new Set([...open].map((lookup) => lookups[lookup]!.node)).size;
  return { asked: lookups.length, wrong: open.size, nodesWrong };
}
