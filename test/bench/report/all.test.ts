import { describe, expect, setDefaultTimeout, spyOn, test } from "bun:test";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { loadRun, saveRun } from "../../../bench/harness/results.ts";
import { type AllOptions, asProcess, type RunBench, runAll } from "../../../bench/report/all.ts";
import { inFolder, madeUpRun, ratio } from "./runs.ts";

// Some start the command line, several at once.
setDefaultTimeout(40_000);

const OPTIONS: AllOptions = { smoke: false, limitMinutes: 5, flags: ["--rounds", "8"] };
const NAMES = ["relay", "latency", "idle"];
const runOf = (name: string, value: number) => madeUpRun([ratio("case", [value])], { bench: name });

/** Runs all of them by `run`, with nothing printed. */
async function quietly(folder: string, options: AllOptions, run: RunBench) {
  const spies = (["log", "error"] as const).map((way) =>
    spyOn(console, way).mockImplementation(() => {}),
  );
  try {
    return await runAll(NAMES, options, join(folder, "aside"), join(folder, "results"), run);
  } finally {
    for (const spy of spies) spy.mockRestore();
  }
}

describe("runAll", () => {
  test("runs each in turn, within its limit, and keeps all runs once the last has ended", async () => {
    await inFolder(async (folder) => {
      const calls: unknown[] = [];
      const failed = await quietly(folder, OPTIONS, async (name, args, timeoutS) => {
        calls.push([name, args, timeoutS]);
        expect(existsSync(join(folder, "results"))).toBe(false);
        saveRun(args[1]!, runOf(name, 1));
        return true;
      });
      expect(failed).toEqual([]);
      expect(calls).toEqual(
        NAMES.map((name) => [
          name,
          ["--json", join(folder, "aside", `${name}.json`), "--limit", "5", "--rounds", "8"],
          6 * 60,
        ]),
      );
      expect(readdirSync(join(folder, "results")).sort()).toEqual([
        "idle.json",
        "latency.json",
        "relay.json",
      ]);
    });
  });

  test("what fails, or measures nothing, keeps its run of before; the others go on", async () => {
    await inFolder(async (folder) => {
      for (const name of NAMES) {
        saveRun(join(folder, "results", `${name}.json`), runOf(name, 1));
        // left by a call that was stopped
        saveRun(join(folder, "aside", `${name}.json`), runOf(name, 7));
      }
      const failed = await quietly(folder, OPTIONS, async (name, args) => {
        if (name === "idle") saveRun(args[1]!, runOf(name, 2));
        if (name === "latency") saveRun(args[1]!, madeUpRun([], { bench: name }));
        return name !== "relay";
      });
      expect(failed).toEqual(["relay"]);
      const values = NAMES.map(
        (name) => loadRun(join(folder, "results", `${name}.json`)).figures[0]!.values[0],
      );
      expect(values).toEqual([1, 1, 2]);
    });
  });

  test("with --smoke nothing is kept", async () => {
    await inFolder(async (folder) => {
      const seen: string[] = [];
      await quietly(folder, { ...OPTIONS, smoke: true }, async (name, args) => {
        seen.push(`${name} ${args.join(" ")}`);
        return true;
      });
      expect(seen).toEqual(NAMES.map((name) => `${name} --smoke --limit 5 --rounds 8`));
      expect(readdirSync(join(folder, "results"))).toEqual([]);
    });
  });
});

test("a bench that does not end is killed, and one that fails has failed", async () => {
  await inFolder(async (folder) => {
    const script = join(folder, "main.ts");
    await Bun.write(
      script,
      `process.on("SIGTERM", () => process.exit(process.argv[2] === "asked" ? 7 : 8));
      if (process.argv[2] === "busy") for (;;);
      if (process.argv[2] === "asked") await new Promise((resolve) => setTimeout(resolve, 3_600_000));
      process.exit(process.argv[2] === "good" ? 0 : 3);`,
    );
    const run = asProcess(script, folder, 0.3);
    expect(await run("good", [], 10)).toBe(true);
    expect(await run("bad", [], 10)).toBe(false);
    expect(await run("asked", [], 0.5)).toBe(false); // ends by itself when it is told to
    expect(await run("busy", [], 0.5)).toBe(false); // does not
  });
});
