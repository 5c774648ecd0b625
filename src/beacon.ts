/**
 * A beacon: the control plane, on the thread that makes it, and a worker thread for each socket.
 *
 *   const beacon = new Beacon({ addr: "127.0.0.1:0", workers: 2 });
 *   await beacon.listen();
 *   console.log(beacon.address);
 *   await beacon.close();
 */
import { randomInt } from "node:crypto";
import type { Logger } from "pino";
import type { SocketAddress } from "../ffi/endpoint.ts";
import { SyscallError } from "../ffi/errno.ts";
import { hostPort } from "../ffi/host-port.ts";
import packageJson from "../package.json" with { type: "json" };
import {
  type Config,
  type ConfigChanges,
  compareConfigs,
  maskedConfig,
  reloadedConfig,
  validateConfig,
} from "./config.ts";
import { admin } from "./control/admin/feature.ts";
import { bridge } from "./control/bridge/feature.ts";
import type { BeaconControl, Given, KeyFunction } from "./control/feature.ts";
import { type Upgraded, UpgradeError } from "./control/hand-over/hand-over.ts";
import type { Successor } from "./control/hand-over/successor.ts";
import type { TakeOver } from "./control/hand-over/take-over.ts";
import { Guard } from "./control/kit/guard.ts";
import type { Counts } from "./control/kit/metrics.ts";
import { createLogger } from "./control/log/log.ts";
import { Drain } from "./control/process/drain.ts";
import { InForce, Services } from "./control/services.ts";
import { sockets } from "./control/sockets/feature.ts";
import { upgrades } from "./control/upgrade/feature.ts";
import { features, metrics, type Stats } from "./features.ts";
import { HASH_SECRET, MAIN_THREAD_LOCK, SharedMemory } from "./shared/memory.ts";
import { NodeTableOwner } from "./shared/nodes-owner.ts";
import { RouteTableOwner } from "./shared/routes-owner.ts";

export { type Config, type ConfigChanges, ConfigError } from "./config.ts";
export type { KeyFunction } from "./control/feature.ts";
export { type Upgraded, UpgradeError } from "./control/hand-over/hand-over.ts";
export type { Successor } from "./control/hand-over/successor.ts";
export { TakeOver } from "./control/hand-over/take-over.ts";
export type * from "./features.ts";
export { type SocketAddress, SyscallError };

export const version: string = packageJson.version;

/** How long a port may still be held by a process that is about to release it, or dying. */
const PORT_MS_MAX = 1000;

export class Beacon implements BeaconControl {
  readonly #ended = Promise.withResolvers<void>();
  /** Settles when the beacon is closed; rejects when it ended by itself, with the reason. */
  readonly closed = this.#ended.promise;
  /** How `upgrade` starts the new process; undefined unless set. */
  successor: Successor | undefined;
  readonly metrics = metrics;
  readonly #inForce: InForce<Config>;
  readonly #given: Given;
  readonly #log: Logger;
  readonly #guard: Guard;
  /** Aborted by a close before the start is done. */
  readonly #giveUp = new AbortController();
  /** Undefined unless packets are being handled. */
  #services: Services | undefined;
  #starting: Promise<void> | undefined;
  #drain: Drain | undefined;
  #draining: Promise<void> | undefined;
  #closing: Promise<void> | undefined;
  #healthy = true;

  /**
   * @param options over the defaults; unlike the command line's, a library's beacon serves no HTTP
   * unless asked to
   * @param log a pino logger; silent without it
   * @param keyOf returns the nodes' public keys, for the WebSocket bridge and for grants, in place
   * of a registry or a file
   * @throws ConfigError when an option is bad
   */
  constructor(
    options: Partial<Config> = {},
    log: Logger = createLogger({ level: "silent", format: "json" }),
    keyOf?: KeyFunction,
  ) {
    this.#given = { keyOf };
    this.#inForce = new InForce(features, validateConfig(options, this.#given), this.#given, log);
    this.#log = log;
    this.#guard = new Guard(log);
    this.closed.catch(() => {}); // whoever awaits it sees the error
  }

