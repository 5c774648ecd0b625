/**
 * Makes the single-file binary: `bun run build`, or `bun run build x64 arm64` for named targets.
 * The result needs no Bun and no other file; it is dist/beacon for this machine,
 * dist/beacon-linux-<target> for a named one.
 */
export const TARGETS = ["x64", "arm64", "x64-musl", "arm64-musl"] as const;
export type Target = (typeof TARGETS)[number];

/**
 * The files that threads start from (src/thread-entries.ts) are entry points, so that the binary
 * carries them by their paths.
 */
export const ENTRY_POINTS = [
  "src/main.ts",
  "src/data/worker.ts",
  "src/control/log/output-thread.ts",
  "src/control/nodes/files-thread.ts",
];

const ROOT = import.meta.dir;

/**
 * Compiles the beacon into one file, for this machine unless a target is named.
 * @returns whether that worked
 */
export function buildBinary(outfile: string, target?: Target): boolean {
  const build = Bun.spawnSync(
    [
      process.execPath,
      "build",
      "--compile",
      "--minify-syntax",
      // A chunk for each dynamic import: the entry registers its signal handlers 5 ms after exec,
      // and not 60 to 200 ms.
      "--splitting",
      // The runtime ends with an error where the working directory was removed, unless it is told
      // which one it is in.
      "--compile-exec-argv=--cwd=/proc/self/cwd",
      // Else some packages' folder on this machine would be written into the binary. They want it
      // for threads that nobody starts.
      '--define=__dirname="/"',
      // Else the binary runs code and takes settings of files in the working directory, whoever put
      // them there.
      "--no-compile-autoload-dotenv",
      "--no-compile-autoload-bunfig",
      "--no-compile-autoload-tsconfig",
      "--no-compile-autoload-package-json",
      ...(target === undefined ? [] : [`--target=bun-linux-${target}`]),
      ...ENTRY_POINTS,
      `--outfile=${outfile}`,
    ],
    { cwd: ROOT, stdout: "inherit", stderr: "inherit" },
  );
  return build.success;
}

/** @throws Error for a name that is no target's */
export function targetNamed(name: string): Target {
  const target = TARGETS.find((each) => each === name);
  if (target === undefined)
    throw new Error(`${name}: unknown target; there are ${TARGETS.join(", ")}`);
  return target;
}

function main(names: readonly string[]): boolean {
  try {
    const targets = names.length === 0 ? [undefined] : names.map(targetNamed);
    return targets.every((target) =>
      buildBinary(`${ROOT}/dist/beacon${target === undefined ? "" : `-linux-${target}`}`, target),
    );
  } catch (error) {
    console.error(`build: ${(error as Error).message}`);
    process.exit(2);
  }
}

if (import.meta.main && !main(process.argv.slice(2))) process.exit(1);
