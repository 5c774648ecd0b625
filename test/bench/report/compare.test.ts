import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Figure, Run } from "../../../bench/harness/results.ts";
import { saveRun } from "../../../bench/harness/results.ts";
import { compareRuns } from "../../../bench/report/compare.ts";
import { bench, inFolder, MACHINE, madeUpRun, ratio } from "./runs.ts";

// Some start the command line, several at once.
setDefaultTimeout(40_000);

const LOW = [1.01, 1.02, 1.03, 1.0, 1.04, 1.05];
const HIGH = LOW.map((value) => value + 0.1);
const cpu = (values: readonly number[]): Figure =>
  ratio("200 B", values, { name: "CPU a packet, beacon", unit: "ns" });

const linesOf = (a: Run, b: Run) => compareRuns(a, b, "a.json", "b.json").lines;
const lineWith = (lines: readonly string[], text: string) =>
  lines.find((line) => line.includes(text));

describe("what compare says", () => {
  test("medians, change, p and verdict of a ratio that got worse", () => {
    const { lines, worse } = compareRuns(
      madeUpRun([ratio("200 B", LOW)]),
      madeUpRun([ratio("200 B", HIGH)]),
      "a.json",
      "b.json",
    );
    expect(
      lineWith(lines, "200 B: beacon over C")!
        .trim()
        .split(/ {2,}| (?=200)/),
    ).toEqual(["1.025", "1.125", "+9.8 %", "0.002", "WORSE", "200 B: beacon over C"]);
    expect(lines.join("\n")).toContain(
      "Of 1 judged: 1 worse, 0 better and 0 moved beyond the noise.",
    );
    expect(worse).toBe(true);
  });

  test("better, and noise, are not worse", () => {
    const run = (values: readonly number[]) => madeUpRun([ratio("200 B", values)]);
    for (const [before, after, verdict] of [
      [HIGH, LOW, "better"],
      [LOW, LOW, ""],
    ] as const) {
      const { lines, worse } = compareRuns(run(before), run(after), "a.json", "b.json");
      expect(lineWith(lines, "200 B: beacon over C")).toContain(`  ${verdict.padEnd(10)}`);
      expect(worse).toBe(false);
    }
  });

  test("an absolute figure that got worse is shown apart, with its caveat, and is no failure", () => {
    const { lines, worse } = compareRuns(
      madeUpRun([ratio("200 B", LOW), cpu(LOW)]),
      madeUpRun([ratio("200 B", LOW), cpu(HIGH)]),
      "a.json",
      "b.json",
    );
    expect(lines.findIndex((line) => line.includes("Absolute figures"))).toBeLessThan(
      lines.findIndex((line) => line.includes("CPU a packet, beacon (ns)")),
    );
    expect(lineWith(lines, "CPU a packet, beacon (ns)")).toContain("WORSE");
    expect(worse).toBe(false);
  });

  test.each([
    ["cpu", "Another 1"],
    ["cpus", 8],
    ["kernel", "7.0.0"],
    ["bun", "1.5.0"],
  ])("another %s: ratios only, and it says why", (key, value) => {
    const lines = linesOf(
      madeUpRun([ratio("200 B", LOW), cpu(LOW)]),
      madeUpRun([ratio("200 B", HIGH), cpu(HIGH)], { machine: { ...MACHINE, [key]: value } }),
    );
    expect(lineWith(lines, "200 B: beacon over C")).toContain("WORSE");
    expect(lineWith(lines, "CPU a packet, beacon (ns)")).toBeUndefined();
    expect(lines.join("\n")).toContain(`not compared, as the machines differ: ${key} `);
  });

  test("another commit is no other machine", () => {
    const lines = linesOf(
      madeUpRun([cpu(LOW)]),
      madeUpRun([cpu(HIGH)], { machine: { ...MACHINE, commit: "def5678" } }),
    );
    expect(lineWith(lines, "CPU a packet, beacon (ns)")).toContain("WORSE");
  });

  test("too few rounds for any verdict are named, and fail a gate that could not see", () => {
    const { lines, worse } = compareRuns(
      madeUpRun([ratio("200 B", [1, 1.1, 1.2])]),
      madeUpRun([ratio("200 B", [2, 2.1, 2.2])]),
      "a.json",
      "b.json",
    );
    expect(lineWith(lines, "200 B: beacon over C")).toContain("few rounds");
    expect(lines.join("\n")).toContain(
      "1 WITHOUT A VERDICT: so few rounds can never have p < 0.05; it takes 4",
    );
    expect(worse).toBe(true);
  });

  test("one change among forty keeps its question mark, and what chance does is said", () => {
    const figures = (first: readonly number[]) =>
      Array.from({ length: 40 }, (_, i) => ratio(`case ${i}`, i === 0 ? first : LOW));
    const { lines, worse } = compareRuns(
      madeUpRun(figures(LOW)),
      madeUpRun(figures(HIGH)),
      "a",
      "b",
    );
    const text = lines.join("\n");
    expect(lineWith(lines, "case 0:")).toContain("worse?");
    expect(text).toContain("of 40 figures up to 2 look so by chance");
    expect(text).toContain("With 6 rounds, one changed figure of 40 cannot pass; with 7 it can.");
    expect(worse).toBe(false);
  });

  test("figures in one file alone, and bars newly missed, are named", () => {
    const bar = { atMost: 1.03 };
    const text = linesOf(
      madeUpRun([ratio("200 B", LOW, { bar }), ratio("gone", LOW)]),
      madeUpRun([ratio("200 B", HIGH, { bar }), ratio("new", LOW)]),
    ).join("\n");
    expect(text).toContain("Only in A:\n  gone: beacon over C (×)");
    expect(text).toContain("Only in B:\n  new: beacon over C (×)");
    expect(text).toContain(
      "Bars: B misses 1 of 1.\n  newly MISSED: 200 B: beacon over C: 1.025 → 1.125, bar: at most 1.03 (worse)",
    );
  });
});

