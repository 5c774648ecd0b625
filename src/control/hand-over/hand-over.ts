/**
 * The old process's side of an upgrade: starts the new one, tells it all that it knows, stops
 * receiving, and lets it go on with the very same sockets. take-over.ts is the other side.
 *
 * One event decides who serves. The new process receives from the moment that it gets `go`, or
 * finds this end of the channel closed, since then this process is dead. This one receives until it
 * has sent `go`; then not any more, unless the new one is dead, for which it sees to it itself if
 * that one says nothing in time.
 *
 * Nothing is lost in between: what arrives while nobody receives waits in the sockets, some tens of
 * milliseconds. To keep that short, what the other one has to hear then is only what changed within
 * the last seconds, and workers wait in a receive for a millisecond only.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import type * as v from "valibot";
import type { UdpSocket } from "../../../ffi/socket.ts";
import type { HandOverPhase, HandOverSections, Service } from "../feature.ts";
import { RECEIVE_TIMEOUT_MS, setReceiveTimeouts } from "../sockets/sockets.ts";
import { type Kind, LateError, type Message, SECTION_KINDS } from "./channel.ts";
import {
  FORMAT,
  frameSection,
  type Offer,
  preparedSchema,
  readJson,
  refusedSchema,
} from "./format.ts";
import { type Started, type Successor, start } from "./successor.ts";

const PREPARE_MS = 30_000;
/** Timeout in ms of the cut-over: final changes, workers, ports. */
const CUT_OVER_MS = 5_000;
/** Limit of rounds; each is shorter, and the table's clock has a second's resolution. */
const ROUNDS_MAX = 4;
const ROUND_MS = 1000;
/** A failed upgrade; the message says why. This beacon goes on as before. */
export class UpgradeError extends Error {
  override readonly name = "UpgradeError";
}

/** What came of an upgrade. */
export interface Upgraded {
  readonly pid: number;
  readonly version: string;
}

/** The workers' threads, as an upgrade stops and restarts them. */
export interface ParkedWorkers {
  /** Whether another process shares the sockets: no change to them may affect it. */
  sharesSockets: boolean;
  park(): Promise<void>;
  unpark(): void;
}

export interface HandOverDeps {
  /** In the order of their start. */
  readonly services: readonly Service[];
  readonly workers: ParkedWorkers;
  readonly sockets: readonly UdpSocket[];
  readonly offer: () => Omit<Offer, "format">;
  readonly log: Logger;
}

export class HandOver {
  /** Whether the other process serves, and this one only has to end. */
  hasServed = false;
  /** Whether everything was sent, so that the other process does not learn what changes here. */
  hasTold = false;
  readonly #cancel = new AbortController();
  #takesSections = false;
  #started: Started | undefined;
  #sharedBefore = false;

  constructor(
    private readonly successor: Successor,
    private readonly deps: HandOverDeps,
  ) {}

  /**
   * Hands over, and returns once the other process serves.
   * @throws UpgradeError if it does not: then the other process is dead, and all is as it was
   * before
   */
  async run(): Promise<Upgraded> {
    const { services, workers } = this.deps;
    let version: string;
    try {
      for (const service of services) await service.hold?.();
      this.signal.throwIfAborted();
      this.#started = start(this.successor);
      this.#sharedBefore = workers.sharesSockets;
      workers.sharesSockets = true;
      this.#note("started");
      version = await this.#prepare();
      await this.#cutOver();
    } catch (error) {
      const reason = await this.#reasonOf(error);
      await this.resume();
      throw new UpgradeError(reason, { cause: error });
    }
    // From here on there is no way back, whatever fails.
    this.hasServed = true;
    const { channel, child } = this.#started;
    try {
      this.successor.onServing?.(child.pid);
    } finally {
      await channel.send("commit");
    }
    return { pid: child.pid, version };
  }

  /** Ends an upgrade that has not come about yet, or the wait for the end of one that has. */
  cancel(): void {
    this.#cancel.abort(new Error("this beacon is asked to end"));
  }

  /** Aborted by `cancel`. */
  get signal(): AbortSignal {
    return this.#cancel.signal;
  }

  /** Returns the other process's exit code or signal, once it has ended. */
  async ended(): Promise<string> {
    const { child } = this.#started!;
    await child.exited;
    return String(child.signalCode ?? child.exitCode);
  }

  /** Serves again, once the other process is certainly dead. */
  async resume(): Promise<void> {
    const { workers, services, sockets } = this.deps;
    this.hasServed = false;
    this.hasTold = false;
    if (this.#started) {
      const { child, channel } = this.#started;
      child.kill("SIGKILL");
      await child.exited;
      channel.close(); // not before: it would take this for the death of this process, and serve
      // with the process before this one, which may still be there
      workers.sharesSockets = this.#sharedBefore;
      workers.unpark();
      setReceiveTimeouts(sockets, false);
    }
    for (const service of services) service.resume?.();
  }

