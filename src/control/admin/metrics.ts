/** The features' metrics in Prometheus' text format, made from their statistics when asked for. */
import { Counter, Gauge, type Metric, Registry } from "prom-client";
import type { Distribution, MetricGroup, Shown } from "../kit/metrics.ts";

// biome-ignore lint/suspicious/noExplicitAny: each group states the statistics that it reads
type Group = MetricGroup<any, any>;

/** What is shown, each with the labels that tell it from the others. */
type Rows<From> = () => readonly (readonly [labels: Record<string, string | number>, from: From])[];

/** Receives the name of a metric that cannot be shown. */
type Failed = (metric: string, error: unknown) => void;

/**
 * A histogram whose buckets are counted elsewhere. prom-client's own can only observe values one by
 * one, so this is a metric of the registry's own kind: a name, and a `get` that yields the samples.
 */
function readyMadeHistogram<From>(
  { name, help, values: distributionOf }: Shown<From, Distribution>,
  rows: Rows<From>,
  failed: Failed,
): Metric {
  const samples = () =>
    rows().flatMap(([rowLabels, from]) => {
      const { bounds, counts, count, sum } = distributionOf(from);
      const sample = (suffix: string, value: number, labels = {}) => ({
        metricName: `${name}_${suffix}`,
        labels: { ...labels, ...rowLabels },
        value,
      });
      let below = 0;
      const buckets = bounds.map((le, i) => {
        below += counts[i]!;
        return sample("bucket", below, { le });
      });
      return [
        ...buckets,
        sample("bucket", count, { le: "+Inf" }),
        sample("sum", sum),
        sample("count", count),
      ];
    });
  const get = async () => {
    let values: ReturnType<typeof samples> = [];
    try {
      values = samples();
    } catch (error) {
      failed(name, error);
    }
    return { name, help, type: "histogram", values, aggregator: "sum" };
  };
  return { name, get } as unknown as Metric;
}

/**
 * @param groups of all features; those that name the same metric show it together
 * @param read returns the statistics to show; called for each metric of a scrape
 * @param failed receives the name of a metric that cannot be shown; the scrape continues without it
 */
export function createMetrics(
  groups: readonly Group[],
  read: () => object,
  failed: Failed = (_, error) => {
    throw error;
  },
): Registry {
  const registry = new Registry();
  const rowsOf = (list: "counters" | "gauges" | "histograms", name: string) => {
    const showing = groups.filter((group) => group[list]?.some((shown) => shown.name === name));
    return () => showing.flatMap(({ rows }) => rows(read()));
  };
  for (const group of groups) {
    for (const [list, kind] of [["counters", Counter] as const, ["gauges", Gauge] as const])
      for (const shown of group[list] ?? [])
        if (!registry.getSingleMetric(shown.name))
          show(registry, kind, shown, rowsOf(list, shown.name), group.rowLabels ?? [], failed);
    for (const shown of group.histograms ?? [])
      registry.registerMetric(readyMadeHistogram(shown, rowsOf("histograms", shown.name), failed));
  }
  return registry;
}

function show(
  registry: Registry,
  kind: typeof Counter | typeof Gauge,
  { name, help, label, values }: Shown<unknown>,
  rows: Rows<unknown>,
  rowLabels: readonly string[],
  failed: Failed,
): void {
  const labelNames = label === undefined ? rowLabels : [...rowLabels, label];
  const clear = (metric: Counter | Gauge) => {
    metric.reset();
    if (labelNames.length === 0) metric.remove({}); // the 0 that a reset leaves
  };
  new kind({
    ...{ name, help, labelNames, registers: [registry] },
    collect() {
      clear(this);
      try {
        for (const [labels, from] of rows()) {
          const counts = values(from);
          if (typeof counts === "number") this.inc(labels, counts);
          else if (counts !== null) {
            for (const [value, count] of Object.entries(counts))
              this.inc({ ...labels, [label!]: value }, count);
          }
        }
      } catch (error) {
        clear(this);
        failed(name, error);
      }
    },
  });
}
