/** Runs made up in the shape of the benches', with plausible figures: the same ones at each call. */
import type { Figure, Run } from "../../../bench/harness/results.ts";
import { SIDES, UNITS, UNITS_GROUP } from "../../../bench/suite/directory-units.ts";
import { madeUpRun } from "./runs.ts";

const ROUNDS = 6;

/** Rounds around a median, by a few per cent, most of them close to it. */
function scatterer(): (median: number, share?: number) => number[] {
  let state = 7;
  const random = () => {
    state = (state * 48271) % 2147483647;
    return state / 2147483647;
  };
  return (median, share = 0.05) =>
    Array.from({ length: ROUNDS }, () => median * (1 + share * (random() + random() - 1)));
}

type Params = NonNullable<Figure["params"]>;

/** CPU time and rate of each contender, as the relay bench keeps them. */
function costs(title: string, params: Params, ns: Readonly<Record<string, readonly number[]>>): Figure[] {
  return Object.entries(ns).flatMap(([who, values]) => [
    {
      ...{ case: title, unit: "ns", better: "less" },
      name: `CPU a packet, ${who}`,
      values: [...values],
      params,
    },
    {
      ...{ case: title, unit: "/s", better: "more" },
      ...{ name: `packets a second, ${who}`, values: values.map((one) => 1e9 / one), params },
    },
  ]) as Figure[];
}

const quotient = (a: readonly number[], b: readonly number[]) => a.map((value, i) => value / b[i]!);

export function relayRun(): Run {
  const around = scatterer();
  const figures: Figure[] = [];
  const ratio = (title: string, name: string, params: Params, values: number[], more: Partial<Figure> = {}) =>
    figures.push({ case: title, name, unit: "×", better: "less", values, params, ...more });
  for (const [title, name, median, atMost] of [
    ["200 B, offload off", "beacon over C", 1.028, 1.03],
    ["1200 B, offload off", "beacon over C", 1.034, 1.03],
    ["bursts of 48 × 1200 B, offload on", "beacon over C, offload", 1.047, 1.05],
    ["1200 B that cannot be merged", "offload on over off", 1.005, 1.03],
  ] as const) {
    ratio(title, name, { group: "yardstick" }, around(median, 0.02), { bar: { atMost } });
  }
  for (const payloadBytes of [64, 200, 600, 1200, 1400]) {
    const base = 2150 + payloadBytes / 5;
    const [beacon, c] = [around(base), around(base / 1.03)];
    const [offload, cOffload] = [around(base / 9), around(base / 9.6)];
    const [title, params] = [`payload of ${payloadBytes} B`, { group: "payload", payloadBytes }];
    ratio(title, "beacon over C", params, quotient(beacon, c));
    figures.push(
      ...costs(title, params, { beacon, C: c, "beacon, offload": offload, "C, offload": cOffload }),
    );
  }
  for (const flows of [1, 10, 100, 1000, 10_000]) {
    for (const burst of [1, 32]) {
      const gain = burst === 1 ? Math.max(0.98, 7 - 2 * Math.log10(flows)) : 10 - Math.log10(flows);
      const params = { group: "flows", flows, burst };
      const title = `${flows} flows, ${burst === 1 ? "single packets" : `bursts of ${burst}`}`;
      ratio(title, "times cheaper with offload than without", params, around(gain), { better: "more" });
    }
  }
  for (const nodes of [1000, 10_000, 100_000, 300_000, 1_000_000]) {
    const base = 2200 + 120 * Math.log10(nodes / 1000) ** 2;
    const params = { group: "nodes", nodes };
    figures.push(...costs(`${nodes} nodes`, params, { beacon: around(base), C: around(base / 1.04) }));
  }
  for (const unknown of [0, 0.3, 0.6, 0.9]) {
    const params = { group: "unknown", unknown };
    const title = `${unknown * 100} % to unknown nodes`;
    figures.push(
      ...costs(title, params, { beacon: around(2200 - 800 * unknown), C: around(2120 - 600 * unknown) }),
    );
  }
  for (const workers of [1, 2, 4]) {
    const params = { group: "workers", workers };
    const ns = { beacon: around(2300 / workers), "beacon, offload": around(260 / workers), C: around(2250) };
    figures.push(...costs(`${workers} workers`, params, ns));
  }
  return madeUpRun(figures);
}

