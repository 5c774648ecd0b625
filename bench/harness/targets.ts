/**
 * What the benches measure: a beacon, and the reference relay in C, each as a fresh process on
 * cores of its own.
 */
import { randomBytes, randomInt } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { AF_INET } from "../../ffi/abi.ts";
import { UdpSocket } from "../../ffi/socket.ts";
import type { Stats } from "../../src/beacon.ts";
import { inBrackets, LOOPBACK, type Place } from "./place.ts";
import type { Address } from "./register.ts";

/**
 * The load generator has the last core. Targets have the first ones, as many as they have workers,
 * but for the generator's.
 */
const CORES = cpus().length;
export const GENERATOR_CPU = String(CORES - 1);
export const targetCpus = (workers: number): string =>
  `0-${Math.max(0, Math.min(workers, CORES - 1) - 1)}`;
/** For a fleet, which has the generator's core, too: there are more of them than cores. */
export const ALL_CPUS = `0-${CORES - 1}`;
/**
 * Nodes that the reference's table has room for: twice as many slots as a beacon of the default
 * size has nodes.
 */
const REFERENCE_SLOTS_LOG2 = 20;
const STOP_MS_MAX = 10_000;

/**
 * A beacon's limits while it is measured: on, so that what they cost is in every figure, and far
 * above what a machine can do, as a load generator is one source. But for the hold: who measures
 * moves nodes from one of its sockets to another. In the environment, which a beacon of a time
 * before limits does not look at.
 */
const LIMITS_FOR_LOAD = {
  BEACON_RELAY_LIMIT: "1000000000",
  BEACON_RELAY_ADDRESS_LIMIT: "1000000000",
  BEACON_PUNCH_SOURCE_LIMIT: "1000000000",
  BEACON_PUNCH_LIMIT: "1000000000",
  BEACON_ENDPOINT_HOLD: "0s",
  BEACON_NEW_NODE_LIMIT: "1000000000",
  BEACON_ANSWER_LIMIT: "1000000000",
  BEACON_WSS_UPGRADE_LIMIT: "1000000000",
  BEACON_WSS_FAILURE_LIMIT: "1000000000",
};

/** The same limits, each of them off. The bridge's stay, as no measured packet meets them. */
const LIMITS_OFF = Object.fromEntries(
  Object.entries(LIMITS_FOR_LOAD).map(([name, value]) => [
    name,
    name.includes("WSS") ? value : "0",
  ]),
);

/** A process that serves. */
export interface Target extends Address {
  readonly pid: number;
  /** Where it serves HTTP, and WebSocket; "" for what it does not serve. */
  readonly http: string;
  readonly wss: string;
  /** How long it took from its start to the line that says that it serves, in milliseconds. */
  readonly startMs: number;
  stop(): Promise<void>;
}

export interface TargetOptions {
  readonly offload: boolean;
  readonly batch: number;
  /** 1 unless given. */
  readonly workers?: number;
  /** A list for taskset; unless given, as many as it has workers, and not the generator's. */
  readonly cpus?: string;
  /** The loopback interface unless given. */
  readonly place?: Place;
  /** Has a beacon without limits, where it has them on and far away otherwise. */
  readonly unlimited?: boolean;
  /**
   * Options that a beacon of an earlier checkout may not know: in the environment, which it does
   * not look at.
   */
  readonly env?: Readonly<Record<string, string>>;
}

/** Moves a process, this one unless given, to the generators' core. */
export function pinGenerator(pid = process.pid): void {
  Bun.spawnSync(["taskset", "-apc", GENERATOR_CPU, String(pid)]);
}

