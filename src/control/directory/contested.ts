/**
 * Nodes of this beacon's own that a peer without the directory says are its own, by gossip. Others
 * of the fleet may believe it; once the node is heard here again, they are to be told. Of what is
 * heard again nobody says anything otherwise, as it is only more of the same.
 */
import type { RouteTableOwner } from "../../shared/routes-owner.ts";
import type { FleetClock } from "./clock.ts";
import type { OwnNodes } from "./fleet-routes.ts";

/** As many as one gossip message names. Those beyond are told when they leave and come back. */
const NODES_MAX = 16_384;

export interface ContestedParts {
  /** Where gossip's claims are, too. */
  readonly table: RouteTableOwner;
  readonly own: OwnNodes;
  readonly clock: FleetClock;
  readonly claimAgain: (nodeId: number) => void;
}

export class Contested {
  readonly #nodes = new Set<number>();

  constructor(private readonly parts: ContestedParts) {}

  /** Gossip names a node that it did not name before. */
  claimed(nodeId: number): void {
    if (this.#nodes.size < NODES_MAX && this.parts.own.heardMs(nodeId) >= 0)
      this.#nodes.add(nodeId);
  }

  /** Claims those again that were heard since, or that nobody else claims any more. */
  look(): void {
    const { table, own, clock, claimAgain } = this.parts;
    for (const nodeId of this.#nodes) {
      const heardMs = own.heardMs(nodeId);
      const isAgain = heardMs >= 0 && clock.timeOf(heardMs) > table.claimedMs(nodeId);
      if (isAgain) claimAgain(nodeId);
      if (isAgain || heardMs < 0) this.#nodes.delete(nodeId);
    }
  }
}
