/** The bridge's HTTP server: upgrades of nodes to WebSocket, and a health check for proxies. */
import type { Logger } from "pino";
import { hostPort } from "../../../ffi/socket.ts";
import type { HostPort } from "../../config/units.ts";
import { FRAME_BYTES_MAX } from "../../data/frames.ts";
import { refusal, text } from "../http/answers.ts";
import type { Counts } from "../stats.ts";
import { TrustedProxies } from "./client-address.ts";
import { Connection } from "./connection.ts";
import { NODE_BUFFERED_BYTES_MAX } from "./outbox.ts";
import type { TlsFiles } from "./tls.ts";

const PATH = "/v1/compat";
const HEALTH_PATH = "/health";
const SUBPROTOCOL = "pilot.v1";
/** For a request's head: who takes longer is no node. */
const REQUEST_S_MAX = 10;

/** What became of requests for an upgrade. */
const UPGRADE_OUTCOMES = [
  "ok",
  "not_websocket",
  "no_subprotocol",
  "limited",
  "crowded",
  "full",
  "switched_off",
  "closing",
] as const;
export type UpgradeOutcome = (typeof UPGRADE_OUTCOMES)[number];
/**
 * Why an upgrade that is in order is refused all the same: too many from its client's address; too many connections that have proven
 * nothing; too many connections; or nobody is let in.
 */
export type Refusal = Extract<UpgradeOutcome, "limited" | "crowded" | "full" | "switched_off">;

/** What can change while the server runs. */
export interface ServerOptions {
  readonly trustedProxies: readonly string[];
  /** Without it, connections are plain. */
  readonly tls: TlsFiles | undefined;
}

/** The last answer on its connection: one that is no node's is not kept, or somebody would keep many with a request now and then. */
function last(response: Response): Response {
  response.headers.set("connection", "close");
  return response;
}

export class BridgeServer {
  /** Once true, no node is let in, and the health check fails. */
  isClosing = false;
  readonly #upgrades = Object.fromEntries(UPGRADE_OUTCOMES.map((outcome) => [outcome, 0]));
  #options: ServerOptions;
  #proxies: TrustedProxies;
  #server: Bun.Server<Connection>;
  readonly #port: number;
  /** Whether the port was lost when another certificate was to be served. */
  #isLost = false;
  /** Whether it does not listen because files are short. */
  #isPaused = false;
  /** Whether another process is to listen in its place. */
  #isSuspended = false;

  /**
   * @param refusal why a connection is not let in, or undefined if it is
   * @param handler what happens on connections
   * @throws Error of Bun.serve, with `code` EADDRINUSE, EACCES, EADDRNOTAVAIL … when the address cannot be had
   */
  constructor(
    private readonly address: HostPort,
    options: ServerOptions,
    private readonly log: Logger,
    private readonly refusal: (connection: Connection) => Refusal | undefined,
    private readonly handler: Bun.WebSocketHandler<Connection>,
  ) {
    this.#options = options;
    this.#proxies = new TrustedProxies(options.trustedProxies);
    this.#server = this.#serve(address.port);
    this.#port = this.#server.port ?? address.port;
  }

