/**
 * Files that are kept for when there are no others. Whoever opens sockets at the bridge's door and says nothing takes a file each, before
 * anything can be asked of it; once the process has none left, nothing else can be opened either, and Bun's accept loop, which tries
 * again and again, takes all of the main thread's core (Bun 1.4.5). So the bridge stops listening before that, and if the flood was
 * faster, what is spare is given back for the rest of the beacon to go on with.
 */
import { closeSync, openSync, readdirSync, statSync } from "node:fs";

/** For HTTP, the registry, names, the state file. */
const SPARE = 64;
/** When fewer are left, the bridge gets no more. */
const LEFT_MIN = 64;
/** When so many are left again, it does. */
const LEFT_AGAIN = LEFT_MIN + 2 * SPARE;

export class SpareFiles {
  readonly #spare: number[] = [];
  #areShort = false;

  /** @param filesMax files that the process may have open; Infinity if that is not known */
  constructor(private readonly filesMax: number) {
    this.#take();
  }

  /** Whether files are too few for more connections. To be asked about every second. */
  areShort(): boolean {
    const left = this.filesMax - openFiles();
    if (left < LEFT_MIN) {
      this.#areShort = true;
      this.release();
    } else if (this.#areShort && left >= LEFT_AGAIN) {
      this.#areShort = false;
      this.#take();
    }
    return this.#areShort;
  }

  release(): void {
    for (const fd of this.#spare.splice(0)) closeSync(fd);
  }

  #take(): void {
    if (this.filesMax === Number.POSITIVE_INFINITY) return;
    try {
      while (this.#spare.length < SPARE) this.#spare.push(openSync("/dev/null", "r"));
    } catch {
      this.release(); // there are too few even at rest, of which the beacon warns
    }
  }
}

/** How many this process has open. */
function openFiles(): number {
  try {
    // The size of the folder is their number, from Linux 6.2 on.
    return statSync("/proc/self/fd").size || readdirSync("/proc/self/fd").length;
  } catch {
    return Number.POSITIVE_INFINITY; // there is none left to read the folder with
  }
}
