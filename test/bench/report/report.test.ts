import { describe, expect, setDefaultTimeout, spyOn, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { loadRun, type Run, saveRun } from "../../../bench/harness/results.ts";
import { BEGIN, END, report } from "../../../bench/report/report.ts";
import { bench, inFolder, madeUpRun, ratio } from "./runs.ts";

// One starts the command line.
setDefaultTimeout(40_000);

const ORDER = ["relay", "latency", "memory"];
const kept = (name: string) =>
  loadRun(join(import.meta.dir, "../../../bench/results", `${name}.json`));
const results = (folder: string) => readFileSync(join(folder, "RESULTS.md"), "utf8");

/** Calls with a bench folder that holds these runs, and with the lines printed meanwhile. */
function withRuns<T>(
  runs: readonly Run[],
  use: (folder: string, printed: string[]) => T,
): Promise<T> {
  return inFolder((folder) => {
    const printed: string[] = [];
    const print = (text: string) => void printed.push(text);
    const spies = (["log", "error"] as const).map((way) =>
      spyOn(console, way).mockImplementation(print),
    );
    try {
      for (const run of runs) saveRun(join(folder, "results", `${run.bench}.json`), run);
      writeFileSync(join(folder, "RESULTS.md"), `before\n${BEGIN}\nof earlier\n${END}\nafter\n`);
      return use(folder, printed);
    } finally {
      for (const spy of spies) spy.mockRestore();
    }
  });
}

describe("report", () => {
  test("writes charts and the text between the markers, and keeps the rest", async () => {
    await withRuns([kept("latency"), kept("relay")], (folder, printed) => {
      mkdirSync(join(folder, "charts"));
      writeFileSync(join(folder, "charts", "earlier.svg"), "of earlier");
      expect(report(folder, ORDER, false)).toBe(0);
      const text = results(folder);
      expect(text).toStartWith(`before\n${BEGIN}\n\n## Bars`);
      expect(text).toEndWith(`${END}\nafter\n`);
      expect(text).not.toContain("of earlier");
      expect(text.indexOf("\n### relay\n")).toBeLessThan(text.indexOf("\n### latency\n"));
      const linked = [...text.matchAll(/!\[[^\]]+\]\(charts\/(.*?)\)/g)].map(([, name]) => name!);
      expect(linked).toHaveLength(7);
      expect(readdirSync(join(folder, "charts")).sort()).toEqual(linked.sort());
      expect(printed).toContain("left out: chart coturn: no run of coturn is kept");
    });
  });

  test("shows bars as met or missed, folds a long table of others, and escapes Markdown", async () => {
    const figures = [
      ratio("200 B", [1.02, 1.01, 1.03], { bar: { atMost: 1.03 } }),
      ratio("1200 B | odd*", [1.04], { bar: { atMost: 1.03 } }),
      ratio("bursts", [6], { bar: { atLeast: 5 }, better: "more" }),
      ...Array.from({ length: 13 }, (_, i) => ratio(`other ${i}`, [i + 1, i + 3], { unit: "ns" })),
    ];
    const command = "bun run bench relay --rounds 6 --json bench/runs/all/relay.json";
    await withRuns(
      [madeUpRun(figures, { command, notes: ["3 packets were lost"] })],
      (folder, printed) => {
        report(folder, ORDER, false);
        for (const part of [
          "2 of 3 bars are met. Missed:\n\n- relay: 1200 B \\| odd\\*, beacon over C: 1.040 ×, at most 1.03\n",
          "`bun run bench relay --rounds 6`, 2026-11-25 01:45 UTC, 90 s, rounds: 1 to 3; 4 × Example 9000",
          "- 3 packets were lost",
          "| 200 B | beacon over C | 1.020 × | 1.010 to 1.030 | at most 1.03 | met |\n",
          "| 1200 B \\| odd\\* | beacon over C | 1.040 × |  | at most 1.03 | **MISSED** |\n",
          "<summary>13 figures without a bar</summary>",
          "| other 0 | beacon over C | 2.00 ns | 1.00 to 3.00 |",
        ])
          expect(results(folder)).toContain(part);
        expect(results(folder)).not.toContain("## Charts");
        expect(printed).toContain("left out: chart payload: not in the run of relay");
      },
    );
  });

  test.each([
    ["a smoke run", "relay.json", JSON.stringify(madeUpRun([], { smoke: true })), "is a smoke run"],
    [
      "a run under another's name",
      "latency.json",
      JSON.stringify(madeUpRun([])),
      "is a run of relay",
    ],
    ["a damaged run", "relay.json", "{", "relay.json: "],
    ["a page without markers", "../RESULTS.md", "nothing", "must have these two lines"],
    ["markers in the wrong order", "../RESULTS.md", `${END}${BEGIN}`, "must have these two lines"],
  ])("refuses %s, and writes nothing", async (_what, file, text, message) => {
    await withRuns([], (folder) => {
      mkdirSync(join(folder, "results"));
      writeFileSync(join(folder, "results", file), text);
      const before = results(folder);
      expect(() => report(folder, ORDER, false)).toThrow(message);
      expect(results(folder)).toBe(before);
    });
  });
});

describe("report --check", () => {
  test.each<[string, 0 | 1, (folder: string) => void]>([
    [
      "accepts other text outside of the markers",
      0,
      (at) => replace(join(at, "RESULTS.md"), "before", "other"),
    ],
    ["finds a changed table", 1, (at) => replace(join(at, "RESULTS.md"), "µs", "ms")],
    ["finds a changed chart", 1, (at) => writeFileSync(join(at, "charts/latency.svg"), "<svg/>")],
    ["finds a chart too many", 1, (at) => writeFileSync(join(at, "charts/payload.svg"), "<svg/>")],
  ])("%s", async (_what, code, change) => {
    await withRuns([kept("latency")], (folder) => {
      report(folder, ORDER, false);
      expect(report(folder, ORDER, true)).toBe(0);
      change(folder);
      expect(report(folder, ORDER, true)).toBe(code);
    });
  });

  test("accepts the report of this repository", async () => {
    const { code, out, err } = await bench("report", "--check");
    expect([err, code]).toEqual(["", 0]);
    expect(out).toContain("the report is what the runs give");
  });
});

function replace(path: string, text: string, by: string): void {
  writeFileSync(path, readFileSync(path, "utf8").replace(text, by));
}
