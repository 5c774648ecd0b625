/**
 * The Grafana dashboard of beacons: what each panel asks, and how that becomes the JSON that
 * Grafana imports. `bun deploy/grafana/dashboard.ts` writes beacon.json beside this file.
 */

/** One line, or a line for each value of the labels that the query leaves. */
interface Line {
  readonly query: string;
  /** As Grafana's legends are written, with labels in {{}}. */
  readonly legend: string;
}

interface Panel {
  readonly title: string;
  /** What a reader should know, shown at the panel's title. */
  readonly about?: string;
  /** Grafana's name of it. */
  readonly unit: string;
  readonly lines: readonly Line[];
  readonly max?: number;
  readonly stacked?: true;
}

/** Which beacons are looked at: chosen at the top of the dashboard. */
const CHOSEN = 'job=~"$job",instance=~"$instance"';

/**
 * A metric of the chosen beacons.
 * @param matchers more of PromQL's, as they stand between braces
 */
const of = (metric: string, matchers = ""): string =>
  `${metric}{${CHOSEN}${matchers === "" ? "" : `,${matchers}`}}`;

/** By the second, added up by these labels. */
const rateBy = (by: string, metric: string, matchers?: string): string =>
  `sum by (${by}) (rate(${of(metric, matchers)}[$__rate_interval]))`;

const rate = (metric: string, matchers?: string): string => rateBy("instance", metric, matchers);

/** Panels of a beacon's whole numbers are a line an instance. */
const INSTANCE = "{{instance}}";

