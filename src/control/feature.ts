/**
 * The contract between the beacon and its features.
 *
 * A feature is one capability of the control plane: limits, the mesh, the bridge, HTTP. It declares
 * its options, metrics and statistics, and makes one service for each beacon. `src/features.ts` is
 * the list of all features. The beacon loops over that list and knows no member of it: services are
 * created and started in the list's order and stopped in reverse. A service may use those before it
 * in the list, so the order of the list states every dependency.
 */
import type { Logger } from "pino";
import type * as v from "valibot";
import type { NameOf, OptionGroups } from "../config/option.ts";
import type { SharedMemory } from "../shared/memory.ts";
import type { NodeTableOwner } from "../shared/nodes-owner.ts";
import type { RouteTableOwner } from "../shared/routes-owner.ts";
import type { Guard } from "./kit/guard.ts";
import type { Counts, MetricGroup } from "./kit/metrics.ts";

/**
 * @template Config the options that the feature reads: its own, and those of features before it
 * @template Files what `read` returns
 * @template S the service that `create` returns, for features behind this one
 */
export interface Feature<Config, Files, S extends Service> {
  /** Unique; the feature's name in log lines and errors. */
  readonly name: string;
  readonly options?: OptionGroups;
  /** Checks options that are correct alone, against each other. @throws ConfigError */
  check?(config: Config, nameOf: NameOf<Config>, given: Given): void;
  /**
   * Reads the files that options name: at the start, at a reload, and for `check-config`. Opens
   * nothing else, and changes nothing: another feature's files may still be refused.
   * @throws ConfigError that names the file, and never what is in it
   */
  read?(config: Config, reading: Reading<Files>): Files;
  /**
   * Checks for `check-config` what `create` checks beyond the options and files. May wait for a
   * file system.
   * @returns a warning, if any
   * @throws ConfigError
   */
  checkStart?(config: Config): Promise<string | undefined>;
  /** Statistics by their place in `/api/stats`. */
  readonly stats?: v.ObjectEntries;
  /** Metrics, which are made from those statistics. */
  // biome-ignore lint/suspicious/noExplicitAny: each group states the statistics that it reads
  readonly metrics?: readonly MetricGroup<any, any>[];
  /** Counts of the log's statistics line, by name. Features that name the same are added up. */
  summary?(stats: never): Counts;
  /** Makes the service. What it opens, `stop` must close; nothing arrives before `start`. */
  create(host: Host<Config, Files>): S | Promise<S>;
}

// biome-ignore lint/suspicious/noExplicitAny: the list of features holds features of all types
export type AnyFeature = Feature<any, any, any>;
/** The service of a feature. */
export type ServiceOf<F extends AnyFeature> = Awaited<ReturnType<F["create"]>>;
/** The files of a feature. */
export type FilesOf<F extends AnyFeature> = ReturnType<NonNullable<F["read"]>>;

type Key = Uint8Array | null | undefined;

/** Returns the 32 bytes of a node's public key; undefined or null for a node without one. */
export type KeyFunction = (nodeId: number) => Key | Promise<Key>;

/** Things that code can hand to a beacon beside its options. */
export interface Given {
  /** Returns the nodes' public keys, in place of a registry or a file. */
  readonly keyOf?: KeyFunction | undefined;
}

export interface Reading<Files> {
  readonly given: Given;
  /** Files as they were read last; undefined the first time. */
  readonly before: Files | undefined;
  /** Files of a feature earlier in the list. */
  of<F extends AnyFeature>(feature: F): FilesOf<F>;
  /** Reports a mistake that does not keep the beacon from starting. */
  warn(message: string): void;
}

/** What a service is made with. */
export interface Host<Config, Files = undefined> {
  /** The options in force. */
  readonly config: Config;
  readonly files: Files;
  readonly given: Given;
  readonly version: string;
  readonly log: Logger;
  /** Reports internal errors. */
  readonly guard: Guard;
  readonly memory: SharedMemory;
  readonly nodes: NodeTableOwner;
  readonly routes: RouteTableOwner;
  /** The old process whose place this beacon takes; undefined at a plain start. */
  readonly predecessor: Predecessor | undefined;
  /** How long a port may still be held by a process that is about to release it, in ms. */
  readonly portPatienceMs: number;
  /** Aborted when the beacon is closed before it has started: nothing may wait on. */
  readonly signal: AbortSignal;
  readonly beacon: BeaconControl;
  /** All services, in the list's order; once they are made. */
  readonly services: readonly Service[];
  /** Returns the service of a feature earlier in the list. */
  use<F extends AnyFeature>(feature: F): ServiceOf<F>;
  /** Ends the beacon, which reports the reason. */
  fail(reason: Error): void;
}

