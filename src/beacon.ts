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
import { Breakers } from "./control/breakers.ts";
import { Bridge, type BridgeParts } from "./control/bridge/bridge.ts";
import type { KeyFunction, KeySource } from "./control/bridge/keys.ts";
import { bridgeOptions, keySource, openFilesMax } from "./control/bridge/setup.ts";
import { Explainer } from "./control/explain.ts";
import { Admin, AdminToken } from "./control/http/admin.ts";
import type { Disconnection } from "./control/http/nodes.ts";
import { type HttpServer, serveHttp } from "./control/http/server.ts";
import { Limits } from "./control/limits.ts";
import { createLogger } from "./control/log.ts";
import { MailReader } from "./control/mail-reader.ts";
import { type GossipKeys, NO_GOSSIP_KEYS, readGossipKeys } from "./control/mesh/gossip-keys.ts";
import { Mesh } from "./control/mesh/mesh.ts";
import { NodeList } from "./control/node-list.ts";
import { PunchGrants } from "./control/punch-grants.ts";
import { PunchOutcomes } from "./control/punch-outcomes.ts";
import { Reaper, TICK_MS } from "./control/reaper.ts";
import { openSockets } from "./control/sockets.ts";
import { StateKeeper } from "./control/state-keeper.ts";
import { StatisticsLog } from "./control/statistics-log.ts";
import { packetStats, type Stats } from "./control/stats.ts";
import { steeringProgram } from "./control/steering.ts";
import { Supervisor } from "./control/supervisor.ts";
import { Introductions } from "./data/introductions.ts";
import { HASH_SECRET, MAIN_THREAD_LOCK, OFFLOAD_ERRNO, SharedMemory } from "./shared/memory.ts";
import { NodeTable } from "./shared/nodes.ts";

export { type Config, type ConfigChanges, ConfigError } from "./config.ts";
export type { BridgeStats } from "./control/bridge/bridge.ts";
export type { KeyFunction } from "./control/bridge/keys.ts";
export type { MeshStats, PeerStats } from "./control/mesh/mesh.ts";
export type { PunchedPairs } from "./control/punch-outcomes.ts";
export type { PacketStats, Stats, WorkerStats } from "./control/stats.ts";
export { type SocketAddress, SyscallError };

export const version: string = packageJson.version;

/**
 * The worker's file, named from here and not from where it is used: in a compiled binary all modules have the place of
 * the entry file, src/main.ts, and what is relative to that stays true.
 */
const WORKER_ENTRY = new URL("./data/worker.ts", import.meta.url);

/** How often the statistics line is logged, if anything happened. */
const STATISTICS_MS = 60_000;

/** Files that a beacon has open beside WebSockets: 64 sockets at most, some for each worker, 128 to spare; HTTP, the state file, what Bun needs. */
const FILES_BESIDE_WSS = 512;

/** What a listening beacon consists of. */
interface Running {
  readonly address: SocketAddress;
  readonly startedMs: number;
  readonly memory: SharedMemory;
  readonly nodes: NodeTable;
  readonly sockets: readonly UdpSocket[];
  readonly supervisor: Supervisor;
  readonly reaper: Reaper;
  readonly limits: Limits;
  readonly breakers: Breakers;
  readonly state: StateKeeper | undefined;
  readonly mesh: Mesh;
  readonly bridge: Bridge | undefined;
  readonly grants: PunchGrants;
  readonly punchOutcomes: PunchOutcomes;
  readonly mail: MailReader;
  readonly statistics: StatisticsLog;
  readonly timers: readonly Timer[];
  readonly http: HttpServer | undefined;
}

