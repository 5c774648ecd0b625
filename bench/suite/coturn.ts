/**
 * The beacon beside coturn, the TURN server most in use, as relays of packets: channels there,
 * Relays here.
 */
import { type Load, LoadGenerator } from "../harness/load.ts";
import { type Loaded, LoadedTargets } from "../harness/loaded.ts";
import { LoadedRelay } from "../harness/loaded-relay.ts";
import type { BenchOptions } from "../harness/options.ts";
import { LOOPBACK, type Place } from "../harness/place.ts";
import type { Recorder } from "../harness/results.ts";
import { compareSideBySide } from "../harness/side-by-side.ts";
import {
  compileReference,
  freePort,
  pinGenerator,
  startTarget,
  type Target,
  targetCpus,
  temporaryFolder,
} from "../harness/targets.ts";
import { CHANNEL_FIRST, channelHeader, TurnClient } from "../harness/turn.ts";

const PROGRAM = "turnserver";
const PAYLOADS = [200, 1200];
const DESTINATIONS = [1, 64];
/**
 * coturn asks for a receive buffer of half the size of ours (2 MiB): so many packets of any size
 * here never overflow it.
 */
const IN_FLIGHT_MAX = 512;

/**
 * A channel leads to one address: the sink has as many as there are destinations, 127.0.0.1 and
 * those behind it.
 */
const PLACE: Place = { ...LOOPBACK, generatorHost: "0.0.0.0" };
const sinkHost = (i: number): string => `127.0.0.${1 + i}`;

export async function benchCoturn(options: BenchOptions, recorder: Recorder): Promise<void> {
  if (Bun.which(PROGRAM) === null) {
    recorder.note(`${PROGRAM} is not installed (Debian package coturn): nothing was compared`);
    return;
  }
  pinGenerator();
  const reference = compileReference();
  recorder.note(
    `coturn ${versionOf(PROGRAM)} runs with one relay thread, UDP alone and no authentication`,
  );
  recorder.note(
    "this compares what one core spends on passing a packet on, client to peer, on loopback. A TURN server does more: " +
      "it authenticates, counts quotas and bandwidth, keeps permissions, and gives each client a port of its own, " +
      "which a beacon does not. Nor does this show TCP, TLS, answers from peers, or many clients",
  );
  const payloads = options.smoke ? PAYLOADS.slice(0, 1) : PAYLOADS;
  for (const payloadBytes of payloads) {
    for (const nodes of DESTINATIONS) {
      const title = `${payloadBytes} B to ${nodes === 1 ? "one destination" : `${nodes} destinations`}`;
      if (!title.includes(options.only)) continue;
      recorder.title(title);
      await compare(
        title,
        { payloadBytes, nodes, inFlightMax: IN_FLIGHT_MAX },
        reference,
        options,
        recorder,
      );
    }
  }
}

async function compare(
  title: string,
  load: Load,
  reference: string,
  options: BenchOptions,
  recorder: Recorder,
): Promise<void> {
  const relay = (name: string, program: "beacon" | "C", offload: boolean) => ({
    name,
    start: (): Promise<Loaded> =>
      LoadedRelay.start({ name, program, load, offload, place: PLACE }, reference, options.batch),
  });
  const comparison = {
    title,
    params: { group: "coturn", payloadBytes: load.payloadBytes, destinations: load.nodes },
    unit: "packet",
    contenders: [
      { name: "coturn", start: (): Promise<Loaded> => startCoturn(load) },
      relay("beacon", "beacon", false),
      relay("beacon, offload", "beacon", true),
      relay("C", "C", false),
    ],
    ratios: [
      { name: "coturn over beacon", subject: "coturn", against: "beacon" },
      { name: "coturn over beacon, offload", subject: "coturn", against: "beacon, offload" },
      { name: "beacon over C", subject: "beacon", against: "C" },
    ],
  };
  await compareSideBySide(comparison, options, recorder);
}

/** Starts coturn, with a channel from the generator's sender to each destination. */
async function startCoturn(load: Load): Promise<Loaded> {
  const { payloadBytes, nodes } = load;
  const generator = new LoadGenerator({ ...load, header: channelHeader(payloadBytes) }, PLACE);
  const target = await startServer(temporaryFolder());
  const relay = new LoadedTargets("coturn", [target], generator);
  try {
    generator.aim(target);
    const client = new TurnClient(generator.sender, target);
    client.allocate();
    for (let i = 0; i < nodes; i++) {
      client.bindChannel(CHANNEL_FIRST + i, { host: sinkHost(i), port: generator.sinkPort });
    }
    if (generator.ping() < 0) throw new Error("coturn does not relay");
  } catch (error) {
    await relay.stop();
    throw error;
  }
  return relay;
}

function startServer(folder: string): Promise<Target> {
  const port = freePort();
  const flags = [
    "-n", // no configuration file
    `--listening-ip=${LOOPBACK.targetHost}`,
    `--relay-ip=${LOOPBACK.targetHost}`,
    `--listening-port=${port}`,
    "--relay-threads=1",
    ...["--no-tcp", "--no-tls", "--no-dtls", "--no-tcp-relay"],
    ...["--no-auth", "--no-cli", "--allow-loopback-peers"],
    ...["--no-rfc5780", "--no-dynamic-ip-list", "--no-dynamic-realms"],
    ...["--log-file=stdout", "--simple-log"],
    `--userdb=${folder}/turndb`,
    `--pidfile=${folder}/pid`,
  ];
  const isReady = (line: string) => line.includes("Total General servers: 1");
  return startTarget([PROGRAM, ...flags], LOOPBACK, targetCpus(1), (line) => ({
    ...{ port: isReady(line) ? port : 0, http: "", wss: "" },
  }));
}

/** "4.6.1". */
function versionOf(program: string): string {
  const { stdout } = Bun.spawnSync([program, "--version"], { stderr: "ignore" });
  return /^\d[\d.]+$/m.exec(stdout.toString())?.[0] ?? "of an unknown version";
}
