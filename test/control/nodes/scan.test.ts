import { afterEach, describe, expect, test } from "bun:test";
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import fc from "fast-check";
import { ENDPOINT_PORT_MASK, ENDPOINT_WORDS, endpointOf } from "../../../ffi/endpoint.ts";
import { ENTRY_SEEN_S, SLOTS_PER_SLICE, scanNodes } from "../../../src/control/nodes/scan.ts";
import { nodeHash, shardOfHash, slotOfHash } from "../../../src/shared/hash.ts";
import {
  HASH_SECRET,
  MAIN_THREAD_LOCK,
  SharedMemory,
  workerLock,
} from "../../../src/shared/memory.ts";
import { ADDED } from "../../../src/shared/nodes.ts";
import { NodeTableOwner } from "../../../src/shared/nodes-owner.ts";
import { PROBES_MAX } from "../../../src/shared/open-addressing.ts";
import { IS_BRIDGED, SLOT_WORDS, WANTS_DEST } from "../../../src/shared/slots.ts";
import { TEST_TIMEOUT_MS } from "../../e2e/support/wait.ts";
import { derive, isWhole, type NodeWorkerData, ROUNDS } from "../../support/node-worker.ts";

const SECRET = 0x5ec2_e701;
const HOME = endpointOf("192.0.2.1", 9001);

function table(workers: number, nodesMax: number): { memory: SharedMemory; nodes: NodeTableOwner } {
  const memory = new SharedMemory({ workers, nodesMax, routesMax: 100 });
  memory.words[HASH_SECRET] = SECRET;
  return { memory, nodes: new NodeTableOwner(memory, MAIN_THREAD_LOCK) };
}

const noPause = () => Promise.resolve();

/** What a scan came to: how often to each id. */
async function visits(
  nodes: NodeTableOwner,
  pause: () => Promise<unknown> = noPause,
): Promise<Map<number, number>> {
  const seen = new Map<number, number>();
  await scanNodes(nodes, (id) => seen.set(id, (seen.get(id) ?? 0) + 1), { pause });
  return seen;
}

