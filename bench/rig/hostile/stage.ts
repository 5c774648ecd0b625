/**
 * Where attacks take place: a small internet with a beacon, honest nodes, an attacker and a victim,
 * each host with a process of its own.
 */
import { writeFileSync } from "node:fs";
import { join as joinPath } from "node:path";
import { until } from "../../../test/e2e/support/wait.ts";
import { type Certificate, makeCertificate } from "../../../test/support/websocket.ts";
import { BEACON_PORT, RigBeacon } from "../beacon.ts";
import { keysFile } from "../identity.ts";
import type { Door } from "../line.ts";
import { reaches } from "../meeting.ts";
import { scratchFolder } from "../namespace.ts";
import { WAN } from "../nat.ts";
import { type Corner, join, joinBridged } from "../pair.ts";
import { NodeHost, type RemoteNode } from "../remote.ts";
import { Internet } from "../topology.ts";
import type { Attack, Newcomer, Scene, Victim } from "./attack.ts";
import { Attacker } from "./attacker.ts";
import { parseScrape, type Scrape } from "./growth.ts";
import { HonestTraffic, type Kind, type Pair } from "./honest.ts";
import type { Scale } from "./scale.ts";

/**
 * A beacon alone; with a peer that it exchanges gossip with; or with a bridge, which speaks TLS or
 * does not.
 */
export type StageName = "alone" | "mesh" | "signed mesh" | "bridge" | "tls bridge";

const PEER_BEACON_ID = 2;
const HTTP_PORT = 9002;
const BRIDGE_PORT = 8080;
const METRICS = `http://127.0.0.1:${HTTP_PORT}/metrics`;
/** Ids that may come to the bridge: all that honest nodes will have, and the attacker's own. */
const HONEST_IDS = Array.from({ length: 4000 }, (_, i) => i + 1);
const OWN_BRIDGED_IDS = Array.from({ length: 10 }, (_, i) => 100_001 + i);
const SLEEPING_FROM = 200_001;
const SLEEPING_NODES = 64;
const ATTACKER_NETWORK = "2001:db8:bad::";
const ATTACKER_ADDRESSES = 32;
const VICTIM_SOCKETS = 8;
const PUNCH_MS = 1500;

/** Pairs of each kind that relay on a stage. */
const PAIRS: Readonly<Record<StageName, readonly Kind[]>> = {
  alone: ["UDP", "UDP", "UDP", "UDP"],
  mesh: ["mesh", "mesh", "mesh", "mesh"],
  "signed mesh": ["mesh", "mesh", "mesh", "mesh"],
  bridge: ["UDP", "UDP", "WebSocket", "WebSocket"],
  "tls bridge": ["UDP", "UDP", "WebSocket", "WebSocket"],
};

/** Flags that lift all limits, to see what attacks do then. */
const WITHOUT_LIMITS = [
  "--relay-limit=0",
  "--relay-address-limit=0",
  "--punch-source-limit=0",
  "--punch-limit=0",
  "--endpoint-hold=0s",
  "--new-node-limit=0",
  "--answer-limit=0",
  "--wss-upgrade-limit=0",
  "--wss-failure-limit=0",
];

/** The internet, which stands for a whole run. */
export class Theatre {
  private constructor(
    private readonly scale: Scale,
    private readonly internet: Internet,
    private readonly hosts: Record<"beacon" | "honest" | "far", NodeHost>,
    readonly attacker: Attacker,
    readonly bystander: Attacker,
    private readonly victim: Victim,
    private readonly certificate: Certificate,
    private readonly folder: string,
  ) {}

