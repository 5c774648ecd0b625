/**
 * What a beacon has counted meanwhile: two scrapes of its metrics, and what lies between them.
 * Pure.
 */

/**
 * By sample, as Prometheus writes it: `beacon_limited_total{limit="relay"}`; those that have not
 * grown are not there.
 */
export type Growth = Readonly<Record<string, number>>;

/**
 * Values of a scrape by sample, without labels that only tell workers apart: their values are
 * added.
 */
export type Scrape = ReadonlyMap<string, number>;

/** @param text in Prometheus' format; histograms' buckets count like all else */
export function parseScrape(text: string): Scrape {
  const values = new Map<string, number>();
  for (const [, name, labels, value] of text.matchAll(/^(\w+)(?:\{(.*)\})? (\S+)$/gm)) {
    const kept = [...(labels ?? "").matchAll(/(\w+)="([^"]*)"/g)].filter(
      ([, label]) => label !== "worker",
    );
    const sample = kept.length === 0 ? name! : `${name}{${kept.map(([text]) => text).join(",")}}`;
    values.set(sample, (values.get(sample) ?? 0) + Number(value));
  }
  return values;
}

/** Counters that tell of something refused, lost or limited. */
const TELLING =
  /^beacon_\w*(limited|refused|rejected|dropped|drops|not_found|malformed|denied|unsigned|restarts|auth|upgrades)\w*_total/;

export function growthBetween(before: Scrape, after: Scrape): Growth {
  const grown = [...after].map(
    ([sample, value]) => [sample, value - (before.get(sample) ?? 0)] as const,
  );
  return Object.fromEntries(grown.filter(([sample, value]) => value > 0 && TELLING.test(sample)));
}

/**
 * Packets that the beacon read. What the kernel drops at its sockets, for a wrong checksum or want
 * of room, tries no code of the beacon.
 */
export function arrivedBetween(before: Scrape, after: Scrape): number {
  const arrived = [...after].map(([sample, value]) =>
    sample.startsWith("beacon_packets_received_total") ? value - (before.get(sample) ?? 0) : 0,
  );
  return arrived.reduce((sum, count) => sum + count, 0);
}

/** What all of them tell together. */
export function addGrowths(growths: readonly Growth[]): Growth {
  const sums: Record<string, number> = {};
  for (const growth of growths) {
    for (const [sample, value] of Object.entries(growth))
      sums[sample] = (sums[sample] ?? 0) + value;
  }
  return sums;
}

/** How much all samples together have grown that begin like this. */
export function grown(growth: Growth, beginning: string): number {
  const matching = Object.entries(growth).filter(([sample]) => sample.startsWith(beginning));
  return matching.reduce((sum, [, value]) => sum + value, 0);
}

/** In few words, the largest first: "limited relay 12345, relay_not_found 3". */
export function showGrowth(growth: Growth): string {
  const short = (sample: string) =>
    sample
      .replace(/^beacon_/, "")
      .replace(/_total/, "")
      .replace(/\{(.*)\}/, (_, labels: string) => ` ${labels.replaceAll(/\w+="([^"]*)"/g, "$1")}`);
  const entries = Object.entries(growth).sort(([, one], [, other]) => other - one);
  return entries.map(([sample, value]) => `${short(sample)} ${value}`).join(", ") || "nothing";
}
