/** A reverse proxy that serves another HTTP server under a path prefix, as nginx does with `proxy_pass`. */
import { once } from "node:events";
import { createServer, request, type Server } from "node:http";
import { pipeline } from "node:stream";

export interface ProxyOptions {
  /** Begins and ends with "/": only requests below it are passed on, without it. */
  readonly prefix: string;
  /** "host:port", which is also the Host that the server gets. */
  readonly to: string;
  /** Headers that are added to what is passed on; none for a bare `proxy_pass`. */
  readonly adds?: Readonly<Record<string, string>>;
}

export class HttpProxy {
  private constructor(
    private readonly server: Server,
    readonly port: number,
  ) {}

  static async start({ prefix, to, adds = {} }: ProxyOptions): Promise<HttpProxy> {
    const [host, port] = to.split(":");
    const server = createServer((incoming, answer) => {
      const { url = "", method, headers } = incoming;
      if (!url.startsWith(prefix)) {
        answer.writeHead(404).end();
        return;
      }
      const path = `/${url.slice(prefix.length)}`;
      const passed = { ...headers, host: to, connection: "close", ...adds };
      const outgoing = request({ host, port, path, method, headers: passed }, (response) => {
        answer.writeHead(response.statusCode!, response.headers);
        answer.flushHeaders();
        pipeline(response, answer, () => {});
      });
      outgoing.on("error", () => answer.destroy());
      answer.on("close", () => outgoing.destroy());
      pipeline(incoming, outgoing, () => {});
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return new HttpProxy(server, (server.address() as { port: number }).port);
  }

  close(): Promise<unknown> {
    const closed = once(this.server, "close");
    this.server.close();
    this.server.closeAllConnections();
    return closed;
  }
}
