/** Compares two runs of a bench: what got better or worse beyond the noise. */
import { type Figure, loadRun, type Machine, type Run, showMachine } from "../harness/results.ts";
import { showLimits, showValue, spreadOf } from "../harness/statistics.ts";
import {
  barNews,
  type Comparison,
  judge,
  match,
  meetsBar,
  P_MAX,
  RATIO,
  roundsNeeded,
  titleOf,
  type Verdict,
} from "./verdicts.ts";

/** Absolute figures depend on these. The commit may differ: it is what is compared. */
const MACHINE_KEYS = ["cpus", "cpu", "kernel", "bun"] as const satisfies readonly (keyof Machine)[];

export interface ComparedRuns {
  readonly lines: readonly string[];
  /** A ratio is worse beyond the noise, or no ratio can be judged. */
  readonly worse: boolean;
}

/**
 * Prints what changed from one run to another.
 * @returns the exit code: 1 with `failOnWorse` if a ratio got worse, or no ratio could be judged
 * @throws Error if a file is no run, or the two have no figure in common
 */
export function compareFiles(pathA: string, pathB: string, failOnWorse: boolean): 0 | 1 {
  const { lines, worse } = compareRuns(loadRun(pathA), loadRun(pathB), pathA, pathB);
  console.log(lines.join("\n"));
  return failOnWorse && worse ? 1 : 0;
}

/** @throws Error if the two have no figure in common */
export function compareRuns(a: Run, b: Run, nameA: string, nameB: string): ComparedRuns {
  const { pairs, onlyA, onlyB } = match(a, b);
  if (pairs.length === 0)
    throw new Error(`no figure is in both: ${nameA} is of ${a.bench}, ${nameB} of ${b.bench}`);
  const ratios = judge(pairs.filter(([figure]) => figure.unit === RATIO));
  const absolutePairs = pairs.filter(([figure]) => figure.unit !== RATIO);
  const differences = MACHINE_KEYS.filter((key) => a.machine[key] !== b.machine[key]).map(
    (key) => `${key} ${a.machine[key]} → ${b.machine[key]}`,
  );
  const absolutes = differences.length === 0 ? judge(absolutePairs) : [];
  const lines = [
    ...head("A", nameA, a),
    ...head("B", nameB, b),
    ...section("Ratios (×). They hold between machines and days.", ratios),
    ...section(
      "Absolute figures. They depend on the machine's load: believe the ratios first.",
      absolutes,
    ),
  ];
  if (differences.length > 0 && absolutePairs.length > 0) {
    const what = differences.join(", ");
    lines.push(
      `\nAbsolute figures: ${absolutePairs.length}, not compared, as the machines differ: ${what}.`,
    );
  }
  lines.push(
    ...barsOf([...ratios, ...absolutes]),
    ...leftOver("A", onlyA),
    ...leftOver("B", onlyB),
  );
  const judged = ratios.filter(({ p }) => p !== undefined);
  return { lines, worse: judged.length === 0 || ratios.some(({ verdict }) => verdict === "worse") };
}

function leftOver(run: string, figures: readonly Figure[]): string[] {
  if (figures.length === 0) return [];
  return [
    "",
    `Only in ${run}:`,
    ...figures.map((figure) => `  ${titleOf(figure)} (${figure.unit})`),
  ];
}

function head(letter: string, name: string, { startedAt, command, machine, smoke }: Run): string[] {
  return [
    `${letter}  ${name}`,
    `   ${startedAt.slice(0, 16).replace("T", " ")} UTC, ${command}`,
    `   ${showMachine(machine)}`,
    ...(smoke ? ["   A SMOKE RUN: its figures mean nothing."] : []),
  ];
}

const COLUMNS = [10, 11, 11, 8] as const;
const row = (cells: readonly string[], verdict: string, title: string) =>
  `  ${cells.map((text, i) => text.padStart(COLUMNS[i]!)).join("")}  ${verdict.padEnd("few rounds ".length)} ${title}`;

function section(title: string, comparisons: readonly Comparison[]): string[] {
  if (comparisons.length === 0) return [];
  const columns = row(["median A", "median B", "change", "p"], "verdict", "figure");
  return ["", title, columns, ...comparisons.map(showComparison), ...summary(comparisons)];
}

function showComparison({ a, b, changePercent, p, verdict }: Comparison): string {
  const [before, after] = [a, b].map(({ values, unit }) =>
    showValue(spreadOf(values).median, unit),
  );
  const change = `${changePercent > 0 ? "+" : ""}${changePercent.toFixed(1)} %`;
  const cells = [
    ...[before!, after!, Number.isFinite(changePercent) ? change : "from 0"],
    p === undefined ? "" : p < 0.001 ? "<0.001" : p.toFixed(3),
  ];
  const shown = verdict === "worse" ? "WORSE" : verdict === "noise" ? "" : verdict;
  return row(cells, shown, `${titleOf(b)}${b.unit === RATIO ? "" : ` (${b.unit})`}`);
}

/** What the table shows, and how reliable it is. */
function summary(comparisons: readonly Comparison[]): string[] {
  const count = (...verdicts: Verdict[]) =>
    comparisons.filter(({ verdict }) => verdicts.includes(verdict)).length;
  const judged = comparisons.filter(({ p }) => p !== undefined);
  const rounds = Math.min(...judged.map(({ a, b }) => Math.min(a.values.length, b.values.length)));
  const needed = roundsNeeded(judged.length);
  const [doubtful, few, samples] = [
    count("worse?", "better?", "moved?"),
    count("few rounds"),
    count("no rounds"),
  ];
  return [
    judged.length > 0 &&
      `  Of ${judged.length} judged: ${count("worse")} worse, ${count("better")} better and ` +
        `${count("moved")} moved beyond the noise.`,
    doubtful > 0 &&
      `  ${doubtful} with a question mark: p < ${P_MAX} alone, but of ${judged.length} figures up to ` +
        `${Math.max(1, Math.floor(judged.length * P_MAX))} look so by chance.`,
    judged.length > 0 &&
      rounds < needed &&
      `  With ${rounds} rounds, one changed figure of ${judged.length} cannot pass; with ${needed} it can.`,
    few > 0 &&
      `  ${few} WITHOUT A VERDICT: so few rounds can never have p < ${P_MAX}; it takes ${roundsNeeded(1)} of each.`,
    samples > 0 && `  ${samples} without a verdict: samples over time are no rounds.`,
  ].filter((line) => line !== false);
}

function barsOf(comparisons: readonly Comparison[]): string[] {
  const news = comparisons.flatMap(({ a, b, verdict }) => {
    const text = barNews({ a, b });
    if (text === undefined) return [];
    const [was, is] = [a, b].map(({ values, unit }) => showValue(spreadOf(values).median, unit));
    return [
      `  ${text}: ${titleOf(b)}: ${was} → ${is}${b.bar ? `, bar: ${showLimits(b.bar)}` : ""} (${verdict})`,
    ];
  });
  const withBar = comparisons.map(({ b }) => b).filter(({ bar }) => bar !== undefined);
  if (withBar.length === 0 && news.length === 0) return [];
  const missed = withBar.filter((figure) => meetsBar(figure) === false).length;
  return ["", `Bars: B misses ${missed} of ${withBar.length}.`, ...news];
}
