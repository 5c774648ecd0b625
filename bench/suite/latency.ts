/**
 * Time through a relay, from idle to nearly all that it can take: the beacon against the reference
 * in C.
 */
import { type Load, type LoadGenerator, STAMP_BYTES } from "../harness/load.ts";
import { type Contender, LoadedRelay } from "../harness/loaded-relay.ts";
import type { BenchOptions } from "../harness/options.ts";
import type { Recorder } from "../harness/results.ts";
import { type Contestant, eachRound } from "../harness/rounds.ts";
import { type Bar, quantile, showNumber } from "../harness/statistics.ts";
import { compileReference, pinGenerator } from "../harness/targets.ts";

/** One 200 B packet at a time for the idle case: the next one is sent when this rate says so. */
const IDLE_PACKETS_PER_S = 2000;
/** Shares of what the slower of the two can take in this round. */
const SHARES = [0.1, 0.25, 0.5, 0.75, 0.9];
const SHARES_SMOKE = [0.5];
/** One is loaded before the other for so long: both see the same moods of the machine. */
const SLICE_NS = 250e6;
/** How long each is given all that it takes, to learn how much that is. */
const CAPACITY_S = 0.5;
/** On the median at idle. */
const BAR: Bar = { atMost: 1.5 };

const LOAD: Load = { payloadBytes: 200, nodes: 256, timed: true };
if (LOAD.payloadBytes < STAMP_BYTES) throw new Error("a stamp must fit into the payload");

const CONTENDERS: readonly Contender[] = [
  { name: "beacon", program: "beacon", load: LOAD, offload: true },
  { name: "C", program: "C", load: LOAD, offload: true },
];

const LATENCIES = {
  names: ["beacon", "C"],
  over: "beacon over C",
  quantiles: [0.5, 0.9, 0.99, 0.999],
};

export async function benchLatency(options: BenchOptions, recorder: Recorder): Promise<void> {
  pinGenerator();
  const reference = compileReference();
  if ("idle".includes(options.only)) await idle(reference, options, recorder);
  for (const share of options.smoke ? SHARES_SMOKE : SHARES) {
    if (titleOf(share).includes(options.only)) await loaded(share, reference, options, recorder);
  }
}

const titleOf = (share: number): string => `${Math.round(share * 100)} % load`;

async function idle(reference: string, options: BenchOptions, recorder: Recorder): Promise<void> {
  const latencies = new Latencies(LATENCIES);
  await pingInTurn(starts(reference, options), latencies, options, recorder);
  latencies.report("idle", { group: "latency", load: 0 }, recorder, BAR);
}

/** Relays one packet at a time through all relays, which take turns. */
export async function pingInTurn(
  start: Parameters<typeof eachRound<Pinged>>[1],
  latencies: Latencies,
  { rounds, seconds, warmUpSeconds }: BenchOptions,
  recorder: Recorder,
): Promise<void> {
  recorder.title(`one packet at a time, ${IDLE_PACKETS_PER_S} a second`);
  await eachRound(rounds, start, async (relays, turn, round) => {
    const us = new Map(turn.map((relay) => [relay, [] as number[]]));
    // compiled code, caches
    for (const { generator } of turn) pingSteadily(generator, warmUpSeconds / 2);
    for (let s = 0; s < seconds; s += SLICE_NS / 1e9) {
      for (const relay of turn)
        us.get(relay)!.push(...pingSteadily(relay.generator, Math.min(seconds, SLICE_NS / 1e9)));
      await Bun.sleep(0); // signals and the time limit get their turn
    }
    const shown = latencies.add(relays.map((relay) => us.get(relay)!));
    recorder.progress(`round ${round + 1}  ${shown.join(";  ")}`);
  });
}

/** A relay and its load. */
interface Pinged extends Contestant {
  readonly generator: LoadGenerator;
}

/** Relays one packet at a time. @returns the microseconds of each; a lost one takes Infinity */
export function pingSteadily(generator: LoadGenerator, seconds: number): number[] {
  const us: number[] = [];
  const start = Bun.nanoseconds();
  for (let i = 0; i < seconds * IDLE_PACKETS_PER_S; i++) {
    const dueNs = start + (i * 1e9) / IDLE_PACKETS_PER_S;
    while (Bun.nanoseconds() < dueNs); // a timer would be late by more than what is measured
    const ns = generator.ping();
    us.push(ns < 0 ? Infinity : ns / 1000);
  }
  return us;
}

