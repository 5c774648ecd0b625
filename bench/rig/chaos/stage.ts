/**
 * Where the chaos happens: three beacons that are each other's peers, their registry, and honest
 * nodes. All of it is in the network and mount namespace of this process, which ip-netns(8) has
 * made for it, so that cut links and full disks are nobody else's.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { until } from "../../../test/e2e/support/wait.ts";
import { base64, NodeIdentity } from "../../../test/support/pilot-node.ts";
import { ScriptedRegistry } from "../../../test/support/scripted-registry.ts";
import { ChaosBeacon } from "./beacons.ts";
import { MovableClock } from "./clock.ts";
import { type BeaconName, PAIRS } from "./pairs.ts";
import { Traffic } from "./traffic.ts";

const HOSTS: Record<BeaconName, string> = {
  subject: "127.0.0.11",
  victim: "127.0.0.12",
  bystander: "127.0.0.13",
};
const REGISTRY_PORT = 9000;
export const GOSSIP_MS = 200;
/** Longer than the subject may be stopped or deaf for, and shorter than the victim is. */
export const PEER_TIMEOUT_MS = 2000;
export const WORKERS = 2;
/**
 * Connections of the subject's bridge: those of honest nodes and of the herd have room, those of
 * the crowd have not.
 */
export const WSS_PEERS_MAX = 96;
/** Small, so that a burst is too much. */
const RECEIVE_BUFFER = "64KiB";
/** Room for the state file and its successor, in pages of 4 KiB. */
export const DISK_BYTES = 16 * 4096;
const START_MS_MAX = 20_000;

export class Stage {
  readonly beacons: Record<BeaconName, ChaosBeacon>;
  readonly traffic: Promise<Traffic>;
  /** A disk of its own, with the folder of the subject's state file. */
  readonly disk: string;
  readonly stateFolder: string;
  readonly configFile: string;
  /** undefined without a C compiler. */
  readonly clock: MovableClock | undefined;
  readonly #identities = new Map<number, NodeIdentity>();
  #registry: ScriptedRegistry;

  private constructor(folder: string, registry: ScriptedRegistry) {
    this.#registry = registry;
    this.clock = MovableClock.make(folder);
    this.disk = join(folder, "disk");
    this.stateFolder = join(this.disk, "state");
    this.configFile = join(folder, "config.json");
    mkdirSync(this.disk);
    command("mount", "-t", "tmpfs", "-o", `size=${DISK_BYTES}`, "chaos", this.disk);
    mkdirSync(this.stateFolder);
    writeFileSync(this.configFile, "{}");
    const common = (id: number) => [
      `--beacon-id=${id}`,
      `--workers=${WORKERS}`,
      "--max-nodes=10000",
      `--gossip-interval=${GOSSIP_MS}ms`,
      `--peer-timeout=${PEER_TIMEOUT_MS}ms`,
      "--self-check=off", // which has a route of its own
      `--registry=127.0.0.1:${REGISTRY_PORT}`,
      "--registry-interval=1s",
    ];
    // The subject and the bystander know the victim by the registry alone.
    const subject = [
      "--peers=127.0.0.13:9001",
      `--state-file=${join(this.stateFolder, "nodes")}`,
      "--state-interval=1s",
      `--recv-buffer=${RECEIVE_BUFFER}`,
      `--wss-max-peers=${WSS_PEERS_MAX}`,
      `--config=${this.configFile}`,
      "--log-level=debug", // at which it says that it has saved
    ];
    this.beacons = {
      subject: new ChaosBeacon(
        "subject",
        HOSTS.subject,
        [...common(1), ...subject],
        this.clock?.env,
      ),
      victim: new ChaosBeacon("victim", HOSTS.victim, common(2)),
      bystander: new ChaosBeacon("bystander", HOSTS.bystander, [
        ...common(3),
        "--peers=127.0.0.11:9001",
      ]),
    };
    this.traffic = Traffic.open(PAIRS, {
      beacon: (seat) => this.beacons[seat.beacon],
      identity: (nodeId) => this.identity(nodeId),
      addressOf,
    });
  }

  /**
   * Starts everything; returns when all pairs' packets arrive.
   * @param folder for whatever has to be written
   */
  static async build(folder: string): Promise<Stage> {
    command("ip", "link", "set", "lo", "up");
    const stage = new Stage(folder, await ScriptedRegistry.listen(REGISTRY_PORT));
    await Promise.all(Object.values(stage.beacons).map((beacon) => beacon.start()));
    const traffic = await stage.traffic;
    traffic.start();
    await until("packets of all pairs arrive", () => traffic.flows, START_MS_MAX);
    await until("all show their numbers", async () => {
      const stats = await Promise.all(Object.values(stage.beacons).map((beacon) => beacon.stats()));
      return stats.every((one) => one !== undefined);
    });
    return stage;
  }

  get registry(): ScriptedRegistry {
    return this.#registry;
  }

  /**
   * Another registry in the place of one that was closed: it knows the nodes' keys, but no beacon.
   */
  async startRegistry(): Promise<void> {
    this.#registry = await ScriptedRegistry.listen(REGISTRY_PORT);
    for (const identity of this.#identities.values()) this.#tellKey(identity);
  }

  /** A node's key, which the registry knows. */
  identity(nodeId: number): NodeIdentity {
    const identity = this.#identities.get(nodeId) ?? NodeIdentity.create(nodeId);
    this.#identities.set(nodeId, identity);
    this.#tellKey(identity);
    return identity;
  }

  async close(): Promise<void> {
    await Promise.all(Object.values(this.beacons).map((beacon) => beacon.kill()));
    await this.#registry.close();
  }

  #tellKey({ nodeId, publicKey }: NodeIdentity): void {
    this.#registry.keys.set(nodeId, base64(publicKey));
  }
}

/** An address of its own for everybody who connects, as limits go by addresses: 127.1.0.0/16. */
export const addressOf = (number: number): string => `127.1.${number >> 8}.${number & 0xff}`;

/** Runs a short command to its end. @throws Error, with what it said, if it fails */
export function command(...words: readonly string[]): void {
  const { success, stderr } = Bun.spawnSync([...words], { stdout: "ignore", stderr: "pipe" });
  if (!success) throw new Error(`${words.join(" ")}: ${stderr}`);
}
