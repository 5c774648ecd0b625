/** What happens now, out of two readings. */
import { expect, test } from "bun:test";
import { drops, ratesBetween } from "../../src/view/rates.ts";
import { statsWith, workerStats } from "../cli/support/stats.ts";

const relayed = (local: number) => ({ local, peer: 0, bridged: 0 });

test("rates are differences of all workers, a second", () => {
  const earlier = statsWith({
    uptimeS: 100,
    cpuS: 10,
    workers: [workerStats(0, { relayForwarded: relayed(5), cpuS: 1 }), workerStats(1, { cpuS: 1 })],
  });
  const later = statsWith({
    uptimeS: 102,
    cpuS: 13,
    workers: [
      workerStats(0, { relayForwarded: relayed(25), repliesSent: 4, receivedBytes: 1000, cpuS: 2 }),
      workerStats(1, {
        relayForwarded: relayed(20),
        socketReceiveDrops: 6,
        relayNotFound: 2,
        cpuS: 1,
      }),
    ],
  });
  const rates = ratesBetween(earlier, later)!;
  expect(rates).toMatchObject({ overS: 2, packetsOut: 22, bytesIn: 500, cores: 1.5 });
  expect(rates.relays).toEqual(relayed(20));
  expect(Object.entries(rates.drops)).toEqual([
    ["kernel buffer", 3],
    ["not found", 1],
  ]);
  expect(rates.workers.map(({ busy, packetsOut }) => [busy, packetsOut])).toEqual([
    [0.5, 12],
    [0, 10],
  ]);
});

test("batches and merged shares are of what came meanwhile, and never above all of it", () => {
  const batches = (calls: number, messages: number) => ({
    bounds: [],
    buckets: [],
    calls,
    messages,
  });
  const [worker] = ratesBetween(
    statsWith({ uptimeS: 1, workers: [workerStats(0, { receiveBatch: batches(10, 10) })] }),
    statsWith({
      uptimeS: 11,
      workers: [
        workerStats(0, {
          receiveBatch: batches(12, 40),
          packetsReceived: { relay: 100 },
          relayForwarded: relayed(100),
          offloadSegments: { received: 25, sent: 200 },
        }),
      ],
    }),
  )!.workers;
  expect(worker).toMatchObject({ batch: 15, mergedIn: 0.25, mergedOut: 1 });
});

test("a thread that was replaced is not known to be busy or idle; nor is one that has none", () => {
  const of = (before: number | null, after: number | null) =>
    ratesBetween(
      statsWith({ uptimeS: 1, workers: [workerStats(0, { cpuS: before })] }),
      statsWith({ uptimeS: 2, workers: [workerStats(0, { cpuS: after })] }),
    )!.workers[0]!.busy;
  expect([of(5, 0.1), of(null, 1), of(1, null), of(1, 9)]).toEqual([null, null, null, 1]);
});

test("nothing is told between a beacon and one that was started later, or has other workers", () => {
  const one = statsWith({ uptimeS: 100 });
  expect(ratesBetween(one, statsWith({ uptimeS: 1 }))).toBeUndefined();
  expect(ratesBetween(one, one)).toBeUndefined();
  expect(ratesBetween(one, statsWith({ uptimeS: 101, workers: [workerStats(0)] }))).toBeUndefined();
});

test("drops are of all rows, the bridge's and the grants', too", () => {
  const row = workerStats(0, { limited: { relay: 1 }, malformed: { short: 2 } });
  const { "limit: relay": limited, "malformed: short": short } = drops(
    statsWith({ workers: [row, row], grants: row }),
  );
  expect([limited, short]).toEqual([3, 6]);
});

test("what a beacon cannot read is not known, and counts as no drop", () => {
  const missing = (uptimeS: number) =>
    statsWith({ uptimeS, cpuS: null, workers: [workerStats(0, { socketReceiveDrops: null })] });
  const rates = ratesBetween(missing(1), missing(2))!;
  expect([rates.cores, rates.workers[0]!.kernelDrops, rates.drops]).toEqual([null, null, {}]);
});
