/** Writes this beacon's changes, lease and asks to the log; decides when to be silent. */
import type { Announcer } from "./announcer.ts";
import type { Condition } from "./condition.ts";
import { ASK, type Entry, encodeEntry, encodeExtra, LEASE, type Lease } from "./entries.ts";
import { doubleName, type Fleet } from "./fleet.ts";
import type { DirectoryParts } from "./parts.ts";
import type { Presence } from "./presence.ts";
import type { SnapshotWriter } from "./snapshot-writer.ts";
import type { Store } from "./store.ts";
import { StoreError } from "./store-error.ts";

/** Leases are renewed after this share of them, less up to a tenth. */
const RENEWALS = 3;
/** What the server does not take (full, not allowed) is tried again after so long. */
const REFUSED_MS = 1000;

export interface TellerParts {
  readonly beacon: Omit<DirectoryParts, "connect" | "table" | "drainArrivals" | "peers">;
  readonly announcer: Announcer;
  readonly writer: Pick<SnapshotWriter, "isAsked" | "answer" | "last" | "lastRanged">;
  readonly fleet: Pick<Fleet, "toAsk">;
  readonly condition: Condition;
  readonly presence: Presence;
  /** To be waited for between two looks for changes to tell. */
  readonly beat: () => Promise<void>;
  /** Lets the announcer know of the nodes that came. */
  readonly gather: () => void;
  /** The id that the log is to be trimmed to. */
  readonly trimTo: () => string;
  /** An entry was written. */
  readonly wrote: () => void;
  /** A call was refused, and the connection goes on. */
  readonly failed: (error: StoreError) => void;
}

export class Teller {
  entries = 0;
  bytes = 0;
  #renewAtMs = 0;
  #renewedMs = Number.NEGATIVE_INFINITY;
  #renewedEpoch = 0;
  /** Another process that has this beacon's name began later: it is the one; when it was heard. */
  #rivalHeardMs: number | undefined;
  #wasSilent = false;
  /** Since when the server has taken nothing, for lack of memory or replicas. */
  #fullSinceMs: number | undefined;

  constructor(private readonly parts: TellerParts) {}

  /** Why this beacon must not speak; undefined if it may. */
  get rivalry(): string | undefined {
    return this.#rivalHeardMs === undefined ? undefined : doubleName(this.parts.beacon.name);
  }

  /** The server was entered, and its time is known. */
  join(): void {
    this.parts.announcer.start();
    this.#renewAtMs = 0;
    this.#fullSinceMs = undefined;
  }

