/** What the relay bench compares: the yardstick cases, and what varies around them. */
import { cpus } from "node:os";
import type { Load } from "../harness/load.ts";
import type { Contender } from "../harness/loaded-relay.ts";
import { LOOPBACK_DUAL_STACK, LOOPBACK_IPV6 } from "../harness/place.ts";
import type { Figure } from "../harness/results.ts";
import type { Ratio } from "../harness/side-by-side.ts";
import type { Bar } from "../harness/statistics.ts";

/** What is measured side by side, and compared. */
export interface Case {
  readonly title: string;
  readonly params: NonNullable<Figure["params"]>;
  readonly contenders: readonly Contender[];
  readonly ratios: readonly Ratio[];
  /** What is to be seen at a glance, not to a per cent: half the rounds will do. */
  readonly coarse?: boolean;
  /**
   * Measured over a veth pair in place of the loopback interface, with packets merged on arrival
   * (GRO) or not.
   */
  readonly veth?: { readonly gro: boolean };
  /**
   * Measured beside other beacons, whose directory some of the contenders share: so many of their
   * nodes move a second.
   */
  readonly movesPerS?: number;
}

const CORES = cpus().length;
const NODES = 256;
/** What a stream segment burst is: 48 packets for one node, then 48 for another. */
const BURST = 48;
/** The same for all payloads up to 1,400 bytes: 46 of those fill a merged send. */
const BURST_OF_ANY = 32;
/** Sockets that many flows come from. */
const SENDERS_MAX = 16;

/** Every packet to another node than the one before: nothing can be merged. */
const scattered = (payloadBytes: number, nodes = NODES): Load => ({ payloadBytes, nodes });
const bursts = (payloadBytes: number, burst = BURST): Load => ({ payloadBytes, nodes: 64, burst });

type Setup = Omit<Contender, "name" | "program" | "load" | "offload">;
const relay =
  (program: Contender["program"]) =>
  (load: Load, offload: boolean, setup: Setup & { readonly name?: string } = {}) => ({
    name: offload ? `${program}, offload` : program,
    program,
    load,
    offload,
    ...setup,
  });
const beacon = relay("beacon");
const c = relay("C");

const overC = (bar?: Bar): Ratio => ({
  name: "beacon over C",
  subject: "beacon",
  against: "C",
  ...(bar && { bar }),
});
const overCOffload = (bar?: Bar): Ratio => ({
  name: "beacon over C, offload",
  subject: "beacon, offload",
  against: "C, offload",
  ...(bar && { bar }),
});

const bare = (payloadBytes: number): Case => ({
  title: `${payloadBytes} B, offload off`,
  params: { group: "yardstick", payloadBytes, offload: false },
  contenders: [beacon(scattered(payloadBytes), false), c(scattered(payloadBytes), false)],
  ratios: [overC({ atMost: 1.03 })],
});

const YARDSTICK: readonly Case[] = [
  bare(200),
  bare(1200),
  {
    title: `bursts of ${BURST} × 1200 B, offload on`,
    params: { group: "yardstick", payloadBytes: 1200, offload: true },
    contenders: [beacon(bursts(1200), true), c(bursts(1200), true), beacon(bursts(1200), false)],
    ratios: [
      overCOffload({ atMost: 1.05 }),
      {
        name: "times cheaper with offload than without",
        subject: "beacon, offload",
        against: "beacon",
        bar: { atLeast: 5 },
        inverse: true,
      },
    ],
  },
  {
    title: "1200 B that cannot be merged",
    params: { group: "yardstick", payloadBytes: 1200 },
    contenders: [beacon(scattered(1200), true), beacon(scattered(1200), false)],
    ratios: [
      {
        name: "offload on over off",
        subject: "beacon, offload",
        against: "beacon",
        bar: { atMost: 1.03 },
      },
    ],
  },
];

/** A relay to a peer's node leaves as it came, and merges with those to the peer's other nodes. */
const toPeer = (title: string, load: Load, offload: boolean): Case => ({
  title,
  params: { group: "peer", payloadBytes: load.payloadBytes, offload },
  contenders: [
    beacon(load, offload, { name: "to a peer", toPeer: true }),
    beacon(load, offload, { name: "to nodes" }),
  ],
  ratios: [
    {
      name: "to a peer over to nodes",
      subject: "to a peer",
      against: "to nodes",
      bar: { atMost: 1 },
    },
  ],
});

