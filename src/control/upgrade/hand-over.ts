/**
 * The old process's side of an upgrade: starts the new one, tells it all that it knows, stops receiving, and lets it go on with the very
 * same sockets. take-over.ts is the other side.
 *
 * One event decides who serves. The new process receives from the moment that it gets `go`, or finds this end of the channel closed,
 * since then this process is dead. This one receives until it has sent `go`; then not any more, unless the new one is dead, for which it
 * sees to it itself if that one says nothing in time.
 *
 * Nothing is lost in between: what arrives while nobody receives waits in the sockets, some tens of milliseconds. To keep that short,
 * what the other one has to hear then is only what changed within the last seconds, and workers wait in a receive for a millisecond only.
 */

import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import type * as v from "valibot";
import { CoarseClock } from "../../../ffi/clock.ts";
import { hasNoPort, LOCAL_NUMBERS_END } from "../../../ffi/endpoint.ts";
import type { UdpSocket } from "../../../ffi/socket.ts";
import { LocalAddresses } from "../../shared/local-addresses.ts";
import { CLOCK_S, HASH_SECRET, type SharedMemory } from "../../shared/memory.ts";
import type { NodeTable } from "../../shared/nodes.ts";
import type { RouteTable } from "../../shared/routes.ts";
import { HAS_KEY, IS_SELF } from "../../shared/slots.ts";
import type { Breakers } from "../limits/breakers.ts";
import { cellBodies } from "../limits/cells.ts";
import type { Listeners } from "../listeners/listeners.ts";
import type { Mesh } from "../mesh/mesh.ts";
import type { Reaper } from "../nodes/expiry.ts";
import { restingPause, scanNodes } from "../nodes/scan.ts";
import type { StateKeeper } from "../nodes/state-keeper.ts";
import { RECEIVE_TIMEOUT_MS, setReceiveTimeouts } from "../sockets/sockets.ts";
import type { Supervisor } from "../workers/supervisor.ts";
import { BODY_BYTES_MAX, type Kind, LateError, type Message } from "./channel.ts";
import {
  CellEntries,
  FORMAT,
  NodeEntries,
  type Offer,
  preparedSchema,
  readJson,
  refusedSchema,
  writeClaims,
  writeRemoved,
  writeRoutes,
} from "./format.ts";
import { type Started, type Successor, start } from "./successor.ts";

const PREPARE_MS = 30_000;
/** From the last step before this process stops receiving: to take what changed, to let workers run, to open ports. */
const CUT_OVER_MS = 5_000;
/** Rounds of telling what changed: each is shorter than the one before, and one of a second is as short as the table's clock lets it be. */
const ROUNDS_MAX = 4;
const ROUND_MS = 1000;
/** Instances in a message: each is some 80 bytes. */
const INSTANCES_IN_MESSAGE = 512;
/** Steps through the routes in one go: below a millisecond. */
const SLICE_STEPS = 65_536;

/** An upgrade that did not come about; the message says why. The beacon goes on as if nothing had been. */
export class UpgradeError extends Error {
  override readonly name = "UpgradeError";
}

/** What came of an upgrade. */
export interface Upgraded {
  readonly pid: number;
  readonly version: string;
}

/** What a beacon consists of that hands over. */
export interface HandOverParts {
  readonly memory: SharedMemory;
  readonly nodes: NodeTable;
  readonly sockets: readonly UdpSocket[];
  readonly supervisor: Pick<Supervisor, "park" | "unpark" | "sharesSockets">;
  readonly reaper: Pick<Reaper, "isPaused">;
  readonly state: StateKeeper | undefined;
  readonly mesh: Mesh;
  readonly routes: RouteTable;
  readonly breakers: Breakers;
  readonly listeners: Listeners;
  readonly offer: Pick<Offer, "version" | "addr" | "offload" | "steering">;
  readonly log: Logger;
  /** Leaves accepting connections at HTTP and the bridge to the other process; those that are there stay. */
  suspend(): void;
  /** Has them again. */
  resume(): void;
}

