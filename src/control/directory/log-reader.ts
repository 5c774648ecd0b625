/** Reads the directory's log, entry by entry, and notices when some are missing that this beacon has not read. */

import type { Pause } from "./slices.ts";
import { type LogEntry, NO_ENTRY, READ_COUNT, type Store } from "./store.ts";

/** Between two looks whether what was read is still there: soon enough to find it there, as entries stay for a minute. */
const CHECK_MS = 3000;
/** The log holds what was written in so long: a beacon that was away for longer needs snapshots. */
const LOG_MS = 60_000;

export interface LogReaderParts {
  readonly monotonicMs: () => number;
  /** To be waited for between two readings, so that a beacon does not read more often the more others write. */
  readonly beat: () => Promise<void>;
  /** To be waited for between two entries. */
  readonly pause: Pause;
  readonly hear: (entry: LogEntry) => void;
  /** Entries may be missing. */
  readonly lost: () => void;
}

export class LogReader {
  /** The last entry that was read. */
  #until: LogEntry | undefined;
  /** One that was read, or skipped, at the last check. While it is there, none behind it was dropped. */
  #checked = NO_ENTRY;
  #checkAtMs = 0;
  /** Ids that had been read at past checks, oldest first. */
  #marks: { readonly atMs: number; readonly id: string }[] = [];
  /** Entries that this beacon wrote since it began to read there, and those of them that it has read. */
  #ownWritten = 0;
  #ownHeard = 0;

  constructor(private readonly parts: LogReaderParts) {}

  /** Finds where to begin. @returns whether that is where it was before: nothing is missing */
  async join(store: Store): Promise<boolean> {
    this.#ownWritten = 0;
    this.#ownHeard = 0;
    const last = await store.last();
    if (this.#until !== undefined) {
      if (await store.has(this.#until)) return true;
      this.#lost();
    }
    this.#begin(last);
    return false;
  }

  /**
   * The id that the log is to be trimmed to: of the last entry that this beacon had read LOG_MS ago.
   * It depends on no clock but this host's monotonic one.
   */
  get trimTo(): string {
    const untilMs = this.parts.monotonicMs() - LOG_MS;
    const after = this.#marks.findIndex(({ atMs }) => atMs > untilMs);
    this.#marks.splice(0, (after < 0 ? this.#marks.length : after) - 1);
    const [mark] = this.#marks;
    return mark !== undefined && mark.atMs <= untilMs ? mark.id : NO_ENTRY.id;
  }

  /** This beacon wrote an entry. */
  wrote(): void {
    this.#ownWritten++;
  }

  /** One of this beacon's own was heard. */
  heardOwn(): void {
    this.#ownHeard++;
  }

  /** Reads on and on. @throws StoreError */
  async read(store: Store, signal: AbortSignal): Promise<void> {
    const { beat, pause, hear } = this.parts;
    while (!signal.aborted) {
      const lacksOwn = this.#ownHeard < this.#ownWritten;
      const entries = await store.read(this.#until!.id);
      if (entries.length === 0 && lacksOwn) await this.#findAnother(store);
      await this.#check(store);
      for (const entry of entries) {
        hear(entry);
        this.#until = entry;
        if (this.#checked === NO_ENTRY) this.#checked = entry;
        await pause();
        if (signal.aborted) return;
      }
      if (entries.length > 0 && entries.length < READ_COUNT) await beat();
    }
  }

  #begin(entry: LogEntry): void {
    this.#until = entry;
    this.#checked = entry;
    const nowMs = this.parts.monotonicMs();
    this.#checkAtMs = nowMs + CHECK_MS;
    if (this.#marks.at(-1)?.id !== entry.id) this.#marks.push({ atMs: nowMs, id: entry.id });
  }

  /** Ids of the log as it was say nothing of another one. */
  #lost(): void {
    this.#marks = [];
    this.parts.lost();
  }

  /** The log may have been emptied; or this process stood still, and what was dropped meanwhile because of its age it never reads. */
  async #check(store: Store): Promise<void> {
    if (this.parts.monotonicMs() < this.#checkAtMs) return;
    const isThere = this.#checked === NO_ENTRY || (await store.has(this.#checked));
    if (!isThere) this.#lost();
    this.#begin(this.#until!);
  }

  /** Nothing is behind the last entry that was read, although this beacon wrote there: another log may be there, with lower ids. */
  async #findAnother(store: Store): Promise<void> {
    this.#ownHeard = 0;
    this.#ownWritten = 0;
    const last = await store.last();
    if (compareIds(this.#until!.id, last.id) <= 0) return; // what it wrote was dropped, or was read before it was known to be written
    this.#lost();
    this.#begin(last);
  }
}

/** Orders ids of the log: "milliseconds-number". */
function compareIds(one: string, other: string): number {
  const [oneMs = 0, oneNumber = 0] = one.split("-").map(Number);
  const [otherMs = 0, otherNumber = 0] = other.split("-").map(Number);
  return oneMs - otherMs || oneNumber - otherNumber;
}
