/** What the beacon's numbers are made of: relays by tier, drops by reason, workers, peers. */

import type { PeerStats } from "../control/mesh/stats.ts";
import type { Stats } from "../features.ts";
import { directoryText } from "../view/directory.ts";
import { drops, type Rates } from "../view/rates.ts";
import { sumOf, totalsOf } from "../view/totals.ts";
import { byId, setText } from "./dom.ts";
import { count, duration, share, short, UNKNOWN, words } from "./format.ts";
import { type Cell, Table } from "./table.ts";

/** Who the destination of a relay was found with. */
const TIERS: Readonly<Record<string, string>> = {
  local: "to a node of this beacon",
  peer: "through a peer",
  bridged: "over WebSocket",
};

export class Tables {
  readonly #relays = new Table(
    byId("relays"),
    "Relays by tier",
    ["", "per second", "since start"],
    "This beacon relays nothing.",
  );
  readonly #drops = new Table(
    byId("drops"),
    "Drops by reason",
    ["", "per second", "since start"],
    "Nothing was dropped since the start.",
  );
  readonly #punches = new Table(
    byId("punches"),
    "Pairs of nodes after a punch, by address family",
    ["", "direct", "relayed", "share direct"],
    "No pair has had its minute yet.",
  );
  readonly #workers = new Table(
    byId("workers"),
    "Workers",
    ["worker", "busy", "in/s", "out/s", "batch", "merged in", "merged out", "kernel drops/s"],
    "There are no workers.",
  );
  readonly #peers = new Table(
    byId("peers"),
    "Peers",
    ["address", "nodes through it", "told by", "last heard", "round trip", "lost"],
    "No peers: this beacon is alone.",
  );

  show(stats: Stats, rates: Rates | undefined): void {
    this.#relays.show(relayRows(stats, rates));
    this.#drops.show(dropRows(stats, rates));
    this.#workers.show(workerRows(stats, rates));
    this.#peers.show(stats.mesh.peers.map(peerRow));
    setText(byId("mesh"), meshFacts(stats));
    byId("directory").hidden = !stats.directory;
    if (stats.directory) setText(byId("directory"), `Directory: ${directoryText(stats.directory)}`);
    this.#punches.show(punchRows(stats));
  }
}

function relayRows(stats: Stats, rates: Rates | undefined): Cell[][] {
  const totals = totalsOf(stats, ({ relayForwarded }) => relayForwarded);
  const tiers = [...new Set([...Object.keys(TIERS), ...Object.keys(totals)])];
  return tiers.map((tier) => [
    TIERS[tier] ?? words(tier),
    rateText(rates, rates?.relays[tier]),
    count(totals[tier] ?? 0),
  ]);
}

function dropRows(stats: Stats, rates: Rates | undefined): Cell[][] {
  const now = (reason: string) => rates?.drops[reason] ?? 0;
  return Object.entries(drops(stats))
    .filter(([, total]) => total > 0)
    .sort(([a, totalA], [b, totalB]) => now(b) - now(a) || totalB - totalA)
    .map(([reason, total]) => [words(reason), rateText(rates, now(reason)), count(total)]);
}

function workerRows(stats: Stats, rates: Rates | undefined): Cell[][] {
  return stats.workers.map(({ worker, alive, restarts }, i) => {
    const now = rates?.workers[i];
    const name = `${worker}${alive ? "" : ", dead"}${restarts > 0 ? `, replaced ${restarts}×` : ""}`;
    const busy = now?.busy ?? undefined;
    return [
      { text: name, isBad: !alive },
      busy === undefined ? UNKNOWN : { text: share(busy), share: busy },
      ...(now === undefined
        ? Array<string>(6).fill(UNKNOWN)
        : [
            short(now.packetsIn),
            short(now.packetsOut),
            now.batch.toFixed(1),
            share(now.mergedIn),
            share(now.mergedOut),
            now.kernelDrops === null
              ? UNKNOWN
              : { text: short(now.kernelDrops), isBad: now.kernelDrops > 0 },
          ]),
    ];
  });
}

function peerRow({ address, routes, gossipAgeS, isInDirectory, check }: PeerStats): Cell[] {
  return [
    address,
    count(routes),
    isInDirectory ? "directory" : "gossip",
    gossipAgeS === null ? { text: "never", isBad: true } : `${duration(gossipAgeS)} ago`,
    check?.lastRttMs == null ? UNKNOWN : `${check.lastRttMs.toFixed(1)} ms`,
    check && check.sent > 0
      ? { text: lossText(check), isBad: check.lost + check.disagreed > 0 }
      : UNKNOWN,
  ];
}

/** Of the relays through a peer to this beacon itself. */
function lossText({ sent, lost, disagreed }: NonNullable<PeerStats["check"]>): string {
  const astray = disagreed > 0 ? `, ${count(disagreed)} astray` : "";
  return `${count(lost)} of ${count(sent)}${astray}`;
}

function meshFacts({ mesh }: Stats): string {
  const routes = mesh.peers.reduce((all, peer) => all + peer.routes, mesh.learnedRoutes);
  const learned = mesh.learnedPeers === 0 ? "" : ` · ${count(mesh.learnedPeers)} learned peers`;
  return `${count(routes)} of ${count(mesh.routesMax)} routes${learned}`;
}

function punchRows({ punchedPairs: { direct, relayed } }: Stats): Cell[][] {
  const row = (name: string, straight: number, around: number): Cell[] => {
    const pairs = straight + around;
    return [name, count(straight), count(around), pairs === 0 ? UNKNOWN : share(straight / pairs)];
  };
  const [allDirect, allRelayed] = [sumOf(direct), sumOf(relayed)];
  if (allDirect + allRelayed === 0) return [];
  const families = Object.keys(direct).map((family) =>
    row(words(family), direct[family] ?? 0, relayed[family] ?? 0),
  );
  return [row("all", allDirect, allRelayed), ...families];
}

function rateText(rates: Rates | undefined, rate = 0): string {
  return rates === undefined ? UNKNOWN : short(rate);
}
