/**
 * The operator's HTTP. Health, metrics and the page, which is empty by itself, are open to all. The admin API serves this host's own
 * programs (`--admin-auth auto`) and bearers of the admin token, which every change needs. docs/API.md lists the paths.
 */
import type { Logger } from "pino";
import * as v from "valibot";
import type { HostPort } from "../../config.ts";
import type { Breakers } from "../breakers.ts";
import type { NodeReport } from "../explain.ts";
import { createMetrics } from "../metrics.ts";
import type { NodeList } from "../node-list.ts";
import type { Stats } from "../stats.ts";
import { isCrossOrigin, isOwn } from "./access.ts";
import type { Admin } from "./admin.ts";
import { body, json, refusal, text } from "./answers.ts";
import { answerDisconnect, answerNode, answerPage, type Disconnection } from "./nodes.ts";
import { pageRoutes } from "./page.ts";
import { LineStream } from "./stream.ts";

/** What HTTP shows of a beacon, and changes of it. */
export interface Observed {
  isHealthy(): boolean;
  /** Why the beacon is not ready for traffic, or undefined if it is. */
  notReady(): string | undefined;
  /** What an operator should know though it is ready. */
  warnings(): readonly string[];
  stats(): Stats;
  /** The configuration in force, without its secrets. */
  config(): Readonly<Record<string, unknown>>;
  readonly breakers: Breakers;
  readonly admin: Admin;
  readonly nodes: NodeList;
  /** All about one node, known or not. */
  explain(nodeId: number): NodeReport;
  /** Forgets a node, and ends its WebSocket. */
  disconnect(nodeId: number): Promise<Disconnection>;
  /** As Beacon.drain. */
  drain(): Promise<void>;
  /** As Beacon.drainLeftMs. */
  drainLeftMs(): number | undefined;
  /** Starts the program anew and hands over to it; where a beacon's program can. @throws Error that says why it went on as it was */
  upgrade?(): Promise<{ readonly pid: number; readonly version: string }>;
}

export interface HttpServer {
  readonly url: URL;
  /** Gives up the port. Who waits for an answer still gets it. */
  suspend(): void;
  stop(): Promise<void>;
}

/** Of the admin API: raised when something that it has shown is shown otherwise, or no more. What is added raises nothing. */
export const API_VERSION = 1;

/** For what takes long: a page of a large table that waits for others, a program that starts. Bun allows no more. */
const LONG_TIMEOUT_S = 255;

/** nginx otherwise holds back lines until its buffer of 4 or 8 KiB is full. */
const UNBUFFERED = { "x-accel-buffering": "no" };

/** The largest body that means anything is 13 bytes. */
const BODY_BYTES_MAX = 1024;

const switchBody = v.strictObject({ on: v.boolean() });

type Server = Bun.Server<undefined>;
type Handler = (request: Bun.BunRequest, server: Server) => Response | Promise<Response>;

