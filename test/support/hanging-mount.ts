/**
 * A mounted file system that a test can make hang, as NFS does whose server is gone;
 * support/hanging_mount.py serves it.
 */
import { existsSync, mkdtempSync, rmdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { installed, Program } from "../e2e/support/program.ts";

const SERVER = join(import.meta.dir, "hanging_mount.py");

export class HangingMount {
  readonly #program: Program;

  private constructor(readonly folder: string) {
    this.#program = Program.spawn(["python3", SERVER, folder], { stdin: "pipe" });
  }

  static async mount(): Promise<HangingMount> {
    const mount = new HangingMount(mkdtempSync(join(tmpdir(), "beacon-hanging-")));
    await mount.#answer();
    return mount;
  }

  /** Why tests with one are skipped, for their names; undefined if they can run. */
  static get missing(): string | undefined {
    if (!installed("python3")) return "needs python3";
    if (process.getuid?.() !== 0) return "needs root";
    if (!existsSync("/dev/fuse")) return "needs /dev/fuse";
    const folder = mkdtempSync(join(tmpdir(), "beacon-hanging-"));
    // Without input it ends once it has mounted.
    const { success } = Bun.spawnSync(["python3", SERVER, folder], {
      stdin: "ignore",
      stderr: "ignore",
    });
    rmdirSync(folder);
    return success ? undefined : "needs to mount";
  }

  /** Lets all calls hang from now on. */
  hang(): Promise<string> {
    return this.#command("hang");
  }

  /** Answers calls again, and those that hung. */
  go(): Promise<string> {
    return this.#command("go");
  }

  /** The bytes of each file, by its name. */
  async list(): Promise<Record<string, number>> {
    return JSON.parse(await this.#command("list")) as Record<string, number>;
  }

  async unmount(): Promise<void> {
    this.#program.signal("SIGTERM");
    await this.#program.exited();
    rmdirSync(this.folder);
  }

  async #command(command: string): Promise<string> {
    const from = this.#program.lines.length;
    await this.#program.write(command);
    return this.#answer(from);
  }

  #answer(from = 0): Promise<string> {
    return this.#program.line("an answer of the mount", (line) => line, from);
  }
}
