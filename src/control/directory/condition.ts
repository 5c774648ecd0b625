/** How the directory is: well, or what is wrong and since when. */
import type { DirectoryState } from "./stats.ts";
import type { StoreError, StoreFailure } from "./store-error.ts";

/** What may be so of one kind of call alone, whatever the others say. */
const OF_CALLS: readonly DirectoryState[] = ["denied", "full", "malformed", "internal_error"];

export class Condition {
  readonly failures: Partial<Record<StoreFailure, number>> = {};
  #state: DirectoryState = "connecting";
  #sinceMs: number;
  /** When something last failed. */
  #failedMs = Number.NEGATIVE_INFINITY;
  #problem = "";

  constructor(
    private readonly monotonicMs: () => number,
    /** Time without a failure until the state is ok again: one kind of call may fail alone. */
    private readonly sureMs: number,
  ) {
    this.#sinceMs = monotonicMs();
  }

  get state(): DirectoryState {
    return this.#state;
  }

  /** How long it has been so. */
  get seconds(): number {
    return (this.monotonicMs() - this.#sinceMs) / 1000;
  }

  /** What an operator should know; undefined while all is well. */
  get remark(): string | undefined {
    if (this.#state === "ok") return undefined;
    if (this.#state === "connecting") return "directory: connecting";
    return `directory: ${this.#state} for ${Math.round(this.seconds)} s: ${this.#problem}`;
  }

  failed({ failure, message }: StoreError): void {
    this.failures[failure] = (this.failures[failure] ?? 0) + 1;
    this.#failedMs = this.monotonicMs();
    this.#set(failure, message);
  }

  /** The directory's code threw what no code expects. */
  broke(error: unknown): void {
    this.#failedMs = this.monotonicMs();
    const message = error instanceof Error ? error.message : String(error);
    this.#set("internal_error", `${message}: report it, with the log's line`);
  }

  /** The server was entered, or a rival left. @param problem why this beacon is silent */
  entered(problem: string | undefined): void {
    if (OF_CALLS.includes(this.#state)) this.went(problem);
    else this.#setWell(problem);
  }

  /** A call went well. */
  went(problem: string | undefined): void {
    if (this.monotonicMs() - this.#failedMs > this.sureMs) this.#setWell(problem);
  }

  #setWell(problem: string | undefined): void {
    this.#set(problem === undefined ? "ok" : "duplicate", problem ?? "");
  }

  #set(state: DirectoryState, problem: string): void {
    this.#problem = problem;
    if (this.#state === state) return;
    this.#state = state;
    this.#sinceMs = this.monotonicMs();
  }
}
