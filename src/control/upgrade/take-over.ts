/**
 * The new process's side of an upgrade; hand-over.ts is the other side, and says who serves when.
 *
 *   const takeOver = TakeOver.fromEnvironment(process.env);
 *   await beacon.listen(takeOver);
 */
import { closeSync } from "node:fs";
import type { Logger } from "pino";
import { CoarseClock } from "../../../ffi/clock.ts";
import { LOCAL_NUMBERS_END, localNumber, setLocalNumber } from "../../../ffi/endpoint.ts";
import { UnixChannel } from "../../../ffi/unix-channel.ts";
import { CLOCK_S, type SharedMemory } from "../../shared/memory.ts";
import { NODE_LIMIT, type NodeTable } from "../../shared/nodes.ts";
import type { BreakerStates } from "../limits/breakers.ts";
import { adoptCell } from "../limits/cells.ts";
import type { InheritedListener } from "../listeners/listeners.ts";
import type { Mesh } from "../mesh/mesh.ts";
import { Channel, type Message } from "./channel.ts";
import {
  breakersSchema,
  CELL_LIMITS,
  FORMAT,
  formatSchema,
  instancesSchema,
  listenersSchema,
  namesSchema,
  type Offer,
  offerSchema,
  readCells,
  readClaims,
  readJson,
  readNodes,
  readRemoved,
  readRoutes,
} from "./format.ts";
import { CHANNEL_VARIABLE } from "./successor.ts";

/** The longest text of what went wrong. */
const REASON_LENGTH_MAX = 1000;

/** Why this process cannot take over; the message says what to do. */
export class TakeOverError extends Error {
  override readonly name = "TakeOverError";
}

/** Where what the old process tells is put. */
export interface Heir {
  readonly memory: SharedMemory;
  readonly nodes: NodeTable;
  readonly mesh: Mesh;
  /** Whether a node may be there. */
  accepts(endpoint: Int32Array): boolean;
  /** The number of a local address here, 0 if packets cannot leave from it. */
  localNumber(address: Int32Array): number;
  /** The second that it is now, on the table's clock. */
  nowS(): number;
  readonly nodeTtlS: number;
}

/** What was offered, and fits. */
export interface Inherited extends Offer {
  readonly fds: readonly number[];
}

export class TakeOver {
  /** Once this process serves: whoever ends it before only ends an attempt. */
  isServing = false;
  /** As they were, or are, in the old process. */
  breakers: BreakerStates = {};
  /** The sockets of HTTP and the bridge. */
  listeners: readonly InheritedListener[] = [];
  /** The old process's numbers of local addresses, as it told them, and what they are here. */
  #locals: NonNullable<Offer["locals"]> = [];
  readonly #localNumbers = new Uint8Array(LOCAL_NUMBERS_END);
  /** Nodes for which there was no room. */
  #noRoom = 0;
  /** Whether the old process has told all that it knew once. */
  #isWhole = false;
  /** Whether it is still there, as far as this one has heard. */
  #isLeft = true;
  /** Settled when the old process has said that this one is the service, or is dead. */
  readonly committed: Promise<void>;
  readonly #committed = Promise.withResolvers<void>();

  private constructor(private readonly channel: Channel) {
    this.committed = this.#committed.promise;
  }

  /** The take-over that this process was started for, if it was. The variable that says so is removed: it is for nobody else. */
  static fromEnvironment(env: Record<string, string | undefined>): TakeOver | undefined {
    const fd = env[CHANNEL_VARIABLE] ?? "";
    delete env[CHANNEL_VARIABLE];
    return /^\d{1,6}$/.test(fd) ? new TakeOver(new Channel(new UnixChannel(Number(fd)))) : undefined;
  }

  /**
   * Waits for the offer.
   * @param wanted as this process is configured
   * @returns undefined if the old process is dead and has handed over nothing: then this is a start like any other
   * @throws TakeOverError if what is offered is not what is wanted; FormatError
   */
  async inherit(wanted: Pick<Offer, "addr"> & { readonly workers: number }): Promise<Inherited | undefined> {
    const message = await this.channel.receive();
    if (message === undefined) {
      this.#goesOnAlone();
      return undefined;
    }
    const { kind, body, fds } = message;
    if (kind !== "offer") throw new TakeOverError(`the old process said ${kind} in place of an offer`);
    const { format } = readJson(formatSchema, body);
    if (format !== FORMAT)
      throw new TakeOverError(
        `the old process speaks format ${format}, this one ${FORMAT}: restart in place of it`,
      );
    const offer = readJson(offerSchema, body);
    if (offer.addr !== wanted.addr)
      throw new TakeOverError(`--addr is ${wanted.addr} now, and was ${offer.addr}: that takes a restart`);
    if (fds.length !== wanted.workers)
      throw new TakeOverError(
        `--workers is ${wanted.workers} now, and was ${fds.length}: that takes a restart`,
      );
    this.#locals = offer.locals ?? [];
    return { ...offer, fds };
  }