const ROWS: readonly { readonly title: string; readonly panels: readonly Panel[] }[] = [
  {
    title: "At a glance",
    panels: [
      {
        title: "Up and healthy",
        about: "1 is well. A beacon that drains is unhealthy.",
        unit: "none",
        max: 1,
        lines: [
          { query: of("up"), legend: `${INSTANCE} up` },
          { query: of("beacon_healthy"), legend: `${INSTANCE} healthy` },
        ],
      },
      {
        title: "Nodes and their limit",
        unit: "short",
        lines: [
          { query: of("beacon_nodes"), legend: INSTANCE },
          { query: of("beacon_nodes_limit"), legend: `${INSTANCE} limit` },
        ],
      },
      {
        title: "Versions and uptime",
        unit: "s",
        lines: [
          {
            query: `(time() - ${of("beacon_start_time_seconds")}) * on (job, instance) group_left (version) ${of("beacon_build_info")}`,
            legend: `${INSTANCE} {{version}}`,
          },
        ],
      },
    ],
  },
  {
    title: "Traffic",
    panels: [
      {
        title: "Messages in, by type",
        unit: "pps",
        stacked: true,
        lines: [{ query: rateBy("type", "beacon_packets_received_total"), legend: "{{type}}" }],
      },
      {
        title: "Bytes in and out",
        about: "UDP payload.",
        unit: "Bps",
        lines: [
          { query: rate("beacon_received_bytes_total"), legend: `${INSTANCE} in` },
          { query: rate("beacon_sent_bytes_total"), legend: `${INSTANCE} out` },
        ],
      },
      {
        title: "Relays, by tier",
        about:
          "local: to this beacon's nodes; peer: through another beacon; bridged: over a WebSocket.",
        unit: "pps",
        stacked: true,
        lines: [
          { query: rateBy("tier", "beacon_relay_forwarded_total"), legend: "{{tier}}" },
          {
            query: `sum(rate(${of("beacon_relay_not_found_total")}[$__rate_interval]))`,
            legend: "not found",
          },
        ],
      },
      {
        title: "Drops, by reason",
        unit: "pps",
        lines: [
          { query: rateBy("reason", "beacon_relay_dropped_total"), legend: "relay: {{reason}}" },
          { query: rateBy("reason", "beacon_reply_dropped_total"), legend: "answer: {{reason}}" },
          { query: rateBy("reason", "beacon_malformed_total"), legend: "malformed: {{reason}}" },
          {
            query: rateBy("reason", "beacon_nodes_refused_total"),
            legend: "node refused: {{reason}}",
          },
          {
            query: rateBy("breaker", "beacon_switched_off_total"),
            legend: "switched off: {{breaker}}",
          },
        ],
      },
      {
        title: "What limits drop",
        about: "shadow: what they would drop, with --limits-shadow on.",
        unit: "pps",
        lines: [
          { query: rateBy("limit", "beacon_limited_total"), legend: "{{limit}}" },
          { query: rateBy("limit", "beacon_limited_shadow_total"), legend: "{{limit}} (shadow)" },
        ],
      },
      {
        title: "Breakers that are off",
        unit: "none",
        max: 1,
        lines: [{ query: of("beacon_breaker_off"), legend: `${INSTANCE} {{breaker}}` }],
      },
    ],
  },
  {
    title: "Direct connections",
    panels: [
      {
        title: "Punch requests, by outcome",
        unit: "pps",
        lines: [
          { query: rateBy("outcome", "beacon_punch_total"), legend: "{{outcome}}" },
          { query: rateBy("outcome", "beacon_punch_grants_total"), legend: "grant {{outcome}}" },
        ],
      },
      {
        title: "Pairs that were brought together",
        about:
          "direct: they did not go on relaying within a minute. unwatched: there was no room to look.",
        unit: "pps",
        stacked: true,
        lines: [
          {
            query: rateBy("family, outcome", "beacon_punched_pairs_total"),
            legend: "{{family}} {{outcome}}",
          },
        ],
      },
      {
        title: "Share of pairs that got through directly",
        unit: "percentunit",
        max: 1,
        lines: [
          {
            query: `${rateBy("family", "beacon_punched_pairs_total", 'outcome="direct"')} / ${rateBy("family", "beacon_punched_pairs_total")}`,
            legend: "{{family}}",
          },
        ],
      },
    ],
  },
  {
    title: "Work",
    panels: [
      {
        title: "CPU of each worker",
        unit: "percentunit",
        max: 1,
        lines: [
          {
            query: rateBy("instance, worker", "beacon_worker_cpu_seconds_total"),
            legend: `${INSTANCE} {{worker}}`,
          },
        ],
      },
      {
        title: "CPU of the process",
        about: "In cores.",
        unit: "none",
        lines: [{ query: rate("process_cpu_seconds_total"), legend: INSTANCE }],
      },
      {
        title: "Memory of the process",
        unit: "bytes",
        lines: [{ query: of("process_resident_memory_bytes"), legend: INSTANCE }],
      },
      {
        title: "Dropped by the kernel",
        about: "Before the beacon saw it: mostly a full socket buffer.",
        unit: "pps",
        lines: [
          {
            query: rateBy("instance, worker", "beacon_socket_receive_drops_total"),
            legend: `${INSTANCE} {{worker}}`,
          },
        ],
      },
      {
        title: "Messages a receive call brings",
        about: "A full batch all the time is a worker at its limit.",
        unit: "none",
        lines: [
          {
            query: `${rate("beacon_receive_batch_size_sum")} / ${rate("beacon_receive_batch_size_count")}`,
            legend: `${INSTANCE} mean`,
          },
          {
            query: `histogram_quantile(0.95, ${rateBy("instance, le", "beacon_receive_batch_size_bucket")})`,
            legend: `${INSTANCE} 95th percentile`,
          },
        ],
      },
      {
        title: "Share of packets merged by offload",
        unit: "percentunit",
        lines: [
          {
            query: `${rate("beacon_offload_segments_total", 'direction="received"')} / ${rate("beacon_packets_received_total")}`,
            legend: `${INSTANCE} in`,
          },
          {
            query: `${rate("beacon_offload_segments_total", 'direction="sent"')} / ${rate("beacon_relay_forwarded_total", 'tier!="bridged"')}`,
            legend: `${INSTANCE} out`,
          },
        ],
      },
      {
        title: "Workers replaced, receive calls failed",
        unit: "none",
        lines: [
          {
            query: `sum by (instance) (increase(${of("beacon_worker_restarts_total")}[$__rate_interval]))`,
            legend: `${INSTANCE} replaced`,
          },
          { query: rate("beacon_receive_errors_total"), legend: `${INSTANCE} failed a second` },
        ],
      },
      {
        title: "Since the nodes were saved",
        unit: "s",
        lines: [
          {
            query: `time() - (${of("beacon_state_saved_timestamp_seconds")} > 0)`,
            legend: INSTANCE,
          },
        ],
      },
    ],
  },
  {
    title: "Mesh",
    panels: [
      {
        title: "Time since peers' last gossip",
        about: "After 90 s (--peer-timeout) a peer's routes are withdrawn.",
        unit: "s",
        lines: [
          { query: of("beacon_peer_gossip_age_seconds"), legend: `${INSTANCE} from {{peer}}` },
        ],
      },
      {
        title: "Nodes reached through peers",
        unit: "short",
        lines: [
          { query: of("beacon_peer_routes"), legend: `${INSTANCE} via {{peer}}` },
          { query: of("beacon_learned_peer_routes"), legend: `${INSTANCE} via unlisted beacons` },
        ],
      },
      {
        title: "Gossip rejected, by reason",
        unit: "pps",
        lines: [
          {
            query: rateBy("reason", "beacon_gossip_rejected_total"),
            legend: "worker: {{reason}}",
          },
          {
            query: rateBy("reason", "beacon_gossip_refused_total"),
            legend: "main thread: {{reason}}",
          },
        ],
      },
      {
        title: "Self-check: round trip through a peer",
        unit: "s",
        lines: [{ query: of("beacon_peer_check_rtt_seconds"), legend: `${INSTANCE} via {{peer}}` }],
      },
      {
        title: "Self-check: lost, and come back from somebody else",
        unit: "percentunit",
        lines: [
          {
            query: `${rateBy("instance, peer", "beacon_peer_check_lost_total")} / ${rateBy("instance, peer", "beacon_peer_check_sent_total")}`,
            legend: `${INSTANCE} via {{peer}} lost`,
          },
          {
            query: `${rateBy("instance, peer", "beacon_peer_check_disagreements_total")} / ${rateBy("instance, peer", "beacon_peer_check_sent_total")}`,
            legend: `${INSTANCE} via {{peer}} from somebody else`,
          },
        ],
      },
      {
        title: "Rounds with the registry, by outcome",
        unit: "none",
        lines: [
          { query: rateBy("outcome", "beacon_registry_rounds_total"), legend: "{{outcome}}" },
        ],
      },
    ],
  },
  {
    title: "Directory",
    panels: [
      {
        title: "State",
        about: "ok is the good one; no line is a beacon without a directory.",
        unit: "none",
        max: 1,
        lines: [{ query: `${of("beacon_directory_state")} == 1`, legend: `${INSTANCE} {{state}}` }],
      },
      {
        title: "Nodes of other beacons, and room for them",
        unit: "short",
        lines: [
          { query: of("beacon_directory_routes"), legend: `${INSTANCE} via {{beacon}}` },
          {
            query: `${of("beacon_peer_routes_limit")} and on (job, instance) ${of("beacon_directory_route_bytes")}`,
            legend: `${INSTANCE} limit`,
          },
        ],
      },
      {
        title: "From a change to its route",
        about: "How late other beacons' changes are applied here.",
        unit: "s",
        lines: [
          {
            query: `histogram_quantile(0.5, ${rateBy("instance, le", "beacon_directory_lag_seconds_bucket")})`,
            legend: `${INSTANCE} median`,
          },
          {
            query: `histogram_quantile(0.99, ${rateBy("instance, le", "beacon_directory_lag_seconds_bucket")})`,
            legend: `${INSTANCE} 99th percentile`,
          },
          { query: of("beacon_directory_round_trip_seconds"), legend: `${INSTANCE} round trip` },
        ],
      },
      {
        title: "Beacons that are not in step",
        unit: "none",
        lines: [
          {
            query: of("beacon_directory_beacons", 'state!="following"'),
            legend: `${INSTANCE} {{state}}`,
          },
        ],
      },
      {
        title: "Time since each beacon was heard",
        about: "Its routes are withdrawn after its lease, 10 s unless it says otherwise.",
        unit: "s",
        lines: [
          {
            query: of("beacon_directory_beacon_age_seconds"),
            legend: `${INSTANCE} from {{beacon}}`,
          },
        ],
      },
      {
        title: "Nodes that came and went",
        unit: "none",
        lines: [
          {
            query: rateBy("instance, direction", "beacon_directory_claims_total"),
            legend: `${INSTANCE} came, {{direction}}`,
          },
          {
            query: rateBy("instance, direction", "beacon_directory_gone_total"),
            legend: `${INSTANCE} went, {{direction}}`,
          },
          { query: of("beacon_directory_untold"), legend: `${INSTANCE} not told yet` },
        ],
      },
      {
        title: "Entries and bytes of the log",
        unit: "none",
        lines: [
          {
            query: rateBy("instance, direction", "beacon_directory_entries_total"),
            legend: `${INSTANCE} entries {{direction}}`,
          },
          {
            query: rateBy("instance, direction", "beacon_directory_bytes_total"),
            legend: `${INSTANCE} bytes {{direction}}`,
          },
        ],
      },
      {
        title: "Snapshots, and why they were needed",
        unit: "none",
        lines: [
          { query: rateBy("outcome", "beacon_directory_snapshots_total"), legend: "{{outcome}}" },
          {
            query: rateBy("reason", "beacon_directory_resyncs_total"),
            legend: "needed: {{reason}}",
          },
        ],
      },
      {
        title: "How long the last snapshot took",
        unit: "s",
        lines: [
          { query: of("beacon_directory_snapshot_seconds"), legend: `${INSTANCE} {{outcome}}` },
        ],
      },
      {
        title: "Failures, by reason",
        unit: "none",
        lines: [
          { query: rateBy("reason", "beacon_directory_failures_total"), legend: "{{reason}}" },
        ],
      },
      {
        title: "What is left out",
        about: "Entries that count for nothing, and claims for which there was no room.",
        unit: "none",
        lines: [
          { query: rate("beacon_directory_malformed_total"), legend: `${INSTANCE} malformed` },
          {
            query: rate("beacon_directory_stale_total"),
            legend: `${INSTANCE} of an earlier start`,
          },
          {
            query: rate("beacon_directory_ignored_total"),
            legend: `${INSTANCE} of a beacon too many`,
          },
          { query: rate("beacon_directory_claims_refused_total"), legend: `${INSTANCE} no room` },
          {
            query: rate("beacon_directory_claims_from_future_total"),
            legend: `${INSTANCE} from the future`,
          },
        ],
      },
      {
        title: "Nodes that two beacons heard",
        about: "lost: the other one heard it later; claimed again: this one did.",
        unit: "none",
        lines: [
          { query: rate("beacon_directory_nodes_lost_total"), legend: `${INSTANCE} lost` },
          {
            query: rate("beacon_directory_nodes_claimed_again_total"),
            legend: `${INSTANCE} claimed again`,
          },
        ],
      },
    ],
  },
  {
    title: "WebSocket bridge",
    panels: [
      {
        title: "Nodes connected",
        unit: "short",
        lines: [{ query: of("beacon_wss_peers"), legend: INSTANCE }],
      },
      {
        title: "Messages in and out",
        unit: "pps",
        lines: [{ query: rateBy("direction", "beacon_wss_frames_total"), legend: "{{direction}}" }],
      },
      {
        title: "Upgrades and handshakes, by outcome",
        unit: "reqps",
        lines: [
          { query: rateBy("outcome", "beacon_wss_upgrades_total"), legend: "upgrade {{outcome}}" },
          { query: rateBy("outcome", "beacon_wss_auth_total"), legend: "handshake {{outcome}}" },
        ],
      },
      {
        title: "Drops and disconnects, by reason",
        unit: "pps",
        lines: [
          { query: rateBy("reason", "beacon_wss_dropped_total"), legend: "{{reason}}" },
          {
            query: rate("beacon_wss_idle_disconnects_total"),
            legend: `${INSTANCE} idle, disconnected`,
          },
          {
            query: rate("beacon_wss_slow_disconnects_total"),
            legend: `${INSTANCE} slow, disconnected`,
          },
        ],
      },
      {
        title: "Bytes that wait to be read",
        unit: "bytes",
        lines: [{ query: of("beacon_wss_buffered_bytes"), legend: INSTANCE }],
      },
      {
        title: "Takes connections",
        unit: "none",
        max: 1,
        lines: [{ query: of("beacon_wss_listening"), legend: INSTANCE }],
      },
    ],
  },
];

