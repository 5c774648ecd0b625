/** The two speeds of the tests, and the line on what was skipped. */
import { describe, expect, test } from "bun:test";
import { isQuick, outcomesOf, quickFiles, skipLine } from "./run.ts";

describe("the quick files", () => {
  test("hold the core, and neither processes nor timers", () => {
    const files = quickFiles();
    for (const core of [
      "shared/nodes",
      "data/loop",
      "protocol",
      "ffi/mmsg",
      "control/directory/fleet",
    ])
      expect(files).toContain(`test/${core}.test.ts`);
    expect(files.filter((path) => /^test\/(e2e|deploy)\//.test(path))).toEqual([]);
  });

  test("are judged by what they import, too", () => {
    expect(isQuick("test/e2e/support/random.ts")).toBe(true);
    expect(isQuick("test/e2e/support/wait.ts")).toBe(false);
    // it waits, as wait.ts does
    expect(isQuick("test/control/directory/hostile.test.ts")).toBe(false);
  });
});

describe("bun's report", () => {
  const REPORT = `<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="bun test" tests="5">
  <testsuite name="test/a.test.ts" file="test/a.test.ts" tests="5">
    <testsuite name="with Valkey (needs valkey-server)" tests="3">
      <testcase name="one &quot;quoted&quot; &amp; more" classname="x" time="0">
        <skipped />
      </testcase>
      <testcase name="other" classname="x" time="0"><skipped /></testcase>
      <testcase name="(unnamed)" classname="x" time="0"><skipped /></testcase>
    </testsuite>
    <testcase name="nc (needs nc)" classname="" time="0"><skipped /></testcase>
    <testcase name="good" classname="" time="0.1" assertions="1" />
    <testcase name="bad" classname="" time="0.1"><failure type="AssertionError" /></testcase>
  </testsuite>
</testsuites>`;

  test("tells what became of each, with the groups that it is in", () => {
    const group = "with Valkey (needs valkey-server)";
    expect(outcomesOf(REPORT)).toEqual([
      { name: `${group} > one "quoted" & more`, outcome: "skipped" },
      { name: `${group} > other`, outcome: "skipped" },
      { name: "nc (needs nc)", outcome: "skipped" },
      { name: "good", outcome: "passed" },
      { name: "bad", outcome: "failed" },
    ]);
  });

  test("ends in one line on what was skipped, by reason", () => {
    expect(skipLine(outcomesOf(REPORT))).toBe("skipped 3 tests: 2 need valkey-server, 1 needs nc");
    expect(skipLine([])).toBe("skipped 0 tests");
    expect(skipLine([{ name: "a", outcome: "skipped" }])).toBe(
      "skipped 1 test: 1 needs what is not said: a",
    );
  });
});
