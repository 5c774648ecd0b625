/** The rig's runs, small: what each finds must be as theory, or its own conditions, say. */
import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Account } from "../../bench/rig/account.ts";
import { type Conditions, implementation } from "../../bench/rig/link.ts";
import { NEEDED_FOR_NAMESPACES, type Needed, obstacle } from "../../bench/rig/requirements.ts";
import { temporaryFolder } from "../support/folder.ts";
import { installed, type Program, Programs, ROOT } from "./support/program.ts";
import { until, untilEqual } from "./support/wait.ts";

const RUN_MS_MAX = 300_000;
const BUILD_MS_MAX = 60_000;
setDefaultTimeout(RUN_MS_MAX);

const RIG = join(ROOT, "bench/rig/main.ts");
const programs = new Programs();
const folder = temporaryFolder();
afterEach(() => programs.kill());

const rig = (...args: string[]): Program => programs.spawn([process.execPath, RIG, ...args]);

/**
 * Runs the rig, and returns its raw result once it has ended and everything that it made is gone.
 */
async function smoke<Result>(name: string): Promise<{ result: Result; output: string }> {
  const json = join(folder, `${name}.json`);
  const program = rig(name, "--smoke", `--json=${json}`);
  const code = await program.exited(RUN_MS_MAX);
  const output = program.lines.join("\n");
  expect({ code, stderr: program.stderr, output }).toEqual({ code: 0, stderr: "", output });
  expect(output).toMatch(/ × .+, Linux .+, Bun .+, commit /); // what it ran on
  expect(output).toEndWith("as expected");
  expect(leftBy(program)).toEqual([]);
  return { result: JSON.parse(readFileSync(json, "utf8")) as Result, output };
}

function inFolder(folder: string, { pid }: Program): string[] {
  try {
    return readdirSync(folder).filter((name) => name.startsWith(`pilot-rig-${pid}-`));
  } catch {
    return []; // nobody ever made a namespace here
  }
}
const namespacesOf = (program: Program) => inFolder("/run/netns", program);
/** Namespaces and folders that a rig has not removed. */
const leftBy = (program: Program) => [...namespacesOf(program), ...inFolder(tmpdir(), program)];

/** Names of the programs that run in a rig's namespaces now, by their process ids. */
function insideOf(program: Program): Map<string, string> {
  const pids = namespacesOf(program).flatMap((name) => {
    const { stdout } = Bun.spawnSync(["ip", "netns", "pids", name], { stderr: "ignore" });
    return stdout.toString().split("\n").filter(Boolean);
  });
  return new Map(pids.filter(lives).map((pid) => [pid, statusOf(pid, "Name")]));
}

function statusOf(pid: string, field: string): string {
  try {
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    return new RegExp(`^${field}:\\s+(.*)$`, "m").exec(status)?.[1] ?? "";
  } catch {
    return ""; // it has ended
  }
}

/** One that has ended may wait for a while to be asked for its code. */
const lives = (pid: string): boolean => /^[^ZX]/.test(statusOf(pid, "State"));

/** Names of runs that cannot run here say so. */
function needs(...commands: Needed[]): { skip: boolean; note: string } {
  const why = obstacle([...NEEDED_FOR_NAMESPACES, ...commands]);
  return { skip: why !== undefined, note: why === undefined ? "" : ` (${why})` };
}
const anything = needs();
const nft = needs("nft");
const chaos = needs("nft", "mount", "prlimit");
const remap = needs("nft", "conntrack");
const hostile = needs("openssl");
const links = needs(
  ...(implementation() === "netem" ? [] : (["dpipe", "vde_plug", "wirefilter"] as const)),
);

test.skipIf(nft.skip)(`nat: holes are punched exactly where theory says${nft.note}`, async () => {
  const { result } = await smoke<{
    pairs: { title: string; outcome: string; predicted: string }[];
  }>("nat");
  expect(result.pairs).toHaveLength(7 * 7 + 2 * 2 + 7 + 3);
  expect(result.pairs.filter(({ outcome, predicted }) => outcome !== predicted)).toEqual([]);
  // What is known without that theory.
  const outcomes = Object.fromEntries(result.pairs.map(({ title, outcome }) => [title, outcome]));
  expect(outcomes).toMatchObject({
    "port-r. to port-r.": "direct",
    "symmetric to symmetric": "relay",
    "symmetric to port-r.": "relay",
    "symmetric to address-r.": "direct",
    "full cone, hairpin": "direct",
    "full cone, no hairpin": "relay",
    "a mapping that is kept": "direct",
    "a mapping that has expired": "unreachable",
  });
});

