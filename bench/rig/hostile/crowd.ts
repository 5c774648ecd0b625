/** An attack of connections: more and more of them, up to a bound, each misbehaving in one way. */
import type { WireAddress } from "../../../test/e2e/support/wire.ts";
import type { Assault, Effort, Scene } from "./attack.ts";

/** How often new connections are opened: no bursts, which would be another attack. */
const TICK_MS = 10;
/** How often each connection has its turn. */
const TURN_MS = 100;

/** How a connection misbehaves. */
export interface Behaviour {
  /** Once it is open. */
  opened?(socket: Bun.Socket, n: number): void;
  /** When something comes. */
  heard?(socket: Bun.Socket, bytes: Uint8Array, n: number): void;
  /** Every TURN_MS. */
  turn?(socket: Bun.Socket): void;
}

export class Crowd implements Assault {
  readonly #sockets = new Set<Bun.Socket>();
  #opening = 0;
  #attempts = 0;
  /** Connections that were opened. */
  #count = 0;
  #due = 0;
  #isStopped = false;
  readonly #timers: readonly Timer[];

  constructor(
    private readonly target: WireAddress,
    private readonly scene: Scene,
    private readonly behaviour: Behaviour,
  ) {
    this.#timers = [
      setInterval(() => this.#tick(), TICK_MS),
      setInterval(() => this.#turn(), TURN_MS),
    ];
  }

  async stop(): Promise<Effort> {
    this.#isStopped = true;
    for (const timer of this.#timers) clearInterval(timer);
    for (const socket of this.#sockets) socket.terminate();
    return { of: "connections", count: this.#count, bytes: 0, heard: {} };
  }

  #tick(): void {
    const { connectionsPerS, connectionsMax } = this.scene;
    this.#due = Math.min(this.#due + (connectionsPerS * TICK_MS) / 1000, connectionsPerS);
    for (; this.#due >= 1 && this.#sockets.size + this.#opening < connectionsMax; this.#due--)
      this.#open();
  }

  #turn(): void {
    for (const socket of this.#sockets) this.behaviour.turn?.(socket);
  }

  #open(): void {
    const n = this.#attempts++;
    this.#opening++;
    const ended = (socket: Bun.Socket) => void this.#sockets.delete(socket);
    Bun.connect({
      hostname: this.target.address,
      port: this.target.port,
      socket: {
        open: (socket) => {
          this.#count++;
          if (this.#isStopped) {
            socket.terminate();
            return;
          }
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