  /**
   * Opens the sockets, starts the workers, serves. Returns when packets are being handled.
   * @param takeOver to go on in place of the process that started this one, see `upgrade`
   * @throws TakeOverError when this beacon cannot go on in its place
   * @throws ConfigError when a file that an option names is bad
   * @throws SyscallError when an address cannot be had; nothing stays open then
   */
  listen(takeOver?: TakeOver): Promise<void> {
    if (this.#closing) return Promise.reject(new Error("this beacon was closed; make a new one"));
    this.#starting ??= this.#listen(takeOver);
    return this.#starting;
  }

  /**
   * Starts a process, also of another version, and hands over sockets, nodes, routes and use of
   * limits. No packet is lost. Resolves once it serves; this beacon then closes within seconds.
   * @throws UpgradeError if it did not come to serve; this beacon goes on as before
   */
  async upgrade(successor: Successor | undefined = this.successor): Promise<Upgraded> {
    if (successor === undefined)
      throw new UpgradeError("set `successor`, which says how to start the new process");
    if (this.#draining || this.#closing) throw new UpgradeError("this beacon is draining");
    if (!this.#services) throw new UpgradeError("this beacon does not listen");
    return this.#services.use(upgrades).begin(successor);
  }

  /** Whether an upgrade is under way, or done. */
  get isUpgrading(): boolean {
    return this.#services?.use(upgrades).isUnderWay ?? false;
  }

  get canUpgrade(): boolean {
    return this.successor !== undefined;
  }

  /** Whether packets are being handled. */
  get isListening(): boolean {
    return this.#services !== undefined;
  }

  /** The configuration in force. */
  get config(): Config {
    return this.#inForce.config;
  }

  maskedConfig(): Readonly<Record<string, unknown>> {
    return maskedConfig(this.config);
  }

  /** Where the beacon listens. @throws Error before `listen` is done */
  get address(): SocketAddress {
    return this.#mustListen().use(sockets).address;
  }

  /** Where HTTP is served, if it is. */
  get httpUrl(): URL | undefined {
    return this.#services?.use(admin).url;
  }

  /** Where nodes connect whose network blocks UDP, if there is such a place. */
  get wssUrl(): URL | undefined {
    return this.#services?.use(bridge).url;
  }

  /** The numbers of this moment. @throws Error before `listen` is done */
  stats(): Stats {
    return this.#mustListen().stats() as Stats;
  }

  summary(): Counts {
    return this.#mustListen().summary();
  }

  get isHealthy(): boolean {
    return this.#healthy && !this.#draining && !this.#closing;
  }

  /** What /healthz says; true at start. It changes nothing else. */
  setHealthy(healthy: boolean): void {
    this.#healthy = healthy;
  }

  get notReady(): string | undefined {
    if (this.#closing || !this.#services) return "not listening";
    return this.#draining ? "draining" : this.#services.notReady;
  }

  get warnings(): readonly string[] {
    return this.#services?.warnings ?? [];
  }

  /**
   * Applies the options that may change while the beacon runs, and reads files anew.
   * @throws ConfigError for a bad option or file, or a conflict; nothing has changed then
   */
  reconfigure(options: Partial<Config>): ConfigChanges {
    const wanted = validateConfig(options, this.#given);
    const changes = compareConfigs(this.config, wanted);
    this.#inForce.use(reloadedConfig(this.config, wanted, this.#given));
    this.#services?.reconfigure();
    return changes;
  }

  /** Becomes unhealthy and not ready, relays for `drainMs`, and closes. `close` ends the wait. */
  drain(): Promise<void> {
    this.#drain ??= new Drain(this.config.drainMs);
    this.#draining ??= this.#closeAfter(this.#drain);
    return this.#draining;
  }

  /** How long this beacon goes on relaying; undefined while nothing ends it. */
  get drainLeftMs(): number | undefined {
    return this.#closing ? 0 : this.#drain?.leftMs;
  }

  /** Tells peers, saves the state, frees everything. Safe at any time, and more than once. */
  close(): Promise<void> {
    this.#drain?.end();
    if (!this.#services) this.#giveUp.abort();
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #listen(takeOver?: TakeOver): Promise<void> {
    const { config } = this;
    const services = new Services(features, this.#inForce, this.#guard);
    try {
      this.#inForce.use(config);
      const inherited = await takeOver?.inherit(config, version);
      const { workers, maxNodes: nodesMax, maxRoutes: routesMax } = config;
      const memory = new SharedMemory({ workers, nodesMax, routesMax });
      memory.words[HASH_SECRET] = inherited?.hashSecret ?? randomInt(2 ** 32) | 0;
      await services.create({
        given: this.#given,
        version,
        log: this.#log,
        guard: this.#guard,
        memory,
        nodes: new NodeTableOwner(memory, MAIN_THREAD_LOCK),
        routes: new RouteTableOwner(memory),
        predecessor: inherited,
        portPatienceMs: takeOver ? PORT_MS_MAX : 0,
        signal: this.#giveUp.signal,
        beacon: this,
        fail: (reason: Error) => this.#fail(reason),
      });
      const isWhole =
        inherited !== undefined && (await takeOver!.learn(services.handOvers, this.#log));
      await services.start(isWhole);
      this.#services = services;
      if (this.config !== config) services.reconfigure(); // changed meanwhile
      this.#sayListening(services);
      await takeOver?.served();
    } catch (error) {
      await services.stop(false);
      throw error;
    }
  }

  #sayListening(services: Services): void {
    const { beaconId, workers, maxNodes } = this.config;
    const { address, offload } = services.use(sockets);
    const urls = { http: this.httpUrl?.href, wss: this.wssUrl?.href };
    this.#log.info(
      { beaconId, workers, maxNodes, offload, ...urls },
      `beacon ${version} listens on ${hostPort(address.address, address.port)}`,
    );
  }

  async #closeAfter(drain: Drain): Promise<void> {
    const services = this.#services;
    await services?.use(upgrades).end();
    if (!this.#closing && !services?.use(upgrades).isUnderWay) {
      services?.each((service) => service.drain?.());
      const { drainMs } = this.config;
      if (drainMs > 0) this.#log.info({ drainMs }, "draining");
      await drain.over;
    }
    await this.close();
  }

  async #close(): Promise<void> {
    await this.#starting?.catch(() => {});
    const services = this.#services;
    if (services) {
      const upgrade = services.use(upgrades);
      await this.#guard.runAll([["ending the upgrade", () => upgrade.end()]]);
      await services.stop(upgrade.hasServed);
      this.#services = undefined;
      this.#log.info("beacon closed");
    }
    this.#ended.resolve();
  }

  /** Ends everything, and lets `closed` say why. */
  #fail(reason: Error): void {
    this.#healthy = false;
    this.#ended.reject(reason);
    void this.close();
  }

  #mustListen(): Services {
    if (!this.#services) throw new Error("this beacon is not listening");
    return this.#services;
  }
}
