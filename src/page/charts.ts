/** At most the last ten minutes, as charts that move. */
import uPlot from "uplot";
import { create, setText } from "./dom.ts";
import { type History, WINDOW_S } from "./history.ts";

const HEIGHT = 150;
/** Spans of charts and distances of ticks in seconds; short at first. */
const SPANS = [
  { spanS: 60, tickS: 15 },
  { spanS: 120, tickS: 30 },
  { spanS: 300, tickS: 60 },
  { spanS: WINDOW_S, tickS: 120 },
] as const;
const AXIS_WIDTH = 52;
const FONT = "11px system-ui, sans-serif";
/** Of the series of a chart, in order; style.css says what they look like. */
const COLOURS = ["first", "second", "third"] as const;

export interface ChartSpec<Name extends string> {
  readonly title: string;
  readonly series: readonly { readonly name: Name; readonly label: string }[];
  readonly format: (value: number) => string;
  /** The axis reaches at least so far. */
  readonly atLeast: number;
}

/** The page's colours as the scheme has them; a canvas knows no variables of a style sheet. */
class Palette {
  readonly #style = getComputedStyle(document.documentElement);

  get(name: string): string {
    return this.#style.getPropertyValue(`--${name}`);
  }
}

export class Charts<Name extends string> {
  readonly #charts: readonly Chart<Name>[];

  constructor(place: HTMLElement, history: History<Name>, specs: readonly ChartSpec<Name>[]) {
    const palette = new Palette();
    this.#charts = specs.map((spec) => new Chart(place, history, spec, palette));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
      this.draw(Date.now() / 1000),
    );
  }

  /** @param nowS Unix seconds, where the charts end */
  draw(nowS: number): void {
    for (const chart of this.#charts) chart.draw(nowS);
  }
}

class Chart<Name extends string> {
  readonly #plot: uPlot;
  readonly #place = create("div", { className: "plot" });
  readonly #values: readonly HTMLElement[];
  #nowS = 0;
  #span: (typeof SPANS)[number] = SPANS[0];

  constructor(
    place: HTMLElement,
    private readonly history: History<Name>,
    private readonly spec: ChartSpec<Name>,
    palette: Palette,
  ) {
    this.#values = spec.series.map(() => create("b"));
    const legend = create(
      "p",
      { className: "legend" },
      ...spec.series.map(({ label }, i) => {
        const mark = create("i", { className: COLOURS[i]! });
        return create("span", {}, mark, document.createTextNode(`${label} `), this.#values[i]!);
      }),
    );
    this.#place.role = "img";
    const card = create(
      "section",
      { className: "card" },
      create("h2", { text: spec.title }),
      legend,
      this.#place,
    );
    place.append(card);
    this.#plot = new uPlot(this.#options(palette), this.#data(), this.#place);
    new ResizeObserver(() => this.#fit()).observe(this.#place);
  }

  draw(nowS: number): void {
    this.#nowS = nowS;
    const knownS = nowS - (this.history.times[0] ?? nowS);
    this.#span = SPANS.find(({ spanS }) => spanS >= knownS) ?? SPANS.at(-1)!;
    this.#plot.setData(this.#data(), false);
    this.#plot.setScale("x", { min: nowS - this.#span.spanS, max: nowS });
    this.#say();
  }

  #data(): uPlot.AlignedData {
    return [
      this.history.times,
      ...this.spec.series.map(({ name }) => this.history.column(name)),
    ] as uPlot.AlignedData;
  }

  #fit(): void {
    const width = this.#place.clientWidth;
    if (width > 0 && width !== this.#plot.width) this.#plot.setSize({ width, height: HEIGHT });
  }

  /** What the pointer is at, or else the last. */
  #say(): void {
    const at = this.#plot.cursor.idx ?? this.history.times.length - 1;
    const texts = this.spec.series.map(({ name }) => {
      const value = this.history.column(name)[at];
      return value === null || value === undefined ? "–" : this.spec.format(value);
    });
    for (const [i, text] of texts.entries()) setText(this.#values[i]!, text);
    const spoken = this.spec.series.map(({ label }, i) => `${label} ${texts[i]}`).join(", ");
    this.#place.ariaLabel = `${this.spec.title}, the last ${ago(this.#span.spanS)}; now: ${spoken}`;
  }

  #options(palette: Palette): uPlot.Options {
    const { series, format, atLeast } = this.spec;
    const axis = {
      font: FONT,
      stroke: () => palette.get("faint"),
      grid: { stroke: () => palette.get("line"), width: 1 },
      ticks: { show: false },
    };
    return {
      width: 300,
      height: HEIGHT,
      legend: { show: false },
      padding: [8, 18, 0, 0],
      cursor: { y: false, drag: { x: false, y: false }, sync: { key: "beacon" } },
      scales: {
        x: { time: false, auto: false },
        y: {
          range: (_, _min, max) => [
            0,
            uPlot.rangeNum(0, Math.max(max ?? 0, atLeast), 0.1, true)[1] ?? atLeast,
          ],
        },
      },
      axes: [
        {
          ...axis,
          size: 26,
          gap: 7,
          splits: () => {
            const { spanS, tickS } = this.#span;
            return Array.from(
              { length: spanS / tickS + 1 },
              (_, i) => this.#nowS - spanS + i * tickS,
            );
          },
          values: (_, splits) =>
            splits.map((atS) => (this.#nowS - atS < 1 ? "now" : `−${ago(this.#nowS - atS)}`)),
        },
        {
          ...axis,
          size: AXIS_WIDTH,
          gap: 4,
          space: 26,
          values: (_, splits) => splits.map((value) => round(format(value))),
        },
      ],
      series: [
        {},
        ...series.map(({ label }, i) => ({
          label,
          width: 1.5,
          points: { show: false },
          stroke: () => palette.get(COLOURS[i]!),
          // so that it shows below another that is as large
          ...(i === 0 ? { fill: () => palette.get("first-fill") } : {}),
        })),
      ],
      hooks: { setCursor: [() => this.#say()] },
    };
  }
}

/** 4 MB instead of 4.00 MB. */
function round(text: string): string {
  return text.replace(/\.0+(?!\d)/, "");
}

/** 30 s, 90 s, 2 min. */
function ago(seconds: number): string {
  const s = Math.round(seconds);
  return s < 60 || s % 60 !== 0 ? `${s} s` : `${s / 60} min`;
}
