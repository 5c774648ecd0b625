/**
 * The names of the peers, each "host:port": those of `--peers` first, then those of the directory,
 * then those of the registry. And the addresses that their hosts resolve to.
 */
import { ConfigError, type HostPort, parseHostNamePort, shown } from "../../config/units.ts";
import { PEERS_MAX } from "../../shared/memory.ts";
import type { ListedBeacon } from "../registry/round.ts";
import type { MeshContext } from "./context.ts";
import type { MeshNames } from "./hand-over.ts";
import { Resolver } from "./resolver.ts";

/** Maximum number of addresses of a host name that a successor receives. */
const ADDRESSES_MAX = 8;

export interface PeerName extends HostPort {
  readonly name: string;
}

export class PeerNames {
  /** Names of the beacons in the directory. */
  fleet: readonly string[] = [];
  readonly #resolver: Resolver;
  /** Names that the registry listed in its last two rounds, and in the last one. */
  #listed: readonly string[] = [];
  #lastListed: readonly string[] = [];
  #advertised = "";

  constructor(private readonly mesh: MeshContext) {
    this.#resolver = new Resolver(mesh.log);
  }

  /** The name of this beacon in its peers' configuration, or in the registry; "" if unknown. */
  get advertised(): string {
    const { advertiseAddr } = this.mesh.config;
    return advertiseAddr === "auto" ? this.#advertised : advertiseAddr;
  }

  /** Applies a round with the registry. */
  list(beacons: readonly ListedBeacon[], advertised: string): void {
    const { config } = this.mesh;
    const names = beacons.filter(({ id }) => id !== config.beaconId).map(({ addr }) => addr);
    this.#advertised = advertised;
    // A beacon that is missing in one round stays: it registers again within a round if the
    // registry lost its memory.
    this.#listed = config.registry === "off" ? [] : [...names, ...this.#lastListed];
    this.#lastListed = names;
  }

  /** Returns each name once. Warns of names that cannot be parsed, and of too many. */
  all(): readonly PeerName[] {
    const { config, warn } = this.mesh;
    const names = new Set([...config.peers, ...this.fleet, ...this.#listed]);
    names.delete(this.#advertised);
    // Before any lookup: the registry's list may be of any length.
    if (names.size > PEERS_MAX) warnOfTooManyPeers(this.mesh, names.size);
    const parsed: PeerName[] = [];
    const invalid: string[] = [];
    for (const name of Array.from(names).slice(0, PEERS_MAX)) {
      try {
        parsed.push({ name, ...parseHostNamePort(name) });
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error;
        invalid.push(`${shown(name)}: ${error.message}`);
      }
    }
    if (invalid.length > 0) {
      const list = config.directory === "off" ? "lists" : "and the directory list";
      warn(
        "peer_name_invalid",
        { count: invalid.length },
        `the registry ${list} ${invalid.length} beacons without an address, such as ${invalid[0]}`,
      );
    }
    return parsed;
  }

  /** Returns a host's known addresses in the order to try them. */
  addresses(host: string): readonly string[] {
    return this.#resolver.known(host);
  }

  /** Looks up all hosts. Calls `changed` after each whose addresses changed: others may be slow. */
  async resolve(signal: AbortSignal, changed: () => void): Promise<void> {
    const hosts = new Set(this.all().map(({ host }) => host));
    this.#resolver.retain(hosts);
    const resolved = Array.from(hosts, async (host) => {
      if ((await this.#resolver.resolve(host, signal)) && !signal.aborted) changed();
    });
    await Promise.all(resolved);
  }

  /** Returns what a successor needs beside the configuration. */
  save(): MeshNames {
    return {
      advertised: this.#advertised,
      listed: this.#listed.slice(0, PEERS_MAX),
      lastListed: this.#lastListed.slice(0, PEERS_MAX),
      fleet: this.fleet.slice(0, PEERS_MAX),
      hosts: this.#resolver.hosts
        .slice(0, PEERS_MAX)
        .map(([host, addresses]) => [host, addresses.slice(0, ADDRESSES_MAX)]),
    };
  }

  restore({ advertised, listed, lastListed, hosts, fleet = [] }: MeshNames): void {
    const { registry, directory } = this.mesh.config;
    for (const [host, addresses] of hosts) this.#resolver.adopt(host, addresses);
    this.#advertised = advertised;
    this.#listed = registry === "off" ? [] : listed;
    this.#lastListed = lastListed;
    this.fleet = directory === "off" ? [] : fleet;
  }
}

export function warnOfTooManyPeers({ warn }: Pick<MeshContext, "warn">, peers: number): void {
  const message = `${peers} peers or more: ${PEERS_MAX} is the limit, the others are ignored`;
  warn("peers_limit", { peers }, message);
}
