/** The bridge's metrics. All are 0 without a bridge. */
import * as v from "valibot";
import type { MetricGroup } from "../kit/metrics.ts";
import type { StatsOf } from "../kit/schema.ts";
import { PACKET_METRICS, type PacketStats, packetSchema } from "../workers/packet-stats.ts";
import { bridgeStats } from "./bridge.ts";

export const stats = {
  /** null without a bridge. */
  bridge: v.nullable(v.strictObject({ ...bridgeStats, packets: packetSchema })),
};
export type Stats = StatsOf<typeof stats>;

export const PACKETS: MetricGroup<Stats, PacketStats> = {
  rows: ({ bridge }) => (bridge ? [[{ worker: "bridge" }, bridge.packets]] : []),
  rowLabels: ["worker"],
  counters: PACKET_METRICS,
};

export const BRIDGE: MetricGroup<Stats, Stats> = {
  rows: (stats) => [[{}, stats]],
  counters: [
    {
      name: "beacon_wss_upgrades_total",
      help: "Requests for a WebSocket, by outcome.",
      label: "outcome",
      values: ({ bridge }) => bridge?.upgrades ?? {},
    },
    {
      name: "beacon_wss_limited_shadow_total",
      help: "Upgrades that limits by address would have refused while --limits-shadow was on.",
      values: ({ bridge }) => bridge?.upgradesShadowed ?? 0,
    },
    {
      name: "beacon_wss_auth_total",
      help: "Handshakes of nodes that ended, by outcome.",
      label: "outcome",
      values: ({ bridge }) => bridge?.auth ?? {},
    },
    {
      name: "beacon_wss_frames_total",
      help: "Beacon messages over WebSockets: in, from nodes, and out, to nodes.",
      label: "direction",
      values: ({ bridge }) => ({ ...bridge?.frames }),
    },
    {
      name: "beacon_wss_dropped_total",
      help: "Frames from or for nodes of the WebSocket bridge that were dropped, by reason.",
      label: "reason",
      values: ({ bridge }) => bridge?.dropped ?? {},
    },
    {
      name: "beacon_wss_idle_disconnects_total",
      help: "Nodes of the WebSocket bridge that were disconnected because they were silent.",
      values: ({ bridge }) => bridge?.idleDisconnects ?? 0,
    },
    {
      name: "beacon_wss_slow_disconnects_total",
      help: "Nodes of the WebSocket bridge that were disconnected because too much waited for all of them.",
      values: ({ bridge }) => bridge?.slowDisconnects ?? 0,
    },
  ],
  gauges: [
    {
      name: "beacon_wss_listening",
      help: "1 while the WebSocket bridge takes connections; 0 without one, and while files or its port cannot be had.",
      values: ({ bridge }) => Number(bridge?.listening ?? false),
    },
    {
      name: "beacon_wss_peers",
      help: "Nodes connected through the WebSocket bridge.",
      values: ({ bridge }) => bridge?.peers ?? 0,
    },
    {
      name: "beacon_wss_buffered_bytes",
      help: "Bytes that wait for nodes of the WebSocket bridge to read them.",
      values: ({ bridge }) => bridge?.bufferedBytes ?? 0,
    },
  ],
};
