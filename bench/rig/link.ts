/** A cable and its conditions. */
import { addCables, type LinkEnd, type Namespace } from "./namespace.ts";

/** What a packet meets on a cable, the same in both directions. What is absent does not happen. */
export interface Conditions {
  readonly delayMs?: number;
  /** How far the delay strays to either side, uniformly. */
  readonly jitterMs?: number;
  readonly lossPercent?: number;
  readonly duplicatePercent?: number;
}

export interface Cable {
  /** Lets nothing pass. */
  cut(): void;
  heal(): void;
}

export interface CablePlan {
  readonly one: LinkEnd & { readonly namespace: Namespace };
  readonly other: LinkEnd & { readonly namespace: Namespace };
  /** Perfect unless given. */
  readonly conditions: Conditions | undefined;
}

/** Lays cables, and leaves them switched off. */
export async function layCables(cables: readonly CablePlan[]): Promise<Cable[]> {
  addCables(cables.map(({ one, other }) => [one, other]));
  return cables.map(({ other }) => ({
    cut: () => other.namespace.ip(`link set ${other.link} down`),
    heal: () => other.namespace.ip(`link set ${other.link} up`),
  }));
}
