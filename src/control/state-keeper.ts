/** Keeps the node table in its state file: read at start, written again and again, and at the end. */
import type { Logger } from "pino";
import { CLOCK_S, type SharedMemory } from "../shared/memory.ts";
import type { NodeTable } from "../shared/nodes.ts";
import { PeriodicTask } from "./periodic-task.ts";
import { type SaveResult, StateFile, StateFileError } from "./state-file.ts";

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
  #saving: Promise<void> | undefined;

  /**
   * @param intervalMs time between two saves
   * @param nodeTtlMs how long a node stays without a refresh
   */
  constructor(
    path: string,
    intervalMs: number,
    private readonly memory: SharedMemory,
    nodes: NodeTable,
    nodeTtlMs: number,
    private readonly log: Logger,
  ) {
    this.#file = new StateFile(path, memory, nodes, Math.ceil(nodeTtlMs / 1000));
    this.#task = new PeriodicTask(
      () => this.#saveUnlessHeld(),
      () => intervalMs,
    );
  }

  /** Puts the nodes of the file into the table. What keeps the file from being read is logged. */
  async load(accepts: (endpoint: Int32Array) => boolean): Promise<void> {
    const { outcome, message } = await this.#file.load({ nowS: this.#nowS, accepts });
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

  /** Takes the place of `load` for a table that came from elsewhere. @param maySave as it was there */
  adopt(maySave: boolean): void {
    this.#maySave = maySave;
  }

  /** Saves nothing until `release`, as the file is about to be another process's; not at the end either. Returns when no save goes on. */
  async hold(): Promise<void> {
    this.#isHeld = true;
    await this.#saving;
  }

  /** Saves again. */
  release(): void {
    this.#isHeld = false;
  }

  /** Saves a last time, fast. To be called when nobody writes to the table any more. */
  async stop(): Promise<void> {
    if (this.#maySave && !this.#isHeld) await this.#save((nowS) => this.#file.saveLast(nowS), "info");
    await this.#task.stop();
  }

  async #saveUnlessHeld(): Promise<void> {
    if (this.#isHeld) return;
    this.#saving = this.#save((nowS) => this.#file.save(nowS), "debug");
    await this.#saving;
  }

  async #save(
    save: (nowS: number) => Promise<SaveResult | undefined>,
    level: "debug" | "info",
  ): Promise<void> {
    try {
      const saved = await save(this.#nowS);
      if (saved === undefined) return;
      this.savedS = Math.round(Date.now() / 1000);
      this.problem = undefined;
      this.log[level](saved.message);
    } catch (error) {
      if (!(error instanceof StateFileError)) throw error;
      this.problem = error.message;
      this.log.warn(error.message);
    }
  }

  get #nowS(): number {
    return this.memory.words[CLOCK_S]!;
  }
}
