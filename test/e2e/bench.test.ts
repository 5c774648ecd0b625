/**
 * Every bench runs, with tiny parameters: what it measures is not looked at, only that it does. And
 * it leaves nothing behind.
 */
import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Figure, loadRun, type Run } from "../../bench/harness/results.ts";
import { CLEAN_ENV, installed, Programs, ROOT } from "./support/program.ts";
import { until } from "./support/wait.ts";

const BENCH_MS_MAX = 240_000;
setDefaultTimeout(BENCH_MS_MAX);

const programs = new Programs();
let folder: string | undefined;
afterEach(async () => {
  await programs.kill();
  if (folder !== undefined) rmSync(folder, { recursive: true });
  folder = undefined;
});

/** A folder of this test. */
function ownFolder(): string {
  folder ??= mkdtempSync(join(tmpdir(), "beacon-test-"));
  return folder;
}

/** A bench, with this test's folder for its temporary files. */
const bench = (...flags: string[]) =>
  programs.spawn([process.execPath, join(ROOT, "bench/main.ts"), ...flags], {
    env: { ...CLEAN_ENV, TMPDIR: ownFolder() },
  });

/** Runs a bench to its end. */
async function smoke(name: string): Promise<Run> {
  const json = join(ownFolder(), "run.json");
  const program = bench(name, "--smoke", "--json", json);
  const code = await program.exited(BENCH_MS_MAX);
  expect({ code, stderr: program.stderr }).toEqual({ code: 0, stderr: "" });
  expect(program.lines.join("\n")).toMatch(/ × .+, Linux .+, Bun .+, commit /); // what it ran on
  expect(readdirSync(ownFolder())).toEqual(["run.json"]);
  const run = loadRun(json);
  expect({ bench: run.bench, smoke: run.smoke }).toEqual({ bench: name, smoke: true });
  for (const { name: figure, values, params } of run.figures) {
    expect({ figure, finite: values.every(Number.isFinite) }).toEqual({ figure, finite: true });
    expect({ figure, group: typeof params?.["group"] }).toEqual({ figure, group: "string" });
  }
  return run;
}

/** Figures of this name, in all cases. */
const named = ({ figures }: Run, name: string | RegExp): Figure[] =>
  figures.filter((figure) =>
    typeof name === "string" ? figure.name === name : name.test(figure.name),
  );

const without = (...commands: string[]) => {
  const missing = commands.filter((command) => !installed(command));
  return missing.length === 0 ? "" : ` (needs ${missing.join(" and ")})`;
};
const needs = without("cc", "taskset");
const needsTaskset = without("taskset");

