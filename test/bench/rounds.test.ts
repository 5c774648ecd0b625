/** Rounds: who is started when, in which order they are measured, and that nothing stays behind. */
import { describe, expect, test } from "bun:test";
import { eachRound } from "../../bench/harness/rounds.ts";

class Traced {
  constructor(
    readonly name: string,
    private readonly trace: string[],
  ) {}

  static starts(names: string, trace: string[]): (() => Promise<Traced>)[] {
    return [...names].map((name) => async () => {
      trace.push(`start ${name}`);
      if (name === "!") throw new Error("cannot start");
      return new Traced(name, trace);
    });
  }

  async stop(): Promise<void> {
    this.trace.push(`stop ${this.name}`);
  }
}

const namesOf = (some: readonly Traced[]): string => some.map(({ name }) => name).join("");

describe("eachRound", () => {
  test("turns the order each round, and says both orders", async () => {
    const trace: string[] = [];
    await eachRound(3, Traced.starts("abc", trace), async (contestants, turn, round) => {
      trace.push(`${round}: ${namesOf(contestants)} ${namesOf(turn)}`);
    });
    const forth = ["start a", "start b", "start c"];
    const back = forth.toReversed();
    const stops = (started: string[]) => started.map((line) => line.replace("start", "stop"));
    expect(trace).toEqual([
      ...[...forth, "0: abc abc", ...stops(forth)],
      ...[...back, "1: abc cba", ...stops(back)],
      ...[...forth, "2: abc abc", ...stops(forth)],
    ]);
  });

  test("stops all when measuring fails, and measures no more", async () => {
    const trace: string[] = [];
    const failing = eachRound(3, Traced.starts("ab", trace), async () => {
      throw new Error("cannot measure");
    });
    expect(failing).rejects.toThrow("cannot measure");
    await failing.catch(() => {});
    expect(trace).toEqual(["start a", "start b", "stop a", "stop b"]);
  });

  test("stops those that were started when another cannot be", async () => {
    const trace: string[] = [];
    const failing = eachRound(1, Traced.starts("a!b", trace), async () => {
      trace.push("measured");
    });
    await failing.catch(() => {});
    expect(failing).rejects.toThrow("cannot start");
    expect(trace).toEqual(["start a", "start !", "stop a"]);
  });
});
