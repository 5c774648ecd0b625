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
import { attachReusePortProgram } from "../ffi/bpf.ts";
import { CoarseClock } from "../ffi/clock.ts";
import { endpointOf, isLoopback, type SocketAddress } from "../ffi/endpoint.ts";
import { errnoName, SyscallError } from "../ffi/errno.ts";
import { kernel } from "../ffi/libc.ts";
import { hostPort, type UdpSocket } from "../ffi/socket.ts";
import packageJson from "../package.json" with { type: "json" };
import {
  type Config,
  type ConfigChanges,
  compareConfigs,
  maskedConfig,
  parseHostPort,
  reloadedConfig,
  validateConfig,
} from "./config.ts";
import { Explainer } from "./control/admin/explain.ts";
import { type HttpServer, serveHttp } from "./control/admin/http.ts";
import type { Disconnection } from "./control/admin/node-answers.ts";
import { StatisticsLog } from "./control/admin/statistics-log.ts";
import { packetStats, type Stats } from "./control/admin/stats.ts";
import { Admin } from "./control/admin/token.ts";
import { Warnings } from "./control/admin/warnings.ts";
import { Bridge, type BridgeOptions, type BridgeParts } from "./control/bridge/bridge.ts";
import type { Directory } from "./control/directory/directory.ts";
import { DirectorySetup } from "./control/directory/setup.ts";
import { type Inputs, readInputs, readStartInputs } from "./control/inputs.ts";
import type { KeyFunction } from "./control/keys/keys.ts";
import { FilesLeft, filesAdvice, filesNeeded, openFilesMax } from "./control/kit/files-left.ts";
import { Guard, type Step } from "./control/kit/guard.ts";
import { type ListenerName, Listeners } from "./control/kit/listeners.ts";
import { Readings } from "./control/kit/readings.ts";
import { Breakers } from "./control/limits/breakers.ts";
import { Limits } from "./control/limits/limits.ts";
import { createLogger, droppedLogLines } from "./control/log/log.ts";
import { Mesh } from "./control/mesh/mesh.ts";
import { Reaper, TICK_MS } from "./control/nodes/expiry.ts";
import { NodeList } from "./control/nodes/list.ts";
import { StateKeeper } from "./control/nodes/state-keeper.ts";
import { ThreadFiles } from "./control/nodes/thread-files.ts";
import { PunchGrants } from "./control/punch/grants.ts";
import { PunchOutcomes } from "./control/punch/outcomes.ts";
import {
  adoptSockets,
  type BeaconSockets,
  openSockets,
  setReceiveTimeouts,
} from "./control/sockets/sockets.ts";
import { SourceAddresses } from "./control/sockets/source-addresses.ts";
import { steeringProgram } from "./control/sockets/steering.ts";
import { HandOver, type Upgraded, UpgradeError } from "./control/upgrade/hand-over.ts";
import type { Successor } from "./control/upgrade/successor.ts";
import type { Heir, Inherited, TakeOver } from "./control/upgrade/take-over.ts";
import { MailReader } from "./control/workers/mail-reader.ts";
import { Supervisor } from "./control/workers/supervisor.ts";
import { Introductions } from "./data/introductions.ts";
import { HASH_SECRET, MAIN_THREAD_LOCK, OFFLOAD_ERRNO, SharedMemory } from "./shared/memory.ts";
import { LOCK_RETRY_MS, NodeTable } from "./shared/nodes.ts";
import { RouteTable } from "./shared/routes.ts";
import { WORKER_ENTRY } from "./thread-entries.ts";

export { type Config, type ConfigChanges, ConfigError } from "./config.ts";
export type { PacketStats, Stats, WorkerStats } from "./control/admin/stats.ts";
export type { BridgeStats } from "./control/bridge/bridge.ts";
export type { DirectoryStats } from "./control/directory/stats.ts";
export type { KeyFunction } from "./control/keys/keys.ts";
export type { MeshStats, PeerStats } from "./control/mesh/mesh.ts";
export type { PunchedPairs } from "./control/punch/outcomes.ts";
export { type Upgraded, UpgradeError } from "./control/upgrade/hand-over.ts";
export type { Successor } from "./control/upgrade/successor.ts";
export { TakeOver } from "./control/upgrade/take-over.ts";
export { type SocketAddress, SyscallError };

