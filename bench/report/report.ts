/**
 * The report: from the runs kept in bench/results/ to the charts and the computed part of
 * RESULTS.md.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join, relative } from "node:path";
import { loadRun, type Run } from "../harness/results.ts";
import { CHARTS } from "./charts.ts";
import { type NamedPicture, resultsMarkdown } from "./markdown.ts";

/** What stands between these in RESULTS.md is written by the report; all else by hand. */
export const BEGIN = '<!-- Written by "bun run bench report", from here -->';
export const END = "<!-- to here. -->";

const CHARTS_FOLDER = "charts";

/** @param bench the folder that has results/, charts/ and RESULTS.md */
export function pathsIn(bench: string) {
  return {
    results: join(bench, "results"),
    charts: join(bench, CHARTS_FOLDER),
    markdown: join(bench, "RESULTS.md"),
  };
}

export interface Report {
  /** Their texts, by path. */
  readonly files: ReadonlyMap<string, string>;
  /** Charts that are there, and should not be. */
  readonly stale: readonly string[];
  /** Charts that the runs do not give, and why. */
  readonly leftOut: readonly string[];
}

/**
 * Writes the report, or with `check` says whether it is what the runs give.
 * @param order names of benches, in the order of the report
 * @returns the exit code: 1 if `check` finds anything else
 * @throws Error if a run is damaged or a smoke run, or RESULTS.md has not the two markers
 */
export function report(bench: string, order: readonly string[], check: boolean): 0 | 1 {
  const { files, stale, leftOut } = composeReport(bench, order);
  const shown = (path: string) => relative(process.cwd(), path);
  for (const chart of leftOut) console.log(`left out: ${chart}`);
  if (!check) {
    mkdirSync(pathsIn(bench).charts, { recursive: true });
    for (const [path, text] of files) writeFileSync(path, text);
    for (const path of stale) rmSync(path);
    for (const path of files.keys()) console.log(`written: ${shown(path)}`);
    return 0;
  }
  const other = [...files].filter(
    ([path, text]) => !existsSync(path) || readFileSync(path, "utf8") !== text,
  );
  for (const path of [...other.map(([path]) => path), ...stale]) {
    console.error(`not what the runs give: ${shown(path)}`);
  }
  if (other.length + stale.length === 0) {
    console.log(`the report is what the runs give: ${files.size} files`);
    return 0;
  }
  console.error('write them again with "bun run bench report"');
  return 1;
}

/** What the report would be; writes nothing. */
export function composeReport(bench: string, order: readonly string[]): Report {
  const paths = pathsIn(bench);
  const runs = readRuns(paths.results, order);
  const files = new Map<string, string>();
  const pictures: NamedPicture[] = [];
  const leftOut: string[] = [];
  for (const plan of CHARTS) {
    const run = runs.find((one) => one.bench === plan.bench);
    const picture = run && plan.picture(run);
    if (picture === undefined) {
      const why = run ? `not in the run of ${plan.bench}` : `no run of ${plan.bench} is kept`;
      leftOut.push(`chart ${plan.name}: ${why}`);
      continue;
    }
    const file = `${plan.name}.svg`;
    pictures.push({ ...picture, path: `${CHARTS_FOLDER}/${file}` });
    files.set(join(paths.charts, file), picture.svg);
  }
  const computed = resultsMarkdown(runs, pictures);
  files.set(paths.markdown, insert(readFileSync(paths.markdown, "utf8"), computed, paths.markdown));
  const there = existsSync(paths.charts) ? readdirSync(paths.charts) : [];
  const stale = there.map((file) => join(paths.charts, file)).filter((path) => !files.has(path));
  return { files, stale, leftOut };
}

/**
 * @throws Error that names the file, if it is damaged, a smoke run, or not the run that its name
 * says
 */
export function readRuns(folder: string, order: readonly string[]): Run[] {
  const names = existsSync(folder)
    ? readdirSync(folder).filter((name) => name.endsWith(".json"))
    : [];
  const runs = names.sort().map((name) => {
    const path = join(folder, name);
    const run = loadRun(path);
    if (run.smoke)
      throw new Error(`${path} is a smoke run: its figures mean nothing, and are not reported`);
    if (run.bench !== basename(name, ".json")) throw new Error(`${path} is a run of ${run.bench}`);
    return run;
  });
  const place = ({ bench }: Run) => (order.includes(bench) ? order.indexOf(bench) : order.length);
  return runs.sort((a, b) => place(a) - place(b));
}

/** Puts the computed part between the markers. */
function insert(markdown: string, computed: string, path: string): string {
  const [from, to] = [markdown.indexOf(BEGIN), markdown.indexOf(END)];
  if (from < 0 || to < from)
    throw new Error(`${path} must have these two lines, in this order: ${BEGIN} and ${END}`);
  return `${markdown.slice(0, from)}${BEGIN}\n\n${computed}\n\n${markdown.slice(to)}`;
}
