/** The rig's runs, small: what each finds must be as theory, or its own conditions, say. */
import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { NEEDED_FOR_NAMESPACES, type Needed, obstacle } from "../../bench/rig/requirements.ts";
import { Programs, ROOT } from "./support/program.ts";
import { until } from "./support/wait.ts";

const RUN_MS_MAX = 120_000;
setDefaultTimeout(RUN_MS_MAX);

const RIG = join(ROOT, "bench/rig/main.ts");
const programs = new Programs();
const folder = mkdtempSync(join(tmpdir(), "beacon-e2e-"));
process.on("exit", () => rmSync(folder, { recursive: true }));
afterEach(() => programs.kill());

/** Runs the rig, and returns what it found once everything that it made is gone. */
async function smoke<Result>(name: string): Promise<{ result: Result; output: string }> {
  const json = join(folder, `${name}.json`);
  const program = programs.spawn([process.execPath, RIG, name, "--smoke", `--json=${json}`]);
  const code = await program.exited(RUN_MS_MAX);
  const output = program.lines.join("\n");
  expect({ code, stderr: program.stderr, output }).toEqual({ code: 0, stderr: "", output });
  expect(output).toMatch(/ × .+, Linux .+, Bun .+, commit /); // what it ran on
  expect(leftBy(program.pid)).toEqual([]);
  return { result: JSON.parse(readFileSync(json, "utf8")) as Result, output };
}

const named = (folder: string, pid: number) =>
  readdirSync(folder).filter((name) => name.startsWith(`pilot-rig-${pid}-`));
const namespacesOf = (pid: number) => {
  try {
    return named("/run/netns", pid);
  } catch {
    return []; // there never was one
  }
};
/** Namespaces and folders of a rig's process, and processes in whose command line its namespaces or programs stand. */
const leftBy = (pid: number) => [...namespacesOf(pid), ...named(tmpdir(), pid)];

const needs = (...commands: Needed[]) => {
  const why = obstacle([...NEEDED_FOR_NAMESPACES, ...commands]);
  return { skip: why !== undefined, note: why === undefined ? "" : ` (${why})` };
};

const nat = needs("nft", "conntrack");
describe.skipIf(nat.skip)(`nat${nat.note}`, () => {
  interface Pair {
    readonly title: string;
    readonly outcome: string;
    readonly predicted: string;
  }

  test("holes are punched between exactly those NATs that theory says", async () => {
    const { result } = await smoke<{ pairs: Pair[] }>("nat");
    expect(result.pairs.length).toBeGreaterThanOrEqual(49 + 4 + 7 + 3);
    const outcomeOf = (title: string) => result.pairs.find((pair) => pair.title === title)?.outcome;
    expect(result.pairs.filter(({ outcome, predicted }) => outcome !== predicted)).toEqual([]);
    // Beside the theory, what everybody knows.
    expect(outcomeOf("port-r. to port-r.")).toBe("direct");
    expect(outcomeOf("symmetric to symmetric")).toBe("relay");
    expect(outcomeOf("symmetric to port-r.")).toBe("relay");
    expect(outcomeOf("symmetric to address-r.")).toBe("direct");
    expect(outcomeOf("full cone, hairpin")).toBe("direct");
    expect(outcomeOf("full cone, no hairpin")).toBe("relay");
    expect(outcomeOf("a mapping that has expired")).toBe("unreachable");
  });

  test("what a killed run leaves, the next one removes", async () => {
    const killed = programs.spawn([process.execPath, RIG, "nat", "--smoke"]);
    const inside = () => processesIn(namespacesOf(killed.pid));
    await until("programs run in the namespaces", () => inside().length > 2, RUN_MS_MAX);
    const left = inside();
    await killed.kill();
    expect(namespacesOf(killed.pid).length).toBeGreaterThan(10);
    const clean = programs.spawn([process.execPath, RIG, "clean"]);
    expect(await clean.exited(RUN_MS_MAX)).toBe(0);
    expect(clean.output()).toContain(`pilot-rig-${killed.pid}-beacon`);
    expect(leftBy(killed.pid)).toEqual([]);
    expect(left.filter(lives)).toEqual([]);
  });

  test.each([["SIGINT", 130] as const, ["SIGTERM", 143] as const])(
    "%s ends a run, and everything that it made",
    async (signal, code) => {
      const stopped = programs.spawn([process.execPath, RIG, "nat", "--smoke"]);
      const inside = () => processesIn(namespacesOf(stopped.pid));
      await until("programs run in the namespaces", () => inside().length > 2, RUN_MS_MAX);
      const running = inside();
      stopped.signal(signal);
      expect(await stopped.exited(RUN_MS_MAX)).toBe(code);
      expect(leftBy(stopped.pid)).toEqual([]);
      expect(running.filter(lives)).toEqual([]);
    },
  );
});

function processesIn(namespaces: readonly string[]): number[] {
  return namespaces.flatMap((name) => {
    const { stdout } = Bun.spawnSync(["ip", "netns", "pids", name], { stderr: "ignore" });
    return stdout.toString().split("\n").filter(Boolean).map(Number);
  });
}

/** Whether a process still runs: one that has ended may wait for a while to be asked for its code. */
function lives(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}
