/** CPU time per relayed packet: the beacon against the reference in C, and against itself, on one core. */
import type { Stats } from "../src/beacon.ts";
import { type Load, LoadGenerator } from "./load.ts";
import type { BenchOptions } from "./options.ts";
import { printMachine, showBar, showSpread, spreadOf } from "./report.ts";
import {
  compileReference,
  cpuNs,
  pinGenerator,
  startBeacon,
  startReference,
  type Target,
} from "./targets.ts";

type Contender = "beacon" | "beacon, offload" | "to a peer" | "to a peer, offload" | "C" | "C, offload";

interface Comparison {
  readonly title: string;
  readonly load: Load;
  readonly subject: Contender;
  readonly against: Contender;
  /** On the CPU time of `subject` over that of `against`, a packet. */
  readonly bar: { readonly atMost?: number; readonly atLeast?: number };
  /** Turn the ratio over: how many times cheaper `subject` is. */
  readonly inverse?: boolean;
}

/** Every packet to another node than the one before: nothing can be merged. */
const scattered = (payloadBytes: number): Load => ({ payloadBytes, nodes: 256, burst: 1 });
/** What a stream segment burst is: 48 packets for one node, then 48 for another. */
const bursts: Load = { payloadBytes: 1200, nodes: 64, burst: 48 };

const COMPARISONS: readonly Comparison[] = [
  {
    title: "200 B, offload off",
    load: scattered(200),
    subject: "beacon",
    against: "C",
    bar: { atMost: 1.1 },
  },
  {
    title: "1,200 B, offload off",
    load: scattered(1200),
    subject: "beacon",
    against: "C",
    bar: { atMost: 1.1 },
  },
  {
    title: "bursts of 48 × 1,200 B, offload on",
    load: bursts,
    subject: "beacon, offload",
    against: "C, offload",
    bar: { atMost: 1.15 },
  },
  {
    title: "bursts of 48 × 1,200 B: times cheaper with offload than without",
    load: bursts,
    subject: "beacon, offload",
    against: "beacon",
    bar: { atLeast: 5 },
    inverse: true,
  },
  {
    title: "1,200 B that cannot be merged: offload on over off",
    load: scattered(1200),
    subject: "beacon, offload",
    against: "beacon",
    bar: { atMost: 1.03 },
  },
  {
    title: "200 B, offload off: to nodes of a peer over to nodes",
    load: scattered(200),
    subject: "to a peer",
    against: "beacon",
    bar: { atMost: 1 },
  },
  {
    title: "1,200 B, offload on: to nodes of a peer over to nodes",
    load: scattered(1200),
    subject: "to a peer, offload",
    against: "beacon, offload",
    bar: { atMost: 1 },
  },
  {
    title: "bursts of 48 × 1,200 B, offload on: to nodes of a peer over to nodes",
    load: bursts,
    subject: "to a peer, offload",
    against: "beacon, offload",
    bar: { atMost: 1 },
  },
];

/** The sink counts packets: no gossip shall reach it in the middle of a measurement. And it speaks just once. */
const QUIET = ["--gossip-interval=1m", "--peer-timeout=1h"];

/** What was measured of one contender, summed over its slices. */
interface Measured {
  cpuNs: number;
  elapsedNs: number;
  received: number;
  lost: number;
}

/**
 * The two contenders of a round run beside each other and are loaded in turn, in slices this long: short against the
 * moods of a shared machine, long against the turn itself.
 */
const SLICE_NS = 100e6;