export class Beacon {
  /** Settles when the beacon is closed; rejects when it ended by itself, with the reason. */
  readonly closed: Promise<void>;
  #config: Config;
  #gossipKeys: GossipKeys = NO_GOSSIP_KEYS;
  readonly #log: Logger;
  readonly #admin: Admin;
  readonly #settleClosed: { resolve: () => void; reject: (error: Error) => void };
  #running: Running | undefined;
  #starting: Promise<void> | undefined;
  #draining: Promise<void> | undefined;
  #closing: Promise<void> | undefined;
  #healthy = true;
  #lastResidentBytes = 0;
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
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    promise.catch(() => {}); // whoever awaits `closed` sees it; nobody has to
    this.closed = promise;
    this.#settleClosed = { resolve, reject };
  }

  /**
   * Opens the sockets, starts the workers, serves. Returns when packets are being handled.
   * @throws ConfigError when a file that an option names is bad
   * @throws SyscallError when an address cannot be had; nothing stays open then
   */
  listen(): Promise<void> {
    if (this.#closing) return Promise.reject(new Error("this beacon was closed; make a new one"));
    this.#starting ??= this.#listen();
    return this.#starting;
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
    const { memory, nodes, supervisor, sockets, address, startedMs, mesh, breakers, state, bridge, grants } =
      running;
    const { user, system } = process.cpuUsage();
    return {
      version,
      beaconId: this.config.beaconId,
      address,
      uptimeS: (performance.now() - startedMs) / 1000,
      healthy: this.#isHealthy(),
      nodes: nodes.size(),
      nodesMax: this.config.maxNodes,
      residentBytes: this.#residentBytes(),
      cpuS: (user + system) / 1e6,
      mesh: mesh.stats(),
      punchedPairs: running.punchOutcomes.stats(),
      breakers: breakers.states,
      stateSavedS: state?.savedS ?? null,
      workers: sockets.map((socket, worker) => ({
        worker,
        alive: supervisor.isAlive(worker),
        restarts: supervisor.restarts[worker]!,
        socketReceiveDrops: socket.receiveDrops(),
        cpuS: supervisor.cpuS(worker),
        ...packetStats(memory, memory.counterRow(worker)),
      })),
      bridge: bridge ? { ...bridge.stats(), packets: packetStats(memory, memory.bridgeRow) } : null,
      grants: grants.wereRequired ? packetStats(memory, memory.grantsRow) : null,
    };
  }

  /** As it was when it could be read last: that takes a file, of which there may be none left. */
  #residentBytes(): number {
    try {
      this.#lastResidentBytes = process.memoryUsage.rss();
    } catch {}
    return this.#lastResidentBytes;
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
    const adminToken = this.#readAdminToken(config);
    const gossipKeys = readGossipKeys(config.gossipKeyFile);
    if (this.#running) {
      const { bridge, grants } = this.#running;
      const keys = keySource(config, this.keyOf, grants.keys);
      bridge?.reconfigure(bridgeOptions(config, keys!));
      grants.configure(config.requirePunchGrant, keys);
    }
    this.#config = config;
    this.#admin.token = adminToken;
    this.#gossipKeys = gossipKeys;
    if (changes.reloaded.includes("logLevel")) this.#log.level = config.logLevel;
    this.#running?.limits.configure(config, this.#running.nodes.size());
    this.#running?.mesh.reconfigure(config, gossipKeys);
    return changes;
  }

  /**
   * Says that it is going (unhealthy, not ready), relays on for the time that `drainMs` gives, and closes. A call of `close` ends
   * the wait, another one of this does not.
   */
  drain(): Promise<void> {
    this.#draining ??= this.#drain();
    return this.#draining;
  }

  /**
   * Ends the beacon: tells its peers, saves its state, frees its ports, threads and memory. Safe at any time, and more than once.
   */
  close(): Promise<void> {
    this.#endDrain?.();
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #listen(): Promise<void> {
    const config = this.#config;
    const log = this.#log;
    this.#admin.token = this.#readAdminToken(config);
    this.#gossipKeys = readGossipKeys(config.gossipKeyFile);
    const { sockets, reaches, ...granted } = openSockets(parseHostPort(config.addr), {
      count: config.workers,
      recvBufferBytes: config.recvBufferBytes,
      sendBufferBytes: config.sendBufferBytes,
      offload: config.offload,
    });
    const release: (() => unknown)[] = [() => sockets.forEach((socket) => void socket.close())];
    try {
      const memory = new SharedMemory({
        workers: config.workers,
        nodesMax: config.maxNodes,
        routesMax: config.maxRoutes,
      });
      memory.words[HASH_SECRET] = randomInt(2 ** 32) | 0;
      const nodes = new NodeTable(memory, MAIN_THREAD_LOCK);
      const reaper = new Reaper(memory, nodes, config.nodeTtlMs);
      const limits = new Limits(memory);
      limits.configure(config, nodes.size());
      const breakers = new Breakers(memory, log);
      this.#warnOfBuffers(granted);
      if (config.offload && !granted.offload)
        log.warn("offload is off: this kernel lacks UDP_GRO or UDP_SEGMENT");
      if (config.steering) this.#attachSteering(sockets, memory);
      const state =
        config.stateFile === "off"
          ? undefined
          : new StateKeeper(config.stateFile, config.stateIntervalMs, memory, nodes, config.nodeTtlMs, log);
      // Before the first packet is read.
      await state?.load((endpoint) => reaches(endpoint) && !limits.isDenied(endpoint));
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
      const parts = { memory, nodes, socket: sockets[0]!, address, reaches, limits };
      const mesh = new Mesh(parts, config, this.#gossipKeys, log);
      await supervisor.start();
      const clock = new CoarseClock();
      const explainer = new Explainer({
        memory,
        nodes,
        mesh,
        breakers,
        config: () => this.#config,
        nowNs: () => clock.nowNs(),
      });
      const http = this.#serveHttp(breakers, new NodeList(memory, nodes), explainer);
      release.unshift(() => http?.stop());
      const { fd, family } = sockets[0]!;
      const keys = keySource(this.#config, this.keyOf);
      const { beaconId } = config;
      const bridge = this.#openBridge(
        { memory, nodes, fd, family, beaconId, offload: granted.offload, log },
        keys,
      );
      release.unshift(() => bridge?.stop());
      breakers.bridge = bridge;
      const introductions = new Introductions(kernel, memory, nodes, { fd, family });
      const grants = new PunchGrants({ memory, nodes, introductions, log });
      grants.configure(this.#config.requirePunchGrant, keys);
      const mail = new MailReader(memory, [...(bridge ? [bridge.mail] : []), mesh.mail, grants.mail]);
      mail.start();
      mesh.start();
      if (this.#config !== config) {
        // Meanwhile.
        limits.configure(this.#config, nodes.size());
        mesh.reconfigure(this.#config, this.#gossipKeys);
      }
      state?.start();
      const startedMs = performance.now();
      const statistics = new StatisticsLog(log, memory);
      const timers = [
        setInterval(() => this.#tick(), TICK_MS),
        setInterval(() => statistics.log(this.stats()), STATISTICS_MS),
      ];
      this.#running = {
        address,
        startedMs,
        memory,
        nodes,
        sockets,
        supervisor,
        reaper,
        limits,
        breakers,
        state,
        mesh,
        bridge,
        grants,
        punchOutcomes: new PunchOutcomes(memory),
        mail,
        statistics,
        timers,
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
    } catch (error) {
      for (const step of release) await step();
      throw error;
    }
  }

  async #drain(): Promise<void> {
    if (!this.#closing) {
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
    await this.#starting?.catch(() => {});
    const running = this.#running;
    if (running) {
      for (const timer of running.timers) clearInterval(timer);
      await running.mesh.stop();
      await running.http?.stop();
      await running.bridge?.stop();
      await running.mail.stop();
      running.grants.stop();
      await running.supervisor.stop();
      await running.state?.stop(); // once nobody writes to the table any more
      running.statistics.log(this.stats());
      for (const socket of running.sockets) socket.close();
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
  #disconnect(nodeId: number): Disconnection {
    const { nodes, bridge } = this.#mustRun();
    const wasBridged = bridge?.disconnect(nodeId) ?? false;
    const removed = nodes.remove(nodeId);
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

  #warnOfBuffers(granted: { recvBufferBytes: number; sendBufferBytes: number }): void {
    const check = (name: string, asked: number, got: number, sysctl: string) => {
      if (got >= asked) return;
      this.#log.warn(`${name} is ${got} bytes, not the ${asked} asked for: raise ${sysctl} with sysctl`);
    };
    check("receive buffer", this.config.recvBufferBytes, granted.recvBufferBytes, "net.core.rmem_max");
    check("send buffer", this.config.sendBufferBytes, granted.sendBufferBytes, "net.core.wmem_max");
  }

  /** @throws ConfigError that names the file */
  #readAdminToken({ adminTokenFile }: Config): AdminToken | undefined {
    return adminTokenFile === "off" ? undefined : AdminToken.read(adminTokenFile, this.#log);
  }

  /** @param keys the bridge's, if there is to be one */
  #openBridge(parts: Omit<BridgeParts, "filesMax">, keys: KeySource | undefined): Bridge | undefined {
    const { wss, wssMaxPeers } = this.#config;
    if (wss === "off") return undefined;
    const options = bridgeOptions(this.#config, keys!);
    const filesMax = openFilesMax();
    if (filesMax < wssMaxPeers + FILES_BESIDE_WSS)
      this.#log.warn(
        `this process may open ${filesMax} files, too few for ${wssMaxPeers} WebSockets (--wss-max-peers): ` +
          "raise LimitNOFILE or ulimit -n",
      );
    try {
      return new Bridge(parseHostPort(wss), { ...parts, filesMax }, options);
    } catch (error) {
      options.keys.close();
      const { code = "failed" } = error as { code?: string };
      throw new Error(`wss ${wss}: ${code}: choose another address, or off`, { cause: error });
    }
  }

  #serveHttp(breakers: Breakers, nodes: NodeList, explainer: Explainer): HttpServer | undefined {
    const { http, httpIsDefault } = this.config;
    if (http === "off") return undefined;
    try {
      const address = parseHostPort(http);
      const server = serveHttp(
        address,
        {
          isHealthy: () => this.#isHealthy(),
          notReady: () => this.#notReady(),
          stats: () => this.stats(),
          config: () => maskedConfig(this.#config),
          breakers,
          admin: this.#admin,
          nodes,
          explain: (nodeId) => explainer.explain(nodeId),
          disconnect: (nodeId) => this.#disconnect(nodeId),
          drain: () => this.drain(),
        },
        this.#log,
      );
      // Of the configuration: where it serves every address, Bun calls itself "localhost".
      if (address.host === "" || !isLoopback(endpointOf(address.host, 0), 0))
        this.#log.warn(
          `http ${http} is not on loopback: whoever reaches it reads health and metrics, with the peers' addresses`,
        );
      return server;
    } catch (error) {
      const { code = "failed" } = error as { code?: string };
      if (!httpIsDefault)
        throw new Error(`http ${http}: ${code}: choose another address, or off`, { cause: error });
      this.#log.warn(`no http: the default address ${http} cannot be had (${code}); choose one with --http`);
      return undefined;
    }
  }

  #offloadErrno = 0;

  #tick(): void {
    const { memory, nodes, reaper, limits, startedMs, supervisor, mesh, bridge, punchOutcomes } =
      this.#mustRun();
    reaper.tick(performance.now() - startedMs);
    punchOutcomes.tick();
    limits.tick(nodes.size());
    supervisor.tick();
    mesh.tick();
    bridge?.tick();
    const errno = Atomics.load(memory.words, OFFLOAD_ERRNO);
    if (errno !== this.#offloadErrno) {
      this.#offloadErrno = errno;
      this.#log.warn(`offload of sends is off: this host's network device refuses it (${errnoName(errno)})`);
    }
  }
}