/**
 * More sources than a batch has packets, each with a cache line of its own among those of the
 * limit.
 */
const SOURCES_MANY = 256;

const limits = (title: string, load: Load, offload: boolean): Case => ({
  title: `limits on and off, ${title}`,
  params: { group: "limits", payloadBytes: load.payloadBytes, senders: load.senders ?? 1, offload },
  contenders: [
    beacon(load, offload, { name: "limits on" }),
    beacon(load, offload, { name: "limits off", unlimited: true }),
  ],
  ratios: [
    { name: "on over off", subject: "limits on", against: "limits off", bar: { atMost: 1.05 } },
  ],
});

const LIMITS: readonly Case[] = [
  limits("200 B", scattered(200), false),
  limits(`200 B from ${SOURCES_MANY} sources`, { ...scattered(200), senders: SOURCES_MANY }, false),
  limits(`bursts of ${BURST} × 1200 B, offload on`, bursts(1200), true),
];

/**
 * A host with several addresses, where packets leave from the one that their destination sent to,
 * against a host with one.
 */
const sources = (title: string, load: Load, offload: boolean): Case => ({
  title: `several addresses and one, ${title}`,
  params: { group: "source", payloadBytes: load.payloadBytes, offload },
  contenders: [
    beacon(load, offload, {
      name: "several addresses",
      place: LOOPBACK_DUAL_STACK,
      env: { BEACON_SOURCE_ADDRESS: "on" },
    }),
    beacon(load, offload, {
      name: "one address",
      place: LOOPBACK_DUAL_STACK,
      env: { BEACON_SOURCE_ADDRESS: "off" },
    }),
  ],
  ratios: [
    {
      name: "several over one",
      subject: "several addresses",
      against: "one address",
      bar: { atMost: 1.05 },
    },
  ],
});

const SOURCES: readonly Case[] = [
  sources("200 B", scattered(200), false),
  sources(`bursts of ${BURST} × 1200 B, offload on`, bursts(1200), true),
];

/**
 * All that lets operators see, against nothing of it. The one peer, which makes the beacon check
 * its mesh, is a port where nobody is.
 */
const SEEN = ["--peers=127.0.0.1:9", "--punch-watch=on", "--self-check=on"];
const UNSEEN = ["--peers=127.0.0.1:9", "--punch-watch=off", "--self-check=off"];
const watched = (title: string, load: Load, offload: boolean): Case => ({
  title: `watched and not, ${title}`,
  params: { group: "watched", payloadBytes: load.payloadBytes, offload },
  contenders: [
    beacon(load, offload, { name: "watched", flags: SEEN, watched: true }),
    beacon(load, offload, { name: "not watched", flags: UNSEEN }),
  ],
  ratios: [
    { name: "watched over not", subject: "watched", against: "not watched", bar: { atMost: 1.03 } },
  ],
});

const WATCHED: readonly Case[] = [
  watched("200 B", scattered(200), false),
  watched("1200 B", scattered(1200), true),
  watched(`bursts of ${BURST} × 1200 B, offload on`, bursts(1200), true),
];

/** Nodes of the load, apart from those of the other beacons. */
const LOAD_FROM = 0x0100_0000;
const inDirectory = { subject: "directory on", against: "directory off" };
/**
 * The directory costs a beacon so much a second, whatever it relays: so of workers alone, too, as a
 * beacon here may have half a core.
 */
const directory = (title: string, load: Load, offload: boolean, movesPerS: number): Case => ({
  title: `directory on and off, ${movesPerS === 0 ? "nobody moves" : `${movesPerS} moves a second`}, ${title}`,
  params: { group: "directory relay", payloadBytes: load.payloadBytes, offload, movesPerS },
  contenders: [true, false].map((isIn) =>
    beacon({ ...load, firstId: LOAD_FROM }, offload, {
      name: isIn ? inDirectory.subject : inDirectory.against,
      inDirectory: isIn,
      countsWorkers: true,
    }),
  ),
  ratios: [
    { name: "on over off", ...inDirectory, bar: { atMost: 1.02 } },
    { name: "on over off, workers alone", ...inDirectory, ofWorkers: true, bar: { atMost: 1.02 } },
  ],
  movesPerS,
});