export const version: string = packageJson.version;

/** How often the statistics line is logged, if anything happened. */
const STATISTICS_MS = 60_000;

/** Files that a beacon has open beside WebSockets: 64 sockets at most, some for each worker, 128 to spare; HTTP, the state file, what Bun needs. */
const FILES_BESIDE_WSS = 512;

/** Retries of a removal from a locked shard: one second with `LOCK_RETRY_MS` between them. */
const DISCONNECT_RETRIES_MAX = 100;

/** How long a port may still be another process's that is giving it up, or dying. */
const PORT_MS_MAX = 1000;
const PORT_RETRY_MS = 5;
/**
 * How long a beacon that has handed over stays: for answers under way to leave, and to serve again if its successor dies at once; and if it
 * has nodes on WebSockets, so that they do not all come back at the same moment.
 */
const RETIRE_MS = 1000;
const SEND_AWAY_MS = 3000;
/** Limit on its wait for HTTP clients that have connected and not asked yet: what a request may take. */
const ASK_MS_MAX = 10_000;

/** What HTTP is to show, beside the beacon itself. */
interface Shown {
  readonly breakers: Breakers;
  readonly nodes: NodeList;
  readonly explainer: Explainer;
}

/** What a listening beacon consists of. */
interface Running {
  readonly address: SocketAddress;
  readonly startedMs: number;
  readonly memory: SharedMemory;
  readonly nodes: NodeTable;
  readonly sockets: readonly UdpSocket[];
  readonly sources: SourceAddresses;
  readonly offload: boolean;
  readonly supervisor: Supervisor;
  readonly reaper: Reaper;
  readonly limits: Limits;
  readonly breakers: Breakers;
  readonly state: StateKeeper | undefined;
  readonly routes: RouteTable;
  readonly mesh: Mesh;
  readonly directory: Directory | undefined;
  readonly bridge: Bridge | undefined;
  readonly grants: PunchGrants;
  readonly punchOutcomes: PunchOutcomes;
  readonly mail: MailReader;
  readonly statistics: StatisticsLog;
  readonly warnings: Warnings;
  readonly timers: readonly Timer[];
  readonly listeners: Listeners;
  readonly files: FilesLeft | undefined;
  readonly http: HttpServer | undefined;
}

export class Beacon {
  /** Settles when the beacon is closed; rejects when it ended by itself, with the reason. */
  readonly closed: Promise<void>;
  #config: Config;
  /** Contents of the files that the configuration names; undefined before `listen`. */
  #inputs: Inputs | undefined;
  readonly #log: Logger;
  readonly #admin: Admin;
  readonly #settleClosed: { resolve: () => void; reject: (error: Error) => void };
  #running: Running | undefined;
  #starting: Promise<void> | undefined;
  #draining: Promise<void> | undefined;
  /** When that is over, by performance.now(). */
  #drainEndMs = 0;
  #stateFiles: ThreadFiles | undefined;
  #handOver: HandOver | undefined;
  #upgrading: Promise<Upgraded> | undefined;
  /** How `upgrade` starts the process that takes over, unless told; undefined for a library's beacon. */
  successor: Successor | undefined;
  #closing: Promise<void> | undefined;
  #healthy = true;
  #lastResidentBytes: number | undefined;
  readonly #readings: Readings;
  readonly #guard: Guard;
  /** Ends the wait of a drain. */
  #endDrain: (() => void) | undefined;

