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
import { hostPort } from "../ffi/socket.ts";
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
import type {
  AnyFeature,
  BeaconControl,
  Host,
  KeyFunction,
  Predecessor,
} from "./control/feature.ts";
import { Guard } from "./control/kit/guard.ts";
import { added, type Counts } from "./control/kit/metrics.ts";
import { createLogger } from "./control/log/log.ts";
import { nodes } from "./control/nodes/feature.ts";
import { FeatureFiles, Services } from "./control/services.ts";
import { sockets } from "./control/sockets/feature.ts";
import {
  HandOver,
  type HandOverDeps,
  type Upgraded,
  UpgradeError,
} from "./control/upgrade/hand-over.ts";
import type { Successor } from "./control/upgrade/successor.ts";
import type { TakeOver } from "./control/upgrade/take-over.ts";
import { workers } from "./control/workers/feature.ts";
import { features, metrics, type Stats } from "./features.ts";
import { HASH_SECRET, MAIN_THREAD_LOCK, SharedMemory } from "./shared/memory.ts";
import { NodeTable } from "./shared/nodes.ts";
import { RouteTable } from "./shared/routes.ts";

export { type Config, type ConfigChanges, ConfigError } from "./config.ts";
export type { BridgeStats } from "./control/bridge/bridge.ts";
export type { DirectoryStats } from "./control/directory/stats.ts";
export type { KeyFunction } from "./control/feature.ts";
export type { MeshStats, PeerStats } from "./control/mesh/mesh.ts";
export type { PunchedPairs } from "./control/punch/outcomes.ts";
export { type Upgraded, UpgradeError } from "./control/upgrade/hand-over.ts";
export type { Successor } from "./control/upgrade/successor.ts";
export { TakeOver } from "./control/upgrade/take-over.ts";
export type { WorkerStats } from "./control/workers/feature.ts";
export type { PacketStats } from "./control/workers/packet-stats.ts";
export type { Stats } from "./features.ts";
export { type SocketAddress, SyscallError };

export const version: string = packageJson.version;

const TICK_MS = 1000;
/** How long a port may still be held by a process that is about to release it, or dying. */
const PORT_MS_MAX = 1000;
/**
 * How long a beacon that has handed over stays: for answers under way, and to serve again if its
 * successor dies at once.
 */
const RETIRE_MS = 1000;

/** A beacon that listens. */
interface Running {
  readonly memory: SharedMemory;
  readonly services: Services;
  readonly timer: Timer;
}