describe("bench compare", () => {
  test("prints the comparison; --fail-on-worse gives 1 for a ratio that got worse, and 0 else", async () => {
    await inFolder(async (folder) => {
      const [a, b] = [join(folder, "a.json"), join(folder, "b.json")];
      saveRun(a, madeUpRun([ratio("200 B", LOW)]));
      saveRun(b, madeUpRun([ratio("200 B", HIGH)]));
      const codes = await Promise.all([
        bench("compare", a, b),
        bench("compare", a, b, "--fail-on-worse"),
        bench("compare", b, a, "--fail-on-worse"),
      ]);
      expect(codes.map(({ code }) => code)).toEqual([0, 1, 0]);
      expect(codes.map(({ err }) => err)).toEqual(["", "", ""]);
      expect(codes[0]!.out).toContain("1 worse, 0 better");
    });
  });

  test("what is missing, damaged or of another bench: one sentence and 1", async () => {
    await inFolder(async (folder) => {
      const path = (name: string) => join(folder, name);
      saveRun(path("a.json"), madeUpRun([ratio("200 B", LOW)]));
      saveRun(path("other.json"), madeUpRun([ratio("idle", LOW)], { bench: "idle" }));
      writeFileSync(path("damaged.json"), '{"format": 1, "fig');
      writeFileSync(path("else.json"), '{"format": 7}');
      for (const [other, says] of [
        ["missing.json", "missing.json"],
        ["damaged.json", "damaged.json"],
        ["else.json", "else.json is no run of a bench: format"],
        ["other.json", "no figure is in both"],
      ] as const) {
        const { code, out, err } = await bench("compare", path("a.json"), path(other));
        expect([other, code, out, err.trim().split("\n").length]).toEqual([other, 1, "", 1]);
        expect(err).toContain(says);
      }
      expect((await bench("compare", path("a.json"))).code).toBe(1);
    });
  });
});
