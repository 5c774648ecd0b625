/** What a run keeps: that it comes back as it was, and that what is no run is refused by name. */
import { afterEach, beforeEach, describe, expect, spyOn, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { type Figure, loadRun, Recorder, type Run, saveRun } from "../../bench/harness/results.ts";
import { temporaryFolder } from "../support/folder.ts";

const folder = temporaryFolder();

/** JSON has no -0. */
const number = fc.double({ noNaN: true, noDefaultInfinity: true }).map((value) => value + 0);
const bar = fc.record({ atMost: number, atLeast: number }, { requiredKeys: [] });
/** Without names by which an object reaches its prototype: the reader leaves those out. */
const notBuiltIn = (name: string) => !(name in {}) && name !== "prototype";
const params = fc.dictionary(fc.string().filter(notBuiltIn), fc.oneof(fc.string(), number, fc.boolean()), {
  noNullPrototype: true,
});
const figure: fc.Arbitrary<Figure> = fc
  .record(
    {
      case: fc.string(),
      name: fc.string(),
      unit: fc.string(),
      better: fc.constantFrom("less", "more", "neither"),
      values: fc.array(number, { minLength: 1 }),
      bar,
      params,
    },
    { requiredKeys: ["case", "name", "unit", "better", "values"] },
  )
  .map((one) => one as Figure);
const run: fc.Arbitrary<Run> = fc.record({
  format: fc.constant(1 as const),
  bench: fc.string(),
  command: fc.string(),
  startedAt: fc.constant("2026-01-02T03:04:05.678Z"),
  elapsedS: fc.nat(),
  smoke: fc.boolean(),
  machine: fc.record({
    cpus: fc.nat(),
    cpu: fc.string(),
    memoryGib: fc.nat(),
    kernel: fc.string(),
    bun: fc.string(),
    commit: fc.string(),
  }),
  notes: fc.array(fc.string()),
  figures: fc.array(figure, { maxLength: 5 }),
});

const anyRun = () => fc.sample(run, { numRuns: 1, seed: 1 })[0]!;

describe("a file of a run", () => {
  test("is read as it was written", () => {
    const path = join(folder, "deep/er/run.json");
    fc.assert(
      fc.property(run, (one) => {
        saveRun(path, one);
        expect(loadRun(path)).toEqual(one);
      }),
    );
  });

  test("has a line for each figure", () => {
    const path = join(folder, "lines.json");
    const one = { case: "a", name: "b", unit: "c", better: "less" as const, values: [1, 2] };
    saveRun(path, { ...anyRun(), figures: [one, { ...one, name: "d" }] });
    const lines = readFileSync(path, "utf8").split("\n");
    expect(lines.filter((line) => line.includes('"values":[1,2]'))).toHaveLength(2);
  });

  test("that is missing, cut short or of something else is refused by its name", () => {
    const path = join(folder, "damaged.json");
    expect(() => loadRun(join(folder, "missing.json"))).toThrow("missing.json");
    saveRun(path, anyRun());
    const text = readFileSync(path, "utf8");
    for (const [damaged, why] of [
      ["", ""],
      [text.slice(0, text.length / 2), ""],
      ["[]", "is no run of a bench"],
      ["{}", "is no run of a bench: format"],
      [JSON.stringify({ ...anyRun(), format: 2 }), "is no run of a bench: format"],
      [JSON.stringify({ ...anyRun(), figures: [{ case: "a" }] }), "is no run of a bench: figures.0."],
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
  const one: Figure = { case: "200 B", name: "CPU", unit: "ns", better: "less", values: [1, 3, 2] };

  test("keeps figures and notes, and prints them", () => {
    const recording = recorder();
    recording.figure({ ...one, bar: { atMost: 2 } });
    recording.note("a note");
    recording.note("a note");
    const { figures, notes, machine, bench, smoke } = recording.run();
    expect({ figures, notes, bench, smoke }).toEqual({
      ...{ figures: [{ ...one, bar: { atMost: 2 } }], notes: ["a note"], bench: "test", smoke: true },
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
