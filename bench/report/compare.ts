/** What got better or worse between two runs of a bench, beyond the noise; as text of at most 100 columns. */
import { type Figure, loadRun, type Machine, type Run, showMachine } from "../harness/results.ts";
import { showValue, spreadOf } from "../harness/statistics.ts";
import {
  barNews,
  type Comparison,
  judge,
  match,
  meetsBar,
  P_MAX,
  RATIO,
  roundsNeeded,
  showLimits,
  titleOf,
  type Verdict,
} from "./verdicts.ts";
import { wrap } from "./wrap.ts";

/** What of a machine moves absolute figures. The commit may differ: it is what is compared. */
const MACHINE_KEYS = ["cpus", "cpu", "kernel", "bun"] as const satisfies readonly (keyof Machine)[];

export interface ComparedRuns {
  readonly lines: readonly string[];
  /** A ratio is worse beyond the noise; or, worse still, none can be judged. */
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
  if (pairs.length === 0) {
    throw new Error(`no figure is in both: ${nameA} is of ${a.bench}, ${nameB} of ${b.bench}`);
  }
  const ratios = judge(pairs.filter(([figure]) => figure.unit === RATIO));
  const absolutePairs = pairs.filter(([figure]) => figure.unit !== RATIO);
  const absolutes: Comparison[] = [];
  const differences = MACHINE_KEYS.filter((key) => a.machine[key] !== b.machine[key]);
  const lines = [
    ...head("A", nameA, a),
    ...head("B", nameB, b),
    ...section("Ratios (×). They hold between machines and days.", ratios),
  ];
  if (differences.length === 0) {
    absolutes.push(...judge(absolutePairs));
    lines.push(
      ...section(
        "Absolute figures. The machine is the same, but its mood differs from hour to hour, and moves all of " +
          "these: believe the ratios first.",
        absolutes,
      ),
    );
  } else if (absolutePairs.length > 0) {
    const what = differences.map((key) => `${key} ${a.machine[key]} → ${b.machine[key]}`).join(", ");
    lines.push(
      ...wrap(`\nAbsolute figures: ${absolutePairs.length}, not compared, as the machines differ: ${what}.`),
    );
  }
  lines.push(...barsOf([...ratios, ...absolutes]));
  for (const [name, only] of [
    ["A", onlyA],
    ["B", onlyB],
  ] as const) {
    if (only.length > 0) lines.push("", `Only in ${name}:`);
    lines.push(...byCase(only).flatMap((text) => wrap(text, 4)));
  }
  const judged = ratios.filter(({ p }) => p !== undefined);
  return { lines, worse: judged.length === 0 || ratios.some(({ verdict }) => verdict === "worse") };
}

/** A line a case. */
function byCase(figures: readonly Figure[]): string[] {
  const cases = Map.groupBy(figures, (figure) => figure.case);
  return [...cases].map(
    ([title, those]) => `  ${title}: ${those.map(({ name, unit }) => `${name} (${unit})`).join("; ")}`,
  );
}

function head(letter: string, name: string, run: Run): string[] {
  const rounds = run.figures.map(({ values }) => values.length);
  const [least, most] = [Math.min(...rounds), Math.max(...rounds)];
  return [
    ...wrap(`${letter}  ${name}`, 3),
    ...wrap(`   ${run.startedAt.slice(0, 16).replace("T", " ")} UTC, ${run.command}`, 3),
    ...wrap(`   ${showMachine(run.machine)}; rounds: ${least === most ? least : `${least} to ${most}`}`, 3),
    ...(run.smoke ? ["   A SMOKE RUN: its figures mean nothing."] : []),
  ];
}

function section(title: string, comparisons: readonly Comparison[]): string[] {
  if (comparisons.length === 0) return [];
  const rows = comparisons.flatMap((comparison) => showComparison(comparison));
  return ["", ...wrap(title), ROW_HEAD, ...rows, ...wrap(summary(comparisons), 2)];
}