  /**
   * Takes what the old process knows, until it has told all of it once.
   * @returns false if it died before
   */
  async learn(heir: Heir): Promise<boolean> {
    for (const [number, address] of this.#locals)
      this.#localNumbers[number] = heir.localNumber(Int32Array.from(address));
    await this.#follow(heir, "prepare");
    return this.#isWhole;
  }

  /**
   * Says that this process is ready to receive, and takes what changes, until it is to receive: the old process has stopped, or is dead.
   * @param version of this process
   */
  async waitForTurn(heir: Heir, version: string, log: Logger): Promise<void> {
    if (this.#isLeft) {
      await this.channel.sendJson("prepared", {
        version,
        cellLimits: CELL_LIMITS.length,
        takesRemovals: true,
        takesListeners: true,
      });
      await this.#follow(heir, "go");
    }
    if (this.#noRoom > 0) log.warn(`${this.#noRoom} nodes of the old process found no room: see --max-nodes`);
  }

  /** Says that this process serves. */
  async served(): Promise<void> {
    this.isServing = true;
    if (!this.#isLeft) return;
    await this.channel.send("serving");
    void this.channel
      .receive() // nothing but `commit` comes, or the end
      .catch(() => {})
      .then(() => this.#goesOnAlone());
  }

  /** Says why this process does not serve, and is about to end. */
  async refuse(reason: string): Promise<void> {
    if (this.#isLeft && !this.isServing) {
      await this.channel.sendJson("refused", { reason: reason.slice(0, REASON_LENGTH_MAX) }).catch(() => {});
    }
  }

  /** Takes messages up to the last of some, or to the death of the old process. */
  async #follow(heir: Heir, last: "prepare" | "go"): Promise<void> {
    for (;;) {
      const message = await this.channel.receive();
      if (message === undefined) {
        this.#goesOnAlone();
        return;
      }
      if (message.kind === "sync") await this.channel.send("synced");
      else if (message.kind !== last) await this.#take(heir, message);
      else {
        this.#isWhole = true;
        return;
      }
    }
  }

  async #take(heir: Heir, { kind, body, fds }: Message): Promise<void> {
    if (kind !== "listeners") for (const fd of fds) closeSync(fd); // no other message has any
    const { mesh, memory } = heir;
    switch (kind) {
      case "listeners":
        this.listeners = readJson(listenersSchema, body).flatMap(([name, address], i) =>
          fds[i] === undefined ? [] : [{ name, address, fd: fds[i] }],
        );
        return;
      case "nodes":
        this.#takeNodes(heir, body);
        return;
      case "removed":
        // The shards' locks are free: this process's workers are parked, and the old one has a table of its own.
        for (const nodeId of readRemoved(body)) heir.nodes.remove(nodeId);
        return;
      case "names":
        mesh.adoptNames(readJson(namesSchema, body));
        return;
      case "instances":
        mesh.adoptInstances(readJson(instancesSchema, body));
        return;
      case "routes": {
        const routes = readRoutes(body);
        this.#translateLocal(routes.endpoint);
        await mesh.adoptPeerNodes(routes);
        return;
      }
      case "claims":
        mesh.adoptClaims(readClaims(body));
        return;
      case "cells": {
        const nowNs = new CoarseClock().nowNs();
        readCells(body, (limit, cell, timeNs) => adoptCell(memory, limit, cell, timeNs, nowNs));
        return;
      }
      case "breakers":
        this.breakers = readJson(breakersSchema, body);
        return;
      default:
        throw new TakeOverError(`the old process said ${kind}, which is not its turn`);
    }
  }

  #takeNodes({ memory, nodes, accepts, nowS, nodeTtlS }: Heir, body: Uint8Array): void {
    const seconds = nowS();
    // Nothing else sets the clock before this process serves, and when a node was heard is noted by it.
    Atomics.store(memory.words, CLOCK_S, seconds);
    for (const { nodeId, endpoint, flags, ageS, key, keyAt } of readNodes(body)) {
      if (ageS >= nodeTtlS || !accepts(endpoint)) {
        nodes.remove(nodeId); // it may have been told of before, at another endpoint
        continue;
      }
      this.#translateLocal(endpoint);
      const result = nodes.record(nodeId, endpoint, 0, flags, seconds - ageS);
      if (result >= NODE_LIMIT) this.#noRoom++;
      else if (key) nodes.keepKey(nodeId, endpoint, key, keyAt);
    }
  }

  /** Replaces the old process's number of a local address by this one's. */
  #translateLocal(endpoint: Int32Array): void {
    setLocalNumber(endpoint, 0, this.#localNumbers[localNumber(endpoint, 0)]!);
  }

  #goesOnAlone(): void {
    this.#isLeft = false;
    this.channel.close();
    this.#committed.resolve();
  }
}
