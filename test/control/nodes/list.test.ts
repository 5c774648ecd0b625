import { beforeEach, describe, expect, test } from "bun:test";
import { endpointOf } from "../../../ffi/endpoint.ts";
import { nodeIdOf, nodeQueryOf } from "../../../src/control/admin/node-answers.ts";
import { prefixOf } from "../../../src/control/limits/limits.ts";
import {
  NodeList,
  type NodePage,
  type NodeQuery,
  WAITING_PAGES_MAX,
} from "../../../src/control/nodes/list.ts";
import { scanNodes } from "../../../src/control/nodes/scan.ts";
import { nodeHash, shardOfHash } from "../../../src/shared/hash.ts";
import {
  CLOCK_S,
  HASH_SECRET,
  MAIN_THREAD_LOCK,
  SharedMemory,
} from "../../../src/shared/memory.ts";
import { NodeTableOwner } from "../../../src/shared/nodes-owner.ts";
import { WANTS_DEST } from "../../../src/shared/slots.ts";

const SECRET = 0x5ec2_e701;
const NOW_S = 1000;
const HOME = endpointOf("192.0.2.1", 9001);

let memory: SharedMemory;
let nodes: NodeTableOwner;
/** Called between slices. */
let pause: () => Promise<unknown>;
let list: NodeList;

function table(nodesMax: number): void {
  memory = new SharedMemory({ workers: 2, nodesMax, routesMax: 100 });
  memory.words[HASH_SECRET] = SECRET;
  memory.words[CLOCK_S] = NOW_S;
  nodes = new NodeTableOwner(memory, MAIN_THREAD_LOCK);
  pause = () => Promise.resolve();
  list = new NodeList(memory, nodes, () => () => pause());
}
beforeEach(() => table(1000));

function add(id: number, { at = HOME, ageS = 0, flags = 0 } = {}): void {
  nodes.record(id, at, 0, flags, NOW_S - ageS);
}

async function page(query: Partial<NodeQuery> = {}): Promise<NodePage> {
  const made = await list.page({ limit: 100, after: 0, ...query });
  if (made === undefined) throw new Error("no page");
  return made;
}

const ids = ({ nodes }: NodePage) => nodes.map(({ id }) => id);

/** All pages, one after the other. @param between is called after each */
async function walk(
  query: Partial<NodeQuery>,
  between: () => void = () => {},
): Promise<NodePage[]> {
  const pages: NodePage[] = [];
  for (let after: number | null = 0; after !== null; after = pages.at(-1)!.next) {
    pages.push(await page({ ...query, after }));
    between();
  }
  return pages;
}

describe("a page", () => {
  test("of an empty table is empty and the last", async () => {
    expect(await page()).toEqual({ matching: 0, next: null, nodes: [] });
  });

  test("shows a node by UDP, one by WebSocket that was never heard, and one of both", async () => {
    add(3, { ageS: 12, flags: WANTS_DEST });
    nodes.bridge(5, NOW_S - 4);
    add(7, { at: endpointOf("2001:db8::7", 70), ageS: -1 });
    nodes.bridge(7, NOW_S);
    const shard = (id: number) => shardOfHash(nodeHash(id, SECRET), 2);
    const plain = { bridged: false, wantsDest: false };
    expect((await page()).nodes).toEqual([
      {
        id: 3,
        endpoint: "192.0.2.1:9001",
        ageS: 12,
        bridged: false,
        wantsDest: true,
        shard: shard(3),
      },
      { id: 5, endpoint: null, ageS: 4, ...plain, bridged: true, shard: shard(5) },
      { id: 7, endpoint: "[2001:db8::7]:70", ageS: 0, ...plain, bridged: true, shard: shard(7) },
    ]);
  });

  test("has the lowest ids behind `after`, unsigned, and the next page's `after` unless it is the last", async () => {
    for (const id of [2 ** 32 - 1, 5, 2 ** 31, 1, 3]) add(id);
    const first = await page({ limit: 2 });
    expect([ids(first), first.next, first.matching]).toEqual([[1, 3], 3, 5]);
    const second = await page({ limit: 2, after: 3 });
    expect([ids(second), second.next, second.matching]).toEqual([[5, 2 ** 31], 2 ** 31, 5]);
    const last = await page({ limit: 2, after: 2 ** 31 });
    expect([ids(last), last.next]).toEqual([[2 ** 32 - 1], null]);
    expect((await page({ limit: 3, after: 3 })).next).toBeNull();
  });

  test("and the count hold what passes all filters", async () => {
    add(1, { ageS: 10 });
    add(2, { at: endpointOf("198.51.100.9", 1), ageS: 20 });
    add(3, { at: endpointOf("2001:db8:1::1", 1), ageS: 30 });
    nodes.bridge(4, NOW_S - 40);
    const found = async (query: Partial<NodeQuery>) => {
      const made = await page({ ...query, limit: 1 });
      return [made.matching, ...ids(await page(query))];
    };
    expect(await found({ prefix: prefixOf("192.0.2.0/24") })).toEqual([1, 1]);
    expect(await found({ prefix: prefixOf("198.51.100.9") })).toEqual([1, 2]);
    expect(await found({ prefix: prefixOf("2001:db8::/32") })).toEqual([1, 3]);
    expect(await found({ prefix: prefixOf("0.0.0.0/0") })).toEqual([2, 1, 2]);
    expect(await found({ minAgeS: 20 })).toEqual([3, 2, 3, 4]);
    expect(await found({ maxAgeS: 20 })).toEqual([2, 1, 2]);
    expect(await found({ bridged: true })).toEqual([1, 4]);
    expect(await found({ bridged: false, minAgeS: 20, maxAgeS: 20 })).toEqual([1, 2]);
  });
});

