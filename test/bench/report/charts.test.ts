import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { Figure, Run } from "../../../bench/harness/results.ts";
import { logTicks } from "../../../bench/report/axes.ts";
import { CHARTS } from "../../../bench/report/charts.ts";
import { COLOUR, darkStyle } from "../../../bench/report/palette.ts";
import { drawSvg } from "../../../bench/report/svg.ts";
import { coturnRun, directoryRun, latencyRun, relayRun, soakRun } from "./full-runs.ts";
import { madeUpRun } from "./runs.ts";

const RUNS: Readonly<Record<string, () => Run>> = {
  relay: relayRun,
  latency: latencyRun,
  coturn: coturnRun,
  soak: soakRun,
  directory: directoryRun,
};

interface Element {
  readonly tag: string;
  readonly attributes: Readonly<Record<string, string>>;
  /** The tag around it. */
  readonly parent: string | undefined;
  /** Of this element alone. */
  text: string;
}

/** A reader of XML that takes nothing but well-formed elements. @throws Error where it is not */
function parseXml(xml: string): Element[] {
  const elements: Element[] = [];
  const open: Element[] = [];
  const token = /<(\/?)([\w:]+)((?:\s+[\w:-]+="[^"<&]*")*)\s*(\/?)>|([^<]+)/gy;
  let at = 0;
  for (const [whole, closing, tag = "", attributes = "", alone, text] of xml.matchAll(token)) {
    at += whole.length;
    if (text !== undefined) {
      if (/&(?!amp;|lt;|gt;|quot;|apos;|#)/.test(text)) throw new Error(`a bare & in ${text}`);
      if (open.length === 0 && text.trim() !== "") throw new Error(`outside of the root: ${text}`);
      if (open.length > 0) open.at(-1)!.text += text;
    } else if (closing) {
      if (open.pop()?.tag !== tag) throw new Error(`</${tag}> closes nothing`);
    } else {
      const named = [...attributes.matchAll(/([\w:-]+)="([^"]*)"/g)].map(([, name, value]) => [name, value]);
      if (new Set(named.map(([name]) => name)).size < named.length) throw new Error(`twice: ${attributes}`);
      const element = { tag, attributes: Object.fromEntries(named), parent: open.at(-1)?.tag, text: "" };
      elements.push(element);
      if (!alone) open.push(element);
    }
  }
  if (at !== xml.length) throw new Error(`no XML: ${xml.slice(at, at + 60)}`);
  if (open.length > 0) throw new Error(`<${open[0]!.tag}> stays open`);
  return elements;
}

test("the reader of XML refuses what is not well-formed", () => {
  expect(parseXml('<a b="1"><c/>x &amp; y</a>\n').map(({ tag }) => tag)).toEqual(["a", "c"]);
  for (const xml of ["<a>", "<a></b>", "<a/>x", "<a>x & y</a>", '<a b="1" b="2"/>', "<a b=1/>", "<a><</a>"]) {
    expect(() => parseXml(xml)).toThrow();
  }
});

describe.each(CHARTS.map((plan) => [plan.name, plan] as const))("chart %s", (_name, { bench, picture }) => {
  const drawn = picture(RUNS[bench]!())!;
  const svg = drawSvg(drawn);
  const elements = parseXml(svg);
  const all = (tag: string) => elements.filter((element) => element.tag === tag);

  test("has title, description and size", () => {
    expect(elements[0]!.tag).toBe("svg");
    expect(elements[0]!.attributes).toMatchObject({
      role: "img",
      "aria-labelledby": "title desc",
      width: "560",
    });
    expect(all("title").map(({ text }) => text)).toEqual([drawn.title]);
    expect(all("desc")[0]!.text.length).toBeGreaterThan(40);
    expect(drawn.title.length).toBeLessThanOrEqual(52);
  });

  test("every colour has a partner on dark pages, and the style sheet names them all", () => {
    const known = new Set<string>(["none", ...Object.values(COLOUR)]);
    // What is not painted: clip paths, and what a line with two ends would be filled with.
    const unseen = ({ parent, attributes }: Element) =>
      attributes["fill-opacity"] === "0" ||
      parent === "clipPath" ||
      (attributes["fill"] === "#000" && /^M[-\d. ]+L[-\d. ]+$/.test(attributes["d"] ?? ""));
    for (const element of elements.filter((one) => !unseen(one))) {
      for (const attribute of ["fill", "stroke"] as const) {
        const colour = element.attributes[attribute];
        if (colour !== undefined) expect([...known]).toContain(colour);
      }
      expect(element.attributes["style"] ?? "").not.toMatch(/fill|stroke|color/);
    }
    expect(all("style").map(({ text }) => text)).toEqual([darkStyle()]);
    expect(all("text").every(({ attributes }) => attributes["fill"] !== undefined)).toBe(true);
  });

  test("no scripts, no links, nothing loaded, system fonts", () => {
    const tags = ["svg", "title", "desc", "style", "rect", "path", "circle", "text", "g", "defs", "clipPath"];
    expect(elements.filter(({ tag }) => !tags.includes(tag))).toEqual([]);
    expect(svg.replace('xmlns="http://www.w3.org/2000/svg"', "")).not.toMatch(
      /https?:|href|@import|@font-face|\bon\w+=/,
    );
    const references = [...svg.matchAll(/url\(([^)]*)\)/g)].map(([, target]) => target!);
    const ids = elements.map(({ attributes }) => `#${attributes["id"]}`);
    for (const target of references) expect(ids).toContain(target);
    for (const { attributes } of all("text")) expect(attributes["style"]).toContain("system-ui");
  });

  test("is the same each time, whatever was drawn before", () => {
    for (const other of CHARTS) drawSvg(other.picture(RUNS[other.bench]!())!);
    expect(drawSvg(picture(RUNS[bench]!())!)).toBe(svg);
  });

  test("letters are large enough for phones: 10 pixels where the chart is 358 wide", () => {
    const sizes = all("text").map(({ attributes }) =>
      Number(/font-size:(\d+)px/.exec(attributes["style"]!)?.[1]),
    );
    expect(Math.min(...sizes) * (358 / 560)).toBeGreaterThan(10);
  });

  test("a run without what it shows has no such chart", () => {
    expect(picture(madeUpRun([], { bench }))).toBeUndefined();
  });

  test("the sentence and the picture follow the data", () => {
    const run = RUNS[bench]!();
    const scaled = (figure: Figure): Figure => {
      const last = figure.values.length - 1;
      // Not all by the same factor: ratios would stay.
      const factor = figure.name.includes("beacon") ? 1.5 : 1.25;
      return { ...figure, values: figure.values.map((value, i) => value * (i === last ? 2 : factor)) };
    };
    const other = picture({ ...run, figures: run.figures.map(scaled) })!;
    expect(other.sentence).not.toBe(drawn.sentence);
    expect(drawSvg(other)).not.toBe(svg);
  });
});

const sentence = (name: string, run: Run) =>
  CHARTS.find((plan) => plan.name === name)!.picture(run)?.sentence;
const of = (name: string, values: number[], params: Figure["params"], unit = "ns"): Figure => ({
  ...{ case: JSON.stringify(params), name, unit, better: "less", values },
  params,
});

const draw = (name: string, run: Run) => drawSvg(CHARTS.find((plan) => plan.name === name)!.picture(run)!);

test.each(["payload", "nodes", "unknown", "flows", "workers", "latency"])(
  "chart %s goes from left to right, whatever the order of the figures",
  (name) => {
    const run = name === "latency" ? latencyRun() : relayRun();
    expect(draw(name, { ...run, figures: run.figures.toReversed() })).toBe(draw(name, run));
  },
);

test.each(["payload", "nodes", "unknown", "flows", "workers", "latency", "coturn"])(
  "chart %s has a whisker of three lines wherever rounds differ, and only there",
  (name) => {
    const run = { ...latencyRun(), figures: [relayRun, latencyRun, coturnRun].flatMap((of) => of().figures) };
    const steady = run.figures.map((figure) => ({
      ...figure,
      values: figure.values.map(() => figure.values[0]!),
    }));
    const lines = (figures: Figure[]) => draw(name, { ...run, figures }).match(/<path /g)!.length;
    const marks: Readonly<Record<string, number>> = {
      nodes: 10,
      unknown: 8,
      flows: 10,
      workers: 9,
      payload: 20,
      latency: 36,
      coturn: 16,
    };
    expect(lines(run.figures) - lines(steady)).toBe(marks[name]! * 3);
  },
);

test("a missed bar is said in words, not in colour alone", () => {
  expect(draw("yardstick", relayRun()).match(/>[\d.]+, missed</g)).toEqual([">1.031, missed<"]);
});

describe("sentences", () => {
  test("nodes", () => {
    const figures = [1000, 1_000_000].flatMap((nodes, i) => [
      of("CPU a packet, beacon", [2000 + i * 600, 1, 9000], { group: "nodes", nodes }),
      of("CPU a packet, C", [2000 + i * 500], { group: "nodes", nodes }),
    ]);
    const apart =
      "With 1,000 to 1,000,000 nodes a packet costs the beacon 2,000 to 2,600 ns of CPU time, 1.00 to 1.04 times C's.";
    expect(sentence("nodes", madeUpRun(figures))).toBe(apart);
    const together = of("many over few", [1.3, 1.1, 1.2], { group: "many over few", nodes: 1_000_000 }, "×");
    expect(sentence("nodes", madeUpRun([...figures, together]))).toBe(
      `${apart} Side by side, it costs 1.20 times as much with 1,000,000 as with few.`,
    );
  });

  test("unknown", () => {
    const figures = [0, 0.9].flatMap((unknown, i) => [
      of("CPU a packet, beacon", [2000 - i * 1000], { group: "unknown", unknown }),
      of("CPU a packet, C", [2000 - i * 1200], { group: "unknown", unknown }),
    ]);
    expect(sentence("unknown", madeUpRun(figures))).toBe(
      "With 0 % to 90 % of the packets to nodes that nobody knows, a packet costs the beacon 1,000 to 2,000 ns of CPU time, " +
        "1.00 to 1.25 times C's.",
    );
  });

  test.each([
    [4, ""],
    [3, ""],
    [2, " Here they share one core, so this shows what they cost, not what they gain."],
  ])("workers, on %d processors", (cpus, where) => {
    const figures = [1, 2].flatMap((workers) => [
      of("packets a second, beacon", [workers * 600_000], { group: "workers", workers }),
      of("packets a second, beacon, offload", [workers * 5_000_000], { group: "workers", workers }),
      of("packets a second, C", [600_000], { group: "workers", workers }),
    ]);
    const run = madeUpRun(figures);
    expect(sentence("workers", { ...run, machine: { ...run.machine, cpus } })).toBe(
      `2 workers relay 1.20 million packets a second, 2.00 times what 1 does; in bursts with offload 10.0 million, 2.00 times.${where}`,
    );
  });

  test("flows", () => {
    const name = "times cheaper with offload than without";
    const figures = [1, 1000].flatMap((flows, i) => [
      of(name, [7 - 6 * i], { group: "flows", flows, burst: 1 }, "×"),
      of(name, [12 - 2 * i], { group: "flows", flows, burst: 32 }, "×"),
    ]);
    expect(sentence("flows", madeUpRun(figures))).toBe(
      "With 1 flow, offload makes packets cheaper 12.0 times as bursts of 32 and 7.00 times as single packets; " +
        "with 1,000 flows, 10.0 times as bursts of 32 and 1.00 times as single packets.",
    );
  });

  test("yardstick, of which one is missed", () => {
    const ratio = (title: string, value: number): Figure => ({
      ...{ case: title, name: "beacon over C", unit: "×", better: "less", values: [value] },
      ...{ bar: { atMost: 1.03 }, params: { group: "yardstick" } },
    });
    expect(sentence("yardstick", madeUpRun([ratio("200 B", 1.02), ratio("1200 B", 1.04)]))).toBe(
      "1 of 2 ratios of CPU time a packet meet their bars: 1.020 (200 B; beacon over C), 1.040 (1200 B; beacon over C).",
    );
  });

  test("coturn, with the contenders that ran", () => {
    const params = { group: "coturn", payloadBytes: 200, destinations: 1 };
    const figures = [of("CPU a packet, coturn", [6000], params), of("CPU a packet, beacon", [2000], params)];
    expect(sentence("coturn", madeUpRun(figures))).toBe(
      "The CPU time that coturn takes for a packet is 3.00 times the beacon's.",
    );
    expect(sentence("coturn", madeUpRun(figures.slice(1)))).toBeUndefined();
  });

  test("soak", () => {
    const params = { group: "soak", series: true };
    const figures = [
      of("time", [60, 120, 180], params, "s"),
      of("resident", [60, 70, 65], params, "MB"),
      of("packets", [4e5, 5e5, 4e5], params, "/s"),
    ];
    expect(sentence("soak", madeUpRun(figures))).toBe(
      "In 3 minutes, resident memory went from 60.0 to 65.0 MB (60.0 to 70.0 in between), at 400 to 500 thousand " +
        "packets a second (median 400).",
    );
  });
});

test("logTicks embraces all values, with few ticks", () => {
  const value = fc.double({ min: 1e-3, max: 1e9, noNaN: true });
  fc.assert(
    fc.property(fc.array(value, { minLength: 1, maxLength: 8 }), (values) => {
      const ticks = logTicks(values);
      expect(ticks[0]!).toBeLessThanOrEqual(Math.min(...values));
      expect(ticks.at(-1)!).toBeGreaterThanOrEqual(Math.max(...values));
      expect(ticks.toSorted((a, b) => a - b)).toEqual(ticks);
      expect(ticks.length).toBeGreaterThanOrEqual(2);
      expect(ticks.length).toBeLessThanOrEqual(14);
    }),
  );
});
