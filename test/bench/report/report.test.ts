import { describe, expect, setDefaultTimeout, spyOn, test } from "bun:test";
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Run } from "../../../bench/harness/results.ts";
import { saveRun } from "../../../bench/harness/results.ts";
import { BEGIN, composeReport, END, report } from "../../../bench/report/report.ts";
import { coturnRun, directoryRun, latencyRun, relayRun, soakRun } from "./full-runs.ts";
import { bench, inFolder, madeUpRun, ratio } from "./runs.ts";

// Some start the command line, several at once.
setDefaultTimeout(40_000);

const ORDER = ["relay", "latency", "memory"];
const BY_HAND = ["# Results\n\nby hand, before\n\n", "\n\n## What was tried\n\nby hand, after\n"] as const;

/** Calls with a bench folder that holds these runs, and with what was printed meanwhile. */
function withRuns<T>(
  runs: readonly Run[],
  use: (folder: string, printed: () => string[]) => T,
  markdown = `${BY_HAND[0]}${BEGIN}\nof earlier\n${END}${BY_HAND[1]}`,
): Promise<T> {
  return inFolder((folder) => {
    const printed: string[] = [];
    const print = (text: string) => void printed.push(text);
    const spies = [
      spyOn(console, "log").mockImplementation(print),
      spyOn(console, "error").mockImplementation(print),
    ];
    try {
      for (const run of runs) saveRun(join(folder, "results", `${run.bench}.json`), run);
      writeFileSync(join(folder, "RESULTS.md"), markdown);
      return use(folder, () => printed);
    } finally {
      for (const spy of spies) spy.mockRestore();
    }
  });
}

const results = (folder: string) => readFileSync(join(folder, "RESULTS.md"), "utf8");

describe("report", () => {
  test("writes charts, and what is between the markers; what is by hand stays", async () => {
    await withRuns([relayRun(), latencyRun(), coturnRun(), soakRun(), directoryRun()], (folder, printed) => {
      expect(report(folder, ORDER, false)).toBe(0);
      const text = results(folder);
      expect(text.startsWith(`${BY_HAND[0]}${BEGIN}\n\n## Bars`)).toBe(true);
      expect(text.endsWith(`${END}${BY_HAND[1]}`)).toBe(true);
      expect(text).not.toContain("of earlier");
      const linked = [...text.matchAll(/!\[[^\]]+\]\((.*?)\)/g)].map(([, path]) => path!);
      expect(linked).toHaveLength(10);
      expect(
        readdirSync(join(folder, "charts"))
          .map((name) => `charts/${name}`)
          .sort(),
      ).toEqual(linked.sort());
      expect(printed().filter((line) => line.startsWith("left out"))).toEqual([]);
    });
  });

  test("each chart has its sentence, each run its machine, commit, command and date", async () => {
    const run = { ...relayRun(), command: "bun run bench relay --rounds 6 --json bench/runs/all/relay.json" };
    await withRuns([run], (folder) => {
      report(folder, ORDER, false);
      expect(results(folder)).toContain("nodes a packet costs the beacon 2,187 to 3,234 ns of CPU time, ");
      expect(results(folder)).toContain(
        "`bun run bench relay --rounds 6`, 2026-11-25 01:45 UTC, 90 s, rounds: 6; 4 × Example 9000, 16 GiB, " +
          "Linux 6.18.0, Bun 1.4.5, commit abc1234.",
      );
    });
  });

  test("figures with bars are in the open, met or missed; a long table of others is folded", async () => {
    const figures = [
      ratio("200 B", [1.02, 1.01, 1.03], { bar: { atMost: 1.03 } }),
      ratio("1200 B | odd*", [1.04], { bar: { atMost: 1.03 } }),
      ratio("bursts", [6], { bar: { atLeast: 5 }, better: "more" }),
      ...Array.from({ length: 13 }, (_, i) => ratio(`other ${i}`, [i + 1, i + 3], { unit: "ns" })),
    ];
    await withRuns([madeUpRun(figures, { notes: ["3 packets were lost"] })], (folder) => {
      report(folder, ORDER, false);
      const text = results(folder);
      expect(text).toContain(
        "2 of 3 bars are met. Missed:\n\n- relay: 1200 B \\| odd\\*, beacon over C: 1.040 ×, at most 1.03\n",
      );
      expect(text).toContain("| 200 B | beacon over C | 1.020 × | 1.010 to 1.030 | at most 1.03 | met |\n");
      expect(text).toContain(
        "| 1200 B \\| odd\\* | beacon over C | 1.040 × |  | at most 1.03 | **MISSED** |\n",
      );
      expect(text).toContain("| bursts | beacon over C | 6.000 × |  | at least 5 | met |\n");
      const folded = /<details>\n<summary>13 figures without a bar<\/summary>\n\n(.*?)\n\n<\/details>/s.exec(
        text,
      )![1]!;
      expect(folded.split("\n")).toHaveLength(2 + 13);
      expect(folded).toContain("| other 0 | beacon over C | 2.00 ns | 1.00 to 3.00 |");
      expect(text).toContain("- 3 packets were lost");
    });
  });

  test("the order is that of the benches, and the same bytes come each time", async () => {
    await withRuns([latencyRun(), soakRun(), relayRun()], (folder) => {
      const first = composeReport(folder, ORDER);
      expect([...composeReport(folder, ORDER).files]).toEqual([...first.files]);
      const text = first.files.get(join(folder, "RESULTS.md"))!;
      const places = ["\n### relay\n", "\n### latency\n", "\n### soak\n"].map((head) => text.indexOf(head));
      expect(places.toSorted((a, b) => a - b)).toEqual(places);
      expect(places[0]).toBeGreaterThan(0);
    });
  });

  test("charts without a run are left out by name, and those of earlier runs are removed", async () => {
    await withRuns([latencyRun()], (folder, printed) => {
      mkdirSync(join(folder, "charts"));
      writeFileSync(join(folder, "charts", "payload.svg"), "of earlier");
      report(folder, ORDER, false);
      expect(readdirSync(join(folder, "charts"))).toEqual(["latency.svg"]);
      expect(printed()).toContain("left out: chart coturn: no run of coturn is kept");
      expect(printed().filter((line) => line.startsWith("left out"))).toHaveLength(9);
    });
  });

  test("a run without the cases of a chart leaves that chart out", async () => {
    await withRuns([madeUpRun([ratio("200 B", [1])])], (folder, printed) => {
      report(folder, ORDER, false);
      expect(printed()).toContain("left out: chart payload: not in the run of relay");
      expect(results(folder)).not.toContain("## Charts");
      expect(results(folder)).toContain("## Figures");
    });
  });

  test("without any run it says so", async () => {
    await withRuns([], (folder) => {
      expect(report(folder, ORDER, false)).toBe(0);
      expect(results(folder)).toBe(`${BY_HAND[0]}${BEGIN}\n\nNo runs are kept yet.\n\n${END}${BY_HAND[1]}`);
    });
  });
});

