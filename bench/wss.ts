/** The WebSocket bridge: memory a connection, frames a CPU second against a bare server on Bun, and what UDP loses by it. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { base64 } from "../test/support/pilot-node.ts";
import { LoadGenerator } from "./load.ts";
import type { BenchOptions } from "./options.ts";
import { printMachine, showBar, showSpread, spreadOf } from "./report.ts";
import { cpuNs, pinGenerator, residentBytes, startBeacon, startEcho, type Target } from "./targets.ts";
import { type Command, FIRST_ID, IDENTITY, type Result, type Way } from "./wss-clients.ts";

const IDLE_NODES = 10_000;
const IDLE_NODES_SMOKE = 100;
const BUSY_NODES = 200;
const PAYLOAD_BYTES = 1200;
const BYTES_A_CONNECTION_MAX = 20_000;
const RATE_MIN = 0.5;
/** How long one server is loaded before the other: both see the same moods of the machine. */
const SLICE_MS = 200;

const WAYS: readonly { readonly way: Way; readonly title: string }[] = [
  { way: "pairs", title: "WebSocket to WebSocket" },
  { way: "toUdp", title: "WebSocket to UDP" },
  { way: "fromUdp", title: "UDP to WebSocket" },
];

export async function benchWss(options: BenchOptions): Promise<void> {
  printMachine();
  pinGenerator();
  const folder = mkdtempSync(join(tmpdir(), "beacon-bench-"));
  try {
    const keys = join(folder, "keys.json");
    const key = base64(IDENTITY.publicKey);
    const nodes = Array.from({ length: IDLE_NODES }, (_, i) => [FIRST_ID + i, key]);
    writeFileSync(keys, JSON.stringify(Object.fromEntries(nodes)));
    const bench = new Bench(options, keys);
    for (const [title, measure] of [
      ["memory", () => bench.memory()],
      ...WAYS.map(({ way, title }) => [title, () => bench.rate(way)] as const),
      ["UDP beside WebSocket", () => bench.beside()],
    ] as const) {
      if (!title.includes(options.only)) continue;
      console.log(`\n${title}`);
      await measure();
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** A server and its fleet. */
class Contestant {
  cpuNs = 0;
  received = 0;
  lost = 0;
  elapsedMs = 0;

  private constructor(
    readonly target: Target,
    private readonly fleet: Bun.Subprocess,
    private readonly answers: Result[],
    private readonly arrived: { wake: () => void },
  ) {}

  static async start(target: Target): Promise<Contestant> {
    const answers: Result[] = [];
    const arrived = { wake: () => {} };
    const fleet = Bun.spawn([process.execPath, new URL("wss-clients.ts", import.meta.url).pathname], {
      stdout: "inherit",
      stderr: "inherit",
      ipc(answer: Result) {
        answers.push(answer);
        arrived.wake();
      },
      onExit: () => arrived.wake(),
    });
    pinGenerator(fleet.pid);
    return new Contestant(target, fleet, answers, arrived);
  }

  get proves(): boolean {
    return this.target.http !== "";
  }

  async connect(count: number): Promise<void> {
    await this.tell({ do: "connect", url: this.target.wss, count, proves: this.proves });
  }

  /** One turn of the load. */
  async slice(): Promise<void> {
    const before = cpuNs(this.target.pid);
    const { received, lost, elapsedMs } = await this.tell({ do: "run", ms: SLICE_MS });
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
    this.fleet.send(command);
    while (this.answers.length === 0) {
      if (this.fleet.exitCode !== null) throw new Error("the fleet's process ended");
      await new Promise<void>((wake) => {
        this.arrived.wake = wake;
      });
    }
    return this.answers.shift()!;
  }

  async stop(): Promise<void> {
    this.fleet.kill();
    await this.fleet.exited;
    await this.target.stop();
  }
}

class Bench {
  constructor(
    private readonly options: BenchOptions,
    private readonly keys: string,
  ) {}

  #beacon(): Promise<Target> {
    return startBeacon({ offload: true, batch: this.options.batch }, [
      "--wss=127.0.0.1:0",
      `--wss-keys=${this.keys}`,
      `--wss-max-peers=${IDLE_NODES}`,
    ]);
  }

  /** Memory a connection: how much more than a server on Bun needs that does nothing. */
  async memory(): Promise<void> {
    const nodes = this.options.smoke ? IDLE_NODES_SMOKE : IDLE_NODES;
    const bytes: number[] = [];
    for (const start of [() => this.#beacon(), startEcho]) {
      const contestant = await Contestant.start(await start());
      const before = residentBytes(contestant.target.pid);
      await contestant.connect(nodes);
      bytes.push((residentBytes(contestant.target.pid) - before) / nodes);
      await contestant.stop();
    }
    const [beacon = 0, bare = 0] = bytes;
    console.log(
      `  ${nodes} idle connections: beacon ${beacon.toFixed(0)} bytes each, bare server ${bare.toFixed(0)}, ` +
        `${(beacon - bare).toFixed(0)} more; ${showBar(beacon - bare, { atMost: BYTES_A_CONNECTION_MAX })}`,
    );
  }

  /** Frames a CPU second, over those of a server that sends back what it gets. */
  async rate(way: Way): Promise<void> {
    const { rounds, seconds } = this.options;
    const ratios: number[] = [];
    for (let round = 0; round < rounds; round++) {
      const beacon = await Contestant.start(await this.#beacon());
      const echo = await Contestant.start(await startEcho());
      const order = round % 2 === 0 ? [beacon, echo] : [echo, beacon];
      for (const contestant of order) {
        await contestant.connect(BUSY_NODES);
        const { port } = contestant.target;
        const ofThis = contestant === beacon ? way : "echo";
        await contestant.tell({ do: "prepare", way: ofThis, payloadBytes: PAYLOAD_BYTES, port });
        await contestant.tell({ do: "run", ms: (seconds * 1000) / 2 }); // compiled code, caches
      }
      for (let ms = 0; ms < seconds * 1000; ms += SLICE_MS) {
        for (const contestant of order) await contestant.slice();
      }
      ratios.push(echo.cpuNsPerFrame / beacon.cpuNsPerFrame);
      console.log(
        `  round ${round + 1}  beacon: ${beacon.show()};  bare echo: ${echo.show()};  ratio ${ratios.at(-1)!.toFixed(3)}`,
      );
      for (const contestant of order) await contestant.stop();
    }
    const spread = spreadOf(ratios);
    console.log(
      `  frames a CPU second, ratio ${showSpread(spread, 3)}; ${showBar(spread.median, { atLeast: RATE_MIN })}`,
    );
  }

  /** The worker's CPU time a UDP packet, with WebSocket nodes at full rate beside it over without them. */
  async beside(): Promise<void> {
    const { rounds, seconds } = this.options;
    const ratios: number[] = [];
    for (let round = 0; round < rounds; round++) {
      const beacon = await Contestant.start(await this.#beacon());
      const generator = new LoadGenerator({ payloadBytes: PAYLOAD_BYTES, nodes: 64, burst: 1 });
      generator.aim(beacon.target.port);
      generator.register();
      await beacon.connect(BUSY_NODES);
      await beacon.tell({ do: "prepare", way: "pairs", payloadBytes: PAYLOAD_BYTES, port: 0 });
      await beacon.tell({ do: "run", ms: (seconds * 1000) / 2 });
      generator.run(seconds * 0.5e9);
      const alone = { cpuNs: 0, packets: 0 };
      const beside = { cpuNs: 0, packets: 0 };
      let frames = 0;
      for (let ms = 0; ms < seconds * 1000; ms += SLICE_MS) {
        measureUdp(beacon.target, generator, alone);
        const running = beacon.tell({ do: "run", ms: SLICE_MS });
        measureUdp(beacon.target, generator, beside);
        frames += (await running).received;
      }
      const perPacket = [beside, alone].map(({ cpuNs: ns, packets }) => ns / packets);
      ratios.push(perPacket[0]! / perPacket[1]!);
      console.log(
        `  round ${round + 1}  worker: ${perPacket[0]!.toFixed(0)} ns a packet beside ${(frames / seconds / 1000).toFixed(0)} k frames/s, ` +
          `${perPacket[1]!.toFixed(0)} ns alone;  ratio ${ratios.at(-1)!.toFixed(3)}`,
      );
      generator.close();
      await beacon.stop();
    }
    console.log(`  CPU time of UDP's worker a packet, ratio ${showSpread(spreadOf(ratios), 3)}`);
  }
}

const isWorker = (thread: string) => thread === "Worker";

function measureUdp(
  { pid }: Target,
  generator: LoadGenerator,
  into: { cpuNs: number; packets: number },
): void {
  const before = cpuNs(pid, isWorker);
  into.packets += generator.run(SLICE_MS * 1e6).received;
  into.cpuNs += cpuNs(pid, isWorker) - before;
}
