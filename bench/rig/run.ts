/** What a run of the rig is. */
import type { Report } from "./report.ts";
import type { Needed } from "./requirements.ts";

export interface RunOptions {
  /** Run in seconds, to see that it works. */
  readonly smoke: boolean;
  /** For a run that has parts: only those that have this in their names. */
  readonly only: string;
  /** How long a chaos takes, and what its schedule is drawn from; other runs are not told. */
  readonly minutes?: number;
  readonly seed?: number;
  /** How many nodes there are at upgrades; other runs are not told. */
  readonly fleet?: number;
}

export interface Run {
  readonly name: string;
  readonly description: string;
  /** Commands beside those for namespaces. */
  readonly needs: readonly Needed[];
  /** Whether it has parts that make sense alone. */
  readonly hasParts?: true;
  run(report: Report, options: RunOptions): Promise<void>;
}
