/**
 * From nothing: all beacons have their nodes, the directory comes, and each learns the nodes of all
 * others. And once more, after the directory was away until all routes were withdrawn: the code is
 * compiled then.
 */
import type { Stats } from "../../src/beacon.ts";
import { DirectoryServer } from "../harness/directory-server.ts";
import { Fleet, type FleetShape, nodesOf, routesOf, untilSettled } from "../harness/fleet.ts";
import { FleetNodes } from "../harness/fleet-nodes.ts";
import type { BenchOptions } from "../harness/options.ts";
import { PauseProbe, type Pauses } from "../harness/pauses.ts";
import type { Recorder } from "../harness/results.ts";
import { ALL_CPUS, startBeacon, statsOf, type Target } from "../harness/targets.ts";
import { cpuNs, residentBytes } from "../harness/usage.ts";

const LEASE_S = 10;
const LEASE_S_SMOKE = 3;
const CONVERGED_MS_MAX = 120_000;
const CONVERGED_S_BAR = 10;
const PAUSE_MS_BAR = 2;
/** Before, nothing happens: so long is looked at pauses then, too. */
const QUIET_MS = 3_000;
const QUIET_MS_SMOKE = 200;
const ANSWERS = 20;
/** A fleet from nothing takes a minute. */
const ROUNDS_SHARE = 0.5;

/** Before there is a directory; from nothing; once more. */
type Phase = "before" | "during" | "again";

interface Measured {
  readonly totalS: number;
  readonly connectedS: number;
  readonly stats: readonly Stats[];
  /** CPU time of each beacon and of the server. */
  readonly beaconS: readonly number[];
  readonly serverS: number;
  readonly grownBytes: readonly number[];
  readonly serverPeakMb: number;
  readonly serverOutMb: number;
  /** From the new start of the server until all have all routes again. */
  readonly againS: number;
  /** Of the first beacon, and of one that has no directory and nothing to do. */
  readonly pauses: Readonly<Record<"beacon" | "idle", Readonly<Record<Phase, Pauses>>>>;
}

export async function measureConvergence(
  shape: FleetShape,
  options: BenchOptions,
  recorder: Recorder,
): Promise<void> {
  const rounds: Measured[] = [];
  for (let round = 0; round < Math.ceil(options.rounds * ROUNDS_SHARE); round++) {
    const one = await measure(shape, options);
    rounds.push(one);
    const { beacon, idle } = one.pauses;
    recorder.progress(
      `round ${round + 1}  ${one.totalS.toFixed(2)} s, ${one.connectedS.toFixed(2)} s of it until all were connected; ` +
        `CPU ${sum(one.beaconS).toFixed(1)} s of the beacons, ${one.serverS.toFixed(1)} s of the server; ` +
        `longest turn ${beacon.during.used.max.toFixed(1)} ms (idle beacon ${idle.during.used.max.toFixed(1)} ms); ` +
        `once more in ${one.againS.toFixed(2)} s, longest turn ${beacon.again.used.max.toFixed(1)} ms`,
    );
  }
  const title = `convergence of ${shape.beacons} beacons with ${shape.nodesEach} nodes each`;
  const params = { group: "directory convergence", ...shape };
  const record = recorder.of(title, params);
  const figure = (name: string, unit: string, of: (one: Measured) => number, atMost?: number) =>
    record(name, unit, rounds.map(of), atMost === undefined ? {} : { bar: { atMost } });
  const each = (of: (stats: Stats) => number) => (one: Measured) =>
    sum(one.stats.map(of)) / one.stats.length;
  const directory = (of: (directory: NonNullable<Stats["directory"]>) => number) =>
    each((stats) => of(stats.directory!));
  const aRoute = (of: readonly number[], { stats }: Measured) => sum(of) / sum(stats.map(routesOf));
  figure("until every beacon has all routes", "s", ({ totalS }) => totalS, CONVERGED_S_BAR);
  figure("of this, until the last beacon was connected", "s", ({ connectedS }) => connectedS);
  figure("once more, after all routes were withdrawn", "s", ({ againS }) => againS);
  figure("CPU of a beacon", "s", ({ beaconS }) => sum(beaconS) / beaconS.length);
  figure("CPU of a beacon, a route", "µs", (one) => aRoute(one.beaconS, one) * 1e6);
  figure("CPU of the server", "s", ({ serverS }) => serverS);
  figure(
    "memory of a route, of the table",
    "bytes",
    directory(({ bytesPerRoute }) => bytesPerRoute),
  );
  figure("memory that a beacon grew by, a route", "bytes", (one) => aRoute(one.grownBytes, one));
  const ofSnapshots: readonly [name: string, unit: string, of: Parameters<typeof directory>[0]][] =
    [
      ["a beacon's last snapshot", "ms", ({ lastSnapshotWrittenS }) => lastSnapshotWrittenS * 1000],
      ["last load of a snapshot", "ms", ({ lastSnapshotLoadedS }) => lastSnapshotLoadedS * 1000],
      ["snapshots written, of a beacon", "", ({ snapshotsWritten }) => snapshotsWritten],
      [
        "written into snapshots, of a beacon",
        "MB",
        ({ snapshotBytesWritten }) => snapshotBytesWritten / 1e6,
      ],
      [
        "loaded from snapshots, of a beacon",
        "MB",
        ({ snapshotBytesLoaded }) => snapshotBytesLoaded / 1e6,
      ],
    ];
  for (const [name, unit, of] of ofSnapshots) figure(name, unit, directory(of));
  figure("peak memory of the server", "MB", ({ serverPeakMb }) => serverPeakMb);
  figure("sent by the server", "MB", ({ serverOutMb }) => serverOutMb);
  for (const [who, name] of [
    ["beacon", "a beacon"],
    ["idle", "a beacon without a directory"],
  ] as const) {
    for (const [when, during] of [
      ["during", "meanwhile"],
      ["again", "once more"],
      ["before", "before"],
    ] as const) {
      const bar = who === "beacon" && when !== "before" ? PAUSE_MS_BAR : undefined;
      const turn = `turn of the main thread, CPU time, ${name}, ${during}`;
      const pauses = (one: Measured) => one.pauses[who][when];
      figure(`longest ${turn}`, "ms", (one) => pauses(one).used.max, bar);
      figure(`p99.9 ${turn}`, "ms", (one) => pauses(one).used.p999);
      figure(`latest timer, ${name}, ${during}`, "ms", (one) => pauses(one).late.max);
      figure(`p99.9 of timers' lateness, ${name}, ${during}`, "ms", (one) => pauses(one).late.p999);
    }
  }
}