  static async build(scale: Scale): Promise<Theatre> {
    const names = ["beacon", "peer", "honest", "far", "attacker", "victim"];
    const internet = await Internet.build({
      hosts: Object.fromEntries(names.map((name) => [name, {}])),
    });
    const namespace = (name: string) => internet.site(name).namespace;
    // Answers to those who do not exist do leave: they go where the packets came from, and nobody
    // takes them.
    namespace("beacon").ip(`route add 10.0.0.0/8 via ${internet.site("attacker").ipv4}`);
    const anySource = { "net.ipv4.conf.all.rp_filter": 0, [`net.ipv4.conf.${WAN}.rp_filter`]: 0 };
    for (const name of ["beacon", "peer"]) namespace(name).sysctl(anySource);
    // A network of the attacker's own, of whose addresses it takes any (AnyIP).
    const { namespace: attackerPlace, ipv6: attackerIPv6 } = internet.site("attacker");
    attackerPlace.ip(`route add local ${ATTACKER_NETWORK}/64 dev lo`);
    attackerPlace.sysctl({ "net.ipv6.ip_nonlocal_bind": 1 });
    namespace("beacon").ip(`route add ${ATTACKER_NETWORK}/64 via ${attackerIPv6}`);
    const folder = scratchFolder();
    writeFileSync(joinPath(folder, "keys.json"), keysFile([...HONEST_IDS, ...OWN_BRIDGED_IDS]));
    writeFileSync(joinPath(folder, "gossip.key"), `${crypto.randomUUID()}${crypto.randomUUID()}\n`);
    const bystander = new Attacker(namespace("victim"));
    const { ipv4: address } = internet.site("victim");
    const ports = await bystander.watch(address, VICTIM_SOCKETS);
    return new Theatre(
      scale,
      internet,
      {
        beacon: new NodeHost(namespace("beacon")),
        honest: new NodeHost(namespace("honest")),
        far: new NodeHost(namespace("far")),
      },
      new Attacker(namespace("attacker")),
      bystander,
      { address, ports },
      makeCertificate(folder, "beacon", undefined, [internet.site("beacon").ipv4]),
      folder,
    );
  }

  /**
   * Sets the stage for an attack: new beacons, new nodes.
   * @param limited whether the beacon's limits are in force
   */
  async set(attack: Attack, limited: boolean): Promise<Stage> {
    const { stage } = attack;
    const isMesh = stage.endsWith("mesh");
    const site = (name: string) => this.internet.site(name);
    const beacons = await this.#startBeacons(attack, limited);
    const { cert } = this.certificate;
    const door: Door = {
      url: `${stage === "tls bridge" ? "wss" : "ws"}://${site("beacon").ipv4}:${BRIDGE_PORT}/v1/compat`,
      ...(stage === "tls bridge" ? { ca: cert } : {}),
    };
    const corner = (host: "honest" | "far", beacon: string): Corner => ({
      host: this.hosts[host],
      address: site(host).ipv4,
      beacon: { address: site(beacon).ipv4, port: BEACON_PORT },
    });
    const near = corner("honest", "beacon");
    const far = corner("far", isMesh ? "peer" : "beacon");
    const open = (at: Corner, kind: Kind) =>
      kind === "WebSocket" ? joinBridged(at, door) : join(at);
    const pairs: Pair[] = [];
    for (const [i, kind] of PAIRS[stage].entries()) {
      const [from, to] = i % 2 === 0 ? [near, far] : [far, near]; // both ways
      pairs.push({ kind, from: await open(from, kind), to: await open(to, kind) });
    }
    await this.bystander.sleep(this.victim.address, near.beacon, SLEEPING_FROM, SLEEPING_NODES);
    const traffic = new HonestTraffic(pairs, this.scale.refreshEveryMs);
    const senders = pairs
      .filter(({ kind }) => kind !== "WebSocket")
      .map(({ from }) => from.call("discover"));
    const scene = this.#scene(near, traffic, await Promise.all(senders));
    const set = new Stage(beacons, this.hosts.beacon, traffic, pairs, scene, near, door);
    await set.untilReached();
    return set;
  }

