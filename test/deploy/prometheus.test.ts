/**
 * The alert rules and the dashboard: sound by promtool's judgement, and about numbers that a beacon
 * really has.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { dashboard, dashboardText } from "../../deploy/grafana/dashboard.ts";
import { Beacon } from "../../src/beacon.ts";
import { createMetrics } from "../../src/control/admin/metrics.ts";
import { metrics as declared } from "../../src/features.ts";
import { directoryStats } from "../cli/support/stats.ts";
import { Client } from "../e2e/support/client.ts";
import { nameOf } from "../e2e/support/mesh.ts";
import { installed, ROOT } from "../e2e/support/program.ts";
import { until } from "../e2e/support/wait.ts";
import { sync } from "../e2e/support/wire.ts";
import { temporaryFolder } from "../support/folder.ts";

/** What Prometheus itself adds to what it scrapes. */
const TARGET_METRICS = ["up"];
const TARGET_LABELS = ["job", "instance"];

const ALERTS = join(ROOT, "deploy/prometheus/alerts.yml");
const ALERTS_TEST = join(ROOT, "deploy/prometheus/alerts.test.yml");

interface Rule {
  readonly alert: string;
  readonly expr: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

const { groups } = Bun.YAML.parse(readFileSync(ALERTS, "utf8")) as {
  groups: readonly { readonly rules: readonly Rule[] }[];
};
const rules = groups.flatMap((group) => group.rules);

/** Each question that the dashboard asks, and the legend of its answers. */
const targets = (
  dashboard().panels as { targets?: readonly { expr: string; legendFormat: string }[] }[]
).flatMap((panel) => panel.targets ?? []);

interface Asked {
  readonly where: string;
  readonly query: string;
  /** Labels beside those in the query. */
  readonly shown: readonly string[];
}

const asked: readonly Asked[] = [
  ...rules.map(({ alert, expr, annotations }) => ({
    where: alert,
    query: expr,
    shown: [
      ...Object.values(annotations)
        .join()
        .matchAll(/\$labels\.(\w+)/g),
    ].map(([, label]) => label!),
  })),
  ...targets.map(({ expr, legendFormat }) => ({
    where: legendFormat,
    query: expr,
    shown: [...legendFormat.matchAll(/\{\{(\w+)\}\}/g)].map(([, label]) => label!),
  })),
];

/** The metrics of a query, each with what it asks of their labels. */
function selectors(
  query: string,
): { metric: string; matchers: { label: string; values: string[] }[] }[] {
  return [...query.matchAll(/\b(beacon_\w+|process_\w+|up)\b(?:\{([^}]*)\})?/g)].map(
    ([, metric, braces]) => ({
      metric: metric!,
      matchers: [...(braces ?? "").matchAll(/(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"/g)].map(
        ([, label, values]) => ({
          label: label!,
          values: values!.split("|"),
        }),
      ),
    }),
  );
}

/** The labels that a query names outside of braces. */
function groupings(query: string): string[] {
  const lists = query.matchAll(
    /\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)/g,
  );
  return [...lists]
    .flatMap(([, list]) => list!.split(",").map((label) => label.trim()))
    .filter(Boolean);
}

const folder = temporaryFolder();

function promtool(...args: string[]): { code: number; output: string } {
  const { exitCode, stdout, stderr } = Bun.spawnSync(["promtool", ...args], { stderr: "pipe" });
  return { code: exitCode, output: `${stdout}${stderr}` };
}

describe.skipIf(!installed("promtool"))(
  `promtool${installed("promtool") ? "" : " (needs promtool)"}`,
  () => {
    test("finds the alert rules sound", () => {
      expect(promtool("check", "rules", ALERTS)).toMatchObject({ code: 0 });
    });

    test("sees each alert go off when it should, and none when all is well", () => {
      const { code, output } = promtool("test", "rules", ALERTS_TEST);
      expect({ code, output }).toEqual({ code: 0, output: expect.stringContaining("SUCCESS") });
    });

    test("understands the dashboard's questions", () => {
      const file = join(folder, "dashboard.yml");
      const recorded = targets.map(({ expr }, i) => ({
        record: `dashboard:${i}`,
        expr: expr.replaceAll("$__rate_interval", "5m"),
      }));
      // JSON is YAML
      writeFileSync(file, JSON.stringify({ groups: [{ name: "dashboard", rules: recorded }] }));
      expect(promtool("check", "rules", file)).toMatchObject({ code: 0 });
    });
  },
);

describe("what is asked", () => {
  const metrics = new Map<string, Record<string, string>[]>();
  let beacon: Beacon;
  let peer: Client;

  beforeAll(async () => {
    peer = await Client.open("127.0.0.1", { address: "127.0.0.1", port: 0 });
    const local = { addr: "127.0.0.1:0", http: "127.0.0.1:0", wss: "127.0.0.1:0" };
    const options = { ...local, workers: 2, maxNodes: 1000, beaconId: 1, peers: [nameOf(peer)] };
    beacon = new Beacon(options, undefined, () => undefined);
    await beacon.listen();
    const { address, port } = beacon.address;
    await peer.send(sync(2, [5001]), { address, port });
    const own = await until("a peer's gossip", async () => {
      const scraped = await (await fetch(new URL("/metrics", beacon.httpUrl))).text();
      return scraped.includes("beacon_peer_gossip_age_seconds{") && scraped;
    });
    // A directory would take a server, and an internal error a mistake: their numbers, and what
    // they change of the mesh's, are made up.
    const { mesh, ...others } = beacon.stats();
    const peers = mesh.peers.map((one) => ({ ...one, isInDirectory: true }));
    const internalErrors = { "the directory": 1 };
    const withDirectory = {
      ...others,
      mesh: { ...mesh, peers },
      directory: directoryStats(),
      internalErrors,
    };
    const text = own + (await createMetrics(declared, () => withDirectory).metrics());
    for (const [, name] of text.matchAll(/^# TYPE (\S+) /gm)) metrics.set(name!, []);
    for (const [, name, braces = ""] of text.matchAll(/^(\w+)(?:\{(.*)\})? \S+$/gm)) {
      const labels = [...braces.matchAll(/(\w+)="([^"]*)"/g)].map(([, label, value]) => [
        label,
        value,
      ]);
      const family = metrics.get(name!) ?? metrics.get(name!.replace(/_(bucket|sum|count)$/, ""));
      family!.push(Object.fromEntries(labels));
    }
  });
  afterAll(async () => {
    await beacon.close();
    peer.close();
  });

  /** Samples of a metric, or of the histogram that it is a part of. */
  const samples = (metric: string) =>
    metrics.get(metric) ?? metrics.get(metric.replace(/_(bucket|sum|count)$/, ""));

  test("is about metrics that a beacon has", () => {
    const unknown = asked.flatMap(({ where, query }) =>
      selectors(query).flatMap(({ metric }) =>
        TARGET_METRICS.includes(metric) || samples(metric) ? [] : [`${where}: ${metric}`],
      ),
    );
    expect(unknown).toEqual([]);
    expect(asked.every(({ query }) => selectors(query).length > 0)).toBe(true);
  });

  test("names labels that they have", () => {
    const real = [...metrics.values()].flatMap((all) =>
      all.flatMap((labels) => Object.keys(labels)),
    );
    const known = new Set([...TARGET_LABELS, ...real]);
    const unknown = asked.flatMap(({ where, query, shown }) => {
      const matched = selectors(query).flatMap(({ matchers }) =>
        matchers.map(({ label }) => label),
      );
      const named = [...matched, ...groupings(query), ...shown];
      return named.filter((label) => !known.has(label)).map((label) => `${where}: ${label}`);
    });
    expect(unknown).toEqual([]);
  });

  test("and values of these that there are", () => {
    const unknown = asked.flatMap(({ where, query }) =>
      selectors(query).flatMap(({ metric, matchers }) =>
        matchers.flatMap(({ label, values }) => {
          const all = samples(metric) ?? [];
          if (TARGET_LABELS.includes(label) || all.length === 0) return [];
          const missing = values.filter((value) => !all.some((labels) => labels[label] === value));
          return missing.map((value) => `${where}: ${metric}{${label}="${value}"}`);
        }),
      ),
    );
    expect(unknown).toEqual([]);
  });
});

describe("each alert", () => {
  const tested = readFileSync(ALERTS_TEST, "utf8");
  const recipes = readFileSync(join(ROOT, "docs/OPERATIONS.md"), "utf8");

  test.each(rules.map((rule) => [rule.alert, rule] as const))(
    "%s is tested, and says how urgent it is and what to do",
    (name, rule) => {
      expect(tested).toMatch(new RegExp(`alertname(="|: )${name}\\b`));
      expect(["page", "ticket"]).toContain(rule.labels["severity"]!);
      expect(rule.annotations).toEqual({
        summary: expect.stringMatching(/\.$/),
        action: expect.stringMatching(/\.$/),
        runbook: `docs/OPERATIONS.md#${name.toLowerCase()}`,
      });
      expect(recipes).toContain(`\n### ${name}\n`);
    },
  );
});

test("the dashboard's file is what its source makes", () => {
  expect(readFileSync(join(ROOT, "deploy/grafana/beacon.json"), "utf8")).toBe(dashboardText());
});
