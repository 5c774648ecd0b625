/** A wall clock that one process sees moved: clock.c, preloaded. */
import { openSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";

const SOURCE = new URL("clock.c", import.meta.url).pathname;

const OFFSET_BYTES = 8;

export class MovableClock {
  private constructor(
    /** What a process finds in its environment that lives by this clock. */
    readonly env: Record<string, string>,
    private readonly offsetFd: number,
  ) {}

  /**
   * @returns undefined where there is no C compiler.
   * @throws Error if there is one, and it fails
   */
  static make(folder: string): MovableClock | undefined {
    if (Bun.which("cc") === null) return undefined;
    const library = join(folder, "clock.so");
    const command = ["cc", "-O2", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"];
    const { success, stderr } = Bun.spawnSync(command, { stderr: "pipe" });
    if (!success) throw new Error(`${command.join(" ")}: ${stderr}`);
    const offsetFile = join(folder, "clock-offset");
    writeFileSync(offsetFile, new Uint8Array(OFFSET_BYTES));
    const env = { LD_PRELOAD: library, CLOCK_OFFSET_FILE: offsetFile };
    return new MovableClock(env, openSync(offsetFile, "r+"));
  }

  /**
   * Sets it to so many seconds after the host's clock; less than 0 is before. Processes have the
   * file mapped, so at once.
   */
  move(offsetS: number): void {
    const bytes = new BigInt64Array([BigInt(offsetS)]); // in the machine's byte order
    writeSync(this.offsetFd, new Uint8Array(bytes.buffer), 0, OFFSET_BYTES, 0);
  }
}