async function measure(shape: FleetShape, { batch, smoke }: BenchOptions): Promise<Measured> {
  const server = await DirectoryServer.prepare();
  const flags = [`--directory-lease=${smoke ? LEASE_S_SMOKE : LEASE_S}s`, "--directory-grace=0s"];
  const fleet = await Fleet.start(shape, { directory: server.url, batch, flags });
  const idleProbe = new PauseProbe();
  let idle: Target | undefined;
  const nodes = new FleetNodes(fleet);
  try {
    idle = await startBeacon({ offload: true, batch, cpus: ALL_CPUS }, [], idleProbe.program);
    nodes.registerAll();
    const probes = [fleet.probe, idleProbe];
    const quietMs = smoke ? QUIET_MS_SMOKE : QUIET_MS;
    // A beacon's first answer takes it longer, as all that is done for the first time: here it is
    // the bench that asks.
    for (const target of [...fleet.targets, idle])
      for (let i = 0; i < ANSWERS; i++) await statsOf(target);
    await Bun.sleep(quietMs);
    for (const probe of probes) await probe.start();
    await Bun.sleep(quietMs);
    const before = [await fleet.probe.read(), await idleProbe.read()] as const;
    for (const probe of probes) await probe.start();
    const cpuBefore = fleet.targets.map(({ pid }) => cpuNs(pid));
    const bytesBefore = fleet.targets.map(({ pid }) => residentBytes(pid));
    const began = performance.now();
    await server.start();
    // The one that is probed last of all, as whoever asks it is a pause.
    const turn = fleet.targets.map((_, beacon) => beacon).reverse();
    const stats = await untilSettled(fleet, turn, CONVERGED_MS_MAX);
    const totalS = (performance.now() - began) / 1000;
    const during = [await fleet.probe.read(), await idleProbe.read()] as const;
    const beaconS = fleet.targets.map(({ pid }, i) => (cpuNs(pid) - cpuBefore[i]!) / 1e9);
    const { memoryPeakBytes, bytesOut } = await server.use();
    const last = await Promise.all(turn.map((beacon) => fleet.statsOf(beacon)));
    const sinceS = (performance.now() - began) / 1000;
    const connectedS = sinceS - Math.min(...last.map(({ directory }) => directory!.stateS));
    if (sum(stats.map(routesOf)) !== (shape.beacons - 1) * nodesOf(shape))
      throw new Error("routes are missing");
    const serverS = cpuNs(server.pid) / 1e9;
    await server.kill();
    await untilSettled(fleet, turn, CONVERGED_MS_MAX, (now) => routesOf(now) === 0);
    await Bun.sleep(quietMs);
    for (const probe of probes) await probe.start();
    const restarted = performance.now();
    await server.start();
    await untilSettled(fleet, turn, CONVERGED_MS_MAX);
    const againS = (performance.now() - restarted) / 1000;
    const again = [await fleet.probe.read(), await idleProbe.read()] as const;
    return {
      ...{ totalS, connectedS, againS, stats: last, beaconS, serverS },
      grownBytes: fleet.targets.map(({ pid }, i) => residentBytes(pid) - bytesBefore[i]!),
      serverPeakMb: memoryPeakBytes / 1e6,
      serverOutMb: bytesOut / 1e6,
      pauses: {
        beacon: { before: before[0], during: during[0], again: again[0] },
        idle: { before: before[1], during: during[1], again: again[1] },
      },
    };
  } finally {
    nodes.close();
    await fleet.stop();
    await idle?.stop();
    await server.stop();
  }
}

const sum = (values: readonly number[]): number =>
  values.reduce((total, value) => total + value, 0);