describe("a table that holds still", () => {
  test("an empty one has no nodes", async () => {
    const { nodes } = table(2, 10);
    expect([...(await visits(nodes))]).toEqual([]);
  });

  test("each node comes with its id, endpoint, flags and second, in every shard", async () => {
    const { nodes } = table(3, 1000);
    const scratch = new Int32Array(ENDPOINT_WORDS);
    for (let i = 0; i < 1000; i++) {
      const id = Math.imul(i + 1, 0x9e37_79b1);
      derive(id, scratch);
      expect(nodes.record(id, scratch, 0, i % 2 === 0 ? WANTS_DEST : 0, i - 500)).toBe(ADDED);
    }
    const found = new Map<number, number>();
    const isWholeScan = await scanNodes(nodes, (id, entry) => {
      expect(entry.length).toBe(ENDPOINT_WORDS + 1);
      const seenS = entry[ENTRY_SEEN_S]!;
      expect(id).toBe(Math.imul(seenS + 501, 0x9e37_79b1));
      expect(entry[0]! & ~ENDPOINT_PORT_MASK).toBe(seenS % 2 === 0 ? WANTS_DEST : 0);
      derive(id, scratch);
      expect([...entry.subarray(1, ENDPOINT_WORDS)]).toEqual([...scratch.subarray(1)]);
      expect(entry[0]! & ENDPOINT_PORT_MASK).toBe(scratch[0]!);
      found.set(id, seenS);
    });
    expect(isWholeScan).toBe(true);
    expect(found.size).toBe(1000);
  });

  test("nodes of the bridge come with their flag, with an endpoint and without", async () => {
    const { nodes } = table(2, 1000);
    const scratch = new Int32Array(ENDPOINT_WORDS);
    for (let id = 1; id <= 900; id++) {
      derive(id, scratch);
      if (id % 3 !== 0) nodes.record(id, scratch, 0, id & WANTS_DEST, id);
      if (id % 3 !== 1) nodes.bridge(id, 1000 + id);
    }
    const found = new Set<number>();
    await scanNodes(nodes, (id, entry) => {
      found.add(id);
      const isHeard = id % 3 !== 0;
      const flags = (id % 3 !== 1 ? IS_BRIDGED : 0) | (isHeard ? id & WANTS_DEST : 0);
      expect(entry[0]! & ~ENDPOINT_PORT_MASK).toBe(flags);
      expect(entry[ENTRY_SEEN_S]).toBe(isHeard ? id : 1000 + id);
      if (isHeard) derive(id, scratch);
      else scratch.fill(0);
      entry[0]! &= ENDPOINT_PORT_MASK;
      expect([...entry.subarray(0, ENDPOINT_WORDS)]).toEqual([...scratch]);
    });
    expect(found.size).toBe(900);
  });

  test("each node comes once, wherever it stands", async () => {
    const { nodes } = table(2, 4000);
    for (let id = 1; id <= 4000; id++) nodes.record(id, HOME, 0, 0, 1);
    const seen = await visits(nodes);
    expect(seen.size).toBe(4000);
    expect([...seen.values()].every((times) => times === 1)).toBe(true);
  });

  test("there is a pause between slices, and none before the first or after the last", async () => {
    const { nodes } = table(2, 8 * SLOTS_PER_SLICE);
    const slicesPerShard = Math.ceil((nodes.slotsPerShard + PROBES_MAX) / SLOTS_PER_SLICE);
    for (let id = 1; id <= 8 * SLOTS_PER_SLICE; id++) nodes.record(id, HOME, 0, 0, 1);
    let visitsInSlice = 0;
    const slices: number[] = [];
    const done = await scanNodes(nodes, () => visitsInSlice++, {
      pause: async () => {
        slices.push(visitsInSlice);
        visitsInSlice = 0;
      },
    });
    expect(done).toBe(true);
    expect(slices).toHaveLength(2 * slicesPerShard - 1);
    for (const visited of slices) expect(visited).toBeLessThanOrEqual(SLOTS_PER_SLICE);
    const visited = slices.reduce((sum, inSlice) => sum + inSlice, visitsInSlice);
    expect(visited).toBe(8 * SLOTS_PER_SLICE);
  });

  test("by default, timers run between slices as soon as some work was done", async () => {
    const { nodes } = table(1, 8 * SLOTS_PER_SLICE);
    for (let id = 1; id <= 8 * SLOTS_PER_SLICE; id++) nodes.record(id, HOME, 0, 0, 1);
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    let visited = 0;
    await scanNodes(nodes, () => {
      if (++visited % 1000 === 0) Bun.sleepSync(1); // more than a scan does without a rest
    });
    clearInterval(timer);
    expect(ticks).toBeGreaterThanOrEqual(4);
  });

  test("what a visitor throws ends the scan", async () => {
    const { nodes } = table(1, 10);
    nodes.record(7, HOME, 0, 0, 1);
    const scan = scanNodes(nodes, () => {
      throw new Error("enough");
    });
    await expect(scan).rejects.toThrow("enough");
  });
});

describe("a signal", () => {
  test("given before the start, nothing is visited", async () => {
    const { nodes } = table(1, 10);
    nodes.record(7, HOME, 0, 0, 1);
    let visited = 0;
    expect(await scanNodes(nodes, () => visited++, { signal: AbortSignal.abort() })).toBe(false);
    expect(visited).toBe(0);
  });

  test("given in a pause, nothing more is visited", async () => {
    const { nodes } = table(1, 8 * SLOTS_PER_SLICE);
    for (let id = 1; id <= 8 * SLOTS_PER_SLICE; id++) nodes.record(id, HOME, 0, 0, 1);
    const stop = new AbortController();
    let visited = 0;
    let visitedThen = 0;
    let pauses = 0;
    const pause = async () => {
      if (++pauses !== 2) return;
      visitedThen = visited;
      stop.abort();
    };
    expect(await scanNodes(nodes, () => visited++, { pause, signal: stop.signal })).toBe(false);
    expect(pauses).toBe(2);
    expect(visited).toBe(visitedThen);
    expect(visited).toBeGreaterThan(0);
  });
});

