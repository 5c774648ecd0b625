/**
 * Makes the single-file binary: `bun run build`, or `bun run build x64 arm64` for named targets. The result needs no Bun
 * and no other file; it is dist/beacon for this machine, dist/beacon-linux-<target> for a named one.
 */
const TARGETS = ["x64", "arm64"] as const;

/** The worker is a second entry point, so that the binary carries it and `new Worker` finds it by its path. */
const ENTRY_POINTS = ["src/main.ts", "src/data/worker.ts"];

const ROOT = import.meta.dir;

/** Compiles the beacon into one file, for this machine unless a target is named. @returns whether that worked */
export function buildBinary(outfile: string, target?: string): boolean {
  const build = Bun.spawnSync(
    [
      process.execPath,
      "build",
      "--compile",
      "--minify-syntax",
      ...(target === undefined ? [] : [`--target=bun-linux-${target}`]),
      ...ENTRY_POINTS,
      `--outfile=${outfile}`,
    ],
    { cwd: ROOT, stdout: "inherit", stderr: "inherit" },
  );
  return build.success;
}

if (import.meta.main) {
  const names = process.argv.slice(2);
  for (const name of names) {
    if (!TARGETS.some((target) => target === name)) {
      console.error(`build: ${name}: unknown target; there are ${TARGETS.join(" and ")}`);
      process.exit(2);
    }
  }
  for (const name of names.length === 0 ? [undefined] : names) {
    const outfile = `${ROOT}/dist/beacon${name === undefined ? "" : `-linux-${name}`}`;
    if (!buildBinary(outfile, name)) process.exit(1);
  }
}
