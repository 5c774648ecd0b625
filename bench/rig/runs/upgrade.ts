/**
 * A beacon that hands over to another process in mid-stream: what is lost, how long nothing
 * arrives, and who serves if one is killed.
 */
import { join as joinPath } from "node:path";
import type { Stats } from "../../../src/beacon.ts";
import { isAlive } from "../../../test/e2e/support/program.ts";
import { until } from "../../../test/e2e/support/wait.ts";
import { accountOf, longestGap, since } from "../account.ts";
import { BEACON_PORT, BEACON_STATS } from "../beacon.ts";
import type { FleetCommand } from "../fleet-process.ts";
import { joinAt } from "../meeting.ts";
import { scratchFolder } from "../namespace.ts";
import { NodeHost, type RemoteNode, RemoteProcess } from "../remote.ts";
import { type Report, showMs } from "../report.ts";
import type { Run } from "../run.ts";
import { Internet } from "../topology.ts";
import { receives, STEPS, type Step, UpgradedBeacon } from "../upgraded-beacon.ts";

/** 5,000 relays a second in all. */
const FLOWS = 5;
const FLOW_EVERY_MS = 1;
const PADDING_BYTES = 100;
const STREAM_MS_MAX = 50_000;
const UPGRADES = 10;
const UPGRADES_SMOKE = 1;
/** Before the first, between two, and behind the last. */
const REST_MS = 500;
/** Numbers of the packets of one upgrade and the next: more than there are in STREAM_MS_MAX. */
const NUMBERS_APART = 1_000_000;
/** For what is still under way when the last packet has been sent. */
const LATE_MS = 500;

/** Around a kill: how often it is looked who receives, and for how long. */
const LOOK_EVERY_MS = 20;
const LOOK_MS = 1500;
const NOBODY_MS_MAX = 1000;
const SAVE_EVERY_MS = 1000;

export const FLEET_DEFAULT = 170_000;
export const FLEET_MIN = 100;
const FLEET_SMOKE = 2000;
const HEARTBEAT_MS = 30_000;
/** Ids of the fleet's nodes, far from the others'. */
const FLEET_ID = 1_000_000;

interface Flow {
  readonly sent: number;
  readonly lost: number;
  readonly overtaken: number;
  readonly duplicates: number;
  readonly gapMs: number;
}

/** Relays from each sender to its receiver while something happens. */
async function underRelays(
  senders: readonly RemoteNode[],
  receivers: readonly RemoteNode[],
  happen: () => Promise<void>,
  from = 0,
): Promise<Flow[]> {
  const stream = {
    paddingBytes: PADDING_BYTES,
    everyMs: FLOW_EVERY_MS,
    forMs: STREAM_MS_MAX,
    from,
  };
  const streams = senders.map((sender, i) =>
    sender.call("stream", { ...stream, to: receivers[i]!.id }),
  );
  await Bun.sleep(REST_MS);
  await happen();
  await Bun.sleep(REST_MS);
  for (const sender of senders) await sender.call("endStream");
  const sent = await Promise.all(streams);
  await Bun.sleep(LATE_MS);
  return Promise.all(
    receivers.map(async (receiver, i) => {
      const arrivals = since(await receiver.call("arrivals", senders[i]!.id), from);
      const { delivered, overtaken, duplicates } = accountOf(arrivals, sent[i]!);
      return {
        sent: sent[i]!,
        lost: sent[i]! - delivered,
        overtaken,
        duplicates,
        gapMs: longestGap(arrivals).ms,
      };
    }),
  );
}

const sum = (flows: readonly Flow[], of: keyof Flow) =>
  flows.reduce((total, flow) => total + flow[of], 0);
const longest = (flows: readonly Flow[]) => Math.max(...flows.map(({ gapMs }) => gapMs));

async function nodesOf(host: NodeHost): Promise<number> {
  return ((await host.fetch(BEACON_STATS)) as Stats).nodes;
}

