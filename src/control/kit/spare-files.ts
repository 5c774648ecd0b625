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

  /** Closes all if there are `count`. @returns false, and changes nothing, otherwise */
  release(count: number): boolean {
    if (count > this.#fds.length) return false;
    this.close();
    return true;
  }

  close(): void {
    for (const fd of this.#fds.splice(0)) closeSync(fd);
  }
}
