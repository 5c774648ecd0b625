/**
 * A WebSocket server under the load of a fleet of nodes, which is a process of its own
 * (wss-clients.ts), and what that costs.
 */
import type { Contestant } from "../harness/rounds.ts";
import { pinGenerator, type Target } from "../harness/targets.ts";
import { cpuNs } from "../harness/usage.ts";
import { RemoteProcess } from "../rig/remote.ts";
import type { Command, Result } from "./wss-clients.ts";

/** A server and its fleet. */
export class Fleet implements Contestant {
  cpuNs = 0;
  received = 0;
  lost = 0;
  elapsedMs = 0;

  readonly #clients = new RemoteProcess<Command>(undefined, "../suite/wss-clients.ts");

  constructor(readonly target: Target) {
    pinGenerator(this.#clients.pid);
  }

  get proves(): boolean {
    return this.target.http !== "";
  }

  async connect(count: number): Promise<void> {
    await this.tell({ do: "connect", url: this.target.wss, count, proves: this.proves });
  }

  /** One turn of the load. */
  async slice(ms: number): Promise<void> {
    const before = cpuNs(this.target.pid);
    const { received, lost, elapsedMs } = await this.tell({ do: "run", ms });
    this.cpuNs += cpuNs(this.target.pid) - before;
    this.received += received;
    this.lost += lost;
    this.elapsedMs += elapsedMs;
  }

  get cpuNsPerFrame(): number {
    return this.cpuNs / this.received;
  }

  show(): string {
    const rate = (this.received / this.elapsedMs).toFixed(0);
    const share = ((this.cpuNs / this.elapsedMs / 1e6) * 100).toFixed(0);
    return `${this.cpuNsPerFrame.toFixed(0)} ns, ${rate} k/s at ${share} % of a core${this.lost === 0 ? "" : `, LOST ${this.lost}`}`;
  }

  async tell(command: Command): Promise<Result> {
    return (await this.#clients.tell(command)) as Result;
  }

  async stop(): Promise<void> {
    await this.#clients.kill();
    await this.target.stop();
  }
}