export class Beacon implements BeaconControl {
  /** Settles when the beacon is closed; rejects when it ended by itself, with the reason. */
  readonly closed: Promise<void>;
  /**
   * How `upgrade` starts the process that takes over, unless given; undefined for a library's
   * beacon.
   */
  successor: Successor | undefined;
  readonly metrics = metrics;
  #config: Config;
  /** Files that the configuration names; undefined before `listen`. */
  #files: FeatureFiles | undefined;
  readonly #log: Logger;
  readonly #guard: Guard;
  readonly #settleClosed: { resolve: () => void; reject: (error: Error) => void };
  /** Aborted by a close before the start is done. */
  readonly #giveUp = new AbortController();
  #running: Running | undefined;
  #starting: Promise<void> | undefined;
  #draining: Promise<void> | undefined;
  /** When that is over, by performance.now(). */
  #drainEndMs = 0;
  /** Ends the wait of a drain. */
  #endDrain: (() => void) | undefined;
  #handOver: HandOver | undefined;
  #upgrading: Promise<Upgraded> | undefined;
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
    private readonly keyOf?: KeyFunction,
  ) {
    this.#config = validateConfig(options, { keyOf });
    this.#log = log;
    this.#guard = new Guard(log);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    promise.catch(() => {}); // whoever awaits `closed` sees it
    this.closed = promise;
    this.#settleClosed = { resolve, reject };
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
   * Starts another process, which may be of another version, and hands over to it: sockets, nodes,
   * routes, use of limits. No packet is lost. Resolves once that one serves; this beacon then sends
   * the bridge's nodes away, to come back to that one, and closes within some seconds.
   * @throws UpgradeError when the other one did not come to serve; this one goes on as if nothing
   * had been
   */
  async upgrade(successor: Successor | undefined = this.successor): Promise<Upgraded> {
    if (successor === undefined)
      throw new UpgradeError(
        "this beacon is not told how to start the process that takes over: set `successor`",
      );
    if (this.#handOver) throw new UpgradeError("an upgrade is under way already");
    if (successor.obstacle !== undefined) throw new UpgradeError(successor.obstacle);
    if (this.#draining || this.#closing) throw new UpgradeError("this beacon is draining");
    if (!this.#running) throw new UpgradeError("this beacon does not listen");
    const handOver = new HandOver(successor, this.#handOverDeps(this.#running));
    this.#handOver = handOver;
    this.#upgrading = this.#handOverBy(handOver);
    return this.#upgrading;
  }

  async #handOverBy(handOver: HandOver): Promise<Upgraded> {
    try {
      const upgraded = await handOver.run();
      const { pid, version } = upgraded;
      this.#log.info(
        { successor: pid, version },
        `process ${pid}, version ${version}, serves; this one ends`,
      );
      void this.#retire(handOver);
      return upgraded;
    } catch (error) {
      this.#handOver = undefined;
      throw error;
    }
  }

  /** Whether an upgrade is under way, or done. */
  get isUpgrading(): boolean {
    return this.#handOver !== undefined;
  }

  get canUpgrade(): boolean {
    return this.successor !== undefined;
  }

  get hasHandedOver(): boolean {
    return this.#handOver?.hasTold ?? false;
  }

  /** Whether packets are being handled. */
  get isListening(): boolean {
    return this.#running !== undefined;
  }

  /** The configuration in force. */
  get config(): Config {
    return this.#config;
  }

  maskedConfig(): Readonly<Record<string, unknown>> {
    return maskedConfig(this.#config);
  }

  /** Where the beacon listens. @throws Error before `listen` is done */
  get address(): SocketAddress {
    return this.#mustRun().services.use(sockets).address;
  }

  /** Where HTTP is served, if it is. */
  get httpUrl(): URL | undefined {
    return this.#running?.services.use(admin).url;
  }

  /** Where nodes connect whose network blocks UDP, if there is such a place. */
  get wssUrl(): URL | undefined {
    return this.#running?.services.use(bridge).url;
  }

  /** The numbers of this moment. @throws Error before `listen` is done */
  stats(): Stats {
    const { services } = this.#mustRun();
    return Object.assign({}, ...services.all.map((service) => service.stats?.())) as Stats;
  }

  summary(): Counts {
    const stats = this.stats() as never;
    return added(features.map((feature: AnyFeature) => feature.summary?.(stats) ?? {}));
  }

  get isHealthy(): boolean {
    return this.#healthy && !this.#draining && !this.#closing;
  }

  /** What /healthz says; true at start. It changes nothing else. */
  setHealthy(healthy: boolean): void {
    this.#healthy = healthy;
  }

  get notReady(): string | undefined {
    if (this.#closing || !this.#running) return "not listening";
    if (this.#draining) return "draining";
    const { services } = this.#running;
    const [reason] = services.gather((service) => {
      const one = service.notReady?.();
      return one === undefined ? [] : [one];
    });
    return reason;
  }

  get warnings(): readonly string[] {
    return this.#running?.services.gather((service) => service.warnings?.()) ?? [];
  }

  /**
   * Goes on with another configuration as far as that can change while the beacon runs; what cannot
   * stays as it is. Files that it names are read anew.
   * @throws ConfigError when an option or a file is bad, or bad beside those that stay; nothing has
   * changed then
   */
  reconfigure(options: Partial<Config>): ConfigChanges {
    const given = { keyOf: this.keyOf };
    const wanted = validateConfig(options, given);
    const changes = compareConfigs(this.#config, wanted);
    const config = reloadedConfig(this.#config, wanted, given);
    const files = this.#readFiles(config);
    this.#config = config;
    this.#use(files);
    if (this.#running) this.#applyTo(this.#running.services);
    return changes;
  }

  #applyTo(services: Services): void {
    services.each((service, feature) => {
      service.reconfigure?.(this.#config as never, this.#files!.of(feature) as never);
    });
  }

  #readFiles(config: Config): FeatureFiles {
    return new FeatureFiles(features, config, { keyOf: this.keyOf }, this.#files);
  }

  /**
   * Says that it is going (unhealthy, not ready), relays on for the time that `drainMs` gives, and
   * closes. A call of `close` ends the wait, another one of this does not.
   */
  drain(): Promise<void> {
    if (this.#draining === undefined) {
      this.#drainEndMs = performance.now() + this.#config.drainMs;
      this.#draining = this.#drain();
    }
    return this.#draining;
  }

  /** How long this beacon goes on relaying; undefined while nothing ends it. */
  get drainLeftMs(): number | undefined {
    if (this.#closing) return 0;
    return this.#draining && Math.max(0, Math.round(this.#drainEndMs - performance.now()));
  }

  /**
   * Ends the beacon: tells its peers, saves its state, frees its ports, threads and memory. Safe at
   * any time, and more than once.
   */
  close(): Promise<void> {
    this.#endDrain?.();
    if (!this.#running) this.#giveUp.abort();
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #listen(takeOver?: TakeOver): Promise<void> {
    const config = this.#config;
    const services = new Services(features, this.#guard);
    try {
      const read = this.#readFiles(config);
      if (this.#config === config) this.#use(read); // else a reload has read them meanwhile
      const inherited = await takeOver?.inherit(config);
      const memory = new SharedMemory({
        workers: config.workers,
        nodesMax: config.maxNodes,
        routesMax: config.maxRoutes,
      });
      memory.words[HASH_SECRET] = inherited?.hashSecret ?? randomInt(2 ** 32) | 0;
      const predecessor = inherited && {
        ...inherited,
        locals: inherited.locals ?? [],
        waitForTurn: () => takeOver!.waitForTurn(version),
      };
      await services.create(this.#hosts(services, memory, predecessor, takeOver !== undefined));
      const sections = services.gather(({ handOver }) => handOver && [handOver]);
      const isWhole = inherited !== undefined && (await takeOver!.learn(sections, this.#log));
      await services.start(isWhole);
      if (this.#config !== config) this.#applyTo(services); // changed meanwhile
      const timer = setInterval(() => services.each((service) => service.tick?.()), TICK_MS);
      this.#running = { memory, services, timer };
      this.#sayListening(services);
      await takeOver?.served();
    } catch (error) {
      await services.stop(false);
      throw error;
    }
  }

  #handOverDeps({ memory, services }: Running): HandOverDeps {
    const { addr, steering } = this.#config;
    const { all, offload } = services.use(sockets);
    return {
      services: services.all,
      workers: services.use(workers).supervisor,
      sockets: all,
      log: this.#log,
      offer: () => ({
        ...{ version, addr, steering, offload },
        hashSecret: memory.words[HASH_SECRET]!,
        maySave: services.use(nodes).state?.maySave ?? true,
        locals: services.use(sockets).locals,
      }),
    };
  }

  #sayListening(services: Services): void {
    const { beaconId, workers, maxNodes } = this.#config;
    const { address, offload } = services.use(sockets);
    const urls = { http: services.use(admin).url?.href, wss: services.use(bridge).url?.href };
    this.#log.info(
      { beaconId, workers, maxNodes, offload, ...urls },
      `beacon ${version} listens on ${hostPort(address.address, address.port)}`,
    );
  }

  #hosts(
    services: Services,
    memory: SharedMemory,
    predecessor: Predecessor | undefined,
    takesOver: boolean,
  ): (feature: AnyFeature) => Host<Config, unknown> {
    const beacon = this;
    const fixed = {
      given: { keyOf: this.keyOf },
      version,
      log: this.#log,
      memory,
      nodes: new NodeTable(memory, MAIN_THREAD_LOCK),
      routes: new RouteTable(memory),
      predecessor,
      portPatienceMs: takesOver ? PORT_MS_MAX : 0,
      signal: this.#giveUp.signal,
      beacon,
      use: <F extends AnyFeature>(feature: F) => services.use(feature),
      fail: (reason: Error) => this.#fail(reason),
    };
    return (feature) => ({
      ...fixed,
      get config() {
        return beacon.#config;
      },
      get files() {
        return beacon.#files?.of(feature);
      },
    });
  }

  /**
   * Ends this beacon, in whose place another process serves; if that one dies meanwhile, it serves
   * again.
   */
  async #retire(handOver: HandOver): Promise<void> {
    const { signal } = handOver;
    const over = Promise.withResolvers<void>();
    const timer = setTimeout(over.resolve, RETIRE_MS);
    signal.addEventListener("abort", () => over.resolve());
    const retired = this.#running!.services.all.map((service) => service.retire?.(signal));
    const stayed = Promise.all([over.promise, ...retired]).then(() => "0");
    const endedWith = await Promise.race([stayed, handOver.ended()]);
    clearTimeout(timer);
    if (endedWith === "0" || signal.aborted) {
      await this.close();
      return;
    }
    await handOver.resume();
    this.#handOver = undefined;
    this.#log.error(`the new process ended at once (${endedWith}): this one serves again`);
    this.successor?.onServingAgain?.();
  }

  /** Gives an upgrade up that has not come about; hastens the end of one that has. */
  async #endHandOver(): Promise<void> {
    this.#handOver?.cancel();
    await this.#upgrading?.catch(() => {});
  }

  async #drain(): Promise<void> {
    await this.#endHandOver();
    if (!this.#closing && !this.#handOver) {
      this.#running?.services.each((service) => service.drain?.());
      const { promise, resolve } = Promise.withResolvers<void>();
      const timer = setTimeout(resolve, this.#config.drainMs);
      this.#endDrain = () => {
        clearTimeout(timer);
        resolve();
      };
      if (this.#config.drainMs > 0) this.#log.info({ drainMs: this.#config.drainMs }, "draining");
      await promise;
    }
    await this.close();
  }

  async #close(): Promise<void> {
    await this.#starting?.catch(() => {});
    await this.#guard.runAll([["ending the upgrade", () => this.#endHandOver()]]);
    const running = this.#running;
    if (running) {
      clearInterval(running.timer);
      await running.services.stop(this.#handOver?.hasServed ?? false);
      this.#running = undefined;
      this.#log.info("beacon closed");
    }
    this.#settleClosed.resolve();
  }

  /** Ends everything, and lets `closed` say why. */
  #fail(reason: Error): void {
    this.#healthy = false;
    this.#settleClosed.reject(reason);
    void this.close();
  }

  #mustRun(): Running {
    if (!this.#running) throw new Error("this beacon is not listening");
    return this.#running;
  }

  #use(files: FeatureFiles): void {
    const known = new Set(this.#files?.warnings); // each once, however often files are read
    this.#files = files;
    for (const warning of files.warnings) if (!known.has(warning)) this.#log.warn(warning);
  }
}