/** Grafana's grid is 24 wide. */
const GRID_COLUMNS = 24;
const PANELS_A_LINE = 3;
const PANEL_WIDTH = GRID_COLUMNS / PANELS_A_LINE;
const PANEL_HEIGHT = 8;

const DATASOURCE = { type: "prometheus", uid: "$datasource" };

function timeSeries({ title, about, unit, lines, max, stacked }: Panel) {
  return {
    type: "timeseries",
    title,
    ...(about === undefined ? {} : { description: about }),
    datasource: DATASOURCE,
    fieldConfig: {
      defaults: {
        unit,
        min: 0,
        ...(max === undefined ? {} : { max }),
        custom: stacked ? { fillOpacity: 30, stacking: { mode: "normal" } } : {},
      },
      overrides: [],
    },
    options: { tooltip: { mode: "multi", sort: "desc" } },
    targets: lines.map(({ query, legend }, i) => ({
      refId: String.fromCharCode("A".charCodeAt(0) + i),
      datasource: DATASOURCE,
      expr: query,
      legendFormat: legend,
    })),
  };
}

/** Lays the rows out, one under the other. */
function panels() {
  const all: object[] = [];
  let y = 0;
  for (const row of ROWS) {
    const headline = { type: "row", title: row.title, collapsed: false, panels: [] };
    all.push({ id: all.length + 1, ...headline, gridPos: { x: 0, y, w: GRID_COLUMNS, h: 1 } });
    y += 1;
    row.panels.forEach((panel, i) => {
      const x = (i % PANELS_A_LINE) * PANEL_WIDTH;
      if (i > 0 && x === 0) y += PANEL_HEIGHT;
      const gridPos = { x, y, w: PANEL_WIDTH, h: PANEL_HEIGHT };
      all.push({ id: all.length + 1, ...timeSeries(panel), gridPos });
    });
    y += PANEL_HEIGHT;
  }
  return all;
}

