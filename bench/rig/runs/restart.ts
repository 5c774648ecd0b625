/**
 * A beacon that is stopped, or killed, in mid-stream and started again: how long nothing arrives,
 * and who has to register again.
 */
import { existsSync, statSync } from "node:fs";
import { join as joinPath } from "node:path";
import { until } from "../../../test/e2e/support/wait.ts";
import { RigBeacon } from "../beacon.ts";
import { type Disturbed, disturb, joinAt, reaches } from "../meeting.ts";
import { scratchFolder } from "../namespace.ts";
import { showMs } from "../report.ts";
import type { Run } from "../run.ts";
import { Internet } from "../topology.ts";

const DRAIN_MS = 300;
const HEADER_BYTES = 32;
const ENTRY_BYTES = 32;
const NODES = 200;
const NODES_SMOKE = 20;
/**
 * The state file is written every minute unless told otherwise; here often, so that a kill finds
 * one.
 */
const SAVE_EVERY_MS = 1000;

const WAYS = [
  { title: "SIGTERM, drain, state file", signal: "SIGTERM", keeps: true },
  { title: "SIGKILL, state file", signal: "SIGKILL", keeps: true },
  { title: "SIGTERM, no state file", signal: "SIGTERM", keeps: false },
] as const;

interface Restarted extends Disturbed {
  readonly title: string;
  /** From the signal to the end of the process, which with SIGTERM relays on for the drain. */
  readonly endedMs: number;
  /** From its start to "listens". */
  readonly startedMs: number;
  /** Nodes that got nothing until they registered again. */
  readonly registeredAgain: number;
}

async function restart(
  internet: Internet,
  way: (typeof WAYS)[number],
  nodes: number,
): Promise<Restarted> {
  const state = joinPath(scratchFolder(), "state");
  const beacon = await RigBeacon.start(internet.site("beacon").namespace, [
    `--drain=${DRAIN_MS}ms`,
    ...(way.keeps ? [`--state-file=${state}`, `--state-interval=${SAVE_EVERY_MS}ms`] : []),
  ]);
  const [sender, prober] = await joinAt(internet, "sender", { count: 2 });
  const crowd = await joinAt(internet, "crowd", { count: nodes });
  if (way.keeps) await until("all nodes are saved", () => holds(state, nodes + 2));

  let [endedMs, startedMs, registeredAgain] = [0, 0, 0];
  const result = await disturb(sender!, crowd[0]!, async () => {
    const signalledAt = performance.now();
    await beacon.end(way.signal);
    const endedAt = performance.now();
    await beacon.startAgain();
    [endedMs, startedMs] = [endedAt - signalledAt, performance.now() - endedAt];
    const reached = await Promise.all(crowd.map((node) => reaches(prober!, node)));
    const unreached = crowd.filter((_, i) => !reached[i]);
    for (const node of unreached) await node.call("discover");
    registeredAgain = unreached.length;
  });
  await beacon.kill();
  return { ...result, title: way.title, endedMs, startedMs, registeredAgain };
}

/** Whether a state file holds so many nodes; src/control/nodes/state-file.ts has its format. */
function holds(path: string, nodes: number): boolean {
  return existsSync(path) && statSync(path).size >= HEADER_BYTES + nodes * ENTRY_BYTES;
}

export const RESTART_RUN: Run = {
  name: "restart",
  description: "a beacon stopped, or killed, in mid-stream and started again",
  needs: [],
  async run(report, { smoke }) {
    const nodes = smoke ? NODES_SMOKE : NODES;
    const internet = await Internet.build({ hosts: { beacon: {}, sender: {}, crowd: {} } });
    const results: Restarted[] = [];
    for (const way of WAYS) results.push(await restart(internet, way, nodes));
    report.table(`Relays every 5 ms to one of ${nodes} nodes; drain ${DRAIN_MS} ms`, [
      [
        "way",
        "ended after",
        "listens after",
        "longest gap",
        "sent",
        "lost in it",
        "elsewhere",
        "registered again",
      ],
      ...results.map((one) => [
        one.title,
        showMs(one.endedMs),
        showMs(one.startedMs),
        showMs(one.gapMs),
        String(one.sent),
        String(one.lost - one.lostElsewhere),
        String(one.lostElsewhere),
        String(one.registeredAgain),
      ]),
    ]);
    for (const [
      i,
      { title, lostElsewhere, registeredAgain, endedMs, gapMs },
    ] of results.entries()) {
      const { keeps, signal } = WAYS[i]!;
      report.expect(`${title}: ${lostElsewhere} lost outside of the gap`, lostElsewhere === 0);
      const again = keeps ? 0 : nodes;
      report.expect(
        `${title}: ${registeredAgain} nodes registered again`,
        registeredAgain === again,
      );
      report.expect(`${title}: a gap of ${showMs(gapMs)}`, Number.isFinite(gapMs) && gapMs > 0);
      if (signal === "SIGTERM")
        report.expect(`${title}: ended after ${showMs(endedMs)}`, endedMs >= DRAIN_MS);
    }
    report.keep("restarts", results);
  },
};