export class HandOver {
  /** Whether the other process serves, and this one only has to end. */
  hasServed = false;
  /** Whether all has been told, so that the other process does not learn what changes here. */
  hasTold = false;
  readonly #cancel = new AbortController();
  readonly #nodeEntries = new NodeEntries();
  readonly #cellEntries = new CellEntries();
  /** What was told of the mesh last: the names, and the nodes of each peer by its endpoint. */
  #names = "";
  /** How many of CELL_LIMITS the new process knows. */
  #cellLimits = 0;
  readonly #routes = new Map<string, Uint8Array>();
  /** Nodes that were removed, and are still to be told. */
  #removed: number[] = [];
  #takesRemovals = false;
  #takesListeners = false;
  /** Nodes that were refreshed at this clock second or later are still to be told. */
  #sinceS = Number.NEGATIVE_INFINITY;
  #started: Started | undefined;
  #isSuspended = false;
  #sharedBefore = false;

  constructor(
    private readonly successor: Successor,
    private readonly parts: HandOverParts,
  ) {}

  /**
   * Hands over, and returns once the other process serves.
   * @throws UpgradeError if it does not: then the other process is dead, and all is as it was before
   */
  async run(): Promise<Upgraded> {
    const { reaper, state, supervisor, nodes } = this.parts;
    let version: string;
    const removedBefore = nodes.removed;
    nodes.removed = (nodeId) => {
      removedBefore?.(nodeId);
      this.#removed.push(nodeId);
    };
    try {
      // So that no node goes while its like is told, and the file is the other's to write.
      reaper.isPaused = true;
      await state?.hold();
      this.signal.throwIfAborted();
      this.#started = start(this.successor);
      this.#sharedBefore = supervisor.sharesSockets;
      supervisor.sharesSockets = true;
      this.#note("started");
      version = await this.#prepare();
      await this.#cutOver();
    } catch (error) {
      const reason = await this.#reasonOf(error);
      await this.resume();
      throw new UpgradeError(reason, { cause: error });
    } finally {
      nodes.removed = removedBefore;
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

  /** How the other process ended: its exit code, or the signal that killed it. Settles when it has. */
  async ended(): Promise<string> {
    const { child } = this.#started!;
    await child.exited;
    return String(child.signalCode ?? child.exitCode);
  }

  /** Serves again, once the other process is certainly dead. */
  async resume(): Promise<void> {
    const { supervisor, reaper, state, mesh, sockets } = this.parts;
    this.hasServed = false;
    this.hasTold = false;
    if (this.#started) {
      const { child, channel } = this.#started;
      child.kill("SIGKILL");
      await child.exited;
      channel.close(); // not before: it would take this for the death of this process, and serve
      supervisor.sharesSockets = this.#sharedBefore; // with the process before this one, which may still be there
      supervisor.unpark();
      setReceiveTimeouts(sockets, false);
    }
    reaper.isPaused = false;
    state?.release();
    mesh.isSilent = false;
    if (this.#isSuspended) this.parts.resume();
    this.#isSuspended = false;
  }

  /** Local addresses by number. Nodes with one that is added later are answered from the kernel's choice until their next Discover. */
  #locals(): Offer["locals"] {
    const locals = new LocalAddresses(this.parts.memory);
    return Array.from({ length: LOCAL_NUMBERS_END }, (_, number) => number).flatMap((number) => {
      const address = locals.address(number);
      return address ? [[number, Array.from(address)] as [number, number[]]] : [];
    });
  }

  /** Has the other process know all that this one knows, or knew a moment ago. @returns the other's version */
  async #prepare(): Promise<string> {
    const { memory, sockets, state, offer } = this.parts;
    const untilMs = performance.now() + (this.successor.prepareMs ?? PREPARE_MS);
    const whole: Offer = {
      ...offer,
      format: FORMAT,
      hashSecret: memory.words[HASH_SECRET]!,
      maySave: state?.maySave ?? true,
      locals: this.#locals(),
    };
    const fds = sockets.map(({ fd }) => fd);
    await this.#sendJson("offer", whole, untilMs, fds);
    let roundMs = performance.now();
    await this.#tellNodes(untilMs);
    await this.#tellBreakers(untilMs);
    await this.#tellMesh(untilMs);
    await this.#tellClaims(untilMs);
    await this.#send("prepare", undefined, [], untilMs);
    const { body } = await this.#expect("prepared", untilMs);
    const { version, cellLimits, takesRemovals, takesListeners } = readJson(preparedSchema, body);
    this.#cellLimits = cellLimits;
    this.#takesRemovals = takesRemovals;
    this.#takesListeners = takesListeners;
    if (takesListeners) await this.#handOverListeners(untilMs);
    this.#note("prepared");
    for (let round = 0; round < ROUNDS_MAX && performance.now() - roundMs > ROUND_MS; round++) {
      roundMs = performance.now();
      await this.#tellRemoved(untilMs);
      await this.#tellNodes(untilMs);
      await this.#tellMesh(untilMs);
      await this.#sync(untilMs);
    }
    return version;
  }

  /** Stops receiving, tells what changed, and waits until the other process serves. */
  async #cutOver(): Promise<void> {
    const { supervisor, sockets, mesh } = this.parts;
    const untilMs = performance.now() + CUT_OVER_MS;
    setReceiveTimeouts(sockets, true);
    await sleep(RECEIVE_TIMEOUT_MS); // until the last that went by the old one has returned
    await this.#tellCells(untilMs);
    await this.#sync(untilMs);
    this.#isSuspended = true;
    this.parts.suspend();
    if (!this.#takesListeners) this.parts.listeners.stopListening(); // it opens the ports itself
    mesh.isSilent = true;
    this.#note("receiving stops");
    const parkedMs = performance.now();
    await supervisor.park();
    await this.#tellRemoved(untilMs);
    await this.#tellNodes(untilMs, () => Promise.resolve());
    await this.#tellBreakers(untilMs);
    await this.#tellMesh(untilMs);
    // Those removed during the last steps; no worker can have recorded one of them again.
    this.hasTold = true;
    await this.#tellRemoved(untilMs);
    this.#note("all is told");
    await this.#send("go", undefined, [], untilMs);
    this.#note("the new process goes");
    await this.#expect("serving", untilMs);
    this.#note("the new process serves", { ms: Math.round(performance.now() - parkedMs) });
  }

  /** For who looks on. */
  #note(step: string, fields: object = {}): void {
    this.parts.log.debug({ successor: this.#started!.child.pid, ...fields }, `upgrade: ${step}`);
  }

  // What is told.

  /** Tells of the nodes that were removed since the last time. One that came back is told of by the `#tellNodes` that follows. */
  async #tellRemoved(untilMs: number): Promise<void> {
    const removed = this.#removed;
    if (removed.length === 0) return;
    this.#removed = [];
    if (this.#takesRemovals) {
      for (const body of writeRemoved(removed)) await this.#send("removed", body, [], untilMs);
    } else {
      this.parts.log.warn(
        `${removed.length} nodes removed during the upgrade may come back: the new process is of a version ` +
          "that is not told of removals; remove them again there",
      );
    }
  }

  /** Tells of the nodes that were refreshed since this began the last time. */
  async #tellNodes(untilMs: number, pause = restingPause()): Promise<void> {
    const { nodes, memory } = this.parts;
    const entries = this.#nodeEntries;
    // Less one: a worker may have read the clock just before it went on, and record what it has in hand now.
    const sinceS = this.#sinceS;
    this.#sinceS = memory.words[CLOCK_S]! - 1;
    const flush = async () => {
      for (const body of entries.take()) await this.#send("nodes", body, [], untilMs);
    };
    await scanNodes(
      nodes,
      (nodeId, entry) => {
        if (hasNoPort(entry, 0)) return; // one of the bridge's that was never heard by UDP: it will connect again
        if ((entry[0]! & IS_SELF) !== 0) return; // this process's own; the other one makes itself another
        const key = (entry[0]! & HAS_KEY) === 0 ? undefined : nodes.keyOf(nodeId);
        entries.add(nodeId, entry, memory.words[CLOCK_S]!, key);
      },
      {
        sinceS,
        pause: async () => {
          if (!entries.hasRoomForSlice) await flush();
          await pause();
        },
      },
    );
    await flush();
  }

