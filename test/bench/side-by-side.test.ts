/**
 * Contenders side by side: what is recorded of them, with contenders that cost what the test says.
 */
import { afterEach, beforeEach, expect, spyOn, test } from "bun:test";
import type { Loaded } from "../../bench/harness/loaded.ts";
import { Recorder } from "../../bench/harness/results.ts";
import { compareSideBySide } from "../../bench/harness/side-by-side.ts";

let log: ReturnType<typeof spyOn<Console, "log">>;
beforeEach(() => {
  log = spyOn(console, "log").mockImplementation(() => {});
});
afterEach(() => log.mockRestore());

/** Costs so many nanoseconds a packet, of which it handles one each slice. */
class Fake implements Loaded {
  packetsPerS = 0;
  #counts = false;

  constructor(
    readonly cpuNsPerPacket: number,
    readonly lost: number,
    private readonly trace: string[],
  ) {}

  warmUp(seconds: number): void {
    this.trace.push(`warm ${this.cpuNsPerPacket} ${seconds}`);
  }
  async begin(): Promise<void> {
    this.#counts = true;
  }
  slice(): void {
    if (!this.#counts) throw new Error("loaded before it counts");
    this.trace.push(`slice ${this.cpuNsPerPacket}`);
    this.packetsPerS++;
  }
  async show(): Promise<string> {
    return "";
  }
  async stop(): Promise<void> {
    this.trace.push(`stop ${this.cpuNsPerPacket}`);
  }
}

const starting = (name: string, costs: number[], lost: number, trace: string[]) => ({
  name,
  start: async () => new Fake(costs.shift()!, lost, trace),
});

test("ratios are those of each round, contenders are loaded in turn, and losses are told", async () => {
  const trace: string[] = [];
  const recorder = new Recorder("test", "", true);
  const comparison = {
    ...{ title: "a case", params: { group: "test" }, unit: "packet" },
    contenders: [starting("a", [20, 60], 0, trace), starting("b", [10, 15], 3, trace)],
    ratios: [{ name: "a over b", subject: "a", against: "b", bar: { atMost: 3 } }],
  };
  const lost = await compareSideBySide(
    comparison,
    { rounds: 2, seconds: 0.2, warmUpSeconds: 0.1 },
    recorder,
  );
  expect(lost).toEqual([0, 6]);
  const { figures, notes } = recorder.run();
  expect(figures.map(({ name, values }) => [name, values])).toEqual([
    ["a over b", [2, 4]],
    ["CPU a packet, a", [20, 60]],
    ["packets a second, a", [2, 2]],
    ["CPU a packet, b", [10, 15]],
    ["packets a second, b", [2, 2]],
  ]);
  expect(
    figures.every((figure) => figure.params?.["group"] === "test" && figure.case === "a case"),
  ).toBe(true);
  expect(figures[0]?.bar).toEqual({ atMost: 3 });
  expect(notes).toEqual(["a case: 6 packets were lost, b"]);
  expect(trace.slice(0, 8)).toEqual([
    ...["warm 20 0.1", "warm 10 0.1"],
    ...["slice 20", "slice 10", "slice 20", "slice 10"],
    ...["stop 20", "stop 10"],
  ]);
  expect(trace.slice(8, 12)).toEqual(["warm 15 0.1", "warm 60 0.1", "slice 15", "slice 60"]);
});