const DIRECTORY: readonly Case[] = [0, 200].flatMap((movesPerS) => [
  directory("200 B", scattered(200), false, movesPerS),
  directory("1200 B", scattered(1200), true, movesPerS),
  directory(`bursts of ${BURST} × 1200 B, offload on`, bursts(1200), true, movesPerS),
]);

const PEER: readonly Case[] = [
  toPeer("200 B to a peer's nodes, offload off", scattered(200), false),
  toPeer("1200 B to a peer's nodes, offload on", scattered(1200), true),
  toPeer(`bursts of ${BURST} × 1200 B to a peer's nodes, offload on`, bursts(1200), true),
];

const payload = (payloadBytes: number): Case => ({
  title: `payload of ${payloadBytes} B`,
  params: { group: "payload", payloadBytes },
  contenders: [
    beacon(scattered(payloadBytes), false),
    c(scattered(payloadBytes), false),
    beacon(bursts(payloadBytes, BURST_OF_ANY), true),
    c(bursts(payloadBytes, BURST_OF_ANY), true),
  ],
  ratios: [overC(), overCOffload()],
});

/**
 * Many flows at once: by single packets, of which one batch holds fewer to each node, or by bursts.
 */
function flows(count: number, burst: number): Case {
  const load = { payloadBytes: 1200, nodes: count, burst, senders: Math.min(count, SENDERS_MAX) };
  return {
    title: `${count} flows, ${burst === 1 ? "single packets" : `bursts of ${burst}`}`,
    params: { group: "flows", flows: count, burst },
    contenders: [beacon(load, true), beacon(load, false), c(load, true)],
    ratios: [
      {
        name: "times cheaper with offload than without",
        subject: "beacon, offload",
        against: "beacon",
        inverse: true,
      },
      overCOffload(),
    ],
  };
}

const nodes = (count: number): Case => ({
  title: `${count} nodes`,
  params: { group: "nodes", nodes: count },
  contenders: [beacon(scattered(200, count), false), c(scattered(200, count), false)],
  ratios: [overC()],
});

/** The same table, with many nodes in it and with few. */
function manyOverFew(many: number, few: number): Case {
  const flags = [`--max-nodes=${many}`];
  return {
    title: `${many} nodes over ${few}`,
    params: { group: "many over few", nodes: many },
    contenders: [
      beacon(scattered(200, many), false, { name: "many", flags }),
      beacon(scattered(200, few), false, { name: "few", flags }),
    ],
    ratios: [{ name: "many over few", subject: "many", against: "few", bar: { atMost: 1.3 } }],
  };
}

function unknown(share: number): Case {
  const load = { ...scattered(200), unknown: share };
  return {
    title: `${Math.round(share * 100)} % to unknown nodes`,
    params: { group: "unknown", unknown: share },
    contenders: [beacon(load, false), c(load, false)],
    ratios: [overC()],
  };
}

const manyFlows: Load = { payloadBytes: 1200, nodes: NODES, senders: SENDERS_MAX };

const workers = (count: number): Case => ({
  title: `${count} ${count === 1 ? "worker" : "workers"}`,
  params: { group: "workers", workers: count },
  contenders: [
    beacon(manyFlows, false, { workers: count }),
    beacon({ ...manyFlows, burst: BURST_OF_ANY }, true, { workers: count }),
    c(manyFlows, false),
  ],
  ratios: [overC()],
});

const steering = (count: number): Case => ({
  title: `steering, ${count} workers`,
  params: { group: "steering", workers: count },
  contenders: (["on", "off"] as const).map((state) =>
    beacon(manyFlows, false, {
      name: `steering ${state}`,
      workers: count,
      flags: [`--steering=${state}`],
    }),
  ),
  ratios: [{ name: "on over off", subject: "steering on", against: "steering off" }],
});

