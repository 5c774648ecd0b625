/**
 * Whether there are files for more connections. Whoever opens sockets at the bridge's door and says nothing takes a file each, before
 * anything can be asked of it; once the process has none left, nothing else can be opened either, and Bun's accept loop, which tries
 * again and again, takes all of the main thread's core (Bun 1.4.5). So the bridge stops listening before that, and if the flood was
 * faster, what is spare is let go for HTTP, the registry, names and the state file.
 */
import { readdirSync, statSync } from "node:fs";
import { SpareFiles } from "../spare-files.ts";

const SPARE = 64;
/** When fewer are left, the bridge gets no more. */
const LEFT_MIN = 64;
/** When so many are left again, it does. */
const LEFT_AGAIN = LEFT_MIN + 2 * SPARE;

export class FilesLeft {
  readonly #spare = new SpareFiles(SPARE);
  #areShort = false;

  /**
   * @param filesMax files that the process may have open; Infinity if that is not known
   * @param openFiles how many it has
   */
  constructor(
    private readonly filesMax: number,
    private readonly openFiles: () => number = countOpenFiles,
  ) {
    this.#hold();
  }

  /** Whether they are too few for more connections. To be asked about every second. */
  areShort(): boolean {
    const left = this.filesMax - this.openFiles();
    if (left < LEFT_MIN) {
      this.#areShort = true;
      this.#spare.close();
    } else if (left >= LEFT_AGAIN) {
      this.#areShort = false;
      this.#hold();
    }
    return this.#areShort;
  }

  close(): void {
    this.#spare.close();
  }

  #hold(): void {
    if (this.filesMax !== Number.POSITIVE_INFINITY) this.#spare.hold();
  }
}

function countOpenFiles(): number {
  try {
    // The size of the folder is their number, from Linux 6.2 on.
    return statSync("/proc/self/fd").size || readdirSync("/proc/self/fd").length;
  } catch {
    return Number.POSITIVE_INFINITY; // there is none left to read the folder with
  }
}