  /**
   * @param options over the defaults; unlike the command line's, a library's beacon serves no HTTP unless asked to
   * @param log a pino logger; silent without it
   * @param keyOf tells the nodes' public keys, for the WebSocket bridge and for grants, in place of a registry or a file
   * @throws ConfigError when an option is bad
   */
  constructor(
    options: Partial<Config> = {},
    log: Logger = createLogger({ level: "silent", format: "json" }),
    private readonly keyOf?: KeyFunction,
  ) {
    this.#config = validateConfig(options, { hasKeySource: keyOf !== undefined });
    this.#log = log;
    this.#admin = new Admin(log);
    this.#readings = new Readings(log);
    this.#guard = new Guard(log);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    promise.catch(() => {}); // whoever awaits `closed` sees it; nobody has to
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
   * Starts another process, which may be of another version, and hands over to it: sockets, nodes, routes, use of limits. No packet is lost.
   * Resolves once that one serves; this beacon then sends the bridge's nodes away, to come back to that one, and closes within some seconds.
   * @throws UpgradeError when the other one did not come to serve; this one goes on as if nothing had been
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
    const handOver = new HandOver(successor, this.#handOverParts(this.#running));
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

  /** Whether packets are being handled. */
  get isListening(): boolean {
    return this.#running !== undefined;
  }

  /** The configuration in force. */
  get config(): Config {
    return this.#config;
  }

  /** Where the beacon listens. @throws Error before `listen` is done */
  get address(): SocketAddress {
    return this.#mustRun().address;
  }

  /** Where HTTP is served, if it is. */
  get httpUrl(): URL | undefined {
    return this.#running?.http?.url;
  }

  /** Where nodes connect whose network blocks UDP, if there is such a place. */
  get wssUrl(): URL | undefined {
    return this.#running?.bridge?.url;
  }

  /** The numbers of this moment. @throws Error before `listen` is done */
  stats(): Stats {
    const running = this.#mustRun();
    const { memory, nodes, supervisor, sockets, address, startedMs, mesh, directory } = running;
    const { breakers, state, bridge, grants } = running;
    return {
      version,
      beaconId: this.config.beaconId,
      address,
      uptimeS: (performance.now() - startedMs) / 1000,
      healthy: this.#isHealthy(),
      notReady: this.#notReady() ?? null,
      warnings: running.warnings.list,
      nodes: nodes.size() - mesh.ownNodes,
      nodesMax: this.config.maxNodes,
      residentBytes: this.#residentBytes(),
      cpuS: this.#readings.read("the CPU time", () => {
        const { user, system } = process.cpuUsage();
        return (user + system) / 1e6;
      }),
      mesh: mesh.stats(),
      directory: directory?.stats() ?? null,
      punchedPairs: running.punchOutcomes.stats(),
      breakers: breakers.states,
      logLinesDropped: droppedLogLines(),
      stateSavedS: state?.savedS ?? null,
      workers: sockets.map((socket, worker) => ({
        worker,
        alive: supervisor.isAlive(worker),
        restarts: supervisor.restarts[worker]!,
        socketReceiveDrops: this.#readings.read("drops at sockets", () => socket.receiveDrops()),
        cpuS: supervisor.cpuS(worker),
        ...packetStats(memory, memory.counterRow(worker)),
      })),
      bridge: bridge ? { ...bridge.stats(), packets: packetStats(memory, memory.bridgeRow) } : null,
      grants: grants.wereRequired ? packetStats(memory, memory.grantsRow) : null,
    };
  }

