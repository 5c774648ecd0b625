/** What is delivered with the binary, whatever it is packed into. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Target } from "../../build.ts";
import { buildBinary } from "../../build.ts";
import { completion } from "../../src/cli/completion.ts";
import { createProgram, SHELLS, type Shell } from "../../src/cli/program.ts";
import { bundled, type Component, notices } from "./bundle.ts";
import { manPage } from "./man.ts";
import { ROOT, VERSION } from "./release.ts";

export interface Contents {
  readonly target: Target;
  /** Of everything, in Unix seconds. */
  readonly timeS: number;
  readonly binary: Uint8Array;
  /** For a binary in /usr/local/bin. */
  readonly unit: string;
  readonly manPage: string;
  readonly completions: ReadonlyMap<Shell, string>;
  readonly license: string;
  readonly notices: string;
  readonly readme: string;
  readonly changelog: string;
  readonly components: readonly Component[];
}

/** @param folder an empty one, to build in @throws Error if the build fails */
export async function contents(target: Target, timeS: number, folder: string): Promise<Contents> {
  const outfile = join(folder, "beacon"); // always this name: the bundler writes it into the binary
  if (!buildBinary(outfile, target))
    throw new Error(`the build for ${target} failed; what the bundler said is above`);
  const text = (path: string) => readFileSync(join(ROOT, path), "utf8");
  const components = await bundled(target);
  return {
    target,
    timeS,
    binary: readFileSync(outfile),
    unit: text("deploy/pilot-beacon.service"),
    manPage: manPage(VERSION, new Date(timeS * 1000).toISOString().slice(0, 10), createProgram()),
    completions: new Map(SHELLS.map((shell) => [shell, completion(shell)])),
    license: text("LICENSE"),
    notices: notices(components),
    readme: text("README.md"),
    changelog: text("CHANGELOG.md"),
    components,
  };
}
