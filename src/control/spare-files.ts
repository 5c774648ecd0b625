/** File descriptors that are held so that they can be let go when there are no others. */
import { closeSync, openSync } from "node:fs";

export class SpareFiles {
  readonly #fds: number[] = [];

  constructor(private readonly count: number) {}

  /** Opens those that are missing. @returns whether all are there now */
  hold(): boolean {
    try {
      while (this.#fds.length < this.count) this.#fds.push(openSync("/dev/null", "r"));
      return true;
    } catch {
      return false; // EMFILE or ENFILE
    }
  }

  release(): void {
    for (const fd of this.#fds.splice(0)) closeSync(fd);
  }
}
