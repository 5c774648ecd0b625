/**
 * What is in a binary beside the beacon's own sources: the runtime, and the npm packages that the
 * bundler took in.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Target } from "../../build.ts";
import { ENTRY_POINTS } from "../../build.ts";
import { MACHINES, ROOT } from "./release.ts";

export interface Component {
  /** As npm has it. */
  readonly name: string;
  readonly version: string;
  /** An SPDX expression. */
  readonly license: string;
  /** As package-lock.json has it: the hash's name, a dash, and the hash in base64. */
  readonly integrity: string;
  /** Its licence's text, if the package brings one. */
  readonly licenseText: string | undefined;
}

type Lock = Readonly<Record<string, { version: string; license?: string; integrity?: string }>>;

function component(lock: Lock, folder: string): Component {
  const { version, license, integrity } = lock[folder] ?? {};
  if (version === undefined || license === undefined || integrity === undefined)
    throw new Error(
      `package-lock.json does not tell version, license and integrity of ${folder}: run npm install`,
    );
  const file = ["LICENSE", "LICENSE.md", "LICENSE.txt", "license", "LICENCE"]
    .map((name) => join(ROOT, folder, name))
    .find(existsSync);
  const licenseText = file === undefined ? undefined : readFileSync(file, "utf8").trim();
  return { name: folder.replace(/.*node_modules\//, ""), version, license, integrity, licenseText };
}

/**
 * The runtime first, then the packages by name.
 * @throws Error if package-lock.json does not know one
 */
export async function bundled(target: Target): Promise<Component[]> {
  const lock = (
    JSON.parse(readFileSync(join(ROOT, "package-lock.json"), "utf8")) as { packages: Lock }
  ).packages;
  // The bundler's own account, for not all that is installed is used: pino-pretty brings packages
  // for its command line.
  const { metafile } = await Bun.build({
    // The page is bundled by itself, and carried as text.
    entrypoints: [...ENTRY_POINTS, "src/page/app.ts"].map((path) => join(ROOT, path)),
    target: "bun",
    metafile: true,
  });
  const folders = Object.keys(metafile!.inputs).flatMap(
    (path) =>
      /(?:^|\/)((?:node_modules\/(?:@[^/]+\/)?[^/]+\/)+)/.exec(path)?.[1]?.slice(0, -1) ?? [],
  );
  const packages = [...new Set(folders)].sort().map((folder) => component(lock, folder));
  return [component(lock, `node_modules/${MACHINES[target].runtime}`), ...packages];
}

/** What the packages' licences want to be told to whoever gets a binary. */
export function notices(components: readonly Component[]): string {
  const texts = components.map(({ name, version, license, licenseText }) => {
    const headline = `${name} ${version} (${license})`;
    return `${headline}\n${"-".repeat(headline.length)}\n\n${licenseText ?? "The package brings no text of its licence."}\n`;
  });
  return [
    "What the program beacon contains beside its own sources, and under which licences.\n",
    "Bun's runtime contains JavaScriptCore and other libraries, among them some under the LGPL-2.1; the documents of Bun's\nrelease of this version list them, and tell how to link it anew.\n",
    ...texts,
  ].join("\n");
}
