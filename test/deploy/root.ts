/**
 * Another root for programs: a file system of which nothing that is written stays, and commands
 * that see only it.
 */
import { mkdirSync, mkdtempSync } from "node:fs";
import { join } from "node:path";
import type { Program, Programs } from "../e2e/support/program.ts";

export const PATH = "/usr/sbin:/usr/bin:/sbin:/bin";

/**
 * $1: an empty folder; $2: what the root begins as; $3: a folder that is seen at /mnt. Ends when it
 * is killed, and the mounts with it.
 */
const MOUNT = `
  mount -t tmpfs tmpfs "$1" && mkdir "$1/upper" "$1/work" "$1/root" &&
  mount -t overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" overlay "$1/root" &&
  mkdir -p "$1/root/proc" "$1/root/dev" "$1/root/run" "$1/root/mnt" &&
  mount --rbind /proc "$1/root/proc" && mount --rbind /dev "$1/root/dev" &&
  mount -t tmpfs tmpfs "$1/root/run" && mount --bind "$3" "$1/root/mnt" &&
  echo mounted && exec sleep infinity
`;

export class Root {
  private constructor(
    private readonly mounts: Program,
    private readonly path: string,
  ) {}

  /**
   * @param lower what the root begins as
   * @param shared a folder that is seen at /mnt
   * @param scratch where a folder may be made
   */
  static async mount(
    programs: Programs,
    lower: string,
    shared: string,
    scratch: string,
  ): Promise<Root> {
    const room = mkdtempSync(join(scratch, "room-"));
    mkdirSync(shared, { recursive: true });
    const unshare = ["unshare", "--mount", "--propagation=private", "sh", "-c", MOUNT, "sh"];
    const mounts = programs.spawn([...unshare, room, lower, shared]);
    await mounts.line("mounted", (line) => (line === "mounted" ? true : undefined));
    return new Root(mounts, join(room, "root"));
  }

  /** Where one of its files is from out here. */
  outside(path: string): string {
    return `/proc/${this.mounts.pid}/root${this.path}${path}`;
  }

  /** A command that runs another one in here. @param user a number; root unless given */
  command(words: readonly string[], user = 0): string[] {
    const enter = ["nsenter", "--mount", `--target=${this.mounts.pid}`];
    return [...enter, "chroot", `--userspec=${user}:${user}`, this.path, ...words];
  }

  run(...words: string[]): { code: number; output: string } {
    const env = { PATH, DEBIAN_FRONTEND: "noninteractive" };
    const { exitCode, stdout, stderr } = Bun.spawnSync(this.command(words), {
      env,
      stderr: "pipe",
    });
    return { code: exitCode, output: `${stdout}${stderr}` };
  }

  /** Runs a line of shell. @throws Error if it fails */
  sh(line: string, ...args: string[]): string {
    const { code, output } = this.run("sh", "-ec", line, "sh", ...args);
    if (code !== 0) throw new Error(`${line}: ${output}`);
    return output.trim();
  }
}

/** Why no other root can be had here, or undefined. */
export function obstacleToRoots(): string | undefined {
  if (process.getuid?.() !== 0) return "needs root";
  const missing = ["unshare", "nsenter", "chroot"].find((command) => Bun.which(command) === null);
  if (missing !== undefined) return `needs ${missing}`;
  const probe = Bun.spawnSync(["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], {
    stderr: "ignore",
  });
  return probe.success ? undefined : "needs the right to mount";
}