/** What came of some upgrades in a row. */
interface Handed {
  readonly title: string;
  readonly upgrades: number;
  readonly flows: readonly Flow[];
  readonly nodesBefore: number;
  readonly nodesAfter: number;
  /**
   * What the processes say of how long each took, from the last receive to the word that the other
   * one serves.
   */
  readonly tookMs: readonly number[];
}

async function handOver(
  internet: Internet,
  title: string,
  { upgrades, fleet }: { upgrades: number; fleet: number },
): Promise<Handed> {
  const { namespace, ipv4 } = internet.site("beacon");
  // The fleet is behind one address.
  const unlimited = [
    "--new-node-limit=0",
    "--answer-limit=0",
    `--max-nodes=${Math.max(1000, 2 * fleet)}`,
  ];
  const beacon = await UpgradedBeacon.start(namespace, unlimited);
  const observer = new NodeHost(namespace);
  const senders = await joinAt(internet, "sender", { count: FLOWS });
  const receivers = await joinAt(internet, "receiver", { count: FLOWS });
  if (fleet > 0) {
    const { namespace: home, ipv4: host } = internet.site("fleet");
    const crowd = new RemoteProcess<FleetCommand>(home, "fleet-process.ts");
    await crowd.tell({
      ...{ do: "register", nodes: fleet, firstId: FLEET_ID, host },
      beacon: { address: ipv4, port: BEACON_PORT },
    });
    await crowd.tell({ do: "refresh", everyMs: HEARTBEAT_MS });
    await Bun.sleep(REST_MS);
  }
  const nodesBefore = await nodesOf(observer);
  const tookMs: number[] = [];
  const flows: Flow[] = [];
  for (let n = 0; n < upgrades; n++) {
    const upgrade = async () => void tookMs.push(await beacon.upgrade());
    flows.push(...(await underRelays(senders, receivers, upgrade, n * NUMBERS_APART)));
  }
  const nodesAfter = await nodesOf(observer);
  await beacon.kill();
  return { title, upgrades, flows, nodesBefore, nodesAfter, tookMs };
}

/** What came of a kill in the middle of an upgrade. */
interface Killed {
  readonly step: Step;
  readonly whom: "old" | "new";
  /** Who serves afterwards: the other one, if all is well. */
  readonly serves: "old" | "new" | "nobody" | "both";
  /** The longest time without a packet. */
  readonly nobodyMs: number;
  /** For how long both received. */
  readonly bothMs: number;
  readonly lost: number;
}

async function killAtEachStep(internet: Internet): Promise<Killed[]> {
  // What is killed before it could tell anything has at least this to leave.
  const state = joinPath(scratchFolder(), "state");
  const beacon = await UpgradedBeacon.start(internet.site("beacon").namespace, [
    `--state-file=${state}`,
    `--state-interval=${SAVE_EVERY_MS}ms`,
  ]);
  const results: Killed[] = [];
  for (const step of STEPS) {
    for (const whom of ["old", "new"] as const) {
      const [sender] = await joinAt(internet, "sender");
      const [receiver] = await joinAt(internet, "receiver");
      let looked = { serves: "nobody" as Killed["serves"], bothMs: 0 };
      await Bun.sleep(2 * SAVE_EVERY_MS);
      const [flow] = await underRelays([sender!], [receiver!], async () => {
        const { successor } = await beacon.begin()(step);
        const old = beacon.pid;
        process.kill(whom === "old" ? old : successor, "SIGKILL");
        looked = await look(old, successor);
        if (looked.serves === "new") beacon.pid = successor;
        // What ends by itself after an upgrade that came about.
        await until("one process is left", () => !isAlive(whom === "old" ? old : successor));
      });
      results.push({ step, whom, ...looked, nobodyMs: flow!.gapMs, lost: flow!.lost });
    }
  }
  await beacon.kill();
  return results;
}

