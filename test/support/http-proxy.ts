/**
 * A reverse proxy that serves another HTTP server under a path prefix, as nginx does with
 * `proxy_pass`. Of Bun's own server and client: its `node:http` loses answers to concurrent
 * requests (Bun 1.4.5).
 */
export interface ProxyOptions {
  /** Begins and ends with "/": only requests below it are passed on, without it. */
  readonly prefix: string;
  /** "host:port", which is also the Host that the server gets. */
  readonly to: string;
  /** Headers that are added to what is passed on; none for a bare `proxy_pass`. */
  readonly adds?: Readonly<Record<string, string>>;
}

export class HttpProxy {
  readonly #server: Bun.Server<undefined>;

  constructor({ prefix, to, adds = {} }: ProxyOptions) {
    this.#server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      idleTimeout: 60,
      fetch: async (request) => {
        const { pathname, search } = new URL(request.url);
        if (!pathname.startsWith(prefix)) return new Response("not here", { status: 404 });
        const { method, signal, headers: given } = request;
        const headers = { ...Object.fromEntries(given), ...adds, host: to };
        const body = method === "POST" ? await request.arrayBuffer() : null;
        const url = `http://${to}/${pathname.slice(prefix.length)}${search}`;
        const answer = await fetch(url, {
          method,
          headers,
          body,
          signal,
          redirect: "manual",
          decompress: false,
        });
        return new Response(answer.body, { status: answer.status, headers: answer.headers });
      },
    });
  }

  get port(): number {
    return this.#server.port!;
  }

  async close(): Promise<void> {
    await this.#server.stop(true);
  }
}
