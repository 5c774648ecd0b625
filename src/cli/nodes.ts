/** `beacon nodes` and `beacon explain`: who is there, and how one of them fares. */
import * as v from "valibot";
import type { Api } from "./api.ts";
import { type Console, EXIT_NO, EXIT_OK } from "./console.ts";
import { checked } from "./reading.ts";
import { duration, percent, table, whole } from "./text.ts";

/** Nodes that a page holds at most, as the API has it. */
const PAGE_MAX = 10_000;

const nodeSchema = v.object({
  id: v.number(),
  endpoint: v.nullable(v.string()),
  ageS: v.number(),
  bridged: v.boolean(),
  wantsDest: v.boolean(),
  shard: v.number(),
});
type NodeRow = v.InferOutput<typeof nodeSchema>;

const pageSchema = v.object({
  matching: v.number(),
  next: v.nullable(v.number()),
  nodes: v.pipe(v.array(nodeSchema), v.maxLength(PAGE_MAX)),
});

const count = v.nullish(v.number());
const explanationSchema = v.object({
  id: v.number(),
  where: v.string(),
  endpoint: v.nullish(v.string()),
  localAddress: v.nullish(v.string()),
  ageS: count,
  wantsDest: v.nullish(v.boolean()),
  hasKey: v.nullish(v.boolean()),
  shard: count,
  shards: count,
  peer: v.nullish(v.object({ address: v.string(), gossipAgeS: count, claimAgeS: count })),
  limits: v.nullish(
    v.array(v.object({ limit: v.string(), perSecond: v.nullable(v.number()), used: v.number() })),
  ),
  drops: v.nullish(
    v.array(
      v.object({
        ageS: v.number(),
        reason: v.string(),
        from: v.number(),
        to: v.number(),
        count: v.number(),
      }),
    ),
  ),
  next: v.object({ outcome: v.string(), why: v.string() }),
});
type Explanation = v.InferOutput<typeof explanationSchema>;

export interface NodesOptions {
  /** An address or a prefix, as the API has it. */
  readonly prefix?: string;
  /** Seconds. */
  readonly minAge?: number;
  readonly maxAge?: number;
  readonly bridged?: true;
  /** Most nodes to show; Infinity for all. */
  readonly limit: number;
  readonly json?: true;
}

/** Prints nodes page by page, as they come. With JSON, a node a line. @throws ApiError */
export async function nodes(
  api: Api,
  { limit, json, ...filters }: NodesOptions,
  out: Console,
): Promise<number> {
  const query = new URLSearchParams();
  if (filters.prefix !== undefined) query.set("prefix", filters.prefix);
  if (filters.minAge !== undefined) query.set("min-age", String(filters.minAge));
  if (filters.maxAge !== undefined) query.set("max-age", String(filters.maxAge));
  if (filters.bridged) query.set("bridged", "true");
  let shown = 0;
  for (;;) {
    query.set("limit", String(Math.min(limit - shown, PAGE_MAX)));
    const page = checked(pageSchema, await api.get(`api/nodes?${query}`), api.url);
    if (json) for (const node of page.nodes) out.json(node);
    else for (const line of nodeLines(page.nodes, shown === 0)) out.line(line);
    shown += page.nodes.length;
    // A page ends behind the one before, or whoever answers would be asked for ever.
    const after = Number(query.get("after") ?? -1);
    if (page.next === null || page.next <= after || shown >= limit) {
      if (!json) out.line(`${whole(shown)} of ${whole(page.matching)} nodes`);
      return EXIT_OK;
    }
    query.set("after", String(page.next));
  }
}

/** @returns EXIT_NO if the next relay to the node would be dropped @throws ApiError */
export async function explain(
  api: Api,
  id: number,
  asJson: boolean,
  out: Console,
): Promise<number> {
  const answer = await api.get(`api/nodes/${id}`);
  const explanation = checked(explanationSchema, answer, api.url);
  if (asJson) out.json(answer);
  else for (const line of explanationLines(explanation)) out.line(line);
  return explanation.next.outcome === "dropped" ? EXIT_NO : EXIT_OK;
}

/** Of fixed widths, so that one page stands below the other. */
function nodeLines(rows: readonly NodeRow[], withHead: boolean): string[] {
  const line = (id: string, endpoint: string, heard: string, rest: string) =>
    `${id.padStart(10)}  ${endpoint.padEnd(47)}  ${heard.padStart(10)}  ${rest}`.trimEnd();
  return [
    ...(withHead ? [line("id", "endpoint", "heard", "")] : []),
    ...rows.map(({ id, endpoint, ageS, bridged }) =>
      line(String(id), endpoint ?? "-", `${duration(ageS)} ago`, bridged ? "by WebSocket" : ""),
    ),
  ];
}

const PLACES: Readonly<Record<string, string>> = {
  local: "known here",
  bridged: "connected here by WebSocket",
  peer: "another beacon has it",
  unknown: "not known: it has not sent a Discover here, or was silent for too long (--node-ttl)",
};

export function explanationLines(node: Explanation): string[] {
  const row = (name: string, text: string) => `${name.padEnd(9)} ${text}`;
  const { endpoint, localAddress, ageS, shard, shards, peer } = node;
  const { limits, drops } = node;
  return [
    `node ${node.id}: ${PLACES[node.where] ?? node.where}`,
    ...(endpoint ? [row("endpoint", endpoint)] : []),
    ...(localAddress ? [row("sent from", localAddress)] : []),
    ...(typeof ageS === "number" ? [row("heard", `${duration(ageS)} ago`)] : []),
    ...(peer
      ? [
          row(
            "beacon",
            `${peer.address}, heard ${peer.gossipAgeS == null ? "never" : `${duration(peer.gossipAgeS)} ago`}`,
          ),
          ...(peer.claimAgeS == null
            ? []
            : [
                row(
                  "claim",
                  `by the directory, that beacon heard the node ${duration(peer.claimAgeS)} ago`,
                ),
              ]),
        ]
      : []),
    ...(typeof shard === "number"
      ? [row("shard", `${shard}${shards == null ? "" : ` of ${shards}`}`)]
      : []),
    ...(node.wantsDest ? [row("wants", "RelayDeliverDest (it registered with DiscoverEx)")] : []),
    ...(node.hasKey ? [row("key", "known, from its Discover")] : []),
    row("next", `a relay to it would be ${node.next.outcome}: ${node.next.why}`),
    ...(limits && limits.length > 0
      ? [
          "what its endpoint has used of its limits:",
          ...table(
            ["  limit", "a second", "used"],
            limits.map(({ limit, perSecond, used }) => [
              `  ${limit}`,
              perSecond === null ? "none" : whole(perSecond),
              percent(used),
            ]),
            [0],
          ),
        ]
      : []),
    ...(drops && drops.length > 0
      ? [
          "the last drops that it was part of:",
          ...table(
            ["  reason", "from", "to", "packets", "ago"],
            drops.map(({ ageS, reason, from, to, count }) => [
              `  ${reason}`,
              from === 0 ? "-" : String(from),
              String(to),
              whole(count),
              duration(ageS),
            ]),
            [0],
          ),
        ]
      : []),
  ];
}
