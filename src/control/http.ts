/** The operator's HTTP: health, metrics, statistics; and, for whoever bears the admin token, the breakers. */
import type { Logger } from "pino";
import * as v from "valibot";
import type { HostPort } from "../config.ts";
import type { Admin } from "./admin.ts";
import { body, json, refusal, text } from "./answers.ts";
import type { Breakers } from "./breakers.ts";
import { createMetrics } from "./metrics.ts";
import type { Stats } from "./stats.ts";

/** What HTTP shows of a beacon, and changes of it. */
export interface Observed {
  isHealthy(): boolean;
  /** Why the beacon is not ready for traffic, or undefined if it is. */
  notReady(): string | undefined;
  /** What an operator should know though it is ready. */
  remarks(): readonly string[];
  stats(): Stats;
  readonly breakers: Breakers;
  readonly admin: Admin;
}

export type HttpServer = Bun.Server<undefined>;

/** The largest body that means anything is 13 bytes. */
const BODY_BYTES_MAX = 1024;

const switchBody = v.strictObject({ on: v.boolean() });

/** @throws Error of Bun.serve, with `code` EADDRINUSE, EACCES, EADDRNOTAVAIL … when the address cannot be had */
export function serveHttp(address: HostPort, beacon: Observed, log: Logger): HttpServer {
  let reading: Stats;
  const metrics = createMetrics(() => reading);
  const gets = {
    "/healthz": () => (beacon.isHealthy() ? text(200, "ok") : text(503, "unhealthy")),
    "/readyz": () => {
      const reason = beacon.notReady();
      return reason === undefined ? text(200, ["ready", ...beacon.remarks()].join("; ")) : text(503, reason);
    },
    "/metrics": async () => {
      reading = beacon.stats(); // one reading serves the whole scrape
      return body(await metrics.metrics(), metrics.contentType);
    },
    "/api/stats": () => json(beacon.stats()),
    "/api/breakers": () => json(beacon.breakers.states),
  };
  const paths = Object.keys(gets);
  return Bun.serve({
    ...(address.host === "" ? {} : { hostname: address.host }),
    port: address.port,
    idleTimeout: 30,
    maxRequestBodySize: BODY_BYTES_MAX,
    routes: {
      ...Object.fromEntries(Object.entries(gets).map(([path, GET]) => [path, { GET }])),
      "/api/breakers/:name": {
        POST: (request: Bun.BunRequest<"/api/breakers/:name">, server: HttpServer) =>
          switchBreaker(beacon, request, server.requestIP(request)?.address),
      },
    },
    fetch: (request) => refusal(request, paths),
    error: (error) => {
      log.error({ err: error }, "an HTTP request failed");
      return text(500, "internal error; the log says more");
    },
  });
}

/** @param address of the client; undefined: it has left already */
async function switchBreaker(
  { admin, breakers }: Observed,
  request: Bun.BunRequest<"/api/breakers/:name">,
  address: string | undefined,
): Promise<Response> {
  const permission = address && admin.permission(request.headers.get("authorization"), address);
  if (!permission || permission === "none") return text(404, "not found: see --admin-token-file");
  if (permission === "limited") return text(429, "too many wrong tokens", { "retry-after": "10" });
  if (permission === "wrong") return text(401, "the admin token is needed", { "www-authenticate": "Bearer" });
  const { name } = request.params;
  const names = Object.keys(breakers.states);
  if (!names.includes(name)) return text(404, `not found: there are ${names.join(", ")}`);
  const wanted = v.safeParse(switchBody, await request.json().catch(() => undefined));
  if (!wanted.success) return text(400, 'the body must be {"on": true} or {"on": false}');
  breakers.switch(name, wanted.output.on, address);
  return json({ [name]: breakers.states[name] });
}
