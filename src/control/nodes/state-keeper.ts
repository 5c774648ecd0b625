/** Keeps the node table in its state file: reads it at start, saves it regularly. */
import type { Logger } from "pino";
import { CLOCK_S, type SharedMemory } from "../../shared/memory.ts";
import type { NodeTableOwner } from "../../shared/nodes-owner.ts";
import type { Guard } from "../kit/guard.ts";
import { PeriodicTask } from "../kit/periodic-task.ts";
import { type LoadOptions, type SaveResult, StateFile, StateFileError } from "./state-file.ts";
import { checkStatePath } from "./state-path.ts";
import type { ThreadFiles } from "./thread-files.ts";

/** Interval in ms of the line about a slow start; a healthy disk takes under a second. */
const WAIT_NOTICE_MS = 5000;
/** Timeout in ms of the last save, below the 30 s asked of a service manager. */
const STOP_MS_MAX = 20_000;

export class StateKeeper {
  /** Why the nodes are not saved; undefined while they are. */
  problem: string | undefined;
  /** When the file was last saved, in Unix seconds; undefined before the first time. */
  savedS: number | undefined;
  readonly #file: StateFile;
  readonly #task: PeriodicTask;
  /** What could not be read may be worth more than what would take its place. */
  #maySave = true;
  #isHeld = false;
  #saving: Promise<boolean> | undefined;

  /**
   * Checks before the start that the path can be a state file's.
   * @returns what keeps the file from being saved, if anything
   * @throws ConfigError that names the path and what to do
   */
  static async check(path: string, files: ThreadFiles, log: Logger): Promise<string | undefined> {
    return sayWaiting(path, log, checkStatePath(path, files));
  }

  /**
   * @param intervalMs time between two saves
   * @param nodeTtlMs how long a node stays without a refresh
   */
  constructor(
    private readonly path: string,
    intervalMs: number,
    private readonly memory: SharedMemory,
    private readonly nodes: NodeTableOwner,
    nodeTtlMs: number,
    private readonly files: ThreadFiles,
    private readonly log: Logger,
    guard: Guard,
  ) {
    this.#file = new StateFile(path, memory, nodes, Math.ceil(nodeTtlMs / 1000), Date.now, files);
    this.#task = new PeriodicTask(
      () => this.#saveUnlessHeld(),
      () => intervalMs,
      (error) => guard.report("saving the state file", error),
    );
  }

  /** Puts the nodes of the file into the table. What keeps the file from being read is logged. */
  async load(from: Omit<LoadOptions, "nowS">): Promise<void> {
    const loading = this.#file.load({ nowS: this.#nowS, ...from });
    const { outcome, message } = await sayWaiting(this.path, this.log, loading);
    this.log[outcome === "restored" || outcome === "missing" ? "info" : "warn"](message);
    this.#maySave = outcome !== "unreadable" && outcome !== "foreign";
    if (this.#maySave) return;
    this.problem = `${message}; no nodes are saved either, so that the file stays as it is`;
    this.log.warn("no nodes are saved either, so that the file stays as it is");
  }

  /** Saves from now on, beside everything else. */
  start(): void {
    if (this.#maySave) this.#task.start();
  }

  /** Whether there is a file to save to that nothing forbids. */
  get maySave(): boolean {
    return this.#maySave;
  }

  /** Replaces `load` for a table from elsewhere. @param maySave as it was there */
  adopt(maySave: boolean): void {
    this.#maySave = maySave;
  }

  /** Saves nothing until `release`, not at the end either. Returns once no save runs. */
  async hold(): Promise<void> {
    this.#isHeld = true;
    this.files.hurry();
    await this.#saving;
  }

  /** Saves again. */
  release(): void {
    this.#isHeld = false;
    this.files.relax();
  }

  /** Saves a last time, fast, once no thread writes to the table; 10 s at most. */
  async stop(): Promise<void> {
    const { files } = this;
    files.hurry();
    const late = setTimeout(() => files.giveUp(), STOP_MS_MAX);
    try {
      if (this.#maySave && !this.#isHeld && !files.isGivenUp) await this.#saveLast();
      await this.#task.stop();
    } finally {
      clearTimeout(late);
      files.end();
    }
  }

  async #saveLast(): Promise<void> {
    const isSaved = await this.#save((nowS) => this.#file.saveLast(nowS), "info");
    if (isSaved) return;
    const before =
      this.savedS === undefined
        ? ""
        : `; the file is of ${new Date(this.savedS * 1000).toISOString()}`;
    this.log.warn(`${this.nodes.size()} nodes were not saved before the end${before}`);
  }

  async #saveUnlessHeld(): Promise<void> {
    if (this.#isHeld) return;
    this.#saving = this.#save((nowS) => this.#file.save(nowS), "debug");
    await this.#saving;
  }

  /** @returns whether the file was saved */
  async #save(
    save: (nowS: number) => Promise<SaveResult | undefined>,
    level: "debug" | "info",
  ): Promise<boolean> {
    try {
      const saved = await save(this.#nowS);
      if (saved === undefined) return false;
      this.savedS = Math.round(Date.now() / 1000);
      this.problem = undefined;
      this.log[level](saved.message);
      return true;
    } catch (error) {
      if (!(error instanceof StateFileError)) throw error;
      this.problem = error.message;
      this.log.warn(error.message);
      return false;
    }
  }

  get #nowS(): number {
    return this.memory.words[CLOCK_S]!;
  }
}

/** Says now and then what the start waits for, while it does. */
async function sayWaiting<T>(path: string, log: Logger, work: Promise<T>): Promise<T> {
  const timer = setInterval(
    () =>
      log.warn(
        `the start waits for the state file ${JSON.stringify(path)}: its file system is slow, or hangs`,
      ),
    WAIT_NOTICE_MS,
  );
  try {
    return await work;
  } finally {
    clearInterval(timer);
  }
}
