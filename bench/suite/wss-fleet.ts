/** A WebSocket server under the load of a fleet of nodes, which is a process of its own (wss-clients.ts), and what that costs. */
import type { Contestant } from "../harness/rounds.ts";
import { mortal, pinGenerator, type Target } from "../harness/targets.ts";
import { cpuNs } from "../harness/usage.ts";
import type { Command, Result } from "./wss-clients.ts";

/** A server and its fleet. */
export class Fleet implements Contestant {
  cpuNs = 0;
  received = 0;
  lost = 0;
  elapsedMs = 0;

  private constructor(
    readonly target: Target,
    private readonly clients: Bun.Subprocess,
    private readonly answers: Result[],
    private readonly arrived: { wake: () => void },
  ) {}

  static async start(target: Target): Promise<Fleet> {
    const answers: Result[] = [];
    const arrived = { wake: () => {} };
    const clients = mortal(
      Bun.spawn([process.execPath, new URL("wss-clients.ts", import.meta.url).pathname], {
        stdout: "inherit",
        stderr: "inherit",
        ipc(answer: Result) {
          answers.push(answer);
          arrived.wake();
        },
        onExit: () => arrived.wake(),
      }),
    );
    pinGenerator(clients.pid);
    return new Fleet(target, clients, answers, arrived);
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
    this.clients.send(command);
    while (this.answers.length === 0) {
      if (this.clients.exitCode !== null) throw new Error("the fleet's process ended");
      await new Promise<void>((wake) => {
        this.arrived.wake = wake;
      });
    }
    return this.answers.shift()!;
  }

  async stop(): Promise<void> {
    this.clients.kill();
    await this.clients.exited;
    await this.target.stop();
  }
}
