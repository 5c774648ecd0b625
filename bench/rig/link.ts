/**
 * Cables and their conditions: by tc-netem(8) where the kernel has it, else by wirefilter(1) of VDE
 * between two TAP devices.
 */
import { addCables, attempt, type LinkEnd, type Namespace } from "./namespace.ts";
import { netemCommands } from "./netem.ts";
import { layWirefilter, missingIn } from "./wirefilter.ts";

/** What a packet meets on a cable, the same in both directions. What is absent does not happen. */
export interface Conditions {
  readonly delayMs?: number;
  /** How far the delay strays to either side, uniformly. */
  readonly jitterMs?: number;
  readonly lossPercent?: number;
  readonly duplicatePercent?: number;
  /** Whether packets may overtake each other, by their jitter. */
  readonly reorder?: boolean;
  /** Of frames with their headers. */
  readonly rateKbitPerS?: number;
}

export type Implementation = "netem" | "wirefilter";

export interface Cable {
  readonly one: LinkEnd & { readonly namespace: Namespace };
  readonly other: LinkEnd & { readonly namespace: Namespace };
  /** Perfect unless given. */
  readonly conditions: Conditions | undefined;
}

/** Lays cables, and leaves them switched off. */
export async function layCables(cables: readonly Cable[]): Promise<void> {
  const netem = implementation() === "netem";
  const plain = cables.filter(({ conditions }) => netem || conditions === undefined);
  addCables(plain.map(({ one, other }) => [one, other]));
  for (const { one, other, conditions } of cables) {
    if (conditions === undefined) continue;
    if (!netem) {
      await layWirefilter(one, other, conditions);
      continue;
    }
    for (const { namespace, link } of [one, other]) {
      for (const command of netemCommands(link, conditions)) namespace.run(command);
    }
  }
}

let found: Implementation | undefined;

/** Which of the two is in force here, found out by trying. */
export function implementation(): Implementation {
  found ??= kernelHasNetem() ? "netem" : "wirefilter";
  return found;
}

/** Says which one is in force, and what it cannot do. */
export function describeImplementation(): string {
  if (implementation() === "netem") return "link conditions by the kernel's netem";
  return `link conditions by VDE's wirefilter, since this kernel has no netem; it ${missingIn.join(", ")}`;
}

/** Tries it on the loopback interface of a namespace of its own. */
function kernelHasNetem(): boolean {
  if (Bun.which("tc") === null) return false;
  const script = "tc qdisc add dev lo root netem delay 1ms";
  return attempt(["unshare", "--net", "sh", "-c", script]).success;
}