  get upgrades(): Counts {
    return { ...this.#upgrades };
  }

  get url(): URL {
    const { hostname = "" } = this.#server;
    return new URL(`${this.#options.tls ? "wss" : "ws"}://${hostPort(hostname, this.#port)}${PATH}`);
  }

  /** Whether it can be connected to. */
  get isListening(): boolean {
    return !this.#isLost && !this.#isPaused && !this.#isSuspended;
  }

  /** Goes on with other options; connections stay as they are. */
  reconfigure(options: ServerOptions): void {
    const { tls } = this.#options;
    const isSameTls = options.tls?.cert === tls?.cert && options.tls?.key === tls?.key;
    this.#options = options;
    this.#proxies = new TrustedProxies(options.trustedProxies);
    if (isSameTls || this.#isPaused || this.#isSuspended) return;
    // A server that runs cannot change its certificate (Bun 1.4.5). One that stops listening keeps its connections.
    void this.#server.stop();
    this.#serveAgain("the WebSocket bridge listens with another certificate");
  }

  /**
   * To be called about every second.
   * @param filesAreShort whether there are too few for more connections; those that are there stay
   */
  tick(filesAreShort: boolean): void {
    if (this.#isSuspended) return;
    if (filesAreShort) {
      if (!this.#isPaused) this.#pause();
    } else if (!this.isListening) {
      this.#isPaused = false;
      this.#serveAgain("the WebSocket bridge listens again");
    }
  }

  /** Gives up its port until `resume`; connections stay. */
  suspend(): void {
    this.#isSuspended = true;
    void this.#server.stop();
  }

  /** Listens again; if that fails, it is tried again with each `tick`. */
  resume(): void {
    this.#isSuspended = false;
    this.#serveAgain("the WebSocket bridge listens again");
  }

  #pause(): void {
    this.#isPaused = true;
    void this.#server.stop();
    this.log.warn(
      "the WebSocket bridge takes no connections for now: too many files are open, its own connections or others; " +
        "raise LimitNOFILE or ulimit -n, or limit connections by address in front of it",
    );
  }

  /** @param success for the log */
  #serveAgain(success: string): void {
    try {
      this.#server = this.#serve(this.#port);
      this.#isLost = false;
      this.log.info(success);
    } catch (error) {
      if (!this.#isLost)
        this.log.error(
          `the WebSocket bridge lost port ${this.#port} (${(error as Error).message}); it tries again`,
        );
      this.#isLost = true;
    }
  }

  /** Ends it, and every connection with it. */
  async stop(): Promise<void> {
    await this.#server.stop(true);
  }

  #serve(port: number): Bun.Server<Connection> {
    const { host } = this.address;
    const { tls } = this.#options;
    return Bun.serve<Connection>({
      ...(host === "" ? {} : { hostname: host }),
      ...(tls ? { tls } : {}),
      port,
      idleTimeout: REQUEST_S_MAX,
      maxRequestBodySize: 0,
      routes: {
        [HEALTH_PATH]: { GET: () => last(this.isClosing ? text(503, "closing") : text(200, "ok")) },
        [PATH]: {
          GET: (request: Request, server: Bun.Server<Connection>) => {
            const refused = this.#upgrade(request, server);
            return refused && last(refused);
          },
        },
      },
      fetch: (request) => last(refusal(request, [PATH, HEALTH_PATH])),
      error: (error) => {
        this.log.error({ err: error }, "a request to the WebSocket bridge failed");
        return last(text(500, "internal error"));
      },
      websocket: {
        maxPayloadLength: FRAME_BYTES_MAX, // what is larger closes its connection
        // Frames have the outbox's bounds. This one is for answers to pings, which Bun sends by itself.
        backpressureLimit: NODE_BUFFERED_BYTES_MAX + 2 * FRAME_BYTES_MAX,
        perMessageDeflate: false,
        idleTimeout: 0, // the bridge's own: sending would count as a sign of life here
        sendPings: false,
        ...this.handler,
      },
    });
  }

  #upgrade(request: Request, server: Bun.Server<Connection>): Response | undefined {
    const outcome = this.#outcome(request, server);
    this.#upgrades[outcome]!++;
    switch (outcome) {
      case "ok":
        return undefined;
      case "not_websocket":
        return text(426, "only WebSocket is spoken here", { upgrade: "websocket" });
      case "no_subprotocol":
        return text(400, `the subprotocol ${SUBPROTOCOL} is needed`);
      case "limited":
        return text(429, "too many connections from your address", { "retry-after": "10" });
      case "crowded":
        return text(503, "too many others are connecting", { "retry-after": "10" });
      case "full":
        return text(503, "no room for more nodes", { "retry-after": "30" });
      case "switched_off":
        return text(503, "switched off", { "retry-after": "30" });
      case "closing":
        return text(503, "closing");
    }
  }

  #outcome(request: Request, server: Bun.Server<Connection>): UpgradeOutcome {
    const { headers } = request;
    if (headers.get("upgrade")?.toLowerCase() !== "websocket") return "not_websocket";
    const offered = (headers.get("sec-websocket-protocol") ?? "").split(",").map((name) => name.trim());
    if (!offered.includes(SUBPROTOCOL)) return "no_subprotocol";
    if (this.isClosing) return "closing";
    const peer = server.requestIP(request);
    if (peer === null) return "not_websocket"; // it has left already
    const client = this.#proxies.clientOf(peer.address, headers.get("x-forwarded-for"));
    const connection = new Connection(client, peer.port);
    const refusal = this.refusal(connection);
    if (refusal) return refusal;
    const isUpgraded = server.upgrade(request, {
      headers: { "sec-websocket-protocol": SUBPROTOCOL },
      data: connection,
    });
    return isUpgraded ? "ok" : "not_websocket";
  }
}
