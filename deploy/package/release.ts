/** What is packaged: which version, as of when, and for which machines. */
import type { Target } from "../../build.ts";
import manifest from "../../package.json" with { type: "json" };

export const {
  name: NAME,
  version: VERSION,
  license: LICENSE,
  description: DESCRIPTION,
} = manifest;

export const ROOT = `${import.meta.dir}/../..`;

/** A target as others name it. Debian and container images have the glibc builds alone. */
interface Machine {
  /** The runtime inside, as its npm package is called. */
  readonly runtime: string;
  /**
   * Debian's name and that of OCI for the processor, where there is a package and an image for it.
   */
  readonly debian?: "amd64" | "arm64";
}

export const MACHINES: Readonly<Record<Target, Machine>> = {
  x64: { runtime: "@oven/bun-linux-x64", debian: "amd64" },
  arm64: { runtime: "@oven/bun-linux-aarch64", debian: "arm64" },
  "x64-musl": { runtime: "@oven/bun-linux-x64-musl" },
  "arm64-musl": { runtime: "@oven/bun-linux-aarch64-musl" },
};

/**
 * The time that everything in the packages bears, in Unix seconds, so that the same sources make
 * the same bytes: SOURCE_DATE_EPOCH, or that of the last commit.
 * @throws Error if there is neither
 */
export function releaseTimeS(env: Readonly<Record<string, string | undefined>>): number {
  const given = env["SOURCE_DATE_EPOCH"];
  const text =
    given ??
    Bun.spawnSync(["git", "log", "-1", "--format=%ct"], { cwd: ROOT, stderr: "ignore" })
      .stdout.toString()
      .trim();
  if (!/^\d+$/.test(text))
    throw new Error(
      given === undefined
        ? "this is no git checkout: set SOURCE_DATE_EPOCH to the time of the release, in Unix seconds"
        : `SOURCE_DATE_EPOCH=${given}: must be a time in Unix seconds`,
    );
  return Number(text);
}
