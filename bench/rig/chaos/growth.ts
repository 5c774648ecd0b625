/**
 * Whether a beacon uses more and more: what it uses in calms, the first of them held against the
 * last. Pure.
 */
import { quantile } from "../../harness/statistics.ts";
import type { Usage } from "./beacons.ts";

export interface Sample extends Usage {
  /** From the start of the run. */
  readonly atMs: number;
  /** That went on then. */
  readonly faults: number;
}

export interface Growth {
  readonly first: Usage;
  readonly last: Usage;
}

/** At the beginning of a calm, things come to an end still. */
const SETTLED_MS = 3000;
/** The share of calms that is held against the same share at the end. */
const SHARE = 0.25;

/** @returns undefined if there are not two calms with samples */
export function growthOf(
  samples: readonly Sample[],
  calms: readonly (readonly [fromMs: number, toMs: number])[],
): Growth | undefined {
  const inCalms = calms
    .map(([fromMs, toMs]) =>
      samples.filter(
        ({ atMs, faults }) => faults === 0 && atMs >= fromMs + SETTLED_MS && atMs <= toMs,
      ),
    )
    .filter((calm) => calm.length > 0);
  if (inCalms.length < 2) return undefined;
  const share = Math.max(1, Math.floor(inCalms.length * SHARE));
  return {
    first: middle(inCalms.slice(0, share).flat()),
    last: middle(inCalms.slice(-share).flat()),
  };
}

const middle = (samples: readonly Sample[]): Usage => {
  const of = (name: keyof Usage) =>
    quantile(
      samples.map((sample) => sample[name]),
      0.5,
    );
  return { files: of("files"), threads: of("threads"), residentMb: of("residentMb") };
};