test.skipIf(links.skip)(
  `links: delivery, order and delay follow the conditions${links.note}`,
  async () => {
    interface Result {
      readonly implementation: string;
      readonly links: { title: string; conditions?: Conditions; paced: Account }[];
    }
    const { result, output } = await smoke<Result>("links");
    expect(output).toMatch(
      result.implementation === "netem" ? /kernel's netem/ : /VDE's wirefilter, since/,
    );
    const of = (title: string) => result.links.find((link) => link.title === title)!.paced;
    const perfect = of("perfect");
    expect(perfect.sent).toBe(250);
    expect(of("20 % lost").delivered).toBeLessThan(of("5 % lost").delivered);
    expect(of("5 % lost").delivered).toBeLessThan(perfect.sent);
    expect(of("20 ms").delayMs.min).toBeGreaterThan(19);
    expect(of("10 % twice").duplicates).toBeGreaterThan(0);
    expect(of("20 ± 10 ms, reordering").overtaken).toBeGreaterThan(of("20 ± 10 ms").overtaken);
  },
);

test.skipIf(remap.skip)(
  `remap: relays arrive again once the beacon is told${remap.note}`,
  async () => {
    interface Change {
      readonly lost: number;
      readonly lostElsewhere: number;
      readonly healedMs: number | null;
    }
    const { result } = await smoke<{ changes: Change[] }>("remap");
    expect(result.changes).toHaveLength(3);
    for (const { lost, lostElsewhere, healedMs } of result.changes) {
      expect(lost).toBeGreaterThan(0); // the mapping did change
      expect(lostElsewhere).toBe(0);
      expect(healedMs).not.toBeNull(); // Infinity: they never did
    }
  },
);

test.skipIf(anything.skip)(
  `restart: with a state file nobody registers again${anything.note}`,
  async () => {
    interface Restart {
      readonly title: string;
      readonly lost: number;
      readonly lostElsewhere: number;
      readonly registeredAgain: number;
    }
    const { result } = await smoke<{ restarts: Restart[] }>("restart");
    expect(result.restarts.map(({ title, registeredAgain }) => [title, registeredAgain])).toEqual([
      ["SIGTERM, drain, state file", 0],
      ["SIGKILL, state file", 0],
      ["SIGTERM, no state file", 20],
    ]);
    for (const { lost, lostElsewhere } of result.restarts) {
      expect(lost).toBeGreaterThan(0);
      expect(lostElsewhere).toBe(0);
    }
  },
);

test.skipIf(anything.skip)(`upgrade: no packet is lost${anything.note}`, async () => {
  interface Handed {
    readonly nodesBefore: number;
    readonly nodesAfter: number;
    readonly flows: readonly { sent: number; lost: number; overtaken: number }[];
  }
  const { result } = await smoke<{ handed: Handed[] }>("upgrade");
  expect(result.handed).toHaveLength(1);
  const [{ nodesBefore, nodesAfter, flows }] = result.handed as [Handed];
  expect([nodesBefore, nodesAfter]).toEqual([2010, 2010]);
  expect(
    flows.filter(({ sent, lost, overtaken }) => sent < 500 || lost > 0 || overtaken > 0),
  ).toEqual([]);
});

test.skipIf(nft.skip)(
  `mesh: routes go with the link between beacons, and come back${nft.note}`,
  async () => {
    const { result } = await smoke<{ steps: { step: string; routes: number[]; across: number }[] }>(
      "mesh",
    );
    expect(result.steps.map(({ step, routes, across }) => [step, routes, across])).toEqual([
      ["both started", [5, 5], 2],
      ["the link cut", [0, 0], 0],
      ["the link healed", [5, 5], 2],
    ]);
  },
);

test.skipIf(hostile.skip)(
  `hostile: honest nodes are served, whatever others do${hostile.note}`,
  async () => {
    interface Outcome {
      readonly attack: string;
      readonly rounds: {
        readonly attacked: { sent: number; delivered: number }[];
        readonly effort: { count: number; heard: Record<number, number> };
        readonly growth: Record<string, number>;
        readonly verdicts: { what: string; holds: boolean; isNeeded?: true }[];
      }[];
    }
    const { result } = await smoke<{ outcomes: Outcome[] }>("hostile");
    const rounds = new Map(result.outcomes.map(({ attack, rounds }) => [attack, rounds[0]!]));
    expect(rounds.size).toBeGreaterThan(10);
    const services = [...rounds.values()].flatMap(({ attacked }) => attacked);
    expect(services.filter(({ sent, delivered }) => sent === 0 || delivered < 0.95 * sent)).toEqual(
      [],
    );
    expect(services.filter(({ sent, delivered }) => delivered > sent)).toEqual([]);
    for (const [attack, { effort, verdicts }] of rounds) {
      expect([attack, effort.count > 0]).toEqual([attack, true]);
      const needed = verdicts.filter(({ isNeeded }) => isNeeded);
      expect([attack, needed.length > 0, needed.filter(({ holds }) => !holds)]).toEqual([
        attack,
        true,
        [],
      ]);
    }
    for (const [attack, limit] of [
      ["hijack by Discover", "endpoint_hold"],
      ["hijack by PunchRequest", "punch_source"],
    ]) {
      const { effort, growth } = rounds.get(attack!)!;
      expect(growth[`beacon_limited_total{limit="${limit}"}`]).toBeGreaterThan(0); // it was tried
      expect(effort.heard).not.toContainKey("6"); // nothing was delivered to the wrong one
    }
    const learned = rounds.get("punch scan, one host")!.effort.heard[4]!;
    expect(learned).toBeWithin(1, 20); // it found somebody, and far from everybody
  },
);