export async function benchRelay({ rounds, seconds, batch, only }: BenchOptions): Promise<void> {
  printMachine();
  pinGenerator();
  const reference = compileReference();
  for (const { title, load, subject, against, bar, inverse } of COMPARISONS.filter((each) =>
    each.title.includes(only),
  )) {
    console.log(`\n${title}`);
    const ratios: number[] = [];
    for (let round = 0; round < rounds; round++) {
      // Fresh processes each round, and the order turns, so that neither always goes first.
      const order = round % 2 === 0 ? [subject, against] : [against, subject];
      const contenders: Contestant[] = [];
      try {
        for (const name of order) contenders.push(await Contestant.start(name, load, reference, batch));
        for (const contender of contenders) contender.warmUp(seconds / 2);
        for (const contender of contenders) await contender.begin();
        for (let elapsedNs = 0; elapsedNs < seconds * 1e9; elapsedNs += SLICE_NS) {
          for (const contender of contenders) contender.slice();
        }
        const [a, b] = round % 2 === 0 ? contenders : contenders.toReversed();
        const ratio = a!.cpuNsPerPacket / b!.cpuNsPerPacket;
        ratios.push(inverse ? 1 / ratio : ratio);
        console.log(
          `  round ${round + 1}  ${await a!.show()};  ${await b!.show()};  ratio ${ratios.at(-1)!.toFixed(3)}`,
        );
      } finally {
        for (const contender of contenders) await contender.stop();
      }
    }
    const spread = spreadOf(ratios);
    console.log(`  ratio ${showSpread(spread, 3)}; ${showBar(spread.median, bar)}`);
  }
}

/** One contender of one round: its process and the load on it. */
class Contestant {
  readonly #measured: Measured = { cpuNs: 0, elapsedNs: 0, received: 0, lost: 0 };
  #batchesBefore: Batches | undefined;

  private constructor(
    private readonly name: Contender,
    private readonly target: Target,
    private readonly generator: LoadGenerator,
  ) {}

  static async start(name: Contender, load: Load, reference: string, batch: number): Promise<Contestant> {
    const options = { offload: name.endsWith("offload"), batch };
    const generator = new LoadGenerator(load);
    const hasPeer = name.startsWith("to a peer");
    const target = name.startsWith("C")
      ? await startReference(reference, options)
      : await startBeacon(options, hasPeer ? [`--peers=127.0.0.1:${generator.sinkPort}`, ...QUIET] : []);
    generator.aim(target.port);
    if (hasPeer) generator.announce();
    else generator.register();
    return new Contestant(name, target, generator);
  }

  /** Compiled code, caches, page tables. */
  warmUp(seconds: number): void {
    this.generator.run(seconds * 1e9);
  }

  async begin(): Promise<void> {
    this.#batchesBefore = await readBatches(this.target.http);
  }

  slice(): void {
    const cpuBefore = cpuNs(this.target.pid);
    const { received, lost, elapsedNs } = this.generator.run(SLICE_NS);
    this.#measured.cpuNs += cpuNs(this.target.pid) - cpuBefore;
    this.#measured.elapsedNs += elapsedNs;
    this.#measured.received += received;
    this.#measured.lost += lost;
  }

  get cpuNsPerPacket(): number {
    return this.#measured.cpuNs / this.#measured.received;
  }

  /** CPU time a packet, rate, share of its core (at 100 % it was the bottleneck), messages a receive call. */
  async show(): Promise<string> {
    const { cpuNs, elapsedNs, received, lost } = this.#measured;
    const before = this.#batchesBefore;
    const after = await readBatches(this.target.http);
    const batch =
      before && after
        ? `, batch ${((after.messages - before.messages) / (after.calls - before.calls)).toFixed(1)}`
        : "";
    return (
      `${this.name}: ${this.cpuNsPerPacket.toFixed(0)} ns, ${((received / elapsedNs) * 1e6).toFixed(0)} k/s` +
      ` at ${((cpuNs / elapsedNs) * 100).toFixed(0)} % of a core${batch}${lost === 0 ? "" : `, LOST ${lost}`}`
    );
  }

  async stop(): Promise<void> {
    this.generator.close();
    await this.target.stop();
  }
}

type Batches = Stats["workers"][number]["receiveBatch"];

/** @param http "" for a target that serves none */
async function readBatches(http: string): Promise<Batches | undefined> {
  if (http === "") return undefined;
  const stats = (await (await fetch(new URL("api/stats", http))).json()) as Stats;
  return stats.workers[0]?.receiveBatch;
}
