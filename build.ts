/**
 * Makes the single-file binary: `bun run build`, or `bun run build x64 arm64` for named targets. The result needs no Bun
 * and no other file; it is dist/beacon for this machine, dist/beacon-linux-<target> for a named one.
 */
const TARGETS = ["x64", "arm64"] as const;

/** The worker is a second entry point, so that the binary carries it and `new Worker` finds it by its path. */
const ENTRY_POINTS = ["src/main.ts", "src/data/worker.ts"];

const names = process.argv.slice(2);
for (const name of names) {
  if (!TARGETS.some((target) => target === name)) {
    console.error(`build: ${name}: unknown target; there are ${TARGETS.join(" and ")}`);
    process.exit(2);
  }
}
const root = import.meta.dir;
for (const name of names.length === 0 ? [undefined] : names) {
  const outfile = `${root}/dist/beacon${name === undefined ? "" : `-linux-${name}`}`;
  const target = name === undefined ? [] : [`--target=bun-linux-${name}`];
  const build = Bun.spawnSync(
    [
      process.execPath,
      "build",
      "--compile",
      "--minify-syntax",
      ...target,
      ...ENTRY_POINTS,
      `--outfile=${outfile}`,
    ],
    { cwd: root, stdout: "inherit", stderr: "inherit" },
  );
  if (!build.success) process.exit(1);
}