describe("what the report refuses", () => {
  test.each([
    ["a smoke run", { ...relayRun(), smoke: true }, "relay.json is a smoke run"],
    ["a run under another's name", relayRun(), "latency.json is a run of relay"],
  ])("%s", async (_what, run, says) => {
    await inFolder((folder) => {
      const name = says.slice(0, says.indexOf(" "));
      saveRun(join(folder, "results", name), run);
      writeFileSync(join(folder, "RESULTS.md"), `${BEGIN}${END}`);
      expect(() => report(folder, ORDER, false)).toThrow(says);
      expect(results(folder)).toBe(`${BEGIN}${END}`);
      expect(existsSync(join(folder, "charts"))).toBe(false);
    });
  });

  test("a damaged run", async () => {
    await withRuns([], (folder) => {
      mkdirSync(join(folder, "results"));
      writeFileSync(join(folder, "results", "relay.json"), "{");
      expect(() => report(folder, ORDER, false)).toThrow("relay.json: ");
    });
  });

  test.each([
    "nothing",
    BEGIN,
    `${END}${BEGIN}`,
    `${END}${BEGIN}${END}`,
    `${BEGIN}${BEGIN}${END}`,
    `${BEGIN}${END}${END}`,
  ])("markers that are not once each and in order: %s", async (markdown) => {
    await withRuns(
      [],
      (folder) => {
        expect(() => report(folder, ORDER, false)).toThrow("RESULTS.md must have these two lines");
        expect(results(folder)).toBe(markdown);
      },
      markdown,
    );
  });

  test("a missing RESULTS.md", async () => {
    await inFolder((folder) => {
      expect(() => report(folder, ORDER, false)).toThrow("RESULTS.md: ");
    });
  });
});

describe("report --check", () => {
  test("is content with what report wrote, also when words by hand change", async () => {
    await withRuns([latencyRun()], (folder) => {
      report(folder, ORDER, false);
      expect(report(folder, ORDER, true)).toBe(0);
      writeFileSync(join(folder, "RESULTS.md"), results(folder).replace("by hand, before", "other words"));
      expect(report(folder, ORDER, true)).toBe(0);
    });
  });

  const changes: [string, string, (folder: string) => void][] = [
    [
      "another run",
      "latency.svg",
      (folder) => saveRun(join(folder, "results/latency.json"), slower(latencyRun())),
    ],
    [
      "a changed table",
      "RESULTS.md",
      (folder) => writeFileSync(join(folder, "RESULTS.md"), results(folder).replace("µs", "ms")),
    ],
    [
      "a changed chart",
      "latency.svg",
      (folder) => writeFileSync(join(folder, "charts/latency.svg"), "<svg/>"),
    ],
    [
      "a chart too many",
      "payload.svg",
      (folder) => copyFileSync(join(folder, "charts/latency.svg"), join(folder, "charts/payload.svg")),
    ],
  ];
  test.each(changes)("finds %s, and writes nothing", async (_what, file, change) => {
    await withRuns([latencyRun()], (folder, printed) => {
      report(folder, ORDER, false);
      change(folder);
      const before = results(folder);
      expect(report(folder, ORDER, true)).toBe(1);
      expect(
        printed()
          .filter((line) => line.startsWith("not what the runs give"))
          .join(),
      ).toContain(file);
      expect(results(folder)).toBe(before);
    });
  });

  test("the report in this repository is what its runs give", async () => {
    const { code, out, err } = await bench("report", "--check");
    expect([err, code]).toEqual(["", 0]);
    expect(out).toContain("the report is what the runs give");
  });
});

function slower(run: Run): Run {
  return {
    ...run,
    figures: run.figures.map((figure) => ({ ...figure, values: figure.values.map((v) => v * 1.3) })),
  };
}