  /** As it was when it could be read last: that takes a file, of which there may be none left. */
  #residentBytes(): number | null {
    return this.#readings.read("the resident memory", () => {
      try {
        this.#lastResidentBytes = process.memoryUsage.rss();
      } catch (error) {
        if (this.#lastResidentBytes === undefined) throw error;
      }
      return this.#lastResidentBytes;
    });
  }

  /** What /healthz says; true at start. It changes nothing else. */
  setHealthy(healthy: boolean): void {
    this.#healthy = healthy;
  }

  /**
   * Goes on with another configuration as far as that can change while the beacon runs; what cannot stays as it is. Files that it
   * names are read anew.
   * @throws ConfigError when an option or a file is bad, or bad beside those that stay; nothing has changed then
   */
  reconfigure(options: Partial<Config>): ConfigChanges {
    const handedOver = { hasKeySource: this.keyOf !== undefined };
    const wanted = validateConfig(options, handedOver);
    const changes = compareConfigs(this.#config, wanted);
    const config = reloadedConfig(this.#config, wanted, handedOver);
    const inputs = readInputs(config, { keyOf: this.keyOf, keysBefore: this.#inputs?.keys });
    this.#running?.bridge?.reconfigure(inputs.bridge!);
    this.#running?.grants.configure(config.requirePunchGrant, inputs.keys);
    this.#config = config;
    this.#use(inputs);
    if (changes.reloaded.includes("logLevel")) this.#log.level = config.logLevel;
    this.#running?.limits.configure(config, this.#running.nodes.size());
    this.#running?.mesh.reconfigure(config, inputs.gossipKeys);
    return changes;
  }

  /**
   * Says that it is going (unhealthy, not ready), relays on for the time that `drainMs` gives, and closes. A call of `close` ends
   * the wait, another one of this does not.
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
   * Ends the beacon: tells its peers, saves its state, frees its ports, threads and memory. Safe at any time, and more than once.
   */
  close(): Promise<void> {
    this.#endDrain?.();
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #listen(takeOver?: TakeOver): Promise<void> {
    const config = this.#config;
    const log = this.#log;
    const beganMs = performance.now();
    const release: (() => unknown)[] = [() => this.#stateFiles?.end()];
    try {
      const stateFiles = config.stateFile === "off" ? undefined : new ThreadFiles();
      this.#stateFiles = stateFiles;
      if (takeOver) stateFiles?.hurry(); // the process before waits for this one
      const read = await readStartInputs(config, {
        keyOf: this.keyOf,
        checkState: (path) => StateKeeper.check(path, stateFiles!, log),
      });
      if (this.#config === config) this.#use(read); // else a reload has read them meanwhile
      const inherited = await takeOver?.inherit(config);
      const { sockets, reaches, ...granted } = await this.#sockets(inherited, takeOver !== undefined);
      release.unshift(() => sockets.forEach((socket) => void socket.close()));
      const memory = new SharedMemory({
        workers: config.workers,
        nodesMax: config.maxNodes,
        routesMax: config.maxRoutes,
      });
      memory.words[HASH_SECRET] = inherited?.hashSecret ?? randomInt(2 ** 32) | 0;
      const nodes = new NodeTable(memory, MAIN_THREAD_LOCK);
      const routes = new RouteTable(memory);
      const directorySetup =
        config.directory === "off" ? undefined : new DirectorySetup(memory, nodes, routes);
      const reaper = new Reaper(memory, nodes, config.nodeTtlMs);
      const limits = new Limits(memory);
      limits.configure(config, nodes.size());
      const breakers = new Breakers(memory, log);
      this.#warnOfFiles();
      this.#warnOfBuffers(granted);
      if (config.offload && !granted.offload && !inherited)
        log.warn("offload is off: this kernel lacks UDP_GRO or UDP_SEGMENT");
      if (config.steering && !inherited) this.#attachSteering(sockets, memory);
      const state =
        config.stateFile === "off"
          ? undefined
          : new StateKeeper(
              config.stateFile,
              config.stateIntervalMs,
              memory,
              nodes,
              config.nodeTtlMs,
              stateFiles!,
              log,
            );
      const accepts = (endpoint: Int32Array) => reaches(endpoint) && !limits.isDenied(endpoint);
      const sources = new SourceAddresses(memory, sockets, config.sourceAddress, log);
      const localNumber = (address: Int32Array) => sources.adopt(address);
      // Before the first packet is read.
      if (inherited) state?.adopt(inherited.maySave);
      else await state?.load({ accepts, localNumber });
      const supervisor = new Supervisor(
        WORKER_ENTRY,
        memory,
        nodes,
        sockets,
        { beaconId: config.beaconId, batchMax: config.batchMax, offload: granted.offload },
        {
          restarted: (worker, error) => log.error({ worker, err: error }, "worker died and was replaced"),
          delayed: (worker, error) =>
            log.error(
              { worker, err: error },
              "worker died and is replaced once files can be opened: raise LimitNOFILE or ulimit -n",
            ),
          failed: (worker, error) => this.#fail(worker, error),
        },
      );
      release.unshift(() => supervisor.stop());
      const address = sockets[0]!.localAddress();
      const mesh = new Mesh(
        {
          ...{ memory, nodes, socket: sockets[0]!, address, reaches, limits, routes, sources },
          ...(directorySetup && { nowMs: () => directorySetup.clock.nowMs() }),
        },
        config,
        this.#inputs!.gossipKeys,
        log,
      );
      const directory = directorySetup?.open(
        config,
        address,
        mesh,
        (nodeId) => this.#running?.bridge?.disconnect(nodeId),
        log,
      );
      const clock = new CoarseClock();
      const explainer = new Explainer({
        memory,
        nodes,
        routes,
        mesh,
        directory,
        breakers,
        config: () => this.#config,
        nowNs: () => clock.nowNs(),
      });
      const heir: Heir = {
        ...{ memory, nodes, mesh, accepts, localNumber },
        nowS: () => 1 + Math.floor((performance.now() - beganMs) / 1000),
        nodeTtlS: Math.ceil(config.nodeTtlMs / 1000),
      };
      // What the old process had no time to tell may be in the file.
      if (inherited && !(await takeOver!.learn(heir))) await state?.load({ accepts, localNumber });
      supervisor.sharesSockets = inherited !== undefined;
      await supervisor.start(inherited !== undefined);
      if (inherited) {
        await takeOver!.waitForTurn(heir, version, log);
        this.#adoptBreakers(takeOver!, breakers);
        limits.tick(nodes.size());
        reaper.tick(performance.now() - beganMs);
        setReceiveTimeouts(sockets, false);
        supervisor.unpark();
      }
      const patienceMs = takeOver ? PORT_MS_MAX : 0;
      const listeners = new Listeners();
      release.unshift(() => listeners.close());
      listeners.adopt(takeOver?.listeners ?? []);
      const shown = { breakers, nodes: new NodeList(memory, nodes), explainer };
      const http = await this.#serveHttp(shown, listeners, patienceMs);
      release.unshift(() => http?.stop());
      const { fd, family } = sockets[0]!;
      const inputs = this.#inputs!; // as they are now: a reload may have come meanwhile
      const { beaconId } = config;
      const bridge = await this.#openBridge(
        { memory, nodes, fd, family, beaconId, offload: granted.offload, log },
        inputs.bridge,
        listeners,
        patienceMs,
      );
      release.unshift(() => bridge?.stop());
      const files = http || bridge ? new FilesLeft(openFilesMax()) : undefined;
      release.unshift(() => files?.close());
      breakers.bridge = bridge;
      if (bridge && takeOver?.breakers["bridge"] === "off") bridge.switch(false);
      const introductions = new Introductions(kernel, memory, nodes, { fd, family });
      const grants = new PunchGrants({ memory, nodes, introductions, log });
      grants.configure(this.#config.requirePunchGrant, inputs.keys);
      const mail = new MailReader(memory, [...(bridge ? [bridge.mail] : []), mesh.mail, grants.mail]);
      mail.start();
      mesh.start();
      directory?.adopt(mesh.fleet);
      directory?.start();
      if (this.#config !== config) {
        // Meanwhile.
        limits.configure(this.#config, nodes.size());
        mesh.reconfigure(this.#config, inputs.gossipKeys);
      }
      stateFiles?.relax();
      state?.start();
      const startedMs = inherited ? beganMs : performance.now();
      const statistics = new StatisticsLog(log, memory);
      const timers = [
        setInterval(() => this.#tick(), TICK_MS),
        setInterval(
          () => this.#guard.run("the statistics line", () => statistics.log(this.stats())),
          STATISTICS_MS,
        ),
      ];
      this.#running = {
        address,
        startedMs,
        memory,
        nodes,
        sockets,
        sources,
        offload: granted.offload,
        supervisor,
        reaper,
        limits,
        breakers,
        state,
        routes,
        mesh,
        directory,
        bridge,
        grants,
        punchOutcomes: new PunchOutcomes(memory),
        mail,
        statistics,
        warnings: new Warnings({ memory, mesh, directory, state, bridge, config, log }),
        timers,
        listeners,
        files,
        http,
      };
      log.info(
        {
          beaconId: config.beaconId,
          workers: config.workers,
          maxNodes: config.maxNodes,
          offload: granted.offload,
          ...(http ? { http: http.url.href } : {}),
          ...(bridge ? { wss: bridge.url.href } : {}),
        },
        `beacon ${version} listens on ${hostPort(address.address, address.port)}`,
      );
      await takeOver?.served();
    } catch (error) {
      await this.#guard.runAll(release.map((step) => ["releasing what the start opened", step]));
      throw error;
    }
  }

  async #sockets(inherited: Inherited | undefined, mayBeTaken: boolean): Promise<BeaconSockets> {
    const { addr, workers: count, recvBufferBytes, sendBufferBytes, offload, steering } = this.#config;
    const options = { count, recvBufferBytes, sendBufferBytes, offload };
    if (!inherited)
      return whileTaken(mayBeTaken ? PORT_MS_MAX : 0, () => openSockets(parseHostPort(addr), options));
    const stays = [
      ...(steering === inherited.steering ? [] : ["--steering"]),
      ...(offload || !inherited.offload ? [] : ["--offload"]),
    ];
    if (stays.length > 0) this.#log.warn(`changed only by a restart: ${stays.join(", ")}`);
    return adoptSockets(inherited.fds, { ...options, offload: inherited.offload });
  }

  #handOverParts(running: Running) {
    const { memory, nodes, sockets, supervisor, reaper, state, routes, mesh, breakers, offload } = running;
    const { http, bridge, listeners } = running;
    const { addr, steering } = this.#config;
    return {
      ...{
        memory,
        nodes,
        sockets,
        supervisor,
        reaper,
        state,
        routes,
        mesh,
        breakers,
        listeners,
        log: this.#log,
      },
      offer: { version, addr, steering, offload },
      suspend: () => {
        http?.suspend();
        bridge?.suspend();
      },
      resume: () => {
        http?.resume();
        bridge?.resume();
      },
    };
  }

  /** Ends this beacon, in whose place another process serves; if that one dies meanwhile, it serves again. */
  async #retire(handOver: HandOver): Promise<void> {
    const { bridge, http } = this.#running!;
    const { signal } = handOver;
    const over = Promise.withResolvers<void>();
    const timer = setTimeout(over.resolve, RETIRE_MS);
    signal.addEventListener("abort", () => over.resolve());
    const answered = untilAnswered(http, ASK_MS_MAX, signal);
    const sentAway = bridge?.sendAway(SEND_AWAY_MS, signal);
    const stayed = Promise.all([over.promise, answered, sentAway]).then(() => "0");
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

  /** As they were in the process before. */
  #adoptBreakers(takeOver: TakeOver, breakers: Breakers): void {
    for (const [name, state] of Object.entries(takeOver.breakers)) {
      if (state === "off") breakers.switch(name, false, "the process before");
    }
  }

  /** Gives an upgrade up that has not come about; hastens the end of one that has. */
  async #endHandOver(): Promise<void> {
    this.#handOver?.cancel();
    await this.#upgrading?.catch(() => {});
  }

  async #drain(): Promise<void> {
    await this.#endHandOver();
    if (!this.#closing && !this.#handOver) {
      this.#running?.bridge?.drain();
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
    if (!this.#running) this.#stateFiles?.giveUp(); // the start may wait for it
    await this.#starting?.catch(() => {});
    await this.#guard.runAll([["ending the upgrade", () => this.#endHandOver()]]);
    const running = this.#running;
    if (running) {
      for (const timer of running.timers) clearInterval(timer);
      await this.#guard.runAll([
        ["leaving the directory", () => running.directory?.stop(running.mesh.isSilent)],
        ["leaving the mesh", () => running.mesh.stop()],
        ["closing HTTP", () => running.http?.stop()],
        ["closing the bridge", () => running.bridge?.stop()],
        ["closing listeners", () => running.listeners.close()],
        ["releasing spare files", () => running.files?.close()],
        ["stopping the mail", () => running.mail.stop()],
        ["stopping punch grants", () => running.grants.stop()],
        ["stopping the workers", () => running.supervisor.stop()],
        ["saving the state file", () => running.state?.stop()], // now that no worker writes to the table
        ["the statistics line", () => running.statistics.log(this.stats())],
        ...running.sockets.map((socket): Step => ["closing a socket", () => socket.close()]),
      ]);
      this.#running = undefined;
      this.#log.info("beacon closed");
    }
    this.#settleClosed.resolve();
  }

  /** A worker keeps dying: end everything, and let `closed` say why. */
  #fail(worker: number, error: Error): void {
    const reason = new Error(`worker ${worker} keeps dying: ${error.message}`, { cause: error });
    this.#healthy = false;
    this.#log.error({ worker, err: error }, "worker died and is not replaced again");
    this.#settleClosed.reject(reason);
    void this.close();
  }

  #mustRun(): Running {
    if (!this.#running) throw new Error("this beacon is not listening");
    return this.#running;
  }

  #isHealthy(): boolean {
    return this.#healthy && !this.#draining && !this.#closing;
  }

  /** Forgets a node, until it is heard again. */
  async #disconnect(nodeId: number): Promise<Disconnection> {
    const { nodes, bridge } = this.#mustRun();
    if (this.#handOver?.hasTold) return "contended"; // the other process has the node, and would not learn of it
    const wasBridged = bridge?.disconnect(nodeId) ?? false;
    let removed = nodes.remove(nodeId);
    for (let retries = 0; removed < 0 && retries < DISCONNECT_RETRIES_MAX; retries++) {
      await Bun.sleep(LOCK_RETRY_MS);
      removed = nodes.remove(nodeId);
    }
    if (removed < 0) return "contended";
    if (wasBridged) return "bridged";
    return removed > 0 ? "local" : "absent";
  }

  #notReady(): string | undefined {
    if (this.#closing || !this.#running) return "not listening";
    if (this.#draining) return "draining";
    const { supervisor, sockets } = this.#running;
    const dead = sockets.flatMap((_, worker) => (supervisor.isAlive(worker) ? [] : [worker]));
    return dead.length === 0 ? undefined : `being replaced: worker ${dead.join(", ")}`;
  }

  #attachSteering(sockets: readonly UdpSocket[], memory: SharedMemory): void {
    if (sockets.length === 1) return;
    try {
      attachReusePortProgram(sockets[0]!, steeringProgram(memory.words[HASH_SECRET]!, memory.shards));
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      this.#log.warn(`steering is off, packets are spread by flow instead: ${error.message}`);
    }
  }

  #warnOfFiles(): void {
    const [filesMax, needed] = [openFilesMax(), filesNeeded(this.#config.workers)];
    if (filesMax < needed)
      this.#log.warn(
        `this process may open ${filesMax} files, fewer than the ${needed} that it needs: ` +
          "raise LimitNOFILE or ulimit -n",
      );
  }

  #warnOfBuffers(granted: { recvBufferBytes: number; sendBufferBytes: number }): void {
    const check = (name: string, asked: number, got: number, sysctl: string) => {
      if (got >= asked) return;
      this.#log.warn(`${name} is ${got} bytes, not the ${asked} asked for: raise ${sysctl} with sysctl`);
    };
    check("receive buffer", this.config.recvBufferBytes, granted.recvBufferBytes, "net.core.rmem_max");
    check("send buffer", this.config.sendBufferBytes, granted.sendBufferBytes, "net.core.wmem_max");
  }

  #use(inputs: Inputs): void {
    const known = new Set(this.#inputs?.warnings); // each once, however often files are read
    this.#inputs = inputs;
    this.#admin.token = inputs.adminToken;
    this.#admin.auth = this.#config.adminAuth;
    for (const warning of inputs.warnings) if (!known.has(warning)) this.#log.warn(warning);
  }

  /** @param options undefined without a bridge */
  async #openBridge(
    parts: Omit<BridgeParts, "socket" | "host">,
    options: BridgeOptions | undefined,
    listeners: Listeners,
    patienceMs: number,
  ): Promise<Bridge | undefined> {
    const { wss, wssMaxPeers } = this.#config;
    if (options === undefined) return undefined;
    const filesMax = openFilesMax();
    if (filesMax < wssMaxPeers + FILES_BESIDE_WSS)
      this.#log.warn(
        `this process may open ${filesMax} files, too few for ${wssMaxPeers} WebSockets (--wss-max-peers): ` +
          "raise LimitNOFILE or ulimit -n",
      );
    try {
      const deferred = true; // as Bun's own sockets: no file for a client that says nothing at once
      const socket = await whileTaken(patienceMs, () => listeners.open("wss", wss, { deferred }));
      return new Bridge({ ...parts, socket, host: parseHostPort(wss).host }, options);
    } catch (error) {
      options.keys.close();
      throw this.#cannotListen("wss", wss, error);
    }
  }

  /** @param patienceMs how long the port may be another's that is about to give it up */
  async #serveHttp(shown: Shown, listeners: Listeners, patienceMs: number): Promise<HttpServer | undefined> {
    const { http, httpIsDefault } = this.config;
    if (http === "off") return undefined;
    try {
      const { host } = parseHostPort(http);
      const observed = {
        isHealthy: () => this.#isHealthy(),
        notReady: () => this.#notReady(),
        warnings: () => this.#running?.warnings.list ?? [],
        stats: () => this.stats(),
        config: () => maskedConfig(this.#config),
        breakers: shown.breakers,
        admin: this.#admin,
        nodes: shown.nodes,
        explain: (nodeId: number) => shown.explainer.explain(nodeId),
        disconnect: (nodeId: number) => this.#disconnect(nodeId),
        drain: () => this.drain(),
        drainLeftMs: () => this.drainLeftMs,
        ...(this.successor && { upgrade: () => this.upgrade() }),
      };
      const socket = await whileTaken(patienceMs, () => listeners.open("http", http));
      const server = serveHttp({ socket, host, filesMax: openFilesMax() }, observed, this.#log);
      if (host === "" || !isLoopback(endpointOf(host, 0), 0))
        this.#log.warn(
          `http ${http} is not on loopback: whoever reaches it reads health and metrics, with the peers' addresses`,
        );
      return server;
    } catch (error) {
      if (!httpIsDefault) throw this.#cannotListen("http", http, error);
      const { message } = this.#cannotListen("http", http, error);
      this.#log.warn(`no http at the default address: ${message}`);
      return undefined;
    }
  }

  /** The reason why an address cannot be listened at, and what to do. */
  #cannotListen(name: ListenerName, address: string, error: unknown): Error {
    const { code = "failed" } = error as { code?: string };
    const advice =
      filesAdvice(code, this.#config.workers, openFilesMax()) ?? `${code}: choose another address, or off`;
    return new Error(`${name} ${address}: ${advice}`, { cause: error });
  }

  #offloadErrno = 0;

  #tick(): void {
    const running = this.#mustRun();
    const { memory, nodes, reaper, limits, startedMs, supervisor, mesh } = running;
    const { bridge, http, files, punchOutcomes, sources, warnings } = running;
    const tick = (work: string, run: () => void) => this.#guard.run(work, run);
    tick("following this host's addresses", () => sources.tick());
    tick("supervision of workers", () => supervisor.tick());
    tick("expiry of nodes", () => reaper.tick(performance.now() - startedMs));
    tick("counting punched pairs", () => punchOutcomes.tick());
    tick("limits", () => limits.tick(nodes.size()));
    tick("the mesh", () => mesh.tick());
    let filesAreShort = false;
    tick("counting files", () => {
      filesAreShort = files?.areShort() ?? false;
    });
    tick("HTTP", () => http?.tick(filesAreShort));
    tick("the bridge", () => bridge?.tick(filesAreShort));
    tick("warnings", () => warnings.tick());
    const errno = Atomics.load(memory.words, OFFLOAD_ERRNO);
    if (errno !== this.#offloadErrno) {
      this.#offloadErrno = errno;
      this.#log.warn(`offload of sends is off: this host's network device refuses it (${errnoName(errno)})`);
    }
  }
}

/** What `open` opens, tried again for some time while the port is taken. */
async function whileTaken<T>(patienceMs: number, open: () => T): Promise<T> {
  for (const untilMs = performance.now() + patienceMs; ; await Bun.sleep(PORT_RETRY_MS)) {
    try {
      return open();
    } catch (error) {
      if ((error as { code?: string }).code !== "EADDRINUSE" || performance.now() >= untilMs) throw error;
    }
  }
}

/** Waits until HTTP owes no answer, and no client has connected without a request, for some time at most. */
async function untilAnswered(
  http: HttpServer | undefined,
  forMs: number,
  signal: AbortSignal,
): Promise<void> {
  const untilMs = performance.now() + forMs;
  while (http?.isBusy && !signal.aborted && performance.now() < untilMs) await Bun.sleep(PORT_RETRY_MS);
}