  /** Sends the new process all that this one knows. @returns the other's version */
  async #prepare(): Promise<string> {
    const untilMs = performance.now() + (this.successor.prepareMs ?? PREPARE_MS);
    const fds = this.deps.sockets.map(({ fd }) => fd);
    const offer: Offer = { ...this.deps.offer(), format: FORMAT };
    await this.#send("offer", encoded(offer), fds, untilMs);
    let roundMs = performance.now();
    await this.#write("all", untilMs, hasKinds);
    await this.#send("prepare", undefined, [], untilMs);
    const { body } = await this.#expect("prepared", untilMs);
    const { version, takesSections } = readJson(preparedSchema, body);
    this.#takesSections = takesSections;
    this.#note("prepared");
    await this.#write("all", untilMs, (sections) => !hasKinds(sections));
    for (let round = 0; round < ROUNDS_MAX && performance.now() - roundMs > ROUND_MS; round++) {
      roundMs = performance.now();
      await this.#write("changed", untilMs);
      await this.#sync(untilMs);
    }
    return version;
  }

  /** Stops receiving, sends what changed, and waits until the other process serves. */
  async #cutOver(): Promise<void> {
    const { workers, sockets, services } = this.deps;
    const untilMs = performance.now() + CUT_OVER_MS;
    setReceiveTimeouts(sockets, true);
    await sleep(RECEIVE_TIMEOUT_MS); // until the last that went by the old one has returned
    await this.#write("closing", untilMs);
    await this.#sync(untilMs);
    for (const service of services) service.suspend?.();
    this.#note("receiving stops");
    const parkedMs = performance.now();
    await workers.park();
    await this.#write("stopped", untilMs);
    this.hasTold = true;
    await this.#write("sealed", untilMs);
    this.#note("everything is sent");
    await this.#send("go", undefined, [], untilMs);
    this.#note("the new process goes");
    await this.#expect("serving", untilMs);
    this.#note("the new process serves", { ms: Math.round(performance.now() - parkedMs) });
  }

  /** Logs a step, for an operator who watches. */
  #note(step: string, fields: object = {}): void {
    this.deps.log.debug({ successor: this.#started!.child.pid, ...fields }, `upgrade: ${step}`);
  }

  /** Has services write their sections. */
  async #write(
    phase: HandOverPhase,
    untilMs: number,
    isIncluded: (sections: HandOverSections) => boolean = () => true,
  ): Promise<void> {
    for (const { handOver } of this.deps.services) {
      if (handOver === undefined || !isIncluded(handOver)) continue;
      await handOver.write(phase, (section, body, fds = []) => {
        const bytes = body instanceof Uint8Array ? body : encoded(body);
        if (isKind(section)) return this.#send(section, bytes, fds, untilMs);
        if (!this.#takesSections) return Promise.resolve();
        const { version } = handOver.sections[section]!;
        return this.#send("section", frameSection(section, version, bytes), fds, untilMs);
      });
    }
  }

  /** Waits until the other process has read everything that was sent. */
  async #sync(untilMs: number): Promise<void> {
    await this.#send("sync", undefined, [], untilMs);
    await this.#expect("synced", untilMs);
  }

  // The channel.

  async #send(
    kind: Kind,
    body: Uint8Array | undefined,
    fds: readonly number[],
    untilMs: number,
  ): Promise<void> {
    const isOpen = await this.#started!.channel.send(kind, body, fds, {
      untilMs,
      signal: this.signal,
    });
    if (isOpen) return;
    await this.#lastWord();
  }

  /** Waits for the one message that may come now. */
  async #expect(kind: Kind, untilMs: number): Promise<Message> {
    const message = await this.#started!.channel.receive({ untilMs, signal: this.signal });
    if (message === undefined) throw new Gone();
    if (message.kind === "refused") throw new UpgradeError(this.#refusal(message));
    if (message.kind !== kind)
      throw new UpgradeError(`the new process said ${message.kind} in place of ${kind}`);
    return message;
  }

  /** Throws what the other process said before it went, or that it went. */
  async #lastWord(): Promise<never> {
    for (;;) {
      const message = await this.#started!.channel.receive();
      if (message === undefined) throw new Gone();
      if (message.kind === "refused") throw new UpgradeError(this.#refusal(message));
    }
  }

  #refusal({ body }: Message): string {
    const { reason }: v.InferOutput<typeof refusedSchema> = readJson(refusedSchema, body);
    return `the new process gave up: ${reason}`;
  }

  async #reasonOf(error: unknown): Promise<string> {
    if (error instanceof LateError) return "the new process took too long";
    if (error instanceof Gone) {
      const { child } = this.#started!;
      await child.exited;
      return `the new process ended before it served (${child.signalCode ?? `exit code ${child.exitCode}`}): its output says why`;
    }
    const { code, message } = error as NodeJS.ErrnoException;
    if (this.#started === undefined && code !== undefined)
      return `the new process cannot be started: ${this.successor.command[0]}: ${code}`;
    return message;
  }
}

const encoded = (value: object): Uint8Array => new TextEncoder().encode(JSON.stringify(value));

const isKind = (section: string): section is (typeof SECTION_KINDS)[number] =>
  (SECTION_KINDS as readonly string[]).includes(section);

/** Whether every version reads these sections, not only those that announce it. */
const hasKinds = ({ sections }: HandOverSections): boolean => Object.keys(sections).every(isKind);

/** The other process has closed its end, or is dead. */
class Gone extends Error {}