const FAMILY: readonly Case[] = [
  {
    title: "IPv6, 200 B",
    params: { group: "family", family: "IPv6" },
    contenders: [
      beacon(scattered(200), false, { place: LOOPBACK_IPV6 }),
      c(scattered(200), false, { place: LOOPBACK_IPV6 }),
      beacon(scattered(200), false, { name: "beacon, IPv4" }),
    ],
    ratios: [overC(), { name: "IPv6 over IPv4", subject: "beacon", against: "beacon, IPv4" }],
  },
  {
    title: "IPv4 at a dual-stack socket, 200 B",
    params: { group: "family", family: "dual" },
    contenders: [
      beacon(scattered(200), false, { place: LOOPBACK_DUAL_STACK }),
      beacon(scattered(200), false, { name: "beacon, IPv4" }),
    ],
    ratios: [{ name: "dual stack over IPv4", subject: "beacon", against: "beacon, IPv4" }],
  },
];

/**
 * Packets of one flow, one by one: on the loopback interface they stay so, over veth GRO merges
 * them.
 */
const overVeth = (gro: boolean): Case => ({
  title: `veth with GRO ${gro ? "on" : "off"}, 1200 B to one node`,
  params: { group: "link", gro },
  contenders: [
    beacon({ payloadBytes: 1200, nodes: 1 }, true),
    c({ payloadBytes: 1200, nodes: 1 }, true),
    beacon({ payloadBytes: 1200, nodes: 1 }, false),
  ],
  ratios: [
    overCOffload(),
    {
      name: "times cheaper with offload than without",
      subject: "beacon, offload",
      against: "beacon",
      inverse: true,
    },
  ],
  veth: { gro },
});

/** What older daemons send; over an MTU of 1,500 bytes it comes and goes in three fragments. */
const FRAGMENTED: Case = {
  title: "4096 B in fragments, over veth",
  params: { group: "fragments", payloadBytes: 4096 },
  contenders: [beacon(scattered(4096), false), c(scattered(4096), false)],
  ratios: [overC()],
  veth: { gro: false },
};

/** Powers of two up to the cores, and the cores. */
const WORKERS = [
  ...new Set([1, 2, 4, 8, 16, 32, 64].filter((count) => count < CORES).concat(CORES)),
];

/**
 * The same case with another checkout's beacon beside each of this one's.
 * @param root of that checkout
 */
export function withOther(root: string, { contenders, ratios, ...rest }: Case): Case {
  const others = contenders
    .filter(({ program }) => program === "beacon")
    .map((contender) => ({ ...contender, name: `other ${contender.name}`, root }));
  const overOther = others.map(({ name }) => {
    const subject = name.slice("other ".length);
    return { name: `${subject} over ${name}`, subject, against: name };
  });
  return { ...rest, contenders: [...contenders, ...others], ratios: [...ratios, ...overOther] };
}

/** @param smoke the ends of each range, small, to see that all of it works */
export function relayCases(smoke: boolean): Case[] {
  const range = <T>(values: readonly T[]) => (smoke ? [values[0]!, values.at(-1)!] : values);
  const million = smoke ? 5000 : 1_000_000;
  const coarse = [
    ...range([64, 200, 600, 1200, 1400]).map(payload),
    ...range([1, 10, 100, 1000, 10_000]).flatMap((count) => [
      flows(count, 1),
      flows(count, BURST_OF_ANY),
    ]),
    ...(smoke ? [1000, 5000] : [1000, 10_000, 100_000, 300_000, 1_000_000]).map(nodes),
    ...range([0, 0.3, 0.6, 0.9]).map(unknown),
    ...WORKERS.map(workers),
    ...(CORES > 1 ? [steering(CORES)] : []),
    ...FAMILY,
    overVeth(false),
    overVeth(true),
    FRAGMENTED,
  ].map((one) => ({ ...one, coarse: true }));
  return [
    ...YARDSTICK,
    ...LIMITS,
    ...WATCHED,
    ...SOURCES,
    ...(smoke ? DIRECTORY.slice(-1) : DIRECTORY),
    ...PEER,
    manyOverFew(million, 1000),
    ...coarse,
  ];
}
