/** The WebSocket bridge, for nodes whose network blocks UDP. */
import type { NameOf } from "../../config/option.ts";
import { ConfigError, parseHostPort, shown } from "../../config/units.ts";
import type { AnyFeature, Given, Host, Reading, Service } from "../feature.ts";
import { keys } from "../keys/feature.ts";
import type { KeysConfig } from "../keys/options.ts";
import { expiryOf, readTlsFiles } from "../kit/certificates.ts";
import { total } from "../kit/metrics.ts";
import { limits } from "../limits/feature.ts";
import type { LimitsConfig } from "../limits/options.ts";
import { listeners } from "../listeners/feature.ts";
import { sockets } from "../sockets/feature.ts";
import { workers } from "../workers/feature.ts";
import { packetStats, packetSummary } from "../workers/packet-stats.ts";
import { Bridge, type BridgeOptions } from "./bridge.ts";
import { BRIDGE, PACKETS, type Stats, stats } from "./metrics.ts";
import { type BridgeConfig, bridgeOptions } from "./options.ts";

/** Files besides WebSockets: 64 sockets, some a worker, HTTP, the state file, 128 spare. */
const FILES_BESIDE_WSS = 512;
/** Period in ms over which nodes are disconnected after an upgrade, to spread reconnects. */
const SEND_AWAY_MS = 3000;

type Options = BridgeOptions | undefined;
type Config = BridgeConfig & Pick<LimitsConfig, "limitsShadow">;
type BridgeHost = Host<Config & { readonly beaconId: number }, Options>;

function read(config: Config, reading: Reading<Options>): Options {
  const { wss, wssTlsCert, wssTlsKey } = config;
  if (wss === "off") return undefined;
  const tls = wssTlsCert === "off" ? undefined : readTlsFiles(wssTlsCert, wssTlsKey);
  const expiry = tls && expiryOf(tls, Date.now());
  if (expiry !== undefined) reading.warn(`${shown(wssTlsCert)}: ${expiry}`);
  return {
    maxPeers: config.wssMaxPeers,
    upgradeLimit: config.wssUpgradeLimit,
    failureLimit: config.wssFailureLimit,
    limitsShadow: config.limitsShadow,
    trustedProxies: config.wssTrustedProxies,
    tls,
  };
}

type Checked = BridgeConfig & KeysConfig & { readonly registry: string };

function check(config: Checked, nameOf: NameOf<Checked>, given: Given): void {
  const { wss, wssTlsCert, wssTlsKey, wssKeys, registry } = config;
  if (wssTlsCert !== "off" && wssTlsKey === "off")
    throw new ConfigError(
      `${nameOf("wssTlsCert")} needs ${nameOf("wssTlsKey")}: the certificate's private key`,
    );
  if (wssTlsKey !== "off" && wssTlsCert === "off")
    throw new ConfigError(
      `${nameOf("wssTlsKey")} needs ${nameOf("wssTlsCert")}: the key's certificate`,
    );
  if (wss !== "off" && wssKeys === "off" && registry === "off" && !given.keyOf)
    throw new ConfigError(
      `${nameOf("wss")} needs ${nameOf("wssKeys")} or ${nameOf("registry")}: ` +
        "something that knows the nodes' keys",
    );
}

class BridgeService implements Service {
  readonly #bridge: Bridge | undefined;

  constructor(private readonly host: BridgeHost) {
    const { memory, nodes, config, files, log, guard } = host;
    if (files === undefined) return;
    const { all, offload } = host.use(sockets);
    const { fd, family } = all[0]!;
    const source = host.use(keys);
    this.#bridge = new Bridge(
      {
        ...{ memory, nodes, fd, family, offload, log, guard, beaconId: config.beaconId },
        keys: () => source.source!, // a bridge has one
      },
      files,
    );
    host.use(workers).mail.add(this.#bridge.mail);
    host.use(limits).breakers.bridge = this.#bridge;
  }

  get url(): URL | undefined {
    return this.#bridge?.url;
  }

  /** Ends a node's connection, if it has one. @returns whether it had */
  disconnect(nodeId: number): boolean {
    return this.#bridge?.disconnect(nodeId) ?? false;
  }

  async start(): Promise<void> {
    if (this.#bridge === undefined) return;
    const { config, log } = this.host;
    const { wss, wssMaxPeers } = config;
    const { filesMax } = this.host.use(listeners);
    if (filesMax < wssMaxPeers + FILES_BESIDE_WSS)
      log.warn(
        `this process may open ${filesMax} files, too few for ${wssMaxPeers} WebSockets (--wss-max-peers): ` +
          "raise LimitNOFILE or ulimit -n",
      );
    // Deferred, as Bun's own sockets: no file for a client that sends nothing at once.
    const socket = await this.host.use(listeners).open("wss", wss, { deferred: true });
    try {
      this.#bridge.start(socket, parseHostPort(wss).host);
    } catch (error) {
      throw this.host.use(listeners).cannotListen("wss", wss, error);
    }
  }

  tick(): void {
    this.#bridge?.tick(this.host.use(listeners).filesAreShort);
  }

  reconfigure(_: Config, options: Options): void {
    if (options !== undefined) this.#bridge?.reconfigure(options);
  }

  drain(): void {
    this.#bridge?.drain();
  }

  suspend(): void {
    this.#bridge?.suspend();
  }

  resume(): void {
    this.#bridge?.resume();
  }

  async retire(signal: AbortSignal): Promise<void> {
    await this.#bridge?.sendAway(SEND_AWAY_MS, signal);
  }

  async stop(): Promise<void> {
    await this.#bridge?.stop();
  }

  stats(): Stats {
    const { memory } = this.host;
    const packets = () => packetStats(memory, memory.bridgeRow);
    return { bridge: this.#bridge ? { ...this.#bridge.stats(), packets: packets() } : null };
  }

  warnings(): readonly string[] {
    return this.#bridge?.isListening === false
      ? [
          "the WebSocket bridge takes no connections: no files left, or its port is lost; the log says which",
        ]
      : [];
  }
}

export const bridge = {
  name: "bridge",
  options: bridgeOptions,
  check,
  read,
  stats,
  metrics: [PACKETS, BRIDGE],
  summary: ({ bridge }: Stats) =>
    bridge
      ? { ...packetSummary(bridge.packets), bridgeRefused: total(bridge.auth) - bridge.auth["ok"]! }
      : {},
  create: (host: BridgeHost) => new BridgeService(host),
} satisfies AnyFeature;
