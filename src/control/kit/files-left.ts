/**
 * Whether there are files for more connections. Clients that connect and send nothing take a file
 * each, before the server can ask anything of them. Once the process has no file left it can open
 * nothing else, and Bun's accept loop, which tries again and again, takes the main thread's core
 * (Bun 1.4.5). So the bridge stops accepting and HTTP sheds idle connections before that. If a
 * flood was faster than that, the spare files are released for HTTP, the registry, names and the
 * state file.
 */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { SpareFiles } from "./spare-files.ts";

/** Files held back, and the number left at which files are short; fewer on small hosts. */
const SPARE_MAX = 64;
const SPARE_PART = 1 / 16;
/** Files that a beacon needs: Bun's own 16, two a worker (Bun 1.4.5), and spare ones. */
const FILES_MIN = 64;
const FILES_PER_WORKER = 4;

export class FilesLeft {
  readonly #spare: SpareFiles;
  readonly #min: number;
  #areShort = false;

  /**
   * @param filesMax files that the process may have open; Infinity if that is not known
   * @param openFiles how many it has
   */
  constructor(
    private readonly filesMax: number,
    private readonly openFiles: () => number = countOpenFiles,
  ) {
    this.#min = partOfFiles(filesMax, SPARE_PART, SPARE_MAX);
    this.#spare = new SpareFiles(this.#min);
    this.#hold();
  }

  /** Whether they are too few for more connections. To be called about every second. */
  areShort(): boolean {
    const left = this.filesMax - this.openFiles();
    if (left < this.#min) {
      this.#areShort = true;
      this.#spare.close();
    } else if (left >= 3 * this.#min) {
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

/** Part of the files that a process may open, but `max` at most. */
export function partOfFiles(filesMax: number, part: number, max: number): number {
  return Math.min(max, Math.floor(filesMax * part));
}

/** Returns this process's limit of open files; Infinity if unknown. */
export function openFilesMax(): number {
  try {
    // getrlimit(2), which Bun does not have
    const limits = readFileSync("/proc/self/limits", "utf8");
    return Number(/^Max open files +(\d+)/m.exec(limits)?.[1] ?? Infinity);
  } catch {
    return Infinity;
  }
}

/** Files that a beacon needs at least, without nodes on WebSockets. */
export function filesNeeded(workers: number): number {
  return FILES_MIN + workers * FILES_PER_WORKER;
}

/**
 * Says what is wrong, and what to do, where a file cannot be opened.
 * @param code of the failed call
 * @param filesMax files that this process may have open
 * @returns undefined for a code that has other reasons
 */
export function filesAdvice(code: string, workers: number, filesMax: number): string | undefined {
  if (code === "ENFILE")
    return "ENFILE: this host can open no more files: raise fs.file-max with sysctl";
  if (code !== "EMFILE") return undefined;
  // Where that is not what is missing, connections have taken them.
  const needed = filesMax < filesNeeded(workers) ? filesNeeded(workers) : 2 * filesMax;
  return (
    `EMFILE: this process has all ${filesMax} files open that it may (RLIMIT_NOFILE): ` +
    `raise LimitNOFILE or ulimit -n to ${needed} or more`
  );
}

function countOpenFiles(): number {
  try {
    // The size of the folder is their number, from Linux 6.2 on.
    return statSync("/proc/self/fd").size || readdirSync("/proc/self/fd").length;
  } catch {
    return Number.POSITIVE_INFINITY; // there is none left to read the folder with
  }
}
