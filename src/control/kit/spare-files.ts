/** File descriptors that are held so that some can be let go when there are no others. */
import { closeSync, openSync } from "node:fs";

export class SpareFiles {
  readonly #fds: number[] = [];

  /** @param size how many are held if there are as many */
  constructor(private readonly size: number) {}

  /** Opens those that are missing, as far as that goes. */
  hold(): void {
    try {
      while (this.#fds.length < this.size) this.#fds.push(openSync("/dev/null", "r"));
    } catch {} // EMFILE or ENFILE: another time
  }

  /**
   * Closes all, for somebody who needs `count` and is not alone.
   * @returns false if there are not that many, and nothing changed
   */
  release(count: number): boolean {
    if (count > this.#fds.length) return false;
    this.close();
    return true;
  }

  close(): void {
    for (const fd of this.#fds.splice(0)) closeSync(fd);
  }
}
