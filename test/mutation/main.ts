/**
 * Measures what the tests notice: random one-line changes to the sources, and for each the tests
 * that should fail. It works on a copy of the tree, and within a number of mutants and of minutes.
 *
 *   npm run mutate -- [--seed=1] [--mutants=40] [--minutes=10] <files or folders>
 *
 * A mutant is caught when a test fails or does not end. First run the tests that mirror the file,
 * then the quick ones nearest to it. What is missed is for a reader to judge: a gap, or harmless.
 */
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { Glob } from "bun";
import { TEST_TIMEOUT_MS } from "../e2e/support/wait.ts";
import { importsOf, quickFiles } from "../run.ts";
import { allMutants, type Mutant } from "./mutants.ts";

const ROOT = join(import.meta.dir, "../..");
/** Quick files that import a source, beside those that mirror it. */
const OTHERS_MAX = 15;
/** A mutant hangs when its tests take so much longer than without it. */
const SLOWER = 3;
const SLOWER_MS = 15_000;
/** Of data, for a mutant that allocates without end. */
const DATA_BYTES_MAX = 16 * 2 ** 30;

const { values, positionals } = parseArgs({
  options: {
    seed: { type: "string", default: "1" },
    mutants: { type: "string", default: "40" },
    minutes: { type: "string", default: "10" },
  },
  allowPositionals: true,
});

/** Sources among what was named. */
const sources = positionals
  .flatMap((name) => [name, ...new Glob(join(name, "**/*.ts")).scanSync(ROOT)])
  .filter((file) => file.endsWith(".ts") && !file.endsWith(".d.ts"));

/** Files that a file imports, directly or not. */
function allImportsOf(file: string, found = new Set<string>()): Set<string> {
  for (const name of importsOf(file)) {
    if (found.has(name)) continue;
    found.add(name);
    allImportsOf(name, found);
  }
  return found;
}

/** Those that import least first: they are about it most. */
const quick = quickFiles()
  .map((path) => ({ path, imports: allImportsOf(path) }))
  .sort((one, other) => one.imports.size - other.imports.size);

/** The tests for a source file, those that mirror it first. */
function testsOf(file: string): string[][] {
  const stem = basename(file, ".ts");
  const folder = join("test", dirname(file).replace(/^src(\/|$)/, ""));
  const mirrors = [...new Glob(`${stem}{,.*}.test.ts`).scanSync(join(ROOT, folder))].map((name) =>
    join(folder, name),
  );
  const others = quick.flatMap(({ path, imports }) =>
    imports.has(file) && !mirrors.includes(path) ? [path] : [],
  );
  return [mirrors.sort(), others.slice(0, OTHERS_MAX)].filter(({ length }) => length > 0);
}

const deadlineMs = performance.now() + 60_000 * Number(values.minutes);
const isOver = () => performance.now() > deadlineMs;

const copy = mkdtempSync(join(tmpdir(), "beacon-mutants-"));
process.on("exit", () => rmSync(copy, { recursive: true, force: true }));
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => process.exit(1));

function makeCopy(): void {
  const listed = Bun.spawnSync(
    ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
    {
      cwd: ROOT,
    },
  );
  for (const file of listed.stdout.toString().split("\0").filter(Boolean))
    if (existsSync(join(ROOT, file))) cpSync(join(ROOT, file), join(copy, file));
  symlinkSync(join(ROOT, "node_modules"), join(copy, "node_modules"));
}

const limited = Bun.which("prlimit") === null ? [] : ["prlimit", `--data=${DATA_BYTES_MAX}`];

/** Runs tests in the copy. @returns how they ended, and how long they took */
async function run(
  tests: readonly string[],
  limitMs: number,
): Promise<{ end: "passed" | "failed" | "hung"; ms: number }> {
  const command = [
    ...limited,
    process.execPath,
    "test",
    "--timeout",
    `${TEST_TIMEOUT_MS}`,
    "--bail=1",
    "--parallel=2",
  ];
  const startMs = performance.now();
  const child = Bun.spawn([...command, ...tests.map((path) => `./${path}`)], {
    ...{ cwd: copy, stdio: ["ignore", "ignore", "ignore"], detached: true },
  });
  let hung = false;
  const timer = setTimeout(
    () => {
      hung = true;
      process.kill(-child.pid, "SIGKILL"); // with its workers
    },
    Math.max(1, Math.min(limitMs, deadlineMs - startMs)),
  );
  const code = await child.exited;
  clearTimeout(timer);
  return { end: hung ? "hung" : code === 0 ? "passed" : "failed", ms: performance.now() - startMs };
}

const limits = new Map<string, number | undefined>();

/** How long these tests may take; undefined if they fail without a mutant, and so tell nothing. */
async function limitOf(tests: readonly string[]): Promise<number | undefined> {
  const key = tests.join(" ");
  if (limits.has(key)) return limits.get(key);
  const { end, ms } = await run(tests, 10 * 60_000);
  if (end !== "passed") console.log(`left out, as they fail without a mutant: ${key}`);
  limits.set(key, end === "passed" ? SLOWER * ms + SLOWER_MS : undefined);
  return limits.get(key);
}

/** Outcomes of a mutant. */
async function judge({ file, start, end, by }: Mutant): Promise<"caught" | "hung" | "missed"> {
  const source = readFileSync(join(copy, file), "utf8");
  for (const tests of testsOf(file)) {
    const limitMs = await limitOf(tests);
    if (limitMs === undefined) continue;
    writeFileSync(join(copy, file), source.slice(0, start) + by + source.slice(end));
    try {
      const { end } = await run(tests, limitMs);
      if (end !== "passed") return end === "hung" ? "hung" : "caught";
    } finally {
      writeFileSync(join(copy, file), source);
    }
  }
  return "missed";
}

const shown = ({ file, line, start, end, by }: Mutant) => {
  const source = readFileSync(join(copy, file), "utf8");
  const text =
    source.slice(start, end) || source.slice(source.lastIndexOf("\n", start - 1) + 1, start).trim();
  const short = text.length > 60 ? `${text.slice(0, 57)}...` : text;
  return `${file}:${line}: ${short.replaceAll("\n", " ")} → ${by.length > 60 ? "negated" : by}`;
};

if (sources.length === 0)
  throw new Error("name the files or folders to mutate, such as src/shared");
makeCopy();
/** By chance, and the same for the same seed. */
const orderOf = (mutant: Mutant) => Bun.hash(`${values.seed} ${JSON.stringify(mutant)}`);
const chosen = (await allMutants(copy, sources))
  .sort((one, other) => (orderOf(one) < orderOf(other) ? -1 : 1))
  .slice(0, Number(values.mutants));
const score = new Map<string, { caught: number; hung: number; missed: number }>();
for (const mutant of chosen) {
  const outcome = await judge(mutant);
  if (isOver()) {
    console.log("stopped: the minutes are over");
    break;
  }
  const folder = dirname(mutant.file);
  const counts = score.get(folder) ?? { caught: 0, hung: 0, missed: 0 };
  counts[outcome]++;
  score.set(folder, counts);
  console.log(`${outcome.padEnd(6)} ${shown(mutant)}`);
}
for (const [folder, counts] of [...score].sort()) console.log(folder, JSON.stringify(counts));
process.exit(0);