/** Looks again and again who receives. */
async function look(old: number, successor: number): Promise<Pick<Killed, "serves" | "bothMs">> {
  let bothMs = 0;
  let serves: Killed["serves"] = "nobody";
  for (
    const untilMs = performance.now() + LOOK_MS;
    performance.now() < untilMs;
    await Bun.sleep(LOOK_EVERY_MS)
  ) {
    const [isOld, isNew] = [receives(old), receives(successor)];
    if (isOld && isNew) bothMs += LOOK_EVERY_MS;
    if (isOld || isNew) serves = isOld && isNew ? "both" : isOld ? "old" : "new";
  }
  return { serves, bothMs };
}

function reportHanded(report: Report, handed: readonly Handed[]): void {
  report.table(`${FLOWS} flows, ${(FLOWS * 1000) / FLOW_EVERY_MS} relays/s in all`, [
    [
      "",
      "upgrades",
      "sent",
      "lost",
      "overtaken",
      "twice",
      "nodes before",
      "after",
      "longest gap",
      "cut-overs took",
    ],
    ...handed.map(({ title, upgrades, flows, nodesBefore, nodesAfter, tookMs }) => [
      title,
      ...[
        upgrades,
        ...(["sent", "lost", "overtaken", "duplicates"] as const).map((of) => sum(flows, of)),
      ].map(String),
      ...[nodesBefore, nodesAfter].map(String),
      showMs(longest(flows)),
      `${Math.min(...tookMs)} to ${Math.max(...tookMs)} ms`,
    ]),
  ]);
  for (const { title, flows, nodesBefore, nodesAfter } of handed) {
    for (const of of ["lost", "overtaken", "duplicates"] as const) {
      const count = sum(flows, of);
      report.expect(`${title}: ${count} ${of}`, count === 0);
    }
    report.expect(`${title}: ${nodesAfter} of ${nodesBefore} nodes`, nodesAfter === nodesBefore);
  }
}

function reportKilled(report: Report, killed: readonly Killed[]): void {
  report.table(
    "SIGKILL as soon as the old process says that it has come so far; a relay a millisecond",
    [
      ["step", "killed", "serves then", "nobody for", "both for", "lost"],
      ...killed.map(({ step, whom, serves, nobodyMs, bothMs, lost }) => [
        step,
        whom,
        serves,
        showMs(nobodyMs),
        `${bothMs} ms`,
        String(lost),
      ]),
    ],
  );
  for (const { step, whom, serves, nobodyMs, bothMs } of killed) {
    const title = `${step}, ${whom} killed`;
    report.expect(`${title}: served by ${serves}`, serves === (whom === "old" ? "new" : "old"));
    report.expect(`${title}: nobody for ${showMs(nobodyMs)}`, nobodyMs < NOBODY_MS_MAX);
    report.expect(`${title}: both for ${bothMs} ms`, bothMs < NOBODY_MS_MAX);
  }
}

export const UPGRADE_RUN: Run = {
  name: "upgrade",
  description:
    "a beacon that hands over to another process in mid-stream, and kills of either on the way",
  needs: [],
  async run(report, { smoke, fleet = FLEET_DEFAULT }) {
    const internet = await Internet.build({
      hosts: { beacon: {}, sender: {}, receiver: {}, fleet: {} },
    });
    const upgrades = smoke ? UPGRADES_SMOKE : UPGRADES;
    const nodes = smoke ? FLEET_SMOKE : fleet;
    const handed: Handed[] = [];
    if (!smoke) handed.push(await handOver(internet, "alone", { upgrades, fleet: 0 }));
    handed.push(
      await handOver(internet, `${nodes} nodes with heartbeats`, { upgrades, fleet: nodes }),
    );
    reportHanded(report, handed);
    const killed = smoke ? [] : await killAtEachStep(internet);
    if (!smoke) reportKilled(report, killed);
    report.keep("handed", handed);
    report.keep("killed", killed);
  },
};