test("pages of 20,000 nodes hold each node that stays exactly once, while others go between slices and pages", async () => {
  const NODES = 20_000;
  table(NODES);
  const id = (i: number) => Math.imul(i, 0x9e37_79b1) >>> 0;
  for (let i = 1; i <= NODES; i++) add(id(i));
  const still = await page({ limit: 1 });
  expect(still.matching).toBe(NODES);

  const gone = new Set<number>();
  const removeSome = () => {
    for (let i = 0; i < 20 && gone.size < NODES / 2; i++) {
      const going = id(1 + 2 * gone.size);
      expect(nodes.remove(going)).toBe(1);
      gone.add(going);
    }
  };
  pause = async () => removeSome();
  const pages = await walk({ limit: 3000 }, removeSome);
  const listed = pages.flatMap(ids);
  expect(gone.size).toBeGreaterThan(NODES / 4);
  expect(listed).toEqual([...listed].sort((a, b) => a - b));
  expect(new Set(listed).size).toBe(listed.length);
  const seen = new Set(listed);
  for (let i = 1; i <= NODES; i++) if (!gone.has(id(i))) expect(seen.has(id(i))).toBe(true);
  // Nobody is counted twice, however often removals moved him while he was.
  for (const { matching } of pages) expect(matching).toBeLessThanOrEqual(NODES);
});

test("a node that a removal moves under the scan is counted once", async () => {
  const NODES = 8192;
  table(NODES);
  for (let i = 1; i <= NODES; i++) add(i);
  /** Who is met in each slice. */
  const slices: number[][] = [[]];
  await scanNodes(nodes, (id) => slices.at(-1)!.push(id), { pause: async () => slices.push([]) });
  // Removed are those that would be met next: who stands before them, and was met, moves to where
  // the scan is about to look.
  let slice = 0;
  let removed = 0;
  pause = async () => {
    for (const id of (slices[++slice] ?? []).slice(0, 50)) removed += nodes.remove(id);
  };
  const { matching } = await page({ limit: 1 });
  expect(removed).toBeGreaterThan(200);
  expect(matching).toBe(NODES - removed);
});

test("one page is made at a time; eight wait, more are turned away; who gives up makes room", async () => {
  add(1);
  const { promise: go, resolve } = Promise.withResolvers<void>();
  pause = () => go;
  const leaving = new AbortController();
  const first = list.page({ limit: 1, after: 0 }, leaving.signal);
  const waiting = Array.from({ length: WAITING_PAGES_MAX }, () => page());
  expect(await list.page({ limit: 1, after: 0 })).toBeUndefined();
  leaving.abort();
  resolve();
  expect(await first).toBeUndefined();
  for (const made of await Promise.all(waiting)) expect(ids(made)).toEqual([1]);
  expect(ids(await page())).toEqual([1]);
});

describe("what is asked for", () => {
  const read = (text: string) => nodeQueryOf(new URLSearchParams(text));

  test("is read from the parameters, with defaults", () => {
    expect(read("")).toEqual({ limit: 100, after: 0, minAgeS: undefined, maxAgeS: undefined });
    expect(
      read("limit=10000&after=4294967295&prefix=10.0.0.0/8&min-age=1&max-age=2&bridged=false"),
    ).toEqual({
      limit: 10_000,
      after: 2 ** 32 - 1,
      prefix: prefixOf("10.0.0.0/8"),
      minAgeS: 1,
      maxAgeS: 2,
      bridged: false,
    });
  });

  test.each([
    ["limit=0", "limit: must be a whole number from 1 to 10000"],
    ["limit=10001", "limit: must be a whole number from 1 to 10000"],
    ["limit=", "limit: must be a whole number from 1 to 10000"],
    ["after=-1", "after: must be a whole number from 0 to 4294967295"],
    ["after=4294967296", "after: must be a whole number from 0 to 4294967295"],
    ["min-age=1.5", "min-age: must be a whole number"],
    ["bridged=yes", "bridged: must be true or false"],
    ["prefix=10.0.0.1/8", "prefix: has bits set behind the prefix; use 10.0.0.0/8"],
    ["prefix=nonsense", "prefix: must be an IP address"],
    ["limit=1&limit=2", "each parameter may be given once"],
    ["page=2", "no such parameter: there are limit, after, prefix, min-age, max-age, bridged"],
  ])("%s is refused", (text, reason) => {
    expect(read(text)).toStartWith(reason);
  });

  test("a node id is a whole number from 1 to 2^32 - 1", () => {
    expect(["1", "4294967295", "007"].map(nodeIdOf)).toEqual([1, 2 ** 32 - 1, 7]);
    for (const written of [undefined, "", "0", "4294967296", "-1", "1e3", "0x1", "99999999999"])
      expect(nodeIdOf(written)).toBeUndefined();
  });
});