test.skipIf(chaos.skip)(
  `chaos: honest nodes are served whatever goes wrong around them${chaos.note}`,
  async () => {
    interface Result {
      readonly seed: number;
      readonly schedule: { readonly planned: readonly { name: string }[] };
      readonly faults: readonly { name: string; times: number; trace: string }[];
      readonly pairs: readonly { title: string; seconds: number; sentInAll: number }[];
      readonly leftOut: readonly string[];
    }
    const { result, output } = await smoke<{ chaos: Result }>("chaos");
    const { seed, schedule, faults, pairs, leftOut } = result.chaos;
    expect(output).toContain(`--seed ${seed}`);
    expect(leftOut).toHaveLength(installed("cc") ? 0 : 1);
    expect(faults).toHaveLength(20 - leftOut.length);
    expect(faults.filter(({ times, trace }) => times !== 1 || trace === "")).toEqual([]);
    expect(schedule.planned.map(({ name }) => name).sort()).toEqual(
      faults.map(({ name }) => name).sort(),
    );
    expect(pairs).toHaveLength(18);
    expect(pairs.filter(({ sentInAll }) => sentInAll === 0)).toEqual([]);
    // Nothing concerns those of the bystander, from the first second to the last.
    const between = pairs.filter(({ title }) =>
      title.endsWith("udp at bystander → udp at bystander"),
    );
    expect(between).toHaveLength(2);
    for (const { seconds } of between) {
      expect(seconds).toBe(Math.max(...pairs.map((pair) => pair.seconds)));
      expect(seconds).toBeGreaterThan(10);
    }
  },
);

describe("what a run makes goes away", () => {
  test.skipIf(links.skip)(`when it is killed, with the next run${links.note}`, async () => {
    const killed = rig("links", "--smoke");
    const isUnderWay = () =>
      [...insideOf(killed).values()].filter((name) => name.startsWith("bun")).length > 2;
    await until("a beacon and nodes run in the namespaces", isUnderWay, BUILD_MS_MAX);
    const inside = insideOf(killed);
    if (implementation() === "wirefilter") expect([...inside.values()]).toContain("wirefilter");
    await killed.kill();
    expect(namespacesOf(killed).length).toBeGreaterThan(5);
    const clean = rig("clean");
    expect(await clean.exited(RUN_MS_MAX)).toBe(0);
    expect(clean.output()).toContain(`pilot-rig-${killed.pid}-beacon`);
    expect(leftBy(killed)).toEqual([]);
    await untilEqual("programs that are left", () => [...inside.keys()].filter(lives), []);
  });

  test.skipIf(anything.skip).each([
    ["SIGHUP", 129],
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const)(`when it gets %s${anything.note}`, async (signal, code) => {
    const stopped = rig("restart", "--smoke");
    await until("programs run in the namespaces", () => insideOf(stopped).size > 1, BUILD_MS_MAX);
    const inside = insideOf(stopped);
    stopped.signal(signal);
    expect(await stopped.exited(RUN_MS_MAX)).toBe(code);
    expect(leftBy(stopped)).toEqual([]);
    await untilEqual("programs that are left", () => [...inside.keys()].filter(lives), []);
  });

  test.skipIf(anything.skip)(
    `but not that of a run that is under way${anything.note}`,
    async () => {
      const other = rig("restart", "--smoke");
      await until("its namespaces are there", () => namespacesOf(other).length > 2, BUILD_MS_MAX);
      expect(await rig("clean").exited(RUN_MS_MAX)).toBe(0);
      expect(namespacesOf(other).length).toBeGreaterThan(2);
      other.signal("SIGTERM");
      await other.exited();
    },
  );
});

test("what is missing is said in one sentence, with exit code 1", async () => {
  const program = programs.spawn([process.execPath, RIG, "nat"], {
    env: { ...process.env, PATH: folder } as Record<string, string>,
  });
  expect(await program.exited()).toBe(1);
  expect(program.stderr).toMatch(
    /^the rig needs (root, |ip and sysctl and nft \(Debian: apt-get install iproute2 procps nftables\)).*\n$/,
  );
});
