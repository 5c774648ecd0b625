/** A way to a TCP server that can be cut, or led into silence. */

import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";

export class TcpProxy {
  readonly #sockets = new Set<Socket>();
  #isSilent = false;
  /** Connections that were accepted so far. */
  accepted = 0;

  private constructor(
    private readonly server: Server,
    readonly port: number,
    private readonly to: { readonly host: string; readonly port: number },
  ) {
    server.on("connection", (near) => this.#join(near));
  }

  static async start(to: { readonly host: string; readonly port: number }): Promise<TcpProxy> {
    const server = createServer();
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return new TcpProxy(server, (server.address() as { port: number }).port, to);
  }

  get name(): string {
    return `127.0.0.1:${this.port}`;
  }

  /** Ends what is open, and takes no more. */
  cut(): Promise<unknown> {
    const closed = once(this.server, "close");
    this.server.close();
    this.#end();
    return closed;
  }

  /**
   * Takes connections, and passes nothing on until it is mended, in neither direction; nor do those
   * that are open.
   */
  silence(): void {
    this.#isSilent = true;
    for (const socket of this.#sockets) socket.pause();
  }

  /** As at first. */
  async mend(): Promise<void> {
    this.#isSilent = false;
    for (const socket of this.#sockets) socket.resume();
    if (this.server.listening) return;
    this.server.listen(this.port, "127.0.0.1");
    await once(this.server, "listening");
  }

  async close(): Promise<void> {
    if (this.server.listening) await this.cut();
  }

  #join(near: Socket): void {
    this.accepted++;
    const far = connect(this.to);
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      this.#sockets.add(from);
      from.on("error", () => {}); // "close" follows
      from.on("close", () => {
        this.#sockets.delete(from);
        to.destroy();
      });
      from.on("data", (bytes) => to.write(bytes));
      if (this.#isSilent) from.pause();
    }
  }

  #end(): void {
    for (const socket of this.#sockets) socket.destroy();
  }
}