const folders: string[] = [];
process.on("exit", () => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

/** A folder that is removed when this process ends. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "beacon-bench-"));
  folders.push(folder);
  return folder;
}

/** Compiles the reference relay. @returns its path, in a temporary folder */
export function compileReference(): string {
  const binary = join(temporaryFolder(), "relay");
  const source = new URL("../reference/relay.c", import.meta.url).pathname;
  const compiled = Bun.spawnSync(["cc", "-O2", "-o", binary, source], { stderr: "pipe" });
  if (!compiled.success)
    throw new Error(`the reference relay needs a C compiler (cc): ${compiled.stderr}`);
  return binary;
}

/** @param slotsLog2 size of its table */
export async function startReference(
  binary: string,
  { offload, batch, place = LOOPBACK }: TargetOptions,
  slotsLog2 = REFERENCE_SLOTS_LOG2,
): Promise<Target> {
  const family = place.family === AF_INET ? "4" : "6";
  const command = [
    binary,
    String(batch),
    offload ? "1" : "0",
    family,
    place.targetHost,
    String(slotsLog2),
  ];
  return startTarget(command, place, targetCpus(1), (line) => ({
    port: Number(line),
    http: "",
    wss: "",
  }));
}

/** A WebSocket server that does nothing but send back what it gets. Its port is that of TCP. */
export async function startEcho(): Promise<Target> {
  const echo = new URL("../reference/echo.ts", import.meta.url).pathname;
  return startTarget([process.execPath, echo], LOOPBACK, targetCpus(1), (line) => ({
    port: Number(new URL(line).port),
    http: "",
    wss: line,
  }));
}

/**
 * How a beacon is run from its sources.
 * @param root of another checkout; this one's unless given
 */
export const beaconSources = (root = join(import.meta.dir, "../..")): string[] => [
  process.execPath,
  join(root, "src/main.ts"),
];

/**
 * @param extra further flags
 * @param program what is run, the sources unless given
 */
export async function startBeacon(
  {
    offload,
    batch,
    workers = 1,
    cpus = targetCpus(workers),
    place = LOOPBACK,
    unlimited = false,
    env = {},
  }: TargetOptions,
  extra: readonly string[] = [],
  program: readonly string[] = beaconSources(),
): Promise<Target> {
  const flags = [
    `--workers=${workers}`,
    `--addr=${inBrackets(place.listenHost)}:0`,
    `--http=${inBrackets(place.targetHost)}:0`,
    "--log-format=json",
    `--offload=${offload ? "on" : "off"}`,
    `--batch=${batch}`,
  ];
  const read = (line: string) => {
    const {
      msg,
      http = "",
      wss = "",
    } = JSON.parse(line) as { msg: string; http?: string; wss?: string };
    return { port: Number(/listens on .*:(\d+)$/.exec(msg)?.[1]), http, wss };
  };
  const limits = unlimited ? LIMITS_OFF : LIMITS_FOR_LOAD;
  return startTarget([...program, ...flags, ...extra], place, cpus, read, { ...limits, ...env });
}

/** Below the ports that tests (from 16,384 on) and the kernel (from 32,768 on) choose. */
const [PORTS_FROM, PORTS_END] = [11_000, 16_384];
const PORT_TRIES = 100;
let nextPort = randomInt(PORTS_FROM, PORTS_END);

/** A UDP port that nobody has, for who must know its port before it starts. */
export function freePort(): number {
  for (let left = PORT_TRIES; ; left--) {
    const socket = UdpSocket.open(AF_INET);
    try {
      const port = nextPort;
      nextPort = port + 1 === PORTS_END ? PORTS_FROM : port + 1;
      socket.bind("127.0.0.1", port);
      return port;
    } catch (error) {
      if (left === 1) throw error;
    } finally {
      socket.close();
    }
  }
}

/**
 * What a beacon's numbers are asked for with, as some are asked from outside of their network
 * namespace; made when it is first needed.
 */
const admin = { token: randomBytes(16).toString("hex"), file: "" };
function adminTokenFile(): string {
  if (admin.file === "") {
    admin.file = join(temporaryFolder(), "admin.token");
    writeFileSync(admin.file, admin.token, { mode: 0o600 });
  }
  return admin.file;
}

/**
 * Starts a script of this folder on the generators' core. Resolves once it has printed something.
 */
export async function startScript(
  script: string,
  ...args: readonly string[]
): Promise<Bun.Subprocess> {
  const command = [
    "taskset",
    "-c",
    GENERATOR_CPU,
    process.execPath,
    join(import.meta.dir, script),
    ...args,
  ];
  const child = mortal(Bun.spawn(command, { stdout: "pipe", stderr: "inherit" }));
  const reader = child.stdout.getReader();
  if ((await reader.read()).done) throw new Error(`${script} ended before it was ready`);
  reader.releaseLock();
  return child;
}

/**
 * Starts a process that watches a beacon as operators do: see watcher.ts.
 * @param pauseMs between requests
 */
export const startWatcher = (
  { http }: Pick<Target, "http">,
  pauseMs: number,
): Promise<Bun.Subprocess> => startScript("watcher.ts", http, admin.token, String(pauseMs));

/** The numbers of a beacon. */
export const statsOf = async (target: Pick<Target, "http">): Promise<Stats> =>
  (await answerOf(target, "api/stats")) as Stats;

/** What a beacon's admin API answers to a GET. */
export async function answerOf({ http }: Pick<Target, "http">, path: string): Promise<unknown> {
  const headers = { authorization: `Bearer ${admin.token}` };
  return (await fetch(new URL(path, http), { headers })).json();
}

const running = new Set<Bun.Subprocess>();
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

/**
 * Lets a process not outlive this one, however this one ends, SIGKILL aside.
 * @returns the process
 */
function mortal<T extends Bun.Subprocess>(child: T): T {
  running.add(child);
  void child.exited.then(() => running.delete(child));
  return child;
}

/**
 * Starts a program that serves and waits until it says so.
 * @param cpus it is kept to, a list for taskset
 * @param read finds the port in a line that it prints; any other line has no port over 0
 * @param env variables beside this process's own
 * @throws Error if it ends before
 */
export async function startTarget(
  command: readonly string[],
  place: Place,
  cpus: string,
  read: (line: string) => Pick<Target, "port" | "http" | "wss">,
  env: Readonly<Record<string, string>> = LIMITS_FOR_LOAD,
): Promise<Target> {
  const started = performance.now();
  const child = mortal(
    Bun.spawn([...place.within, "taskset", "-c", cpus, ...command], {
      env: { ...process.env, ...env, BEACON_ADMIN_TOKEN_FILE: adminTokenFile() },
      stdout: "pipe",
      stderr: "inherit",
    }),
  );
  const reader = child.stdout.getReader();
  const decoder = new TextDecoder();
  let output = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error(`${command[0]} ended before it was ready: ${output}`);
    output += decoder.decode(value);
    for (const line of output.split("\n").slice(0, -1)) {
      const found = read(line);
      if (found.port > 0) {
        const startMs = performance.now() - started;
        reader.releaseLock();
        return {
          pid: child.pid,
          host: place.targetHost,
          startMs,
          ...found,
          stop: () => stop(child),
        };
      }
    }
  }
}

async function stop(child: Bun.Subprocess): Promise<void> {
  child.kill();
  const ended = await Promise.race([
    child.exited.then(() => true),
    Bun.sleep(STOP_MS_MAX).then(() => false),
  ]);
  if (!ended) {
    child.kill("SIGKILL");
    await child.exited;
  }
}