describe("a bench runs:", () => {
  test.skipIf(needs !== "")(`relay${needs}`, async () => {
    const run = await smoke("relay");
    expect(named(run, "beacon over C").length).toBeGreaterThan(10);
    expect(named(run, /^packets a second/).every(({ values }) => values[0]! > 0)).toBe(true);
  });

  test.skipIf(needs !== "")(`latency${needs}`, async () => {
    // at idle and under load
    expect(named(await smoke("latency"), "p50, beacon over C")).toHaveLength(2);
  });

  test.skipIf(needs !== "")(`discover${needs}`, async () => {
    const run = await smoke("discover");
    const kinds = named(run, "beacon over C").map(({ params }) => params?.["kind"]);
    expect(new Set(kinds)).toEqual(new Set(["again", "new", "moving"]));
    expect(named(run, "steering on over off")).toHaveLength(1);
    expect(run.notes.filter((note) => note.includes("lost"))).toEqual([]);
  });

  test.skipIf(needs !== "")(`mesh${needs}`, async () => {
    const run = await smoke("mesh");
    expect(named(run, "lost on the way through two").flatMap(({ values }) => values)).toEqual([0]);
    expect(run.figures.filter(({ params }) => params?.["group"] === "gossip")).toHaveLength(3);
    const [full] = run.figures.filter(({ params }) => params?.["group"] === "full mesh");
    expect(full?.params).toMatchObject({ nodes: 5000, routes: 32_750 });
  });

  test.skipIf(needs !== "")(`start${needs}`, async () => {
    const run = await smoke("start");
    const programsOf = (nodes: number) =>
      named(run, /^first packet/).flatMap(({ params }) =>
        params?.["nodes"] === nodes ? params["program"] : [],
      );
    expect(programsOf(0)).toEqual(["beacon, sources", "beacon, binary", "C"]);
    expect(programsOf(5000)).toEqual(["beacon, sources", "beacon, binary"]);
  });

  test.skipIf(needs !== "")(`soak${needs}`, async () => {
    const run = await smoke("soak");
    const samples = named(run, "resident memory of each sample")[0]!.values.length;
    expect(samples).toBeGreaterThan(10);
    for (const { values } of named(run, / of each sample$/)) expect(values).toHaveLength(samples);
    expect(named(run, "garbage that no counter shows")[0]?.values).toEqual([0]);
  });

  const needsCoturn = without("cc", "taskset", "turnserver");
  test.skipIf(needsCoturn !== "")(`coturn${needsCoturn}`, async () => {
    const run = await smoke("coturn");
    expect(named(run, "coturn over beacon")).toHaveLength(2);
    expect(named(run, "packets a second, coturn").every(({ values }) => values[0]! > 0)).toBe(true);
  });

  test("coturn, where that is not installed", async () => {
    const program = programs.spawn(
      [process.execPath, join(ROOT, "bench/main.ts"), "coturn", "--smoke"],
      {
        env: { ...CLEAN_ENV, PATH: "/nonexistent" },
      },
    );
    expect(await program.exited()).toBe(0);
    expect(program.lines.join("\n")).toContain("turnserver is not installed");
  });

  const needsRedis = without("taskset", "redis-server");
  test.skipIf(needsRedis !== "")(`directory${needsRedis}`, async () => {
    const run = await smoke("directory");
    const groups = new Set(run.figures.map(({ params }) => params?.["group"]));
    expect(groups).toEqual(
      new Set(
        ["convergence", "churn", "trouble", "units", "sums"].map((part) => `directory ${part}`),
      ),
    );
    expect(named(run, /^delivered between healthy beacons/)).toHaveLength(5);
    expect(run.notes.join()).not.toContain("were not found");
  });

  const needsClock = without("cc", "taskset", "redis-server");
  test.skipIf(needsClock !== "")(`directory-clock${needsClock}`, async () => {
    const run = await smoke("directory-clock");
    const wrong = named(run, /^nodes with a wrong lookup/).map(({ params }) => params?.["offsetS"]);
    expect(new Set(wrong)).toEqual(new Set([0, 3600]));
  });

  test.skipIf(needsClock !== "")(`directory-memory${needsClock}`, async () => {
    const run = await smoke("directory-memory");
    const groups = new Set(run.figures.map(({ params }) => params?.["group"]));
    expect(groups).toEqual(new Set(["directory memory", "directory full"]));
    for (const { values } of named(run, / of each sample$/))
      expect(values.length).toBeGreaterThan(5);
  });

  test.skipIf(needsTaskset !== "")(`memory${needsTaskset}`, async () => {
    const run = await smoke("memory");
    expect(named(run, "lost")[0]?.values).toEqual([0]);
    expect(named(run, "a node")).toHaveLength(1);
  });

  test.skipIf(needsTaskset !== "")(`wss${needsTaskset}`, async () => {
    expect(named(await smoke("wss"), "frames a CPU second, over a bare echo")).toHaveLength(3);
  });

  test.skipIf(needsTaskset !== "")(`idle${needsTaskset}`, async () => {
    expect(named(await smoke("idle"), "CPU time")).toHaveLength(1);
  });

  test("allocation, which meets its bar", async () => {
    const growth = named(await smoke("allocation"), "heap growth");
    expect(growth.length).toBeGreaterThanOrEqual(3);
    expect(growth.filter(({ values, bar }) => values[0]! > bar!.atMost!)).toEqual([]);
  });
});

describe("a bench ends:", () => {
  const childrenOf = (pid: number): number[] =>
    readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8")
      .trim()
      .split(" ")
      .filter(Boolean)
      .map(Number);
  /** What a process runs, or undefined if there is none, or one that nobody waited for yet. */
  function commandOf(pid: number): string | undefined {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim() || undefined;
    } catch {
      return undefined;
    }
  }

  for (const [signal, code] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const) {
    test.skipIf(needs !== "")(`on ${signal}, without a child or a file left${needs}`, async () => {
      const program = bench("soak", "--minutes", "0.3");
      await program.line("the first sample", (line) =>
        / k\/s at full rate/.test(line) ? line : undefined,
      );
      const children = childrenOf(program.pid);
      expect(children.map(commandOf).join()).toMatch(/src\/main\.ts.*relay /);
      program.signal(signal);
      expect(await program.exited()).toBe(code);
      await until("its children are gone", () =>
        children.every((pid) => commandOf(pid) === undefined),
      );
      expect(readdirSync(ownFolder())).toEqual([]);
    });
  }

  test.skipIf(needsTaskset !== "")(`when --limit is over${needsTaskset}`, async () => {
    const json = join(ownFolder(), "run.json");
    const program = bench("idle", "--limit", "0.02", "--json", json);
    await until("a beacon runs", () => childrenOf(program.pid).length > 0);
    const children = childrenOf(program.pid);
    expect(await program.exited()).toBe(1);
    // What was measured until then is kept, and says that it is not all.
    expect(loadRun(json).notes.join()).toContain(
      "stopped before its end: it took more than the 0.02 minutes",
    );
    await until("its children are gone", () =>
      children.every((pid) => commandOf(pid) === undefined),
    );
  });

  test("an unknown name is an error", async () => {
    expect(await bench("nothing").exited()).not.toBe(0);
  });
});
