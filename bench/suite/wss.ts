/**
 * The WebSocket bridge: memory a connection, frames a CPU second against a bare server on Bun, and
 * what UDP loses by it.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { base64 } from "../../test/support/pilot-node.ts";
import { LoadGenerator } from "../harness/load.ts";
import type { BenchOptions } from "../harness/options.ts";
import type { Recorder } from "../harness/results.ts";
import { eachRound } from "../harness/rounds.ts";
import {
  pinGenerator,
  startBeacon,
  startEcho,
  type Target,
  temporaryFolder,
} from "../harness/targets.ts";
import { residentBytes, workersCpuNs } from "../harness/usage.ts";
import { FIRST_ID, IDENTITY, type Way } from "./wss-clients.ts";
import { Fleet } from "./wss-fleet.ts";

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

export async function benchWss(options: BenchOptions, recorder: Recorder): Promise<void> {
  pinGenerator();
  const keys = join(temporaryFolder(), "keys.json");
  const key = base64(IDENTITY.publicKey);
  const nodes = Array.from({ length: IDLE_NODES }, (_, i) => [FIRST_ID + i, key]);
  writeFileSync(keys, JSON.stringify(Object.fromEntries(nodes)));
  const bench = new Bench(options, keys, recorder);
  for (const [title, measure] of [
    ["memory", () => bench.memory()],
    ...WAYS.map(({ way, title }) => [title, () => bench.rate(way)] as const),
    ["UDP beside WebSocket", () => bench.beside()],
  ] as const) {
    if (!title.includes(options.only)) continue;
    recorder.title(title);
    await measure();
  }
}

class Bench {
  constructor(
    private readonly options: BenchOptions,
    private readonly keys: string,
    private readonly recorder: Recorder,
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
    const bytes: readonly number[][] = [[], []];
    const starts = [
      async () => new Fleet(await this.#beacon()),
      async () => new Fleet(await startEcho()),
    ];
    await eachRound(this.options.rounds, starts, async (fleets, _, round) => {
      for (const [i, fleet] of fleets.entries()) {
        const before = residentBytes(fleet.target.pid);
        await fleet.connect(nodes);
        bytes[i]!.push((residentBytes(fleet.target.pid) - before) / nodes);
      }
      const [beacon, bare] = bytes.map((values) => values.at(-1)!.toFixed(0));
      this.recorder.progress(
        `round ${round + 1}  bytes each: beacon ${beacon}, bare server ${bare}`,
      );
    });
    const [beacon = [], bare = []] = bytes;
    const figure = this.recorder.of(`${nodes} idle connections`, { group: "wss memory", nodes });
    figure("memory each, beacon", "bytes", beacon);
    figure("memory each, bare server", "bytes", bare);
    const beyond = beacon.map((value, i) => value - bare[i]!);
    const bar = { atMost: BYTES_A_CONNECTION_MAX };
    figure("memory each, beyond the bare server's", "bytes", beyond, { bar });
  }

  /** Frames a CPU second, over those of a server that sends back what it gets. */
  async rate(way: Way): Promise<void> {
    const { rounds, seconds } = this.options;
    const { title } = WAYS.find((one) => one.way === way)!;
    const cpu: readonly number[][] = [[], []];
    const starts = [
      async () => new Fleet(await this.#beacon()),
      async () => new Fleet(await startEcho()),
    ];
    await eachRound(rounds, starts, async (fleets, turn, round) => {
      const [beacon] = fleets;
      for (const fleet of turn) {
        await fleet.connect(BUSY_NODES);
        const { port } = fleet.target;
        const ofThis = fleet === beacon ? way : "echo";
        await fleet.tell({ do: "prepare", way: ofThis, payloadBytes: PAYLOAD_BYTES, port });
        await fleet.tell({ do: "run", ms: (seconds * 1000) / 2 }); // compiled code, caches
      }
      for (let ms = 0; ms < seconds * 1000; ms += SLICE_MS) {
        for (const fleet of turn) await fleet.slice(SLICE_MS);
      }
      for (const [i, fleet] of fleets.entries()) cpu[i]!.push(fleet.cpuNsPerFrame);
      this.recorder.progress(
        `round ${round + 1}  beacon: ${fleets[0]!.show()};  bare echo: ${fleets[1]!.show()}`,
      );
    });
    const [beacon = [], echo = []] = cpu;
    const params = { group: "wss", way, payloadBytes: PAYLOAD_BYTES, nodes: BUSY_NODES };
    const figure = this.recorder.of(title, params);
    const ratios = beacon.map((ns, i) => echo[i]! / ns);
    const bar = { atLeast: RATE_MIN };
    figure("frames a CPU second, over a bare echo", "×", ratios, { better: "more", bar });
    figure("CPU a frame, beacon", "ns", beacon);
    figure("CPU a frame, bare echo", "ns", echo);
  }

  /**
   * The worker's CPU time a UDP packet, with WebSocket nodes at full rate beside it over without
   * them.
   */
  async beside(): Promise<void> {
    const { rounds, seconds } = this.options;
    const ratios: number[] = [];
    await eachRound(
      rounds,
      [async () => new Fleet(await this.#beacon())],
      async ([fleet], _, round) => {
        const { target } = fleet!;
        const generator = new LoadGenerator({ payloadBytes: PAYLOAD_BYTES, nodes: 64 });
        generator.aim(target);
        generator.register();
        await fleet!.connect(BUSY_NODES);
        await fleet!.tell({ do: "prepare", way: "pairs", payloadBytes: PAYLOAD_BYTES, port: 0 });
        await fleet!.tell({ do: "run", ms: (seconds * 1000) / 2 });
        generator.run(seconds * 0.5e9);
        const alone = { cpuNs: 0, packets: 0 };
        const beside = { cpuNs: 0, packets: 0 };
        let frames = 0;
        for (let ms = 0; ms < seconds * 1000; ms += SLICE_MS) {
          measureUdp(target, generator, alone);
          const running = fleet!.tell({ do: "run", ms: SLICE_MS });
          measureUdp(target, generator, beside);
          frames += (await running).received;
        }
        generator.close();
        const [besideNs, aloneNs] = [beside, alone].map(({ cpuNs: ns, packets }) => ns / packets);
        ratios.push(besideNs! / aloneNs!);
        this.recorder.progress(
          `round ${round + 1}  worker: ${besideNs!.toFixed(0)} ns a packet beside ` +
            `${(frames / seconds / 1000).toFixed(0)} k frames/s, ${aloneNs!.toFixed(0)} ns alone`,
        );
      },
    );
    const params = { group: "wss beside UDP", nodes: BUSY_NODES };
    const name = "CPU of UDP's worker a packet, over alone";
    this.recorder.of("UDP beside WebSocket", params)(name, "×", ratios);
  }
}

function measureUdp(
  { pid }: Target,
  generator: LoadGenerator,
  into: { cpuNs: number; packets: number },
): void {
  const before = workersCpuNs(pid);
  into.packets += generator.run(SLICE_MS * 1e6).received;
  into.cpuNs += workersCpuNs(pid) - before;
}