/** @throws Error of Bun.serve, with `code` EADDRINUSE, EACCES, EADDRNOTAVAIL … when the address cannot be had */
export function serveHttp(address: HostPort, beacon: Observed, log: Logger): HttpServer {
  let reading: Stats;
  const metrics = createMetrics(() => reading);
  const stream = new LineStream(() => beacon.stats());
  const open: Readonly<Record<string, () => Response | Promise<Response>>> = {
    "/healthz": () => (beacon.isHealthy() ? text(200, "ok") : text(503, "unhealthy")),
    "/readyz": () => {
      const reason = beacon.notReady();
      return reason === undefined ? text(200, ["ready", ...beacon.warnings()].join("; ")) : text(503, reason);
    },
    "/metrics": async () => {
      reading = beacon.stats(); // one reading serves the whole scrape
      return body(await metrics.metrics(), metrics.contentType);
    },
  };
  const reads: Readonly<Record<string, Handler>> = {
    "/api": () => json({ api: API_VERSION, version: beacon.stats().version, paths: Object.keys(reads) }),
    "/api/stats": () => json(beacon.stats()),
    "/api/stats/stream": () => {
      const lines = stream.follow();
      return lines === undefined
        ? text(503, "too many follow already")
        : body(lines, "application/x-ndjson; charset=utf-8", UNBUFFERED);
    },
    "/api/peers": () => json(beacon.stats().mesh),
    "/api/workers": () => json({ workers: beacon.stats().workers }),
    "/api/config": () => json(beacon.config()),
    "/api/breakers": () => json(beacon.breakers.states),
    "/api/nodes": (request, server) => {
      server.timeout(request, LONG_TIMEOUT_S);
      return answerPage(beacon.nodes, request);
    },
    "/api/nodes/:id": (request) => answerNode(param(request, "id"), (id) => json(beacon.explain(id))),
  };
  const changes: Readonly<Record<string, Handler>> = {
    "/api/breakers/:name": (request, server) => switchBreaker(beacon.breakers, request, server),
    "/api/nodes/:id/disconnect": (request, server) =>
      answerNode(param(request, "id"), async (id) => {
        const was = await beacon.disconnect(id);
        log.warn(`node ${id} is to be forgotten, says ${clientOf(request, server)}; it was ${was}`);
        return answerDisconnect(id, was);
      }),
    "/api/drain": (request, server) => {
      const leftMs = beacon.drainLeftMs();
      const drainMs = beacon.config()["drainMs"];
      if (leftMs !== undefined) return json({ drainMs, leftMs, wasDraining: true });
      log.warn(`drain is asked for by ${clientOf(request, server)}`);
      setImmediate(() => void beacon.drain()); // once the answer is on its way
      return json({ drainMs, leftMs: drainMs, wasDraining: false });
    },
    "/api/upgrade": (request, server) => {
      server.timeout(request, LONG_TIMEOUT_S);
      return upgrade(beacon, clientOf(request, server), log);
    },
  };
  const mayRead: typeof isOwn = (...from) => beacon.admin.auth === "auto" && isOwn(...from);
  const page = pageRoutes(log);
  const paths = ["/", ...Object.keys(open), ...Object.keys(reads)];
  const server: Server = Bun.serve({
    ...(address.host === "" ? {} : { hostname: address.host }),
    port: address.port,
    idleTimeout: 30,
    maxRequestBodySize: BODY_BYTES_MAX,
    routes: {
      ...mapped({ ...page, ...open }, (GET) => ({ GET })),
      ...mapped(reads, (handler) => ({ GET: guarded(handler, beacon.admin, mayRead) })),
      ...mapped(changes, (handler) => ({ POST: guarded(handler, beacon.admin, () => false) })),
    },
    fetch: (request) => versioned(refusal(request, paths, Object.keys(changes))),
    error: (error) => {
      log.error({ err: error }, "an HTTP request failed");
      return versioned(text(500, "internal error; the log says more"));
    },
  });
  return {
    url: server.url,
    suspend: () => {
      stream.close();
      void server.stop();
    },
    stop: () => {
      stream.close();
      return server.stop(true);
    },
  };
}

function mapped<From, To>(
  record: Readonly<Record<string, From>>,
  to: (from: From) => To,
): Record<string, To> {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, to(value)]));
}

/** An answer that says of which version of the API it is, so that a client can tell it from a proxy's. */
function versioned(answer: Response): Response {
  answer.headers.set("beacon-api", String(API_VERSION));
  return answer;
}

/** Refuses pages of other origins; answers requests for which `isFree` holds, and bearers of the admin token. */
function guarded(handler: Handler, admin: Admin, isFree: typeof isOwn): Handler {
  const answer: Handler = async (request, server) => {
    if (isCrossOrigin(request))
      return text(403, "refused: the request comes from a web page of another origin");
    const address = server.requestIP(request)?.address;
    if (address === undefined) return text(400, "gone already");
    if (!isFree(request, address)) {
      const refused = refusedBy(admin, request, address);
      if (refused !== undefined) return refused;
    }
    return handler(request, server);
  };
  return async (...from) => versioned(await answer(...from));
}

/** @returns undefined for whoever bears the token */
function refusedBy(admin: Admin, request: Request, address: string): Response | undefined {
  switch (admin.permission(request.headers.get("authorization"), address)) {
    case "granted":
      return undefined;
    case "none":
      return text(403, "the admin token is needed, and this beacon has none: see --admin-token-file");
    case "limited":
      return text(429, "too many wrong tokens", { "retry-after": "10" });
    case "wrong":
      return text(401, "the admin token is needed", { "www-authenticate": "Bearer" });
  }
}

async function switchBreaker(breakers: Breakers, request: Bun.BunRequest, server: Server): Promise<Response> {
  const name = param(request, "name") ?? "";
  const names = Object.keys(breakers.states);
  if (!names.includes(name)) return text(404, `not found: there are ${names.join(", ")}`);
  const wanted = v.safeParse(switchBody, await request.json().catch(() => undefined));
  if (!wanted.success) return text(400, 'the body must be {"on": true} or {"on": false}');
  breakers.switch(name, wanted.output.on, clientOf(request, server));
  return json({ [name]: breakers.states[name] });
}

async function upgrade(beacon: Observed, who: string, log: Logger): Promise<Response> {
  if (beacon.upgrade === undefined) return text(501, "this beacon was not started by its program");
  log.warn(`an upgrade is asked for by ${who}`);
  try {
    return json(await beacon.upgrade());
  } catch (error) {
    return text(500, `not upgraded: ${(error as Error).message}`);
  }
}

/** A part of the path that a route names. */
function param(request: Bun.BunRequest, name: string): string | undefined {
  return (request.params as Readonly<Record<string, string>>)[name];
}

/** Whose request it is, for the log. */
function clientOf(request: Request, server: Server): string {
  return server.requestIP(request)?.address ?? "somebody who has left";
}