const COLUMNS = [10, 11, 11, 8] as const;
const VERDICT_COLUMNS = "few rounds ".length;
const ROW_HEAD = `  ${["median A", "median B", "change", "p"].map((text, i) => text.padStart(COLUMNS[i]!)).join("")}  ${"verdict".padEnd(VERDICT_COLUMNS)} figure`;
const TITLE_AT = ROW_HEAD.length - "figure".length;

function showComparison({ a, b, changePercent, p, verdict }: Comparison): string[] {
  const cells = [
    ...[a, b].map(({ values, unit }) => showValue(spreadOf(values).median, unit)),
    Number.isFinite(changePercent)
      ? `${changePercent > 0 ? "+" : ""}${changePercent.toFixed(1)} %`
      : "from 0",
    p === undefined ? "" : p < 0.001 ? "<0.001" : p.toFixed(3),
  ].map((text, i) => text.padStart(COLUMNS[i]!));
  const shown = verdict === "worse" ? "WORSE" : verdict === "noise" ? "" : verdict;
  const unit = b.unit === RATIO ? "" : ` (${b.unit})`;
  return wrap(`  ${cells.join("")}  ${shown.padEnd(VERDICT_COLUMNS)} ${titleOf(b)}${unit}`, TITLE_AT);
}

/** What the table says, and how far it is to be believed. */
function summary(comparisons: readonly Comparison[]): string {
  const count = (...verdicts: Verdict[]) =>
    comparisons.filter(({ verdict }) => verdicts.includes(verdict)).length;
  const judged = comparisons.filter(({ p }) => p !== undefined).length;
  const parts: string[] = [];
  if (judged > 0) {
    const moved = count("moved");
    parts.push(
      `Of ${judged} judged: ${count("worse")} worse and ${count("better")} better beyond the noise` +
        `${moved > 0 ? `, ${moved} moved` : ""}.`,
    );
  }
  const doubtful = count("worse?", "better?", "moved?");
  if (doubtful > 0) {
    parts.push(
      `${doubtful} with a question mark: p < ${P_MAX} when looked at alone, but of ${judged} figures up to ` +
        `${Math.max(1, Math.floor(judged * P_MAX))} look so by chance.`,
    );
  }
  const rounds = Math.min(
    ...comparisons
      .filter(({ p }) => p !== undefined)
      .map(({ a, b }) => Math.min(a.values.length, b.values.length)),
  );
  const needed = roundsNeeded(judged);
  if (judged > 0 && rounds < needed) {
    parts.push(
      `With ${rounds} rounds, a figure that alone changed among ${judged} cannot pass; with ${needed} it can.`,
    );
  }
  const few = count("few rounds");
  if (few > 0) {
    parts.push(
      `${few} WITHOUT A VERDICT: so few rounds can never have p < ${P_MAX}; it takes ${roundsNeeded(1)} of each.`,
    );
  }
  const samples = count("no rounds");
  if (samples > 0) parts.push(`${samples} without a verdict: samples over time are no rounds.`);
  return `  ${parts.join(" ")}`;
}

function barsOf(comparisons: readonly Comparison[]): string[] {
  const news = comparisons.flatMap(({ a, b, verdict }) => {
    const text = barNews({ a, b });
    if (text === undefined) return [];
    const [was, is] = [a, b].map(({ values, unit }) => showValue(spreadOf(values).median, unit));
    return wrap(
      `  ${text}: ${titleOf(b)}: ${was} → ${is}${b.bar ? `, bar: ${showLimits(b)}` : ""} (${verdict})`,
      4,
    );
  });
  const withBar = comparisons.map(({ b }) => b).filter(({ bar }) => bar !== undefined);
  const missed = withBar.filter((figure) => meetsBar(figure) === false);
  if (withBar.length === 0 && news.length === 0) return [];
  return [
    "",
    `Bars: B misses ${missed.length} of ${withBar.length}.`,
    ...(news.length > 0 ? news : ["  none newly met or missed"]),
  ];
}
