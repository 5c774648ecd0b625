/**
 * glibc for container images, out of Debian's package libc6: fetched by apt from the mirrors that
 * this host is set up with, and as apt does it, signatures and all, but with lists of its own, so
 * that no right and no foreign architecture is needed.
 */
import { globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Entry } from "./tar.ts";

export interface Libc {
  /** Of Debian's package. */
  readonly version: string;
  /** The files, where the binary and the dynamic linker look for them, and the licence. */
  readonly files: readonly Entry[];
}

/** What the binary names as its interpreter, and the folder where that looks for libraries. */
const PLACES = {
  amd64: { linker: "lib64/ld-linux-x86-64.so.2", libraries: "lib/x86_64-linux-gnu" },
  arm64: { linker: "lib/ld-linux-aarch64.so.1", libraries: "lib/aarch64-linux-gnu" },
} as const;

/**
 * What the binary is linked with (readelf --dynamic), and that is all: names are looked up within
 * libc.so.6 itself.
 */
const LIBRARIES = ["libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0"];

function run(command: readonly string[], cwd: string): string {
  if (Bun.which(command[0]!) === null)
    throw new Error(
      `${command[0]} is not there: container images are made on Debian or Ubuntu, use --no-image elsewhere`,
    );
  const { success, stdout, stderr } = Bun.spawnSync([...command], { cwd, stderr: "pipe" });
  if (!success) throw new Error(`${command.join(" ")} failed: ${stderr.toString().trim()}`);
  return stdout.toString().trim();
}

/** @throws Error if there is no apt, no mirror, or the package is not as expected */
export function fetchLibc(architecture: keyof typeof PLACES): Libc {
  const folder = mkdtempSync(join(tmpdir(), "beacon-libc-"));
  try {
    for (const path of ["state/lists/partial", "cache/archives/partial"])
      mkdirSync(join(folder, path), { recursive: true });
    writeFileSync(join(folder, "status"), ""); // nothing is installed, as far as this apt knows
    const options = {
      "APT::Architecture": architecture,
      "APT::Sandbox::User": "", // it may not write here
      "Dir::State": join(folder, "state"),
      "Dir::State::status": join(folder, "status"),
      "Dir::Cache": join(folder, "cache"),
      "Acquire::Languages": "none",
    };
    const apt = (...words: string[]) =>
      run(
        [
          "apt-get",
          "-qq",
          ...Object.entries(options).map(([name, value]) => `-o${name}=${value}`),
          ...words,
        ],
        folder,
      );
    apt("update");
    apt("download", "libc6");
    const [file] = globSync("libc6_*.deb", { cwd: folder });
    if (file === undefined)
      throw new Error("apt-get download libc6 left no package: look at this host's apt sources");
    run(["dpkg-deb", "--extract", file, "root"], folder);
    const { linker, libraries } = PLACES[architecture];
    /** Whichever side of /usr the package has it on. */
    const entry = (path: string, name: string, mode: number): Entry => {
      const [found] = globSync(`root/{,usr/}${libraries}/${name}`, { cwd: folder });
      if (found === undefined)
        throw new Error(`${file} has no ${name}: adapt deploy/package/libc.ts`);
      return { path, data: readFileSync(join(folder, found)), mode };
    };
    const license = readFileSync(join(folder, "root/usr/share/doc/libc6/copyright"));
    return {
      version: run(["dpkg-deb", "--field", file, "Version"], folder),
      files: [
        entry(linker, linker.replace(/.*\//, ""), 0o755),
        ...LIBRARIES.map((name) => entry(`${libraries}/${name}`, name, 0o644)),
        { path: "usr/share/doc/libc6/copyright", data: license },
      ],
    };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
