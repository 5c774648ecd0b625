import { describe, expect, test } from "bun:test";
import { Guard } from "../../../src/control/kit/guard.ts";
import { Readings } from "../../../src/control/kit/readings.ts";

function guarded() {
  const lines: string[] = [];
  const now = { ms: 0 };
  const log = { error: (_: object, message: string) => lines.push(message) };
  return { lines, now, guard: new Guard(log as never, () => now.ms) };
}

const fail = (): never => {
  throw new Error("no luck");
};

describe("Guard", () => {
  test("runs every step in order, whatever the others throw, and logs those that fail", async () => {
    const { lines, guard } = guarded();
    const ran: string[] = [];
    await guard.runAll([
      ["one", fail],
      ["two", async () => void ran.push("two", await Promise.resolve("two's end"))],
      ["three", () => Promise.reject(new Error("no luck"))],
      ["four", () => ran.push("four")],
    ]);
    expect(ran).toEqual(["two", "two's end", "four"]);
    expect(lines.map((line) => line.split(" ")[0])).toEqual(["one", "three"]);
  });

  test("logs the same work once a minute", () => {
    const { lines, now, guard } = guarded();
    for (; now.ms < 120_000; now.ms += 1000) {
      guard.run("one", fail);
      guard.run("two", fail);
    }
    expect(lines.map((line) => line.split(" ")[0])).toEqual(["one", "two", "one", "two"]);
    expect(guard.errors).toEqual({ one: 120, two: 120 });
  });
});

test("a reading that fails is null, and is logged the first time", () => {
  const lines: string[] = [];
  const readings = new Readings({ warn: (line: string) => lines.push(line) } as never);
  const values = [1, 2].map((value) => readings.read("this", () => value));
  for (let i = 0; i < 3; i++) values.push(readings.read("that", fail));
  expect(values).toEqual([1, 2, null, null, null]);
  expect(lines).toEqual(["that cannot be read and is missing in the statistics: no luck"]);
});
