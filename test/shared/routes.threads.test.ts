import { expect, test } from "bun:test";
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { nodeHash, slotOfHash } from "../../src/shared/hash.ts";
import { HASH_SECRET, SharedMemory } from "../../src/shared/memory.ts";
import { NO_PEER } from "../../src/shared/routes.ts";
import { RouteTableOwner } from "../../src/shared/routes-owner.ts";
import {
  DONE,
  PEERS_OF_NODE,
  PRESENT,
  peerOfNode,
  type RouteWorkerData,
  type RouteWorkerResult,
  SERIAL,
} from "../support/route-worker.ts";

const SECRET = 0x1357_9bdf;
/**
 * Routes that come and go before one that lasts: as they go, it moves up; and routes that move up
 * behind it.
 */
const PASSING = 8;
const FOLLOWING = 3;
/** How often a route that lasts changes its peer each time that a passing one has gone. */
const CLAIMS = 2;
const LOOKUPS = 3_000_000;

test("a route that is there is found, and leads to one of its peers, while others come and go without pause", async () => {
  const memory = new SharedMemory({ workers: 1, nodesMax: 1, routesMax: 500 });
  memory.words[HASH_SECRET] = SECRET;
  const routes = new RouteTableOwner(memory);
  // All in one heap across the table's end, so that hardly any stands where its search begins.
  const ids: number[] = [];
  for (let id = 1; ids.length < 401; id++) {
    const start = slotOfHash(nodeHash(id, SECRET), memory.routeSlots);
    if (start < 4 || start >= memory.routeSlots - 4) ids.push(id);
  }
  const words = new SharedArrayBuffer(12);
  const shared = new Int32Array(words);
  const reader = new Worker(new URL("../support/route-worker.ts", import.meta.url), {
    workerData: {
      shape: memory.shape,
      buffer: memory.buffer,
      lookups: LOOKUPS,
      words,
      nodeIds: ids,
    } satisfies RouteWorkerData,
  });
  const result = once(reader, "message") as Promise<[RouteWorkerResult]>;
  await once(reader, "online");

  let next = 0;
  const take = () => ids[next++ % ids.length]!;
  const wrongs: string[] = [];
  const must = (holds: boolean, what: string) => {
    if (!holds) wrongs.push(what);
  };
  const claim = (id: number) =>
    must(routes.claim(id, peerOfNode(id, 0)) === NO_PEER, "a route was left behind");
  const withdraw = (id: number, which = 0) =>
    must(routes.withdraw(id, peerOfNode(id, which % PEERS_OF_NODE)), "a route was lost");
  // Not one await in here: this thread is busy for as long as the reader is.
  for (let serial = 1; Atomics.load(shared, DONE) === 0; serial++) {
    const passing = Array.from({ length: PASSING }, take);
    const lasting = take();
    const following = Array.from({ length: FOLLOWING }, take);
    const peer = (which: number) => peerOfNode(lasting, which % PEERS_OF_NODE);
    for (const id of [...passing, lasting, ...following]) claim(id);
    Atomics.store(shared, SERIAL, serial);
    Atomics.store(shared, PRESENT, lasting);
    let which = 0;
    for (const id of passing) {
      withdraw(id);
      for (let i = 0; i < CLAIMS; i++)
        must(routes.claim(lasting, peer(++which)) === peer(which - 1), "a claim was lost");
    }
    Atomics.store(shared, PRESENT, 0);
    withdraw(lasting, which);
    for (const id of following) withdraw(id);
  }

  const [{ done, missed, wrong }] = await result;
  expect(wrongs).toEqual([]);
  expect(routes.size).toBe(0);
  expect(done).toBeGreaterThanOrEqual(LOOKUPS);
  expect({ missed, wrong }).toEqual({ missed: 0, wrong: 0 });
}, 120_000);
