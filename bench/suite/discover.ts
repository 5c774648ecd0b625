/**
 * CPU time a Discover, and registrations a second: nodes that are known, new, and move, against the
 * reference in C.
 */
import { cpus } from "node:os";
import { DiscoverGenerator, type DiscoverLoad } from "../harness/discovers.ts";
import { type Loaded, LoadedTargets } from "../harness/loaded.ts";
import type { BenchOptions } from "../harness/options.ts";
import { LOOPBACK, LOOPBACK_IPV6, type Place } from "../harness/place.ts";
import type { Figure, Recorder } from "../harness/results.ts";
import { type Comparison, compareSideBySide } from "../harness/side-by-side.ts";
import { compileReference, pinGenerator, startBeacon, startReference } from "../harness/targets.ts";

const CORES = cpus().length;
const FEW_NODES = 1_000;
const NODES = 100_000;
const MANY_NODES = 500_000;
/**
 * As many as can come in the seconds that are usual here, each just once; the first of them before
 * it counts.
 */
const NEW_NODES = 1_000_000;
/** Those touch nearly every page of the tables, so that what follows costs no page faults. */
const NEW_NODES_BEFORE = 150_000;
/** So many flows reach all workers. */
const SOCKETS_MANY = 16;
const REGISTER_NS_MAX = 60e9;
const RETRIES_MAX = 10;

interface Setup {
  readonly place?: Place;
  readonly workers?: number;
  readonly flags?: readonly string[];
}

export async function benchDiscover(options: BenchOptions, recorder: Recorder): Promise<void> {
  pinGenerator();
  const reference = compileReference();
  const cases = discoverCases(reference, options).filter(({ title }) =>
    title.includes(options.only),
  );
  for (const one of cases) {
    recorder.title(one.title);
    if (one.params["group"] === "discover workers" && CORES <= 2) {
      recorder.note(
        `${CORES} workers share ${Math.max(1, CORES - 1)} core here: what they cost holds, their rate says nothing`,
      );
    }
    // Who comes just once must not be used up before it counts; those that came at the start have
    // warmed up everything.
    const comesOnce = one.params["kind"] === "new";
    await compareSideBySide(one, comesOnce ? { ...options, warmUpSeconds: 0 } : options, recorder);
  }
}

function discoverCases(reference: string, options: BenchOptions): Comparison[] {
  const { batch } = options;
  const [known, nodes, fresh] = options.smoke
    ? [[1000], 1000, 20_000]
    : [[FEW_NODES, NODES, MANY_NODES], NODES, NEW_NODES];

  const beacon = (
    name: string,
    load: DiscoverLoad,
    { place = LOOPBACK, workers = 1, flags = [] }: Setup = {},
  ) => ({
    name,
    start: async (): Promise<Loaded> => {
      const room = `--max-nodes=${Math.max(load.nodes, MANY_NODES)}`;
      const target = await startBeacon({ offload: true, batch, place, workers }, [room, ...flags]);
      return loaded(name, load, place, target);
    },
  });
  const c = (load: DiscoverLoad, { place = LOOPBACK }: Setup = {}) => ({
    name: "C",
    start: async (): Promise<Loaded> => {
      const slotsLog2 = Math.ceil(Math.log2(2 * Math.max(load.nodes, MANY_NODES)));
      const target = await startReference(reference, { offload: true, batch, place }, slotsLog2);
      return loaded("C", load, place, target);
    },
  });
  const overC = (
    title: string,
    params: NonNullable<Figure["params"]>,
    load: DiscoverLoad,
    setup?: Setup,
  ) => ({
    title,
    params: { group: "discover", family: "IPv4", kind: load.kind, nodes: load.nodes, ...params },
    unit: "Discover",
    contenders: [beacon("beacon", load, setup), c(load, setup)],
    ratios: [{ name: "beacon over C", subject: "beacon", against: "C" }],
  });
  const again = (count: number): DiscoverLoad => ({ kind: "again", nodes: count });
  const spread: DiscoverLoad = { ...again(nodes), sockets: SOCKETS_MANY };
  const steering = (state: "on" | "off") =>
    beacon(`steering ${state}`, spread, { workers: CORES, flags: [`--steering=${state}`] });

  return [
    ...known.map((count) => overC(`${count} known nodes`, {}, again(count))),
    overC("new nodes", {}, { kind: "new", nodes: fresh }),
    overC(`${nodes} nodes that move`, {}, { kind: "moving", nodes }),
    overC(`${nodes} known nodes, IPv6`, { family: "IPv6" }, again(nodes), { place: LOOPBACK_IPV6 }),
    {
      title: `${CORES} workers over one`,
      params: { group: "discover workers", workers: CORES, nodes },
      unit: "Discover",
      contenders: [steering("on"), steering("off"), beacon("one worker", spread)],
      ratios: [
        { name: "steering on over off", subject: "steering on", against: "steering off" },
        { name: "steered workers over one", subject: "steering on", against: "one worker" },
      ],
    },
  ];
}

/**
 * Nodes that are to be known are made known.
 * @throws Error when the target leaves Discovers unanswered
 */
async function loaded(
  name: string,
  load: DiscoverLoad,
  place: Place,
  target: Awaited<ReturnType<typeof startBeacon>>,
): Promise<Loaded> {
  const generator = new DiscoverGenerator(load, place);
  const started = new LoadedTargets(name, [target], generator);
  generator.aim(target);
  const nodes = load.kind === "new" ? Math.min(load.nodes / 2, NEW_NODES_BEFORE) : load.nodes;
  for (let attempt = 0; attempt < RETRIES_MAX; attempt++) {
    if (generator.run(REGISTER_NS_MAX, nodes).lost === 0) return started;
  }
  await started.stop();
  throw new Error(`${name} leaves Discovers unanswered`);
}