  /** Requests an entry after that moment, which shows whether the log advances there. */
  speakBehind(momentMs: number): void {
    const hasPassed = this.parts.beacon.monotonicMs() > momentMs;
    if (hasPassed && this.#renewedMs <= momentMs) this.#renewAtMs = 0;
  }

  /** Another process speaks in this beacon's name. */
  heardRival(epoch: number): void {
    const { announcer, condition, beacon } = this.parts;
    beacon.complain("double_name", doubleName(beacon.name));
    if (epoch < announcer.epoch) return; // that one finds out
    announcer.outbid(epoch);
    this.#rivalHeardMs = beacon.monotonicMs();
    condition.entered(this.rivalry);
  }

  /** Tells on and on what there is to tell. @throws StoreError */
  async tell(store: Store, signal: AbortSignal): Promise<void> {
    const { announcer, writer, beat, gather } = this.parts;
    const { sleep, monotonicMs } = this.parts.beacon;
    let writing: Promise<void> | undefined;
    let completing: Promise<void> | undefined;
    let failed: unknown;
    const refused = (error: unknown) => {
      if (error instanceof StoreError && this.#maySucceedHere(error)) this.parts.failed(error);
      else failed = error;
    };
    for (; !signal.aborted && failed === undefined; await beat()) {
      try {
        await this.#ask(store);
        if (!this.#maySpeak()) continue;
        if (!announcer.isWhole)
          completing ??= announcer
            .complete(signal)
            .catch(refused)
            .finally(() => {
              completing = undefined;
            });
        gather();
        for (;;) {
          const changes = announcer.next();
          if (changes === undefined) break;
          await this.#append(store, changes);
          announcer.told(changes);
          if (signal.aborted) return;
        }
        if (writing === undefined && writer.isAsked)
          writing = writer
            .answer(store, signal)
            .catch(refused)
            .finally(() => {
              writing = undefined;
              this.#renewAtMs = 0; // which tells of the snapshot
            });
        if (monotonicMs() >= this.#renewAtMs || this.#renewedEpoch !== announcer.epoch)
          await this.#renew(store);
      } catch (error) {
        refused(error);
        this.#renewAtMs = 0; // the lease may be what was refused
        if (this.#fullSinceMs !== undefined) await this.#makeRoom(store);
        await sleep(REFUSED_MS, signal);
      }
    }
    await Promise.all([writing, completing]);
    if (failed !== undefined) throw failed;
  }

  /** Says that this beacon leaves. @throws StoreError */
  async leave(store: Store): Promise<void> {
    await this.#append(store, this.#lease(true));
    await store.removeBeacon(this.parts.beacon.name);
  }

  /** Whether to go on after a refusal. After a lease's time of `full`, try other servers. */
  #maySucceedHere({ failure, endsConnection }: StoreError): boolean {
    const { monotonicMs, leaseMs } = this.parts.beacon;
    if (failure !== "full") return !endsConnection;
    this.#fullSinceMs ??= monotonicMs();
    this.parts.presence.refused();
    return monotonicMs() - this.#fullSinceMs < leaseMs;
  }

  /** A full server refuses XADD, and the trimming that is part of it; it accepts XTRIM. */
  async #makeRoom(store: Store): Promise<void> {
    try {
      await store.trim(this.parts.trimTo());
    } catch (error) {
      if (!(error instanceof StoreError)) throw error;
      const { failure, message } = error;
      // Other failures show in the next append.
      if (failure === "denied")
        this.parts.beacon.complain("directory_trim", `${message}; the log stays full without it`);
    }
  }

  /** Asks for the snapshots that this beacon needs. */
  async #ask(store: Store): Promise<void> {
    const { fleet, announcer, beacon } = this.parts;
    for (const { name, epoch, ranges } of fleet.toAsk(beacon.monotonicMs()))
      await this.#append(store, {
        kind: ASK,
        name: beacon.name,
        epoch: announcer.epoch,
        of: { name, epoch },
        ranges,
      });
  }

  async #append(store: Store, entry: Entry): Promise<void> {
    const bytes = encodeEntry(entry);
    const extra = encodeExtra(entry);
    await store.append(bytes, { extra, trimTo: this.parts.trimTo() });
    this.#fullSinceMs = undefined;
    this.entries++;
    this.bytes += bytes.length + (extra?.length ?? 0);
    this.parts.wrote();
    this.parts.condition.went(this.rivalry);
  }

  async #renew(store: Store): Promise<void> {
    const { leaseMs, monotonicMs, random, name } = this.parts.beacon;
    this.#renewedMs = monotonicMs();
    this.#renewAtMs = this.#renewedMs + (leaseMs / RENEWALS) * (1 - random() / 10);
    this.#renewedEpoch = this.parts.announcer.epoch;
    const lease = this.#lease(false);
    await this.#append(store, lease);
    await store.setBeacon(name, encodeEntry(lease));
  }

  #lease(isLeaving: boolean): Lease {
    const { name, beaconId, leaseMs, own, clock } = this.parts.beacon;
    const { epoch, seq, sums } = this.parts.announcer;
    const { last, lastRanged } = this.parts.writer;
    return {
      ...{ kind: LEASE, name, epoch, seq, timeMs: clock.nowMs(), beaconId, nodes: own.size() },
      ...{ leaseMs, isLeaving, snapshot: last, ranged: lastRanged, sums },
    };
  }

  /** Whether no other process has this beacon's name; after a rival, restarts. */
  #maySpeak(): boolean {
    const { isSilent, monotonicMs, leaseMs } = this.parts.beacon;
    if (isSilent?.()) {
      this.#wasSilent = true;
      return false;
    }
    const hasRival = this.#rivalHeardMs !== undefined;
    if (!hasRival && !this.#wasSilent) return true;
    // While the log is not read nobody is heard.
    const rivalMs = Math.max(this.#rivalHeardMs ?? 0, this.parts.presence.patientUntilMs);
    if (hasRival && !this.#wasSilent && monotonicMs() - rivalMs <= leaseMs) return false;
    this.#beginAnew();
    this.parts.condition.entered(this.rivalry);
    return true;
  }

  /** Whoever follows this beacon loads a snapshot of it. */
  #beginAnew(): void {
    this.parts.announcer.restart();
    this.#renewAtMs = 0;
    this.#rivalHeardMs = undefined;
    this.#wasSilent = false;
  }
}
