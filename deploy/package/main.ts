/**
 * Makes what is published: `bun run package`, or `bun run package x64 arm64` for some machines
 * only. For each, a tarball and a bill of materials; for glibc's, a Debian package, and together a
 * container image; then SHA256SUMS. The same sources, and for the image the same glibc, make the
 * same bytes.
 */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { Command } from "commander";
import { TARGETS, type Target, targetNamed } from "../../build.ts";
import { type Contents, contents } from "./contents.ts";
import { deb, debName } from "./deb.ts";
import { IMAGE_NAME, image } from "./image.ts";
import { fetchLibc } from "./libc.ts";
import { MACHINES, NAME, ROOT, releaseTimeS, VERSION } from "./release.ts";
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
    await published.write(
      `${NAME}-${VERSION}-linux-${target}.cdx.json`,
      sbom(target, all.components, timeS),
    );
    const name = debName(all);
    if (name !== undefined) await published.write(name, deb(all));
    return all;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

interface Options {
  readonly out: string;
  readonly image: boolean;
}

async function main(names: readonly string[], options: Options): Promise<void> {
  const targets = names.length === 0 ? TARGETS : names.map(targetNamed);
  const timeS = releaseTimeS(process.env);
  const published = new Published(resolve(options.out));
  const parts: Parameters<typeof image>[0][number][] = [];
  for (const target of targets) {
    const all = await make(target, timeS, published);
    const { debian } = MACHINES[target];
    if (options.image && debian) parts.push({ contents: all, libc: fetchLibc(debian) });
  }
  if (parts.length > 0) await published.write(IMAGE_NAME, image(parts));
  await published.writeSums();
}

const program = new Command("package")
  .description("Makes tarballs, Debian packages, a container image and bills of materials.")
  .argument("[target...]", `of ${TARGETS.join(", ")}; all unless given`)
  .option("--out <folder>", "where to put them", `${ROOT}/dist/packages`)
  .option(
    "--no-image",
    "make no container image, which takes apt and a mirror of Debian's packages",
  )
  .action(main);
try {
  await program.parseAsync();
} catch (error) {
  console.error(`package: ${(error as Error).message}`);
  process.exit(1);
}
