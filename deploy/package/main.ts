/**
 * Makes what is published: `bun run package`, or `bun run package x64 arm64` for some machines only. For each, a tarball and a
 * bill of materials; for glibc's, a Debian package; then SHA256SUMS. The same sources make the same bytes.
 */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { Command } from "commander";
import { TARGETS, type Target, targetNamed } from "../../build.ts";
import { type Contents, contents } from "./contents.ts";
import { deb, debName } from "./deb.ts";
import { NAME, ROOT, releaseTimeS, VERSION } from "./release.ts";
import { sbom } from "./sbom.ts";
import { tarball, tarballName } from "./tarball.ts";

/** Files by name, in the folder that they are published in. */
class Published {
  readonly #sums = new Map<string, string>();

  constructor(private readonly folder: string) {
    mkdirSync(folder, { recursive: true });
  }

  async write(name: string, data: Uint8Array | string): Promise<void> {
    await Bun.write(join(this.folder, name), data);
    this.#sums.set(name, new Bun.CryptoHasher("sha256").update(data).digest("hex"));
    console.log(`${join(this.folder, name)}  ${(data.length / 1_000_000).toFixed(1)} MB`);
  }

  /** As `sha256sum --check` reads it. */
  async writeSums(): Promise<void> {
    const lines = [...this.#sums]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, sum]) => `${sum}  ${name}\n`);
    await this.write("SHA256SUMS", lines.join(""));
  }
}

async function make(target: Target, timeS: number, published: Published): Promise<Contents> {
  const folder = mkdtempSync(join(tmpdir(), "beacon-package-"));
  try {
    const all = await contents(target, timeS, folder);
    await published.write(tarballName(all), tarball(all));
    await published.write(`${NAME}-${VERSION}-linux-${target}.cdx.json`, sbom(target, all.components, timeS));
    const name = debName(all);
    if (name !== undefined) await published.write(name, deb(all));
    return all;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function main(names: readonly string[], { out }: { readonly out: string }): Promise<void> {
  const targets = names.length === 0 ? TARGETS : names.map(targetNamed);
  const timeS = releaseTimeS(process.env);
  const published = new Published(resolve(out));
  for (const target of targets) await make(target, timeS, published);
  await published.writeSums();
}

const program = new Command("package")
  .description("Makes tarballs, Debian packages and bills of materials.")
  .argument("[target...]", `of ${TARGETS.join(", ")}; all unless given`)
  .option("--out <folder>", "where to put them", `${ROOT}/dist/packages`)
  .action(main);
try {
  await program.parseAsync();
} catch (error) {
  console.error(`package: ${(error as Error).message}`);
  process.exit(1);
}
