/** A beacon's claims to nodes that another beacon claims later: no route until then. */
import { ClaimSums } from "../../shared/claim-digest.ts";

/** Limit of waiting claims, 100 bytes each; owners withdraw outdated ones quickly. */
export const WAITING_MAX = 16_384;

export interface WaitingClaim {
  readonly timeMs: number;
  readonly mark: number;
}

export class WaitingClaims {
  readonly #claims = new Map<number, WaitingClaim>();
  readonly #sums = new ClaimSums();

  constructor(private readonly max = WAITING_MAX) {}

  get size(): number {
    return this.#claims.size;
  }

  /** The sums of all that wait (claim-digest.ts), which change with them. */
  get sums(): Int32Array {
    return this.#sums.row();
  }

  /** Claims that there is room for. */
  get room(): number {
    return this.max - this.#claims.size;
  }

  /** In place of the node's claim before. @returns false if there is no room */
  add(nodeId: number, claim: WaitingClaim): boolean {
    this.take(nodeId);
    if (this.room <= 0) return false;
    this.#claims.set(nodeId, claim);
    this.#sums.add(nodeId, claim.timeMs);
    return true;
  }

  /** Removes a node's claim. */
  take(nodeId: number): WaitingClaim | undefined {
    const claim = this.#claims.get(nodeId);
    if (claim === undefined) return undefined;
    this.#claims.delete(nodeId);
    this.#sums.remove(nodeId, claim.timeMs);
    return claim;
  }

  nodeIds(): Iterable<number> {
    return this.#claims.keys();
  }

  /** Removes those that lack this mark and are to go. */
  sweep(mark: number, isToGo: (nodeId: number) => boolean): void {
    for (const [nodeId, claim] of this.#claims)
      if (claim.mark !== mark && isToGo(nodeId)) this.take(nodeId);
  }
}
