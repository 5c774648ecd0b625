/**
 * Numbers that the kernel may not have: gVisor and kernels before 4.12 lack SO_MEMINFO, a container
 * may have no /proc. Such a number is missing where numbers are shown, and everything else goes on.
 */
import type { Logger } from "pino";

export class Readings {
  readonly #missing = new Set<string>();

  constructor(private readonly log: Pick<Logger, "warn">) {}

  /** @returns null if it cannot be read, which is logged the first time */
  read(name: string, read: () => number): number | null {
    try {
      return read();
    } catch (error) {
      if (!this.#missing.has(name)) {
        this.#missing.add(name);
        this.log.warn(
          `${name} cannot be read and is missing in the statistics: ${(error as Error).message}`,
        );
      }
      return null;
    }
  }
}
