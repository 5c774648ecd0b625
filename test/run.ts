/**
 * Runs the tests at one of two speeds, and ends with what was skipped, and why, on one line.
 *
 *   bun test/run.ts [flags of bun test]           everything: the rig first and alone, as it judges times
 *   bun test/run.ts --quick [flags of bun test]   only files without processes, threads and timers
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { Glob } from "bun";
import { TEST_TIMEOUT_MS } from "./support/limits.ts";

const ROOT = join(import.meta.dir, "..");
const RIG = "test/e2e/rig.test.ts";
/** Files at a time: more than the two cores of CI, as tests wait for most of their time. */
const AT_ONCE = 3;

/** Calls that make a test file take long, or as long as the machine likes. */
const SLOW =
  /Bun\.spawn|node:child_process|Bun\.sleep\(|setTimeout\(|setInterval\(|new Worker\(|\.spawn\(/;

/** Long all the same: 16 s of random bytes, and a compiler's process. */
const LONG = ["test/fuzz.test.ts", "test/mutation.test.ts"];

const transpiler = new Bun.Transpiler({ loader: "ts" });
const known = new Map<string, boolean>();

/** Files of this repository that a file imports, from its root. */
export function importsOf(path: string): string[] {
  return transpiler
    .scanImports(readFileSync(join(ROOT, path), "utf8"))
    .filter(({ path: name }) => /^\..*\.ts$/.test(name))
    .map(({ path: name }) => join(dirname(path), name))
    .filter((name) => existsSync(join(ROOT, name)));
}

/**
 * Whether neither a file nor what it imports of the tests' own starts processes, threads or timers.
 */
export function isQuick(path: string): boolean {
  const before = known.get(path);
  if (before !== undefined) return before;
  known.set(path, true); // until shown otherwise: imports may go round
  const own = importsOf(path).filter((name) => name.startsWith("test/"));
  const quick = !SLOW.test(readFileSync(join(ROOT, path), "utf8")) && own.every(isQuick);
  known.set(path, quick);
  return quick;
}

/** The files that `--quick` runs, from the repository's root. */
export function quickFiles(): string[] {
  const files = [...new Glob("test/**/*.test.ts").scanSync(ROOT)].sort();
  return files.filter((path) => isQuick(path) && !LONG.includes(path));
}

/** One test of bun's report, with the groups that it is in. */
interface Outcome {
  readonly name: string;
  readonly outcome: "passed" | "failed" | "skipped";
}

const ENTITIES: Record<string, string> = { lt: "<", gt: ">", quot: '"', apos: "'", amp: "&" };
const decoded = (text: string) =>
  text.replace(/&(\w+);/g, (whole, name) => ENTITIES[name] ?? whole);

/** Reads bun's report in JUnit's format; what is skipped without a name is a hook. */
export function outcomesOf(report: string): Outcome[] {
  const groups: string[] = [];
  const outcomes: Outcome[] = [];
  let open: string | undefined;
  const settle = (outcome: Outcome["outcome"]) => {
    if (open !== undefined && open !== "(unnamed)")
      outcomes.push({ name: [...groups.slice(1), open].join(" > "), outcome });
    open = undefined;
  };
  for (const [tag, end, kind, rest] of report.matchAll(
    /<(\/?)(testsuite|testcase|skipped|failure)\b([^>]*)>/g,
  )) {
    const name = decoded(/ name="([^"]*)"/.exec(rest!)?.[1] ?? "");
    if (kind === "testsuite") {
      if (end) groups.pop();
      else if (!tag.endsWith("/>")) groups.push(name);
    } else if (kind === "testcase") {
      if (!end) open = name;
      if (end || tag.endsWith("/>")) settle("passed");
    } else if (!end) {
      settle(kind === "skipped" ? "skipped" : "failed");
    }
  }
  return outcomes;
}

/**
 * "skipped 4 tests: 3 need valkey-server, 1 needs nc": the reason is what a name has in brackets.
 */
export function skipLine(outcomes: readonly Outcome[]): string {
  const skipped = outcomes.filter(({ outcome }) => outcome === "skipped");
  if (skipped.length === 0) return "skipped 0 tests";
  const reasons = Map.groupBy(
    skipped,
    ({ name }) =>
      [...name.matchAll(/\(needs ([^()]+)\)/g)].at(-1)?.[1] ?? `what is not said: ${name}`,
  );
  const parts = [...reasons]
    .sort(([, one], [, other]) => other.length - one.length)
    .map(([reason, { length }]) => `${length} ${length === 1 ? "needs" : "need"} ${reason}`);
  return `skipped ${skipped.length} test${skipped.length === 1 ? "" : "s"}: ${parts.join(", ")}`;
}

const SIGNALS = ["SIGINT", "SIGTERM"] as const;
let isStopped = false;

/**
 * Runs bun's tests, with their output here.
 * @returns whether all is well, and what became of each
 */
async function run(
  folder: string,
  ...args: readonly string[]
): Promise<{ ok: boolean; outcomes: Outcome[] }> {
  const report = join(folder, "report.xml");
  rmSync(report, { force: true });
  const command = [
    ...[process.execPath, "test", "--timeout", `${TEST_TIMEOUT_MS}`],
    ...["--reporter=junit", `--reporter-outfile=${report}`, ...args],
  ];
  const child = Bun.spawn(command, { cwd: ROOT, stdio: ["inherit", "inherit", "inherit"] });
  // The tests end first, with what they started.
  const stop = (signal: NodeJS.Signals) => {
    isStopped = true;
    child.kill(signal);
  };
  for (const signal of SIGNALS) process.on(signal, stop);
  const ok = (await child.exited) === 0;
  for (const signal of SIGNALS) process.off(signal, stop);
  return { ok, outcomes: existsSync(report) ? outcomesOf(readFileSync(report, "utf8")) : [] };
}

async function main(args: readonly string[]): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), "beacon-tests-"));
  try {
    const flags = args.filter((arg) => arg !== "--quick");
    const many = [`--parallel=${AT_ONCE}`, ...flags];
    const commands = args.includes("--quick")
      ? [["--only-failures", ...many, ...quickFiles().map((path) => `./${path}`)]]
      : [
          [...flags, `./${RIG}`],
          [...many, `--path-ignore-patterns=**/${RIG.slice("test/".length)}`],
        ];
    const runs: Awaited<ReturnType<typeof run>>[] = [];
    for (const command of commands) if (!isStopped) runs.push(await run(folder, ...command));
    const outcomes = runs.flatMap((one) => one.outcomes);
    for (const { name, outcome } of outcomes)
      if (outcome === "failed") console.log(`failed: ${name}`);
    console.log(skipLine(outcomes));
    return runs.every(({ ok }) => ok) ? 0 : 1;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

if (import.meta.main) process.exit(await main(process.argv.slice(2)));
