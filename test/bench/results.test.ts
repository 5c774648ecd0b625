/** What a run keeps: that it comes back as it was, and that what is no run is refused by name. */
import { afterEach, beforeEach, describe, expect, spyOn, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Figure, loadRun, Recorder, saveRun } from "../../bench/harness/results.ts";
import { temporaryFolder } from "../support/folder.ts";
import { madeUpRun } from "./report/runs.ts";

const folder = temporaryFolder();
const one: Figure = { case: "200 B", name: "CPU", unit: "ns", better: "less", values: [1, 3, 2] };

describe("a file of a run", () => {
  test("is read as it was written", () => {
    const path = join(folder, "deep/er/run.json");
    const run = madeUpRun([
      one,
      { ...one, name: "ratio", bar: { atMost: 1 }, params: { load: 0.5, on: true } },
    ]);
    saveRun(path, run);
    expect(loadRun(path)).toEqual(run);
  });

  test("has a line for each figure", () => {
    const path = join(folder, "lines.json");
    saveRun(path, madeUpRun([one, { ...one, name: "rate" }]));
    const lines = readFileSync(path, "utf8").split("\n");
    expect(lines.filter((line) => line.includes('"values":[1,3,2]'))).toHaveLength(2);
  });

  test("that is missing, cut short or of something else is refused by its name", () => {
    const path = join(folder, "damaged.json");
    expect(() => loadRun(join(folder, "missing.json"))).toThrow("missing.json");
    saveRun(path, madeUpRun([]));
    const text = readFileSync(path, "utf8");
    for (const [damaged, why] of [
      ["", ""],
      [text.slice(0, text.length / 2), ""],
      ["[]", "is no run of a bench"],
      ["{}", "is no run of a bench: format"],
      [JSON.stringify({ ...madeUpRun([]), format: 2 }), "is no run of a bench: format"],
      [
        JSON.stringify({ ...madeUpRun([]), figures: [{ case: "a" }] }),
        "is no run of a bench: figures.0.",
      ],
    ] as const) {
      writeFileSync(path, damaged);
      expect(() => loadRun(path)).toThrow(path);
      expect(() => loadRun(path)).toThrow(why);
    }
  });
});

describe("a recorder", () => {
  let log: ReturnType<typeof spyOn<Console, "log">>;
  beforeEach(() => {
    log = spyOn(console, "log").mockImplementation(() => {});
  });
  afterEach(() => log.mockRestore());
  const recorder = () => new Recorder("test", "bun run bench test", true);

  test("keeps figures and notes, and prints them", () => {
    const recording = recorder();
    recording.figure({ ...one, bar: { atMost: 2 } });
    recording.note("a note");
    recording.note("a note");
    const { figures, notes, machine, bench, smoke } = recording.run();
    expect({ figures, notes, bench, smoke }).toEqual({
      ...{
        figures: [{ ...one, bar: { atMost: 2 } }],
        notes: ["a note"],
        bench: "test",
        smoke: true,
      },
    });
    expect(machine.bun).toBe(Bun.version);
    expect(log.mock.calls.map(([line]) => line)).toContain(
      "  CPU: 2.00 ns (1.00 to 3.00); bar: at most 2, met",
    );
  });

  test("refuses a second figure of one name in one case", () => {
    const recording = recorder();
    recording.figure(one);
    recording.figure({ ...one, name: "rate" });
    recording.figure({ ...one, case: "1200 B" });
    expect(() => recording.figure(one)).toThrow("measured twice: 200 B, CPU");
    expect(recording.run().figures).toHaveLength(3);
  });

  test("refuses a figure without a value, or with one that is no number", () => {
    expect(() => recorder().figure({ ...one, values: [] })).toThrow();
    expect(() => recorder().figure({ ...one, values: [Number.NaN] })).toThrow();
  });
});
