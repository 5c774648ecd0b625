/** The page's head and tiles: identity, condition, present rates. */

import { hostPort } from "../../ffi/host-port.ts";
import type { Stats } from "../features.ts";
import { conditionOf, warningsOf } from "../view/condition.ts";
import { drops, type Rates } from "../view/rates.ts";
import { sumOf, totalOf } from "../view/totals.ts";
import { byId, create, createBar, setBar, setText, showNotices } from "./dom.ts";
import { bytes, cores, count, duration, short, UNKNOWN } from "./format.ts";

/** Above this share of its limit, the table of nodes is nearly full. */
const NEARLY_FULL = 0.9;

interface Shown {
  readonly value: string;
  readonly unit?: string;
  readonly note: string;
  readonly share?: number;
}

/** By name: what a tile shows has the id "now-<name>". */
const TILES: Readonly<
  Record<string, { title: string; show(stats: Stats, rates: Rates | undefined): Shown }>
> = {
  "packets-in": {
    title: "Packets in",
    show: (stats, rates) => ({
      ...perSecond(rates?.packetsIn, short),
      note: `${short(totalOf(stats, ({ packetsReceived }) => packetsReceived))} total`,
    }),
  },
  "packets-out": {
    title: "Packets out",
    show: (stats, rates) => ({
      ...perSecond(rates?.packetsOut, short),
      note: `${short(
        totalOf(stats, ({ relayForwarded, repliesSent }) => ({ ...relayForwarded, repliesSent })),
      )} total`,
    }),
  },
  "bytes-in": {
    title: "Bytes in",
    show: (stats, rates) => ({
      ...perSecond(rates?.bytesIn, bytes),
      note: `${bytes(totalOf(stats, ({ receivedBytes }) => ({ receivedBytes })))} total`,
    }),
  },
  "bytes-out": {
    title: "Bytes out",
    show: (stats, rates) => ({
      ...perSecond(rates?.bytesOut, bytes),
      note: `${bytes(totalOf(stats, ({ sentBytes }) => ({ sentBytes })))} total`,
    }),
  },
  drops: {
    title: "Drops",
    show: (stats, rates) => ({
      ...perSecond(rates && sumOf(rates.drops), short),
      note: `${short(sumOf(drops(stats)))} total`,
    }),
  },
  nodes: {
    title: "Nodes",
    show: ({ nodes, nodesMax }) => ({
      value: count(nodes),
      note: `of ${count(nodesMax)}${fullness(nodes / nodesMax)}`,
      share: nodes / nodesMax,
    }),
  },
  bridged: {
    title: "Bridged nodes",
    show: ({ bridge }) =>
      bridge === null
        ? { value: UNKNOWN, note: "no bridge" }
        : {
            value: count(bridge.peers),
            note: bridge.listening ? `${count(bridge.connections)} connections` : "does not listen",
          },
  },
  cpu: {
    title: "CPU",
    show: (stats, rates) => ({
      value: rates === undefined || rates.cores === null ? UNKNOWN : cores(rates.cores),
      unit: "cores",
      note: `${count(stats.workers.length)} workers, ${stats.residentBytes === null ? UNKNOWN : bytes(stats.residentBytes)}`,
    }),
  },
};

export class Summary {
  readonly #tiles = Object.entries(TILES).map(([id, { title, show }]) => ({
    tile: new Tile(id, title),
    show,
  }));

  /** @param isLive whether the numbers are of now: the health of before says nothing of now */
  show(stats: Stats, rates: Rates | undefined, isLive: boolean): void {
    setText(byId("name"), `Beacon ${stats.beaconId}`);
    setText(
      byId("facts"),
      `${hostPort(stats.address.address, stats.address.port)} · version ${stats.version} · up ${duration(stats.uptimeS)}`,
    );
    const health = byId("health");
    health.hidden = !isLive;
    const { text, tone } = conditionOf(stats);
    health.className = `pill ${tone}`;
    setText(health, text);
    showNotices(byId("warnings"), isLive ? warningsOf(stats) : []);
    for (const { tile, show } of this.#tiles) tile.show(show(stats, rates));
    document.title = `Beacon ${stats.beaconId}${rates === undefined ? "" : `: ${short(rates.packetsIn)}/s`}`;
  }
}

class Tile {
  readonly #value = create("span");
  readonly #unit = create("small");
  readonly #note = create("p", { className: "faint" });
  readonly #bar = createBar();

  constructor(id: string, title: string) {
    const value = create(
      "p",
      { className: "value" },
      this.#value,
      document.createTextNode(" "),
      this.#unit,
    );
    const card = create(
      "div",
      { className: "card" },
      create("h2", { text: title }),
      value,
      this.#note,
      this.#bar,
    );
    this.#value.id = `now-${id}`;
    byId("tiles").append(card);
  }

  show({ value, unit = "", note, share }: Shown): void {
    setText(this.#value, value);
    setText(this.#unit, unit);
    setText(this.#note, note);
    this.#bar.hidden = share === undefined;
    if (share !== undefined) setBar(this.#bar, share);
  }
}

function fullness(share: number): string {
  if (share >= 1) return ", full";
  return share > NEARLY_FULL ? ", nearly full" : "";
}

function perSecond(
  rate: number | undefined,
  format: (rate: number) => string,
): Pick<Shown, "value" | "unit"> {
  return { value: rate === undefined ? UNKNOWN : format(rate), unit: "/s" };
}