export function latencyRun(): Run {
  const around = scatterer();
  const figures: Figure[] = [];
  for (const load of [0, 0.1, 0.25, 0.5, 0.75, 0.9]) {
    for (const [who, factor] of [
      ["beacon", 1],
      ["C", 0.96],
    ] as const) {
      for (const [name, us] of [
        ["p50", 16],
        ["p90", 22],
        ["p99", 60],
        ["p99.9", 420],
      ] as const) {
        figures.push({
          ...{ case: load === 0 ? "idle" : `${load * 100} % load`, name: `${name}, ${who}` },
          ...{ unit: "µs", better: "less", params: { group: "latency", load } },
          values: around((us * factor) / (1 - load) ** 0.8, 0.25),
        });
      }
    }
  }
  return madeUpRun(figures, { bench: "latency", command: "bun run bench latency" });
}

export function coturnRun(): Run {
  const around = scatterer();
  const figures = [200, 1200].flatMap((payloadBytes) =>
    [1, 64].flatMap((destinations) =>
      costs(
        `${payloadBytes} B, ${destinations === 1 ? "1 destination" : `${destinations} destinations`}`,
        { group: "coturn", payloadBytes, destinations },
        {
          coturn: around(7300 + payloadBytes / 4),
          beacon: around(2400),
          "beacon, offload": around(destinations === 1 ? 290 : 2300),
          C: around(2310),
        },
      ),
    ),
  );
  return madeUpRun(figures, { bench: "coturn", command: "bun run bench coturn" });
}

export function soakRun(): Run {
  const samples = Array.from({ length: 120 }, (_, i) => i);
  const params = { group: "soak", minutes: 10, series: true };
  const series = (name: string, unit: string, valueAt: (sample: number) => number): Figure => ({
    ...{ case: "soak", name: `${name} of each sample`, unit, better: "neither", params },
    values: samples.map(valueAt),
  });
  const figures = [
    series("time", "s", (i) => (i + 1) * 5),
    series("resident memory", "MB", (i) => 61 + Math.min(i, 30) / 20 + ((i * 7) % 5) / 50),
    series("packets a second at full rate", "/s", (i) => 420_000 - ((i * 31) % 17) * 1500),
  ];
  return madeUpRun(figures, { bench: "soak", command: "bun run bench soak" });
}

/** CPU time of each step, and the churn of ten beacons. */
export function directoryRun(): Run {
  const around = scatterer();
  const costs: Readonly<Record<keyof typeof UNITS, readonly [server: number, beacon: number]>> = {
    ...{ write: [8_000, 13_000], read: [10_000, 25_000], entry: [400, 4_000], change: [6, 280] },
    ...{ snapshotWritten: [3, 37], snapshotLoaded: [5, 320] },
  };
  const figures = Object.entries(costs).flatMap(([unit, both]) =>
    (["server", "beacon"] as const).map(
      (side, i): Figure => ({
        ...{ case: `CPU time, ${SIDES[side]}`, name: UNITS[unit as keyof typeof UNITS] },
        ...{ unit: "ns", better: "less", values: around(both[i]!) },
        params: { group: UNITS_GROUP, unit, side },
      }),
    ),
  );
  for (const [name, percent] of [
    ["server, moving", 4],
    ["main thread of a beacon, moving over staying", 4.1],
  ] as const)
    figures.push({
      ...{ case: "churn", name, unit: "% of a core", better: "less", values: around(percent) },
      params: { group: "directory churn", movesPerS: 2_000, beacons: 10, nodesEach: 100_000 },
    });
  return madeUpRun(figures, { bench: "directory", command: "bun run bench directory" });
}
