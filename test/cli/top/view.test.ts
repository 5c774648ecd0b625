/** What `beacon top` shows, without a terminal. */
import { describe, expect, test } from "bun:test";
import { plainLine, pressed, render, type TopState } from "../../../src/cli/top/view.ts";
import { ratesBetween } from "../../../src/view/rates.ts";
import { directoryStats, statsWith, workerStats } from "../support/stats.ts";

const STATE: TopState = { table: "workers", sortBy: "worker", lost: undefined, color: false };
const SIZE = { columns: 80, rows: 24 };

const SICK = {
  notReady: "draining",
  warnings: ["node table full"],
  breakers: { relay: "off", punch: "on" },
} as const;

const WORKERS = 40;
/** Worker 3 receives most, 7 works most, 5 loses most. */
const workersAfter = Array.from({ length: WORKERS }, (_, i) =>
  workerStats(i, {
    packetsReceived: { relay: i === 3 ? 20_000 : 10 * i },
    relayForwarded: { local: 5 * i, peer: 0, bridged: 0 },
    cpuS: i === 7 ? 0.9 : i === 2 ? null : 0,
    socketReceiveDrops: i === 5 ? 100 : 0,
    alive: i !== 2,
  }),
);
const earlier = statsWith({ workers: Array.from({ length: WORKERS }, (_, i) => workerStats(i)) });
const later = statsWith({ uptimeS: 101, cpuS: 1.5, nodes: 250, workers: workersAfter });
const rates = ratesBetween(earlier, later)!;

/** The numbers of the workers that are shown, in order. */
const shownWorkers = (lines: string[]) =>
  lines.flatMap((line) => /^ +(\d+) /.exec(line)?.[1] ?? []).map(Number);

describe("the screen", () => {
  test("of 80 by 24", () => {
    const lines = render(later, rates, SIZE, STATE);
    expect(lines.slice(0, 12)).toEqual([
      "beacon 1.2.3  192.0.2.1:9001  id 5  up 1m 41s",
      "nodes   250 of 1,000 (25%)",
      "cpu     150% of a core, the busiest worker 90% of its core",
      "in      27.8k packets/s  0 B/s",
      "out     3.9k packets/s  0 B/s",
      "relays  local 3.9k/s",
      "drops   kernel buffer 100/s",
      "",
      "worker         in/s  out/s  busy  batch  merged in  merged out  kernel drops/s  ",
      "     0            0      0    0%    0.0         0%          0%               0",
      "     1           10      5    0%    0.0         0%          0%               0",
      "     2  down     20     10     -    0.0         0%          0%               0",
    ]);
    expect(lines).toHaveLength(24);
    expect(lines.at(-2)).toBe("and 27 more");
    expect(lines.at(-1)).toStartWith("q quit");
    expect(shownWorkers(lines)).toHaveLength(13);
  });

  test.each([
    { columns: 1, rows: 1 },
    { columns: 20, rows: 5 },
    { columns: 79, rows: 12 },
    { columns: 300, rows: 100 },
  ])("fits any size: %j", (size) => {
    for (const color of [false, true]) {
      for (const table of ["workers", "peers"] as const) {
        const lines = render(later, rates, size, { ...STATE, color, table, lost: "x".repeat(500) });
        expect(lines).toHaveLength(size.rows);
        for (const line of lines) {
          const bare = Bun.stripANSI(line);
          expect(bare.length).toBeLessThanOrEqual(size.columns);
          expect(bare).toMatch(/^[ -~]*$/);
          if (!color) expect(line).toBe(bare);
        }
      }
    }
  });

  test("sorted by what a key asks for", () => {
    const first = (key: string) =>
      shownWorkers(render(later, rates, { ...SIZE, rows: 60 }, pressed(key, STATE)!))[0];
    expect(["p", "b", "d", "w"].map(first)).toEqual([3, 7, 5, 0]);
  });

  test("peers", () => {
    const peers = [
      {
        address: "192.0.2.2:9001",
        routes: 1234,
        gossipAgeS: 3,
        isInDirectory: false,
        check: { sent: 50, lost: 5, disagreed: 0, lastRttMs: 1.25 },
      },
      {
        address: "[2001:db8::1]:9001",
        routes: 0,
        gossipAgeS: null,
        isInDirectory: true,
        check: null,
      },
    ];
    const stats = statsWith({ mesh: { ...later.mesh, peers } });
    const lines = render(stats, rates, SIZE, pressed("m", STATE)!);
    expect(lines.slice(8, 11).map((line) => line.trim())).toEqual([
      "peer                nodes  told by     heard  round trip  lost",
      "192.0.2.2:9001      1,234  gossip     3s ago      1.3 ms   10%",
      "[2001:db8::1]:9001      0  directory   never           -     -",
    ]);
    expect(pressed("m", pressed("m", STATE)!)).toEqual(STATE);
  });

  test("a line of the directory, where there is one", () => {
    const lines = render({ ...later, directory: directoryStats() }, rates, SIZE, STATE);
    expect(lines[7]).toBe(
      "directory ok at 192.0.2.10:6379, round trip 0.4 ms; 2 other beacons, 1 not in st",
    );
    expect(lines).toHaveLength(24);
  });

  test("before there are rates, and when there is something to warn of", () => {
    const stats = { ...later, healthy: false, ...SICK };
    const lines = render(stats, undefined, SIZE, {
      ...STATE,
      lost: "http://x: connection refused",
    });
    expect(lines.slice(3, 11)).toEqual([
      "in      ...",
      "out     ...",
      "relays  ...",
      "drops   ...",
      "no news: http://x: connection refused; trying again",
      "unhealthy: draining",
      "node table full",
      "switched off: relay",
    ]);
  });

  test("nothing of the beacon's moves the cursor or widens a line", () => {
    const stats = {
      ...later,
      version: "\x1b[2J漢字\r\n",
      address: { ...later.address, address: "\x9b1m" },
    };
    expect(render(stats, rates, SIZE, STATE)[0]).toBe("beacon ?[2J????  ?1m:9001  id 5  up 1m 41s");
  });
});

test("keys: q and Ctrl-C quit, others change nothing", () => {
  expect(pressed("q", STATE)).toBeUndefined();
  expect(pressed("\x03", STATE)).toBeUndefined();
  expect(pressed("x", STATE)).toBe(STATE);
});

test("a line for who has no terminal", () => {
  expect(plainLine(later, rates)).toBe(
    "nodes 250  in 27.8k/s  out 3.9k/s  relays 3.9k/s  drops 100/s  cpu 150%  healthy",
  );
});
