/** The operator's HTTP: health, metrics, statistics. Reads only; nothing here changes the beacon. */
import type { HostPort } from "../config.ts";
import { createMetrics } from "./metrics.ts";
import type { Stats } from "./stats.ts";

/** What HTTP shows of a beacon. */
export interface Observed {
  isHealthy(): boolean;
  /** Why the beacon is not ready for traffic, or undefined if it is. */
  notReady(): string | undefined;
  stats(): Stats;
}

const text = (status: number, body: string) =>
  new Response(`${body}\n`, { status, headers: { "content-type": "text/plain; charset=utf-8" } });

export type HttpServer = Bun.Server<undefined>;

/** @throws Error of Bun.serve, with `code` EADDRINUSE, EACCES, EADDRNOTAVAIL … when the address cannot be had */
export function serveHttp(address: HostPort, beacon: Observed): HttpServer {
  let reading: Stats;
  const metrics = createMetrics(() => reading);
  const get = (handler: () => Response | Promise<Response>) => ({ GET: handler });
  return Bun.serve({
    ...(address.host === "" ? {} : { hostname: address.host }),
    port: address.port,
    idleTimeout: 30,
    maxRequestBodySize: 0,
    routes: {
      "/healthz": get(() => (beacon.isHealthy() ? text(200, "ok") : text(503, "unhealthy"))),
      "/readyz": get(() => {
        const reason = beacon.notReady();
        return reason === undefined ? text(200, "ready") : text(503, reason);
      }),
      "/metrics": get(async () => {
        reading = beacon.stats(); // one reading serves the whole scrape
        const body = await metrics.metrics();
        return new Response(body, { headers: { "content-type": metrics.contentType } });
      }),
      "/api/stats": get(() => Response.json(beacon.stats())),
    },
    fetch: () => text(404, "not found: there are /healthz, /readyz, /metrics and /api/stats"),
    error: (error) => text(500, `internal error: ${error.message}`),
  });
}