  async #startBeacons({ stage, flags = [] }: Attack, limited: boolean): Promise<RigBeacon[]> {
    const isMesh = stage.endsWith("mesh");
    const site = (name: string) => this.internet.site(name);
    const shared = [
      `--gossip-interval=${this.scale.gossipEveryMs}ms`,
      `--peer-timeout=${this.scale.peerTimeoutS}s`,
      ...(stage === "signed mesh"
        ? [`--gossip-key-file=${joinPath(this.folder, "gossip.key")}`]
        : []),
    ];
    const peerOf = (name: string) => `--peers=${site(name).ipv4}:${BEACON_PORT}`;
    const { certPath, keyPath } = this.certificate;
    const beacons = [
      await RigBeacon.start(site("beacon").namespace, [
        "--beacon-id=1",
        `--http=:${HTTP_PORT}`,
        `--endpoint-hold=${this.scale.holdS}s`,
        ...shared,
        ...(isMesh ? [peerOf("peer")] : []),
        ...(stage.endsWith("bridge")
          ? [`--wss=:${BRIDGE_PORT}`, `--wss-keys=${joinPath(this.folder, "keys.json")}`]
          : []),
        ...(stage === "tls bridge"
          ? [`--wss-tls-cert=${certPath}`, `--wss-tls-key=${keyPath}`]
          : []),
        ...flags,
        ...(limited ? [] : WITHOUT_LIMITS),
      ]),
    ];
    if (isMesh) {
      const flags = [`--beacon-id=${PEER_BEACON_ID}`, ...shared, peerOf("beacon")];
      beacons.push(await RigBeacon.start(site("peer").namespace, flags));
    }
    return beacons;
  }

  #scene(
    near: Corner,
    traffic: HonestTraffic,
    senders: readonly (Scene["honestSenders"][number] | undefined)[],
  ): Scene {
    const site = (name: string) => this.internet.site(name);
    return {
      beacon: near.beacon,
      peer: { address: site("peer").ipv4, port: BEACON_PORT },
      peerId: PEER_BEACON_ID,
      http: { ...near.beacon, port: HTTP_PORT },
      bridge: { ...near.beacon, port: BRIDGE_PORT },
      honestIds: traffic.nodes.map(({ id }) => id),
      honestSenders: senders.filter((address) => address !== undefined),
      sleepingIds: Array.from({ length: SLEEPING_NODES }, (_, i) => SLEEPING_FROM + i),
      ownBridgedIds: OWN_BRIDGED_IDS,
      victim: this.victim,
      attackerAddress: site("attacker").ipv4,
      beaconIPv6: { address: site("beacon").ipv6, port: BEACON_PORT },
      attackerNetwork: Array.from(
        { length: ATTACKER_ADDRESSES },
        (_, i) => `${ATTACKER_NETWORK}${(i + 1).toString(16)}`,
      ),
      ...this.scale.attacker,
    };
  }
}

/** A stage that is set. */
export class Stage {
  constructor(
    private readonly beacons: readonly RigBeacon[],
    private readonly beaconHost: NodeHost,
    readonly traffic: HonestTraffic,
    private readonly pairs: readonly Pair[],
    readonly scene: Scene,
    private readonly near: Corner,
    private readonly door: Door,
  ) {}

  /**
   * Waits until each pair's relays arrive; beacons of a mesh must have told each other of their
   * nodes.
   */
  async untilReached(): Promise<void> {
    for (const { from, to } of this.pairs) {
      await until(`node ${from.id} reaches node ${to.id}`, () => reaches(from, to));
    }
  }

  /** The beacon's metrics, as its operator reads them. */
  async scrape(): Promise<Scrape> {
    return parseScrape(await this.beaconHost.fetchText(METRICS));
  }

  /** Whether somebody who comes only now gets what a newcomer wants. */
  async welcomes(newcomer: Newcomer): Promise<boolean> {
    const { from: acquaintance } = this.pairs[0]!;
    try {
      const node =
        newcomer === "connects" ? await joinBridged(this.near, this.door) : await join(this.near);
      const welcome = await this.#isWelcome(node, newcomer, acquaintance);
      await node.call("close");
      return welcome;
    } catch {
      return false; // it was not let in
    }
  }

  async #isWelcome(
    node: RemoteNode,
    newcomer: Newcomer,
    acquaintance: RemoteNode,
  ): Promise<boolean> {
    if (newcomer !== "punches") return reaches(acquaintance, node);
    return (await node.call("punch", PUNCH_MS, acquaintance.id)).commanded;
  }

  async clear(): Promise<void> {
    await this.traffic.close();
    for (const beacon of this.beacons) await beacon.kill();
  }
}
