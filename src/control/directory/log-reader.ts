/**
 * Reads the directory's log, entry by entry. Entries that are missing show in what their beacons
 * publish next: a number is left out, or the sums of their claims differ (fleet.ts).
 */
import type { Pause } from "../kit/pacing.ts";
import { type LogEntry, NO_ENTRY, READ_COUNT, type Store } from "./store.ts";

/** The log holds what was written in so long: a beacon that was away for longer needs snapshots. */
const LOG_MS = 60_000;
/** Between two notes of what was read. */
const MARK_MS = 3000;

export interface LogReaderParts {
  readonly monotonicMs: () => number;
  /** Awaited between two reads, so that busy writers cause no more reads. */
  readonly beat: () => Promise<void>;
  /** To be waited for between two entries. */
  readonly pause: Pause;
  readonly hear: (entry: LogEntry) => void;
  /** Entries of another log were passed over, which beacons may have written that are well. */
  readonly skipped: () => void;
}

export class LogReader {
  /** The id of the last entry that was read; undefined before the first connection. */
  #until: string | undefined;
  /** Ids that had been read at past moments, oldest first. */
  #marks: { readonly atMs: number; readonly id: string }[] = [];
  /** Entries that this beacon wrote since it began to read here, and those it has read. */
  #ownWritten = 0;
  #ownHeard = 0;

  constructor(private readonly parts: LogReaderParts) {}

  /**
   * Begins where the log ends, or goes on where this beacon was before.
   * @param last the log's last entry.
   * @returns whether it goes on
   */
  join({ id }: LogEntry): boolean {
    this.#ownWritten = 0;
    this.#ownHeard = 0;
    if (this.#until !== undefined && compareIds(this.#until, id) <= 0) return true;
    this.#begin(id);
    return false;
  }

  /** Id to trim the log to: the last entry read LOG_MS ago, by this host's monotonic clock. */
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
      const entries = await store.read(this.#until!);
      if (entries.length === 0 && lacksOwn) await this.#findAnother(store);
      for (const entry of entries) {
        hear(entry);
        this.#until = entry.id;
        await pause();
        if (signal.aborted) return;
      }
      this.#mark();
      if (entries.length > 0 && entries.length < READ_COUNT) await beat();
    }
  }

  /** The ids of the log as it was are of no use in another one. */
  #begin(id: string): void {
    this.#until = id;
    this.#marks = [{ atMs: this.parts.monotonicMs(), id }];
  }

  #mark(): void {
    const last = this.#marks.at(-1)!;
    const nowMs = this.parts.monotonicMs();
    if (last.id !== this.#until && nowMs - last.atMs >= MARK_MS)
      this.#marks.push({ atMs: nowMs, id: this.#until! });
  }

  /** Looks for a new log: nothing follows the last entry, though this beacon wrote since. */
  async #findAnother(store: Store): Promise<void> {
    this.#ownHeard = 0;
    this.#ownWritten = 0;
    const { id } = await store.last();
    // Otherwise what it wrote was dropped, or was read before it was known to be written.
    if (compareIds(this.#until!, id) <= 0) return;
    this.#begin(id);
    this.parts.skipped();
  }
}

/** Orders ids of the log: "milliseconds-number". */
function compareIds(one: string, other: string): number {
  const [oneMs = 0, oneNumber = 0] = one.split("-").map(Number);
  const [otherMs = 0, otherNumber = 0] = other.split("-").map(Number);
  return oneMs - otherMs || oneNumber - otherNumber;
}