describe("removals between slices", () => {
  const NODES_MAX = 16 * SLOTS_PER_SLICE;
  const SHARDS = 2;
  const { memory: probe } = table(SHARDS, NODES_MAX * SHARDS);
  const slots = probe.slotsPerShard;

  /** Ids of `shard` whose search begins at one of `starts` slots, from slot `first` on. */
  function idsStartingAt(shard: number, first: number, starts: number, count: number): number[] {
    const ids: number[] = [];
    for (let id = 1; ids.length < count; id++) {
      const hash = nodeHash(id, SECRET);
      if (shardOfHash(hash, SHARDS) !== shard) continue;
      if ((slotOfHash(hash, slots) - first + slots) % slots < starts) ids.push(id);
    }
    return ids;
  }

  // Long chains: over the end of each shard, and over each place where one slice ends and the next
  // begins.
  const ids = [0, 1].flatMap((shard) => [
    ...idsStartingAt(shard, slots - 12, 8, 400),
    ...[1, 2, 3].flatMap((slice) => idsStartingAt(shard, slice * SLOTS_PER_SLICE - 30, 40, 60)),
  ]);

  const indexOf = (memory: SharedMemory, nodes: NodeTableOwner, id: number): number =>
    ((nodes.find(id) - memory.slotsAt) / SLOT_WORDS) % slots;

  function filled() {
    const { memory, nodes } = table(SHARDS, NODES_MAX * SHARDS);
    for (const id of ids) expect(nodes.record(id, HOME, 0, 0, 2)).toBe(ADDED);
    return { memory, nodes };
  }

  /** Removes these nodes as the reaper does, in one sweep over a range of slots. */
  function remove(nodes: NodeTableOwner, victims: Iterable<number>): void {
    for (const id of victims) nodes.record(id, HOME, 0, 0, 0);
    for (let shard = 0; shard < SHARDS; shard++) nodes.expire(shard, 0, slots, 1);
    for (const id of victims) expect(nodes.find(id)).toBe(-1);
  }

  test("a node that moves from the first slots on to the last is not missed", async () => {
    for (let before = 1; before < 2 * Math.ceil((slots + PROBES_MAX) / SLOTS_PER_SLICE); before++) {
      const { memory, nodes } = filled();
      const first = ids.filter((id) => indexOf(memory, nodes, id) < PROBES_MAX);
      const victims = ids.filter((id) => indexOf(memory, nodes, id) >= slots - 8);
      let pauses = 0;
      const moved: number[] = [];
      const seen = await visits(nodes, async () => {
        if (++pauses !== before) return;
        remove(nodes, victims);
        moved.push(...first.filter((id) => indexOf(memory, nodes, id) >= slots - PROBES_MAX));
      });
      expect(moved.length).toBeGreaterThan(5); // else this would be no test
      const left = ids.filter((id) => nodes.find(id) >= 0);
      expect(left.filter((id) => !seen.has(id))).toEqual([]);
    }
  });

  test("no node that stays is missed when others leave the bridge, or stay there", async () => {
    for (let before = 1; before < 2 * Math.ceil((slots + PROBES_MAX) / SLOTS_PER_SLICE); before++) {
      const { memory, nodes } = table(SHARDS, NODES_MAX * SHARDS);
      for (const [i, id] of ids.entries()) {
        if (i % 2 === 0) expect(nodes.bridge(id, 2)).toBe(ADDED);
        else expect(nodes.record(id, HOME, 0, 0, 2)).toBe(ADDED);
      }
      const bridged = ids.filter((_, i) => i % 2 === 0);
      let pauses = 0;
      let moved = 0;
      const left = new Set<number>();
      const seen = await visits(nodes, async () => {
        if (++pauses !== before) return;
        const slotsBefore = ids.map((id) => indexOf(memory, nodes, id));
        for (const [i, id] of bridged.entries()) {
          if (i % 2 !== 0) continue;
          expect(nodes.unbridge(id)).toBe(true);
          left.add(id);
        }
        moved = ids.filter(
          (id, i) => !left.has(id) && indexOf(memory, nodes, id) !== slotsBefore[i],
        ).length;
      });
      expect(moved).toBeGreaterThan(50); // else this would be no test
      expect(left.size).toBe(Math.ceil(bridged.length / 2));
      expect(ids.filter((id) => !left.has(id) && !seen.has(id))).toEqual([]);
    }
  });

  test("no node that stays is missed, whatever is removed and added when", async () => {
    const step = fc.record({
      removed: fc.uniqueArray(fc.constantFrom(...ids), { maxLength: 200 }),
      addsAgain: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 9 }), async (steps) => {
        const { nodes } = filled();
        const removed = new Set<number>();
        let pauses = 0;
        const seen = await visits(nodes, async () => {
          const now = steps[pauses++];
          if (!now) return;
          const victims = now.removed.filter((id) => nodes.find(id) >= 0);
          remove(nodes, victims);
          for (const id of victims) removed.add(id);
          if (now.addsAgain) for (const id of victims) nodes.record(id, HOME, 0, 0, 2);
        });
        const stayed = ids.filter((id) => !removed.has(id));
        expect(stayed.filter((id) => !seen.has(id))).toEqual([]);
        expect([...seen.keys()].filter((id) => !ids.includes(id))).toEqual([]);
      }),
      { numRuns: 60 },
    );
  });

  test("who is visited again is not older then", async () => {
    const { nodes } = filled();
    const seenS = new Map<number, number>();
    let again = 0;
    let nowS = 10;
    await scanNodes(
      nodes,
      (id, entry) => {
        if (seenS.has(id)) {
          again++;
          expect(entry[ENTRY_SEEN_S]).toBeGreaterThan(seenS.get(id)!);
        }
        seenS.set(id, entry[ENTRY_SEEN_S]!);
      },
      {
        pause: async () => {
          nowS++;
          const left = ids.filter((id) => nodes.find(id) >= 0);
          for (const id of left) nodes.record(id, HOME, 0, 0, nowS);
          remove(nodes, left.slice(0, 5)); // others move up
        },
      },
    );
    expect(again).toBeGreaterThan(0);
  });
});

