/**
 * An operator's eyes, as a process of its own: the page and `beacon top` follow the stream of
 * numbers, Prometheus reads the metrics, and now and then somebody lists nodes.
 *
 *   bun watcher.ts <the beacon's http url> <its admin token> <milliseconds from one request to the next>
 *
 * Writes "watching" once it follows, and then a line for each path that it asked for: the path, and
 * the milliseconds that the answer took.
 */
export {};

const FOLLOWERS = 2;
/** In turn; {id} is a node that is there, {after} is where the last page of nodes ended. */
const PATHS = [
  "/metrics",
  "/api/nodes?limit=1000&after={after}",
  "/api/nodes/{id}",
  "/api/stats",
  "/api/nodes?limit=100&prefix=127.0.0.0/8&max-age=3600",
  "/api/peers",
  "/api/workers",
  "/api/config",
  "/readyz",
];

const [http = "", token = "", pauseMs = "1000"] = process.argv.slice(2);
const headers = { authorization: `Bearer ${token}` };

async function follow(): Promise<void> {
  const { body, status } = await fetch(new URL("/api/stats/stream", http), { headers });
  if (status !== 200) throw new Error(`the stream answers ${status}`);
  const reader = body!.getReader();
  await reader.read();
  void (async () => {
    while (!(await reader.read()).done);
  })();
}

for (let i = 0; i < FOLLOWERS; i++) await follow();
console.log("watching");
let after = 0;
for (let i = 0; ; i++) {
  const path = PATHS[i % PATHS.length]!;
  const asked = path.replace("{after}", String(after)).replace("{id}", String(after || 1));
  const startMs = performance.now();
  const response = await fetch(new URL(asked, http), { headers });
  if (response.status !== 200) throw new Error(`${asked} answers ${response.status}`);
  const text = await response.text();
  console.log(`${path} ${(performance.now() - startMs).toFixed(1)}`);
  if (path.includes("{after}")) after = (JSON.parse(text) as { next: number | null }).next ?? 0;
  await Bun.sleep(Number(pauseMs));
}
