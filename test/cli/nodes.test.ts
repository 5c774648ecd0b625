/** Who is there, page by page; and one of them in words. */
import { afterEach, expect, test } from "bun:test";
import { run } from "../../src/cli/main.ts";
import { TestConsole } from "./support/console.ts";
import { FakeApi } from "./support/fake.ts";

let fake: FakeApi;
afterEach(() => fake?.stop());

/** Runs a command against what answers so. */
async function ran(answer: ConstructorParameters<typeof FakeApi>[0], ...args: string[]) {
  fake = new FakeApi(answer);
  const out = new TestConsole({ BEACON_HTTP: fake.url.host });
  return {
    code: await run(args, out),
    out,
    asked: fake.asked.map(({ method, path }) => `${method} ${path}`),
  };
}

const node = (id: number) => ({
  id,
  endpoint: `192.0.2.7:${id}`,
  ageS: 12,
  bridged: id === 2,
  wantsDest: false,
  shard: 1,
});

/** Five nodes, two a page at most. */
function pages({ path }: { path: string }): Response {
  const query = new URL(path, "http://x").searchParams;
  const after = Number(query.get("after") ?? 0);
  const left = [1, 2, 3, 4, 5].filter((id) => id > after);
  const ids = left.slice(0, Math.min(2, Number(query.get("limit"))));
  const next = left.length > ids.length ? ids.at(-1)! : null;
  return Response.json({ matching: 5, next, nodes: ids.map(node) });
}

test("all, through every page", async () => {
  const { code, out, asked } = await ran(pages, "nodes", "--all");
  expect(code).toBe(0);
  expect(asked).toEqual([
    "GET /api/nodes?limit=10000",
    "GET /api/nodes?limit=10000&after=2",
    "GET /api/nodes?limit=10000&after=4",
  ]);
  expect(out.lines.map((line) => line.trim().split(/\s{2,}/))).toEqual([
    ["id", "endpoint", "heard"],
    ["1", "192.0.2.7:1", "12s ago"],
    ["2", "192.0.2.7:2", "12s ago", "by WebSocket"],
    ["3", "192.0.2.7:3", "12s ago"],
    ["4", "192.0.2.7:4", "12s ago"],
    ["5", "192.0.2.7:5", "12s ago"],
    ["5 of 5 nodes"],
  ]);
});

test("no more than were asked for, those that were asked for, one a line with --json", async () => {
  const args = [
    "--limit",
    "3",
    "--prefix=192.0.2.0/24",
    "--min-age=1",
    "--max-age",
    "60",
    "--bridged",
    "--json",
  ];
  const { out, asked } = await ran(pages, "nodes", ...args);
  const filters = "prefix=192.0.2.0%2F24&min-age=1&max-age=60&bridged=true";
  expect(asked).toEqual([
    `GET /api/nodes?${filters}&limit=3`,
    `GET /api/nodes?${filters}&limit=1&after=2`,
  ]);
  expect(out.values).toEqual([node(1), node(2), node(3)]);
});

test("who answers with the same page for ever is not asked for ever", async () => {
  const { asked } = await ran(
    () => Response.json({ matching: 5, next: 1, nodes: [node(1)] }),
    "nodes",
    "--all",
  );
  expect(asked).toHaveLength(2);
});

test("what is no page is not understood", async () => {
  const { code, out } = await ran(() => Response.json({ nodes: [{ id: "1" }] }), "nodes");
  expect(code).toBe(3);
  expect(out.problems).toEqual([expect.stringContaining("not understood (matching)")]);
});

const EXPLAINED = {
  id: 42,
  where: "local",
  endpoint: "192.0.2.7:4000",
  localAddress: "203.0.113.5",
  ageS: 12,
  wantsDest: true,
  hasKey: false,
  shard: 1,
  shards: 4,
  peer: null,
  limits: [{ limit: "relay", perSecond: 4000, used: 0.25 }],
  drops: [{ ageS: 3, reason: "not_found", from: 0, to: 42, count: 12 }],
  next: { outcome: "delivered", why: "it is sent to 192.0.2.7:4000\x1b[2J" },
};

test("one node, in words", async () => {
  const { code, out } = await ran(() => Response.json(EXPLAINED), "explain", "42");
  expect(code).toBe(0);
  expect(out.lines).toEqual([
    "node 42: known here",
    "endpoint  192.0.2.7:4000",
    "sent from 203.0.113.5",
    "heard     12s ago",
    "shard     1 of 4",
    "wants     RelayDeliverDest (it registered with DiscoverEx)",
    "next      a relay to it would be delivered: it is sent to 192.0.2.7:4000?[2J",
    "what its endpoint has used of its limits:",
    "  limit  a second  used",
    "  relay     4,000   25%",
    "the last drops that it was part of:",
    "  reason     from  to  packets  ago",
    "  not_found     -  42       12   3s",
  ]);
});

test("one that another beacon has; one that nobody has", async () => {
  const peer = {
    id: 42,
    where: "peer",
    peer: { address: "192.0.2.9:9001", gossipAgeS: 4 },
    next: { outcome: "forwarded", why: "x" },
  };
  const there = await ran(() => Response.json(peer), "explain", "42");
  expect(there.code).toBe(0);
  expect(there.out.lines).toContain("beacon    192.0.2.9:9001, heard 4s ago");
  expect(there.out.lines.some((line) => line.startsWith("claim"))).toBe(false);
  await fake.stop();
  const told = { ...peer, peer: { ...peer.peer, claimAgeS: 75 } };
  const inDirectory = await ran(() => Response.json(told), "explain", "42");
  expect(inDirectory.out.lines).toContain(
    "claim     by the directory, that beacon heard the node 1m 15s ago",
  );
  await fake.stop();
  const unknown = { id: 42, where: "unknown", next: { outcome: "dropped", why: "nobody has it" } };
  const nobody = await ran(() => Response.json(unknown), "explain", "42", "--json");
  expect(nobody.code).toBe(1);
  expect(nobody.out.values).toEqual([unknown]);
});
