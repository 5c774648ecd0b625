/** The operator's HTTP: health, metrics, the page and the admin API. */
import { CoarseClock } from "../../../ffi/clock.ts";
import { endpointOf, isLoopback } from "../../../ffi/endpoint.ts";
import type { NameOf } from "../../config/option.ts";
import { ConfigError, parseHostPort, shown } from "../../config/units.ts";
import { LOCK_RETRY_MS } from "../../shared/nodes.ts";
import { bridge } from "../bridge/feature.ts";
import { directory } from "../directory/feature.ts";
import type { AnyFeature, Host, Reading, Service } from "../feature.ts";
import { limits } from "../limits/feature.ts";
import { listeners } from "../listeners/feature.ts";
import { mesh } from "../mesh/feature.ts";
import type { MeshConfig } from "../mesh/options.ts";
import { nodes } from "../nodes/feature.ts";
import type { NodesConfig } from "../nodes/options.ts";
import { upgrades } from "../upgrade/feature.ts";
import { Explainer } from "./explain.ts";
import { type HttpServer, serveHttp } from "./http.ts";
import type { Disconnection } from "./node-answers.ts";
import { type AdminConfig, adminOptions } from "./options.ts";
import { Admin, AdminToken } from "./token.ts";

/** Retries of a removal from a locked shard: one second with `LOCK_RETRY_MS` between them. */
const DISCONNECT_RETRIES_MAX = 100;
/** Timeout in ms of an upgrade for clients that have sent no request yet. */
const REQUEST_MS_MAX = 10_000;
const POLL_MS = 5;

type AdminHost = Host<AdminConfig & MeshConfig & NodesConfig, AdminToken | undefined>;

function check({ adminAuth, adminTokenFile }: AdminConfig, nameOf: NameOf<AdminConfig>): void {
  if (adminAuth === "always" && adminTokenFile === "off")
    throw new ConfigError(
      `${nameOf("adminAuth")} always needs ${nameOf("adminTokenFile")}: without a token nobody could read the API`,
    );
}

function read(
  { adminTokenFile }: AdminConfig,
  reading: Reading<AdminToken | undefined>,
): AdminToken | undefined {
  if (adminTokenFile === "off") return undefined;
  const token = AdminToken.read(adminTokenFile);
  if (token.isExposed)
    reading.warn(
      `${shown(adminTokenFile)}: the admin token can be read by others than its owner: chmod 600`,
    );
  return token;
}

class AdminService implements Service {
  readonly #admin: Admin;
  #http: HttpServer | undefined;

  constructor(private readonly host: AdminHost) {
    this.#admin = new Admin(host.log);
    this.reconfigure(host.config, host.files);
  }

  /** Where HTTP is served; undefined where it is off. */
  get url(): URL | undefined {
    return this.#http?.url;
  }

  async start(): Promise<void> {
    const { http, httpIsDefault } = this.host.config;
    if (http === "off") return;
    try {
      this.#http = await this.#serve(http);
    } catch (error) {
      if (!httpIsDefault) throw error;
      this.host.log.warn(`no http at the default address: ${(error as Error).message}`);
    }
  }

  tick(): void {
    this.#http?.tick(this.host.use(listeners).filesAreShort);
  }

  reconfigure({ adminAuth }: AdminConfig, token: AdminToken | undefined): void {
    this.#admin.token = token;
    this.#admin.auth = adminAuth;
  }

  suspend(): void {
    this.#http?.suspend();
  }

  resume(): void {
    this.#http?.resume();
  }

  async retire(signal: AbortSignal): Promise<void> {
    const untilMs = performance.now() + REQUEST_MS_MAX;
    while (this.#http?.isBusy && !signal.aborted && performance.now() < untilMs)
      await Bun.sleep(POLL_MS);
  }

  async stop(): Promise<void> {
    await this.#http?.stop();
  }

  async #serve(address: string): Promise<HttpServer> {
    const { host } = this;
    const { log, beacon } = host;
    const { host: listen } = parseHostPort(address);
    const explainer = this.#explainer();
    const socket = await host.use(listeners).open("http", address);
    const server = serveHttp(
      { socket, host: listen, filesMax: host.use(listeners).filesMax },
      {
        ...{ beacon, admin: this.#admin },
        breakers: host.use(limits).breakers,
        nodes: host.use(nodes).list,
        explain: (nodeId) => explainer.explain(nodeId),
        disconnect: (nodeId) => this.#disconnect(nodeId),
      },
      log,
      host.guard,
    );
    if (listen === "" || !isLoopback(endpointOf(listen, 0), 0))
      log.warn(
        `http ${address} is not on loopback: whoever reaches it reads health and metrics, with the peers' addresses`,
      );
    return server;
  }

  #explainer(): Explainer {
    const { host } = this;
    const { memory, routes } = host;
    const clock = new CoarseClock();
    return new Explainer({
      ...{ memory, nodes: host.nodes, routes },
      mesh: host.use(mesh).mesh,
      directory: host.use(directory).directory,
      breakers: host.use(limits).breakers,
      config: () => host.config,
      nowNs: () => clock.nowNs(),
    });
  }

  /** Forgets a node, until it is received again. */
  async #disconnect(nodeId: number): Promise<Disconnection> {
    const { host } = this;
    // the successor has the node, and would keep it
    if (host.use(upgrades).hasHandedOver) return "contended";
    const wasBridged = host.use(bridge).disconnect(nodeId);
    let removed = host.nodes.remove(nodeId);
    for (let retries = 0; removed < 0 && retries < DISCONNECT_RETRIES_MAX; retries++) {
      await Bun.sleep(LOCK_RETRY_MS);
      removed = host.nodes.remove(nodeId);
    }
    if (removed < 0) return "contended";
    if (wasBridged) return "bridged";
    return removed > 0 ? "local" : "absent";
  }
}

export const admin = {
  name: "admin",
  options: adminOptions,
  check,
  read,
  create: (host: AdminHost) => new AdminService(host),
} satisfies AnyFeature;
