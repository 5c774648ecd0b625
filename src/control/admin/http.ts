/**
 * The operator's HTTP. Health, metrics and the page, which is empty by itself, are open to all. The
 * admin API serves this host's own programs (`--admin-auth auto`) and bearers of the admin token,
 * which every change needs. docs/API.md lists the paths.
 */
import type { Logger } from "pino";
import * as v from "valibot";
import { hostPort } from "../../../ffi/host-port.ts";
import type { ListeningSocket } from "../../../ffi/listening-socket.ts";
import type { BeaconControl } from "../feature.ts";
import { body, json, refusal, stream, text } from "../kit/answers.ts";
import type { Guard } from "../kit/guard.ts";
import type { Breakers } from "../limits/breakers.ts";
import type { NodeList } from "../nodes/list.ts";
import { isCrossOrigin, isOwn } from "./access.ts";
import type { NodeReport } from "./explain.ts";
import { LineStream } from "./line-stream.ts";
import { type Handler, HttpListener, type RoutedRequest } from "./listener.ts";
import { createMetrics } from "./metrics.ts";
import { answerDisconnect, answerNode, answerPage, type Disconnection } from "./node-answers.ts";
import { pageRoutes } from "./page.ts";
import type { Admin } from "./token.ts";

/** What HTTP shows of a beacon, and changes of it. */
export interface Observed {
  readonly beacon: BeaconControl;
  readonly breakers: Breakers;
  readonly admin: Admin;
  readonly nodes: NodeList;
  /** All about one node, known or not. */
  explain(nodeId: number): NodeReport;
  /** Forgets a node, and ends its WebSocket. */
  disconnect(nodeId: number): Promise<Disconnection>;
}

export interface HttpServer {
  readonly url: URL;
  /** Whether an answer is owed, or a client has connected and asked for nothing yet. */
  readonly isBusy: boolean;
  /** Leaves the port to another process. Clients that wait for an answer still get it. */
  suspend(): void;
  /** Accepts connections again. */
  resume(): void;
  /** Called once a second. @param filesAreShort whether too few are left for connections */
  tick(filesAreShort: boolean): void;
  stop(): Promise<void>;
}

/** Where HTTP listens. */
export interface HttpPlace {
  readonly socket: ListeningSocket;
  /** As configured; "" is every address. */
  readonly host: string;
  /** Files that the process may have open, Infinity if that is not known. */
  readonly filesMax: number;
}

/** Version of the admin API: raised when something shown changes or disappears. */
export const API_VERSION = 1;

/** nginx otherwise holds back lines until its buffer of 4 or 8 KiB is full. */
const UNBUFFERED = { "x-accel-buffering": "no" };

const switchBody = v.strictObject({ on: v.boolean() });

/** @throws SyscallError fcntl: EMFILE */
export function serveHttp(
  place: HttpPlace,
  observed: Observed,
  log: Logger,
  guard: Guard,
): HttpServer {
  const lines = new LineStream(() => observed.beacon.stats());
  const open = openPaths(observed.beacon, guard);
  const reads = readingPaths(observed, lines);
  const changes = changingPaths(observed, log);
  const mayRead: typeof isOwn = (...from) => observed.admin.auth === "auto" && isOwn(...from);
  const page = pageRoutes(log);
  const paths = ["/", ...Object.keys(open), ...Object.keys(reads)];
  const { port } = place.socket;
  const listener = new HttpListener(place.socket, {
    filesMax: place.filesMax,
    routes: {
      get: {
        ...page,
        ...open,
        ...mapped(reads, (handler) => guarded(handler, observed.admin, mayRead)),
      },
      post: mapped(changes, (handler) => guarded(handler, observed.admin, () => false)),
    },
    refuse: (request) => versioned(refusal(request, paths, Object.keys(changes))),
    fail: (error) => {
      log.error({ err: error }, "an HTTP request failed");
      return versioned(text(500, "internal error; the log says more"));
    },
  });
  return {
    url: new URL(`http://${place.host === "" ? `localhost:${port}` : hostPort(place.host, port)}/`),
    get isBusy() {
      return listener.isBusy;
    },
    suspend: () => {
      lines.close();
      listener.suspend();
    },
    resume: () => listener.resume(),
    tick: (filesAreShort) => listener.tick(filesAreShort),
    stop: () => {
      lines.close();
      return listener.stop();
    },
  };
}

/** Paths for any client that reaches the port. */
function openPaths(
  beacon: BeaconControl,
  guard: Guard,
): Readonly<Record<string, () => Response | Promise<Response>>> {
  let reading: object;
  const metrics = createMetrics(
    beacon.metrics,
    () => reading,
    (metric, error) => guard.report(metric, error),
  );
  return {
    "/healthz": () => (beacon.isHealthy ? text(200, "ok") : text(503, "unhealthy")),
    "/readyz": () => {
      const reason = beacon.notReady;
      return reason === undefined
        ? text(200, ["ready", ...beacon.warnings].join("; "))
        : text(503, reason);
    },
    "/metrics": async () => {
      reading = beacon.stats(); // one reading serves the whole scrape
      return body(await metrics.metrics(), metrics.contentType);
    },
  };
}