/** What the old process handed over before anything was opened. */
export interface Predecessor {
  /** The UDP sockets, in the order of their group. */
  readonly fds: readonly number[];
  /** What those sockets have on. */
  readonly offload: boolean;
  readonly steering: boolean;
  /** Whether its state file may be replaced. */
  readonly maySave: boolean;
  /** Local addresses, each under the number that its endpoints carry. */
  readonly locals: readonly (readonly [number, readonly number[]])[];
  /** Reports that workers are ready; waits until the old process stopped or died. */
  waitForTurn(): Promise<void>;
}

/** The beacon as a whole, for services that show or end it. */
export interface BeaconControl {
  readonly isHealthy: boolean;
  /** Why the beacon is not ready for traffic; undefined while it is. */
  readonly notReady: string | undefined;
  readonly warnings: readonly string[];
  /** All statistics, by their place in `/api/stats`. */
  stats(): object;
  /** The counts of the log's statistics line, of all features. */
  summary(): Counts;
  /** The metrics of all features. */
  // biome-ignore lint/suspicious/noExplicitAny: each group states the statistics that it reads
  readonly metrics: readonly MetricGroup<any, any>[];
  /** The options in force, without their secrets. */
  maskedConfig(): Readonly<Record<string, unknown>>;
  /** How long the beacon goes on relaying, in ms; undefined while nothing ends it. */
  readonly drainLeftMs: number | undefined;
  drain(): Promise<void>;
  /** Whether this beacon can start another process. */
  readonly canUpgrade: boolean;
  /** Hands over to a new process. @throws Error that says why this one goes on */
  upgrade(): Promise<{ readonly pid: number; readonly version: string }>;
  close(): Promise<void>;
}

/**
 * A feature at work in one beacon. All methods run on the main thread. Those without a promise
 * return within a millisecond. An error in one is logged and keeps no other from running, except in
 * `start`, where it ends the start.
 */
export interface Service {
  /** Fills tables before the first packet. @param isWhole whether the predecessor's are */
  restore?(isWhole: boolean): Promise<void>;
  start?(): void | Promise<void>;
  /** Runs about once a second. */
  tick?(): void;
  /** Goes on with other options and files. Called only if all of them are good. */
  reconfigure?(config: never, files: never): void;
  /** The beacon ends after a while: admit nothing new. */
  drain?(): void;
  /** An upgrade begins: change nothing that its successor would not learn of. */
  hold?(): void | Promise<void>;
  /** The successor accepts connections and sends from here on; this process keeps what it has. */
  suspend?(): void;
  /** The upgrade failed: undoes `hold` and `suspend`. */
  resume?(): void;
  /** The successor serves: ends what clients have here. @param signal ends the wait */
  retire?(signal: AbortSignal): Promise<unknown>;
  /** Releases everything, once, started or not. @param isReplaced a successor serves */
  stop?(isReplaced: boolean): unknown;
  /** The values of the feature's `stats`. */
  stats?(): object;
  /** Why the beacon is not ready for traffic; undefined while it is. */
  notReady?(): string | undefined;
  /** Warnings of a beacon that is ready, a sentence each, with a remedy. */
  warnings?(): readonly string[];
  readonly handOver?: HandOverSections;
}

/** Named, versioned messages of a hand-over. Unknown ones are skipped; missing: a cold start. */
export interface HandOverSections {
  readonly sections: Readonly<Record<string, Section>>;
  write(phase: HandOverPhase, send: SendSection): void | Promise<void>;
}

/**
 * all: everything, while packets arrive. changed: what changed since the last call. closing: what
 * is large and needs no repetition, just before receiving stops. stopped: workers are parked and
 * nobody receives, so only what changed in the last seconds. sealed: what changed during `stopped`.
 */
export type HandOverPhase = "all" | "changed" | "closing" | "stopped" | "sealed";

export interface Section {
  readonly version: number;
  /** Whether it accepts files; those that come with other sections are closed. */
  readonly readsFiles?: true;
  /**
   * @param body good until it returns
   * @param fds files that came with it, which it owns.
   * @throws FormatError
   */
  read(body: Uint8Array, fds: readonly number[]): void | Promise<void>;
}

/**
 * Sends one message of a section.
 * @param body at most BODY_BYTES_MAX of src/control/hand-over/channel.ts
 * @param fds files to send along
 */
export type SendSection = (
  section: string,
  body: Uint8Array | object,
  fds?: readonly number[],
) => Promise<void>;
