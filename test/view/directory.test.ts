/** The directory in one line. */
import { expect, test } from "bun:test";
import { directoryText } from "../../src/view/directory.ts";
import { directoryStats } from "../cli/support/stats.ts";

const noLog = { logEntries: null, logBytes: null, logOldestS: null };

const lag = (...counts: number[]) => ({ bounds: [0.01, 0.1], counts, sum: 0 });
const oneBeacon = directoryStats().beacons.slice(0, 1);

test.each([
  [
    {},
    "ok at 192.0.2.10:6379, round trip 0.4 ms; 2 other beacons, 1 not in step; " +
      "1234 routes to their 1240 nodes; 99% of changes within 0.05 s; log of 1500 entries, 0.4 MB, 61 s",
  ],
  [{ logOldestS: null }, "; log of 1500 entries, 0.4 MB"],
  [{ logBytes: null }, "; log of 1500 entries, 61 s"],
  [
    { ...noLog, beacons: oneBeacon, lag: lag(99, 1, 0) },
    "1 other beacon; 1234 routes to their 1240 nodes; 99% of changes within 0.01 s",
  ],
  [{ ...noLog, lag: lag(98, 2, 0) }, "; 99% of changes within 0.1 s"],
  [{ ...noLog, lag: lag(0, 98, 2) }, "; not even 99% of changes within 0.1 s"],
  [{ ...noLog, beacons: [], lag: lag(0, 0, 0) }, "; 0 other beacons"],
  [
    {
      ...noLog,
      state: "read_only",
      stateS: 30.9,
      server: null,
      roundTripS: null,
      beacons: [],
      lag: lag(0, 0, 0),
    } as const,
    "read only for 30 s; 0 other beacons",
  ],
])("%j", (some, end) => {
  expect(directoryText(directoryStats(some))).toEndWith(end);
});

test("a beacon of an earlier version reports no nodes and no log", () => {
  const { logEntries, logBytes, logOldestS, ...directory } = directoryStats();
  const beacons = directory.beacons.map(({ nodes, ...beacon }) => beacon);
  const text = directoryText({ ...directory, beacons } as unknown as ReturnType<
    typeof directoryStats
  >);
  expect(text).toEndWith("; 2 other beacons, 1 not in step; 99% of changes within 0.05 s");
});
