/** An attack of connections: more and more of them, up to a bound, each misbehaving in one way. */
import type { WireAddress } from "../../../test/e2e/support/wire.ts";
import type { Assault, Effort, Scene } from "./attack.ts";

/** How often new connections are opened, and each has its turn. */
const TICK_MS = 100;

/** How a connection misbehaves. */
export interface Behaviour {
  /** Once it is open. */
  opened?(socket: Bun.Socket, n: number): void;
  /** When something comes. */
  heard?(socket: Bun.Socket, bytes: Uint8Array, n: number): void;
  /** Ten times a second. */
  turn?(socket: Bun.Socket): void;
}

export class Crowd implements Assault {
  readonly #sockets = new Set<Bun.Socket>();
  #opening = 0;
  #count = 0;
  #due = 0;
  readonly #timer: Timer;

  constructor(
    private readonly target: WireAddress,
    private readonly scene: Scene,
    private readonly behaviour: Behaviour,
  ) {
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
    this.#tick();
  }

  async stop(): Promise<Effort> {
    clearInterval(this.#timer);
    for (const socket of this.#sockets) socket.terminate();
    return { of: "connections", count: this.#count, bytes: 0, heard: {} };
  }

  #tick(): void {
    const { connectionsPerS, connectionsMax } = this.scene;
    for (const socket of this.#sockets) this.behaviour.turn?.(socket);
    this.#due = Math.min(this.#due + (connectionsPerS * TICK_MS) / 1000, connectionsPerS);
    for (; this.#due >= 1 && this.#sockets.size + this.#opening < connectionsMax; this.#due--) this.#open();
  }

  #open(): void {
    const n = this.#count++;
    this.#opening++;
    const ended = (socket: Bun.Socket) => void this.#sockets.delete(socket);
    Bun.connect({
      hostname: this.target.address,
      port: this.target.port,
      socket: {
        open: (socket) => {
          this.#sockets.add(socket);
          this.behaviour.opened?.(socket, n);
        },
        data: (socket, bytes) => this.behaviour.heard?.(socket, bytes, n),
        close: ended,
        error: ended,
      },
    }).then(
      () => this.#opening--,
      () => this.#opening--, // refused: the server has enough
    );
  }
}