async function loaded(
  share: number,
  reference: string,
  options: BenchOptions,
  recorder: Recorder,
): Promise<void> {
  recorder.title(
    `${titleOf(share)}: a packet to each of ${LOAD.nodes} nodes in turn, at a steady rate`,
  );
  const latencies = new Latencies(LATENCIES);
  const rates: number[] = [];
  await eachRound(options.rounds, starts(reference, options), async (relays, turn, round) => {
    for (const relay of turn) relay.warmUp(options.warmUpSeconds);
    const capacities = turn.map(({ generator }) => {
      const { received, elapsedNs } = generator.run(CAPACITY_S * 1e9);
      return (received / elapsedNs) * 1e9;
    });
    const rate = share * Math.min(...capacities);
    rates.push(rate);
    const us = new Map(turn.map((relay) => [relay, [] as number[]]));
    const room = new Float64Array(Math.ceil((rate * SLICE_NS) / 1e9) + 1);
    for (let ns = 0; ns < options.seconds * 1e9; ns += SLICE_NS) {
      for (const relay of turn) us.get(relay)!.push(...pace(relay, rate, room));
    }
    recorder.progress(
      `round ${round + 1}  ${showNumber(rate / 1000)} k/s:  ${latencies.add(relays.map((relay) => us.get(relay)!)).join(";  ")}`,
    );
  });
  const figure = recorder.of(titleOf(share), { group: "latency", load: share });
  figure("packets a second", "/s", rates, { better: "neither" });
  latencies.report(titleOf(share), { group: "latency", load: share }, recorder);
}

function* pace({ generator }: LoadedRelay, rate: number, room: Float64Array): Generator<number> {
  const { received, lost } = generator.pace(rate, SLICE_NS, room);
  for (let i = 0; i < received; i++) yield room[i]! / 1000;
  for (let i = 0; i < lost; i++) yield Infinity;
}

const starts = (reference: string, { batch }: BenchOptions) =>
  CONTENDERS.map((contender) => () => LoadedRelay.start(contender, reference, batch));

/** Quantiles of two contenders, a round after the other. */
export class Latencies {
  /** By contender and quantile, of each round; microseconds. */
  readonly #us: number[][][];
  #lost = 0;
  #rounds = 0;

  /** @param of the contenders, the name of their ratio, and what is kept */
  constructor(
    private readonly of: {
      readonly names: readonly string[];
      readonly over: string;
      readonly quantiles: readonly number[];
    },
  ) {
    this.#us = of.names.map(() => of.quantiles.map(() => []));
  }

  /**
   * Adds a round.
   * @param us of each contender, a lost packet's Infinity
   * @returns the round as text
   */
  add(us: readonly (readonly number[])[]): string[] {
    this.#rounds++;
    return us.map((times, contender) => {
      const arrived = times.filter((time) => time !== Infinity);
      const lost = times.length - arrived.length;
      this.#lost += lost;
      const shown = this.of.quantiles.map((q, i) => {
        const value = quantile(arrived, q);
        this.#us[contender]![i]!.push(value);
        return `${nameOf(q)} ${value.toFixed(1)}`;
      });
      return `${this.of.names[contender]}: ${shown.join(", ")}${lost === 0 ? "" : `, LOST ${lost}`}`;
    });
  }

  /** @param bar on the ratio of the medians */
  report(
    title: string,
    params: Parameters<Recorder["of"]>[1],
    recorder: Recorder,
    bar?: Bar,
  ): void {
    const figure = recorder.of(title, params);
    for (const [i, q] of this.of.quantiles.entries()) {
      const [one = [], other = []] = this.#us.map((quantiles) => quantiles[i]!);
      const ratio = one.map((us, round) => us / other[round]!);
      figure(`${nameOf(q)}, ${this.of.over}`, "×", ratio, bar && q === 0.5 ? { bar } : {});
      for (const [contender, name] of this.of.names.entries())
        figure(`${nameOf(q)}, ${name}`, "µs", this.#us[contender]![i]!);
    }
    if (this.#lost > 0)
      recorder.note(`${title}: ${this.#lost} packets were lost in ${this.#rounds} rounds`);
  }
}

/** "p99.9" */
const nameOf = (q: number): string => `p${Number((q * 100).toFixed(2))}`;