  async #tellCells(untilMs: number): Promise<void> {
    const nowNs = new CoarseClock().nowNs();
    for (const body of cellBodies(this.parts.memory, this.#cellLimits, nowNs, this.#cellEntries)) {
      if (body.length > 0) await this.#send("cells", body, [], untilMs);
      await sleep(1); // others have their turn
    }
  }

  async #handOverListeners(untilMs: number): Promise<void> {
    const listeners = this.parts.listeners.inheritable;
    if (listeners.length === 0) return;
    const names = listeners.map(({ name, address }) => [name, address]);
    await this.#sendJson(
      "listeners",
      names,
      untilMs,
      listeners.map(({ fd }) => fd),
    );
  }

  async #tellBreakers(untilMs: number): Promise<void> {
    await this.#sendJson("breakers", this.parts.breakers.states, untilMs);
  }

  /** Tells of the mesh what was not told before. */
  async #tellMesh(untilMs: number): Promise<void> {
    const { mesh } = this.parts;
    const { names } = mesh;
    const shownNames = JSON.stringify(names);
    if (shownNames !== this.#names) {
      this.#names = shownNames;
      const isTooLarge = new TextEncoder().encode(shownNames).length > BODY_BYTES_MAX;
      await this.#sendJson("names", isTooLarge ? { ...names, hosts: [] } : names, untilMs); // they are looked up anew
    }
    const { instances } = mesh;
    for (let at = 0; at < instances.length; at += INSTANCES_IN_MESSAGE)
      await this.#sendJson("instances", instances.slice(at, at + INSTANCES_IN_MESSAGE), untilMs);
    for (const peer of mesh.peerNodes()) {
      const name = peer.endpoint.join();
      const nodeIds = new Uint8Array(peer.nodeIds.slice().buffer);
      const told = this.#routes.get(name);
      if (told !== undefined && Buffer.compare(told, nodeIds) === 0) continue;
      this.#routes.set(name, nodeIds);
      await this.#send("routes", writeRoutes(peer), [], untilMs);
    }
  }

  /** Tells what the directory told of its beacons' nodes. Once: what changes from now on the other process reads there, too. */
  async #tellClaims(untilMs: number): Promise<void> {
    const { mesh, routes } = this.parts;
    const peers = Array.from(mesh.toldPeers(), ({ number, endpoint }) => ({
      ...{ number, endpoint },
      nodeIds: [] as number[],
      timesMs: [] as number[],
    }));
    if (peers.length === 0) return;
    const byNumber = new Map(peers.map((peer) => [peer.number, peer]));
    for (let from = 0; from < routes.sweepSteps; from += SLICE_STEPS) {
      routes.visit(from, Math.min(from + SLICE_STEPS, routes.sweepSteps), (nodeId, number, claimedMs) => {
        const peer = byNumber.get(number);
        peer?.nodeIds.push(nodeId);
        peer?.timesMs.push(claimedMs);
      });
      for (const { endpoint, nodeIds, timesMs } of peers) {
        const claims = {
          endpoint,
          nodeIds: Int32Array.from(nodeIds.splice(0)),
          timesMs: Float64Array.from(timesMs.splice(0)),
        };
        for (const body of writeClaims(claims)) await this.#send("claims", body, [], untilMs);
      }
      await sleep(1); // others have their turn
    }
  }

  /** Waits until the other process has taken all that was told. */
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
    const isOpen = await this.#started!.channel.send(kind, body, fds, { untilMs, signal: this.signal });
    if (isOpen) return;
    await this.#lastWord();
  }

  #sendJson(kind: Kind, value: unknown, untilMs: number, fds: readonly number[] = []): Promise<void> {
    return this.#send(kind, new TextEncoder().encode(JSON.stringify(value)), fds, untilMs);
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

/** The other process has closed its end, or is dead. */
class Gone extends Error {}