describe("beside worker threads", () => {
  const threads: Worker[] = [];
  afterEach(async () => {
    await Promise.all(threads.splice(0).map((thread) => thread.terminate()));
  });

  test(
    "that move and add nodes, every scan is whole, and so is every entry",
    async () => {
      const STAYING = 20;
      const { memory, nodes } = table(2, 3000);
      const endpoint = new Int32Array(ENDPOINT_WORDS);
      for (let id = 1; id <= STAYING; id++) {
        derive(id, endpoint);
        nodes.record(id, endpoint, 0, 0, 1);
      }
      const rounds = [0, 1].map((worker) => {
        const words = new SharedArrayBuffer(8);
        const workerData: NodeWorkerData = {
          shape: memory.shape,
          buffer: memory.buffer,
          holder: workerLock(worker),
          task: "spin",
          nodes: STAYING,
          firstId: 10_000 + worker * 1_000_000,
          operations: 0,
          seed: worker + 1,
          words,
        };
        const thread = new Worker(new URL("../../support/node-worker.ts", import.meta.url), {
          workerData,
        });
        threads.push(thread);
        return { thread, words: new Int32Array(words) };
      });
      await Promise.all(rounds.map(({ thread }) => once(thread, "online")));
      const roundsDone = () => rounds.map(({ words }) => Atomics.load(words, ROUNDS));
      while (roundsDone().some((done) => done === 0)) await Bun.sleep(1);
      const before = roundsDone();
      const scratch = new Int32Array(ENDPOINT_WORDS);
      let visited = 0;
      for (let scan = 0; scan < 100; scan++) {
        const missing = new Set(Array.from({ length: STAYING }, (_, i) => i + 1));
        await scanNodes(
          nodes,
          (id, entry) => {
            visited++;
            missing.delete(id);
            if (!isWhole(entry.subarray(0, ENDPOINT_WORDS), scratch))
              throw new Error(`node ${id} is torn`);
          },
          {
            pause: async () => {
              // Nodes that the workers add are of second 0.
              for (let shard = 0; shard < nodes.shards; shard++)
                nodes.expire(shard, 0, nodes.slotsPerShard, 1);
              await Bun.sleep(0);
            },
          },
        );
        expect([...missing]).toEqual([]);
      }
      expect(visited).toBeGreaterThan(100 * STAYING);
      for (const [i, done] of roundsDone().entries()) expect(done).toBeGreaterThan(before[i]!);
    },
    // A scan waits for a lock whose holder is off its core, again and again on a busy machine.
    TEST_TIMEOUT_MS,
  );
});
