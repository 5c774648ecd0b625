/** All charts of the report: which run each is drawn from, and by what. */
import type { Run } from "../harness/results.ts";
import { coturnCost } from "./coturn-chart.ts";
import { directoryModel } from "./directory-model.ts";
import { latencyUnderLoad } from "./latency-chart.ts";
import {
  costByNodes,
  costByPayload,
  costByUnknown,
  offloadByFlows,
  throughputByWorkers,
  yardstick,
} from "./relay-charts.ts";
import { soakOverTime } from "./soak-chart.ts";
import type { Picture } from "./svg.ts";

export interface ChartPlan {
  /** The file's name without its ending. */
  readonly name: string;
  readonly bench: string;
  /** @returns undefined where the run lacks what it takes, as runs with --only do */
  readonly picture: (run: Run) => Picture | undefined;
}

/** In the order of the report. */
export const CHARTS: readonly ChartPlan[] = [
  { name: "yardstick", bench: "relay", picture: yardstick },
  { name: "payload", bench: "relay", picture: costByPayload },
  { name: "nodes", bench: "relay", picture: costByNodes },
  { name: "unknown", bench: "relay", picture: costByUnknown },
  { name: "flows", bench: "relay", picture: offloadByFlows },
  { name: "workers", bench: "relay", picture: throughputByWorkers },
  { name: "latency", bench: "latency", picture: latencyUnderLoad },
  { name: "coturn", bench: "coturn", picture: coturnCost },
  { name: "soak", bench: "soak", picture: soakOverTime },
  { name: "directory", bench: "directory", picture: directoryModel },
];