/** A choice at the top: several values of a label, or all. */
function choice(name: string, label: string, query: string) {
  return {
    type: "query",
    name,
    label,
    datasource: DATASOURCE,
    query: { query, refId: name },
    refresh: 2, // with the time range, so that new beacons appear
    sort: 1,
    multi: true,
    includeAll: true,
    current: { text: "All", value: "$__all" },
  };
}

/** The dashboard as Grafana (10 or newer) imports it. */
export function dashboard() {
  return {
    uid: "pilot-beacon",
    title: "Pilot Protocol beacons",
    tags: ["pilot-beacon"],
    schemaVersion: 38,
    editable: true,
    refresh: "30s",
    time: { from: "now-3h", to: "now" },
    templating: {
      list: [
        { type: "datasource", name: "datasource", label: "Data source", query: "prometheus" },
        choice("job", "Job", "label_values(beacon_build_info, job)"),
        choice("instance", "Beacon", 'label_values(beacon_build_info{job=~"$job"}, instance)'),
      ],
    },
    panels: panels(),
  };
}

/** The file's text. */
export const dashboardText = (): string => `${JSON.stringify(dashboard(), undefined, 2)}\n`;

if (import.meta.main) await Bun.write(`${import.meta.dir}/beacon.json`, dashboardText());