/** Paths of the admin API that change nothing. */
function readingPaths(
  { beacon, breakers, nodes, explain }: Observed,
  lines: LineStream,
): Readonly<Record<string, Handler>> {
  const section = (name: string) => (beacon.stats() as Record<string, unknown>)[name];
  const reads: Readonly<Record<string, Handler>> = {
    "/api": () =>
      json({ api: API_VERSION, version: section("version"), paths: Object.keys(reads) }),
    "/api/stats": () => json(beacon.stats()),
    "/api/stats/stream": () => {
      const followed = lines.follow();
      return followed === undefined
        ? text(503, "too many follow already")
        : stream(followed, "application/x-ndjson; charset=utf-8", UNBUFFERED);
    },
    "/api/peers": () => json(section("mesh")),
    "/api/workers": () => json({ workers: section("workers") }),
    "/api/config": () => json(beacon.maskedConfig()),
    "/api/breakers": () => json(breakers.states),
    "/api/nodes": (request) => answerPage(nodes, request),
    "/api/nodes/:id": ({ params }) => answerNode(params["id"], (id) => json(explain(id))),
  };
  return reads;
}

/** Paths of the admin API that change something and require the token. */
function changingPaths(observed: Observed, log: Logger): Readonly<Record<string, Handler>> {
  const { beacon } = observed;
  return {
    "/api/breakers/:name": (request, address) => switchBreaker(observed.breakers, request, address),
    "/api/nodes/:id/disconnect": ({ params }, address) =>
      answerNode(params["id"], async (id) => {
        const was = await observed.disconnect(id);
        if (was === "local" || was === "bridged")
          log.warn(`node ${id} is to be forgotten, says ${address}; it was ${was}`);
        return answerDisconnect(id, was);
      }),
    "/api/drain": (_, address) => {
      const leftMs = beacon.drainLeftMs;
      const drainMs = beacon.maskedConfig()["drainMs"];
      if (leftMs !== undefined) return json({ drainMs, leftMs, wasDraining: true });
      log.warn(`drain is asked for by ${address}`);
      setImmediate(() => void beacon.drain()); // once the answer is on its way
      return json({ drainMs, leftMs: drainMs, wasDraining: false });
    },
    "/api/upgrade": (_, address) => upgrade(beacon, address, log),
  };
}

function mapped<From, To>(
  record: Readonly<Record<string, From>>,
  to: (from: From) => To,
): Record<string, To> {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, to(value)]));
}

/** Marks an answer with the API version, so that clients can tell it from a proxy's. */
function versioned(answer: Response): Response {
  answer.headers.set("beacon-api", String(API_VERSION));
  return answer;
}

/** Refuses pages of other origins; admits requests that are free, and token bearers. */
function guarded(handler: Handler, admin: Admin, isFree: typeof isOwn): Handler {
  const answer: Handler = async (request, address) => {
    if (isCrossOrigin(request))
      return text(403, "refused: the request comes from a web page of another origin");
    if (!isFree(request, address)) {
      const refused = refusedBy(admin, request, address);
      if (refused !== undefined) return refused;
    }
    return handler(request, address);
  };
  return async (...from) => versioned(await answer(...from));
}

/** @returns undefined for whoever bears the token */
function refusedBy(admin: Admin, request: Request, address: string): Response | undefined {
  switch (admin.permission(request.headers.get("authorization"), address)) {
    case "granted":
      return undefined;
    case "none":
      return text(
        403,
        "the admin token is needed, and this beacon has none: see --admin-token-file",
      );
    case "limited":
      return text(429, "too many wrong tokens", { "retry-after": "10" });
    case "wrong":
      return text(401, "the admin token is needed", { "www-authenticate": "Bearer" });
  }
}

async function switchBreaker(
  breakers: Breakers,
  request: RoutedRequest,
  who: string,
): Promise<Response> {
  const name = request.params["name"] ?? "";
  const names = Object.keys(breakers.states);
  if (!names.includes(name)) return text(404, `not found: there are ${names.join(", ")}`);
  const wanted = v.safeParse(switchBody, await request.json().catch(() => undefined));
  if (!wanted.success) return text(400, 'the body must be {"on": true} or {"on": false}');
  breakers.switch(name, wanted.output.on, who);
  return json({ [name]: breakers.states[name] });
}

async function upgrade(beacon: BeaconControl, who: string, log: Logger): Promise<Response> {
  if (!beacon.canUpgrade) return text(501, "this beacon was not started by its program");
  log.warn(`an upgrade is asked for by ${who}`);
  try {
    return json(await beacon.upgrade());
  } catch (error) {
    const reason = `not upgraded: ${(error as Error).message}`;
    log.warn(reason);
    return text(500, reason);
  }
}
