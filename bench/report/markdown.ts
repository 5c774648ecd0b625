/** The part of RESULTS.md that is computed from runs: bars, charts, and a table a bench. */
import { type Figure, type Run, showMachine } from "../harness/results.ts";
import { showLimits, showValue, spreadOf } from "../harness/statistics.ts";
import type { Picture } from "./draw.ts";
import { isSeries, meetsBar, RATIO } from "./verdicts.ts";

export interface NamedPicture extends Picture {
  /** From RESULTS.md: "charts/payload.svg". */
  readonly path: string;
}

const CHARTS_HEAD =
  "Marks are medians over rounds; bars reach from the least to the most of the rounds.";

/** Longer tables are folded. */
const OPEN_ROWS_MAX = 12;

/** @param runs in the order in which they are to appear */
export function resultsMarkdown(runs: readonly Run[], pictures: readonly NamedPicture[]): string {
  if (runs.length === 0) return "No runs are kept yet.";
  return [
    "## Bars",
    bars(runs),
    ...(pictures.length > 0 ? ["## Charts", CHARTS_HEAD] : []),
    ...pictures.flatMap(({ title, sentence, path }) => [
      `### ${plain(title)}`,
      plain(sentence),
      `![${plain(title)}](${path})`,
    ]),
    "## Figures",
    ...runs.flatMap(benchSection),
  ].join("\n\n");
}

function bars(runs: readonly Run[]): string {
  const withBar = runs.flatMap((run) =>
    run.figures.filter(({ bar }) => bar).map((figure) => ({ bench: run.bench, figure })),
  );
  const missed = withBar.filter(({ figure }) => meetsBar(figure) === false);
  const head = `${withBar.length - missed.length} of ${withBar.length} bars are met.`;
  if (missed.length === 0) return head;
  const list = missed.map(({ bench, figure }) => {
    const { median } = spreadOf(figure.values);
    const value = `${showValue(median, figure.unit)} ${figure.unit}`;
    return `- ${bench}: ${plain(`${figure.case}, ${figure.name}: ${value}, ${showLimits(figure.bar)}`)}`;
  });
  return `${head} Missed:\n\n${list.join("\n")}`;
}

function benchSection(run: Run): string[] {
  const { bench, startedAt, elapsedS, machine, notes, figures } = run;
  const rounds = [
    ...new Set(figures.filter((figure) => !isSeries(figure)).map(({ values }) => values.length)),
  ];
  const [least, most] = [Math.min(...rounds), Math.max(...rounds)];
  const count =
    rounds.length === 0 ? "" : `, rounds: ${least === most ? least : `${least} to ${most}`}`;
  const withBar = figures.filter(({ bar }) => bar);
  const others = figures.filter(({ bar }) => !bar);
  return [
    `### ${bench}`,
    `\`${commandOf(run)}\`, ${startedAt.slice(0, 16).replace("T", " ")} UTC, ${showElapsed(elapsedS)}${count}; ` +
      `${plain(showMachine(machine))}.`,
    ...(notes.length > 0 ? [notes.map((note) => `- ${plain(note)}`).join("\n")] : []),
    ...(withBar.length > 0 ? [table(withBar)] : []),
    ...(others.length > OPEN_ROWS_MAX
      ? [
          `<details>\n<summary>${others.length} figures without a bar</summary>`,
          table(others),
          "</details>",
        ]
      : others.length > 0
        ? [table(others)]
        : []),
  ];
}

/** As it would be typed again: where the figures were kept is not of interest. */
function commandOf({ command }: Run): string {
  return command.replace(/ --json[ =]\S+/, "").replaceAll("`", "");
}

function showElapsed(elapsedS: number): string {
  return elapsedS < 120 ? `${elapsedS} s` : `${Math.round(elapsedS / 60)} min`;
}

function table(figures: readonly Figure[]): string {
  const withBars = figures.some(({ bar }) => bar);
  const head = ["case", "figure", "median", "least to most", ...(withBars ? ["bar", ""] : [])];
  const align = ["---", "---", "---:", "---:", ...(withBars ? ["---:", "---"] : [])];
  const rows = figures.map((figure) => {
    const { median, min, max } = spreadOf(figure.values);
    const show = (value: number) => showValue(value, figure.unit);
    const unit = figure.unit === RATIO ? " ×" : ` ${figure.unit}`;
    return [
      ...[
        figure.case,
        figure.name,
        `${show(median)}${unit}`,
        min === max ? "" : `${show(min)} to ${show(max)}`,
      ],
      ...(figure.bar ? [showLimits(figure.bar), meetsBar(figure) ? "met" : "**MISSED**"] : []),
    ].map((cell) => (cell === "**MISSED**" ? cell : plain(cell)));
  });
  return [head, align, ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}

/** Nothing in a figure's name is Markdown. */
function plain(text: string): string {
  return text.replace(/[\\|<>*_`[\]]/g, "\\$&");
}
