/** The bridge's HTTP server: upgrades of nodes to WebSocket, and a health check for proxies. */
import type { Logger } from "pino";
import { acceptFrom } from "../../../ffi/event-loop.ts";
import { hostPort } from "../../../ffi/host-port.ts";
import type { ListeningSocket } from "../../../ffi/listening-socket.ts";
import { FRAME_BYTES_MAX } from "../../data/frames.ts";
import { refusal, text } from "../kit/answers.ts";
import type { TlsFiles } from "../kit/certificates.ts";
import type { Counts } from "../kit/metrics.ts";
import { TrustedProxies } from "./client-address.ts";
import { Connection } from "./connection.ts";
import { NODE_BUFFERED_BYTES_MAX } from "./outbox.ts";

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
 * Why an upgrade that is in order is refused all the same: too many from its client's address; too
 * many connections that have proven nothing; too many connections; or nobody is let in.
 */
export type Refusal = Extract<UpgradeOutcome, "limited" | "crowded" | "full" | "switched_off">;

/** What can change while the server runs. */
export interface ServerOptions {
  readonly trustedProxies: readonly string[];
  /** Without it, connections are plain. */
  readonly tls: TlsFiles | undefined;
}

/** Closes the connection after an answer to a client that is no node. */
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
  /** The one that accepts connections, if any does. */
  #server: Bun.Server<Connection> | undefined;
  readonly #port: number;
  /** Whether `#server` runs with outdated options, or should run and does not. */
  #isStale = false;
  /** Whether it accepts no connections because files are short. */
  #isPaused = false;
  /** Whether another process is to accept in its place. */
  #isSuspended = false;

  /**
   * @param socket stays open, and keeps what is not accepted yet, for whoever accepts from it
   * later. It
   *   is closed where the system does not let a server take it over: then the server opens its own.
   * @param host as configured; "" is every address
   * @param refusal why a connection is not let in, or undefined if it is
   * @param handler what happens on connections
   */
  constructor(
    private readonly socket: ListeningSocket,
    private readonly host: string,
    options: ServerOptions,
    private readonly log: Logger,
    private readonly refusal: (connection: Connection) => Refusal | undefined,
    private readonly handler: Bun.WebSocketHandler<Connection>,
    private readonly accept: typeof acceptFrom = acceptFrom,
  ) {
    this.#options = options;
    this.#proxies = new TrustedProxies(options.trustedProxies);
    this.#port = socket.port;
    this.#server = this.accept(socket, () => this.#serve(0)) ?? this.#serveAlone();
  }

  get upgrades(): Counts {
    return { ...this.#upgrades };
  }

  get url(): URL {
    const scheme = this.#options.tls ? "wss" : "ws";
    return new URL(`${scheme}://${hostPort(this.host || "localhost", this.#port)}${PATH}`);
  }

  /** Whether it accepts connections. */
  get isListening(): boolean {
    return this.#server !== undefined;
  }

  /** Goes on with other options; connections stay as they are. */
  reconfigure(options: ServerOptions): void {
    const { tls } = this.#options;
    const isSameTls = options.tls?.cert === tls?.cert && options.tls?.key === tls?.key;
    this.#options = options;
    this.#proxies = new TrustedProxies(options.trustedProxies);
    if (isSameTls || this.#isPaused || this.#isSuspended) return;
    // A server that runs cannot change its certificate (Bun 1.4.5). One that stops listening keeps
    // its connections.
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
    } else if (!this.isListening || this.#isStale) {
      this.#isPaused = false;
      this.#serveAgain("the WebSocket bridge listens again");
    }
  }

  /** Leaves accepting to another process until `resume`; connections stay. */
  suspend(): void {
    this.#isSuspended = true;
    this.#stopAccepting();
  }

  /** Accepts again; if that fails, it is tried again with each `tick`. */
  resume(): void {
    if (!this.#isSuspended) return;
    this.#isSuspended = false;
    this.#serveAgain("the WebSocket bridge listens again");
  }

  #pause(): void {
    this.#isPaused = true;
    this.#stopAccepting();
    this.log.warn(
      "the WebSocket bridge takes no connections for now: too many files are open, its own connections or others; " +
        "raise LimitNOFILE or ulimit -n, or limit connections by address in front of it",
    );
  }

  #stopAccepting(): void {
    void this.#server?.stop();
    this.#server = undefined;
  }

  /** @param success for the log */
  #serveAgain(success: string): void {
    try {
      const server = this.#serveOnSocket();
      this.#stopAccepting(); // not before: if the new one cannot start, the old one goes on
      this.#server = server;
      this.#isStale = false;
      this.log.info(success);
    } catch (error) {
      if (!this.#isStale)
        this.log.error(
          `the WebSocket bridge cannot listen again on port ${this.#port} (${(error as Error).message}); ` +
            "it tries again every second, and keeps its connections",
        );
      this.#isStale = true;
    }
  }

  #serveOnSocket(): Bun.Server<Connection> {
    if (!this.socket.isOpen) return this.#serveAlone();
    const server = this.accept(this.socket, () => this.#serve(0));
    if (server === undefined) throw new Error("/proc/self/fdinfo cannot be read");
    return server;
  }

  /** Serves without the listening socket: stopping such a server resets queued connections. */
  #serveAlone(): Bun.Server<Connection> {
    this.socket.close();
    this.#stopAccepting();
    return this.#serve(this.#port);
  }

  /** Ends it, and every connection with it. */
  async stop(): Promise<void> {
    await this.#server?.stop(true);
  }

  #serve(port: number): Bun.Server<Connection> {
    const { tls } = this.#options;
    return Bun.serve<Connection>({
      ...(this.host === "" ? {} : { hostname: this.host }),
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
        // Frames have the outbox's bounds. This one is for answers to pings, which Bun sends by
        // itself.
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
    const offered = (headers.get("sec-websocket-protocol") ?? "")
      .split(",")
      .map((name) => name.trim());
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
