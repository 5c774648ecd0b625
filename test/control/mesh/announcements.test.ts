import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Announcements } from "../../../src/control/mesh/announcements.ts";
import {
  HASH_SECRET,
  LEARNED_PEERS_MAX,
  PEERS_MAX,
  SharedMemory,
} from "../../../src/shared/memory.ts";
import { NO_PEER } from "../../../src/shared/routes.ts";
import { RouteTableOwner } from "../../../src/shared/routes-owner.ts";

function table(routesMax: number): { routes: RouteTableOwner; announcements: Announcements } {
  const memory = new SharedMemory({ workers: 1, nodesMax: 1, routesMax });
  memory.words[HASH_SECRET] = 0x5ec2_e701;
  const routes = new RouteTableOwner(memory);
  return { routes, announcements: new Announcements(routes) };
}

const list = (...nodeIds: number[]): Int32Array => new Int32Array(nodeIds);
const range = (from: number, count: number): Int32Array =>
  Int32Array.from({ length: count }, (_, i) => from + i);
/** The most that a count of 16 bits says. */
const LIST_MAX = 65_535;

/** Calls `look` at every pause of what goes on, until `done` settles. @returns how often it did */
async function watch(done: Promise<unknown>, look: () => void): Promise<number> {
  let looks = 0;
  let isDone = false;
  void done.then(() => {
    isDone = true;
  });
  while (!isDone) {
    look();
    looks++;
    await Bun.sleep(0);
  }
  return looks;
}

describe("Announcements", () => {
  test("a peer's list is its routes; a new one replaces it; an empty one withdraws it", async () => {
    const { routes, announcements } = table(100);
    const found = () => [1, 2, 3, 4].map((id) => routes.find(id));
    await announcements.announce(5, list(1, 2, 3));
    expect(found()).toEqual([5, 5, 5, NO_PEER]);
    await announcements.announce(5, list(4, 2));
    expect(found()).toEqual([NO_PEER, 5, NO_PEER, 5]);
    expect(announcements.routes(5)).toBe(2);
    await announcements.announce(5, list());
    expect(found()).toEqual([NO_PEER, NO_PEER, NO_PEER, NO_PEER]);
    expect([routes.size, announcements.routes(5), announcements.refused]).toEqual([0, 0, 0]);
  });

  test("repetitions and id 0 count for nothing", async () => {
    const { routes, announcements } = table(3);
    await announcements.announce(0, list(0, 7, 7, 0, -1, 7, -1, 0, 8, 8));
    expect([routes.size, announcements.routes(0), announcements.refused]).toEqual([3, 3, 0]);
    expect([0, -1, 7, 8].map((id) => routes.find(id))).toEqual([NO_PEER, 0, 0, 0]);
    await announcements.announce(0, list(0, 0));
    expect([routes.size, announcements.routes(0)]).toEqual([0, 0]);
  });

  test("the last peer to announce a node has it, the one before can neither withdraw nor lose it twice", async () => {
    const { routes, announcements } = table(100);
    const [first, second] = [0, PEERS_MAX - 1];
    const counts = () => [announcements.routes(first), announcements.routes(second), routes.size];
    await announcements.announce(first, list(1, 2));
    await announcements.announce(second, list(2, 3));
    expect([1, 2, 3].map((id) => routes.find(id))).toEqual([first, second, second]);
    expect(counts()).toEqual([1, 2, 3]);
    await announcements.withdraw(first);
    expect([1, 2, 3].map((id) => routes.find(id))).toEqual([NO_PEER, second, second]);
    expect(counts()).toEqual([0, 2, 2]);
    // It announces both again, and takes back what it had.
    await announcements.announce(first, list(1, 2));
    expect(counts()).toEqual([2, 1, 3]);
    // What the other has lost it leaves alone as it goes.
    await announcements.withdraw(second);
    expect([1, 2, 3].map((id) => routes.find(id))).toEqual([first, first, NO_PEER]);
    expect(counts()).toEqual([2, 0, 2]);
  });

  test("two peers that announce the same node again and again have it by turns", async () => {
    const { routes, announcements } = table(100);
    for (let round = 0; round < 3; round++) {
      for (const peer of [3, 4]) {
        await announcements.announce(peer, list(1, 2));
        expect([routes.find(1), routes.find(2)]).toEqual([peer, peer]);
        expect([announcements.routes(peer), announcements.routes(7 - peer)]).toEqual([2, 0]);
      }
    }
  });

  test("a full table refuses, counted, until there is room; what a list gives up makes room for what it adds", async () => {
    const { routes, announcements } = table(4);
    await announcements.announce(0, list(1, 2));
    await announcements.announce(1, list(10, 11, 12, 13));
    expect([announcements.routes(1), announcements.refused]).toEqual([2, 2]);
    await announcements.announce(1, list(10, 11, 12, 13));
    expect([announcements.routes(1), announcements.refused]).toEqual([2, 4]);
    await announcements.announce(1, list(-4, 20, 11));
    expect([announcements.routes(1), announcements.refused]).toEqual([2, 5]);
    await announcements.announce(0, list(0x7fff_ffff));
    expect([routes.find(0x7fff_ffff), announcements.refused]).toEqual([0, 5]);
    await announcements.announce(1, list(-4, 20, 11));
    expect([routes.size, announcements.routes(1), announcements.refused]).toEqual([4, 3, 5]);
    // A full table still lets a node go over to another peer.
    await announcements.announce(0, list(-4));
    expect([routes.find(-4), announcements.routes(0), announcements.routes(1)]).toEqual([0, 1, 2]);
  });

  test("a list that says the same as the one before it touches no route", async () => {
    const memory = new SharedMemory({ workers: 1, nodesMax: 1, routesMax: 100 });
    let touched = 0;
    class Watched extends RouteTableOwner {
      override claim(nodeId: number, peer: number): number {
        touched++;
        return super.claim(nodeId, peer);
      }
      override withdraw(nodeId: number, peer: number): boolean {
        touched++;
        return super.withdraw(nodeId, peer);
      }
    }
    const announcements = new Announcements(new Watched(memory));
    await announcements.announce(0, list(3, 1, 2));
    expect(touched).toBe(3);
    await announcements.announce(0, list(0, 2, 3, 2, 1));
    expect(touched).toBe(3);
    await announcements.announce(0, list(2, 3, 4));
    expect(touched).toBe(5);
  });

  test("lists as long as can be said, of two peers, half of each the other's", async () => {
    const { routes, announcements } = table(2 * LIST_MAX);
    const [a, b] = [range(1, LIST_MAX), range(-LIST_MAX, LIST_MAX)];
    b.set(a.subarray(0, 30_000), 20_000);
    await Promise.all([announcements.announce(0, a.slice()), announcements.announce(1, b.slice())]);
    expect([announcements.routes(0), announcements.routes(1)]).toEqual([
      LIST_MAX - 30_000,
      LIST_MAX,
    ]);
    expect(routes.size).toBe(2 * LIST_MAX - 30_000);
    expect(b.every((id) => routes.find(id) === 1)).toBe(true);
    expect(a.subarray(30_000).every((id) => routes.find(id) === 0)).toBe(true);
    await announcements.withdraw(1);
    expect([announcements.routes(0), announcements.routes(1)]).toEqual([LIST_MAX - 30_000, 0]);
    await announcements.announce(0, a.slice());
    expect(a.every((id) => routes.find(id) === 0)).toBe(true);
    expect([announcements.routes(0), routes.size]).toEqual([LIST_MAX, LIST_MAX]);
  });

  test("a long list is applied in slices, and what it has in common with the old one is there throughout", async () => {
    const { routes, announcements } = table(2 * LIST_MAX);
    const announced = announcements.announce(0, range(1, LIST_MAX));
    expect(routes.size).toBeLessThan(LIST_MAX / 4);
    await announced;
    const shared = [20_000, 30_000, 40_000, LIST_MAX].flatMap((id) => [id, id - 1, id - 2]);
    const sizes = new Set<number>();
    const looks = await watch(announcements.announce(0, range(19_000, LIST_MAX)), () => {
      sizes.add(routes.size);
      for (const id of shared) expect(routes.find(id)).toBe(0);
    });
    expect(looks).toBeGreaterThan(5);
    expect(sizes.size).toBeGreaterThan(5);
    expect([routes.find(18_999), routes.find(19_000), announcements.routes(0)]).toEqual([
      NO_PEER,
      0,
      LIST_MAX,
    ]);
  });

  test("a newer list overtakes one that waits: that one is never in force", async () => {
    const { routes, announcements } = table(2 * LIST_MAX);
    await announcements.announce(3, list(70_001, 70_002));
    const order: string[] = [];
    const announce = (name: string, peer: number, nodeIds: Int32Array): Promise<void> =>
      announcements.announce(peer, nodeIds).then(() => {
        order.push(name);
      });
    const all = Promise.all([
      announce("long", 0, range(1, LIST_MAX)),
      announce("overtaken", 1, list(70_001, 80_001)),
      announce("other", 2, list(70_002)),
      announce("overtaken, too", 1, list(70_001)),
      announce("newest", 1, list(80_002)),
    ]);
    const looks = await watch(all, () => {
      expect(routes.find(80_001)).toBe(NO_PEER);
      expect(routes.find(70_001)).toBe(3);
    });
    expect(looks).toBeGreaterThan(5);
    expect(order).toEqual(["long", "overtaken", "overtaken, too", "newest", "other"]);
    expect([80_001, 80_002, 70_001, 70_002].map((id) => routes.find(id))).toEqual([
      NO_PEER,
      1,
      3,
      2,
    ]);
    expect([0, 1, 2, 3].map((peer) => announcements.routes(peer))).toEqual([LIST_MAX, 1, 1, 1]);
  });

  test("a list that comes while an older one of the same peer is applied follows it", async () => {
    const { routes, announcements } = table(2 * LIST_MAX);
    const long = announcements.announce(0, range(1, LIST_MAX));
    const next = announcements.announce(0, list(5, 70_000));
    await long;
    expect(routes.find(LIST_MAX)).toBe(0);
    await next;
    expect([routes.find(5), routes.find(70_000), routes.find(6)]).toEqual([0, 0, NO_PEER]);
    expect([routes.size, announcements.routes(0)]).toEqual([2, 2]);
  });

  test("a withdrawal that waits is overtaken as well; who awaits it sees what came after", async () => {
    const { routes, announcements } = table(2 * LIST_MAX);
    await announcements.announce(1, list(70_000));
    const long = announcements.announce(0, range(1, LIST_MAX));
    const withdrawn = announcements.withdraw(1);
    const again = announcements.announce(1, list(70_001));
    await withdrawn;
    expect([routes.find(70_000), routes.find(70_001)]).toEqual([NO_PEER, 1]);
    await Promise.all([long, again]);
  });
});

describe("learned peers", () => {
  const [NAMED, STRANGER, OTHER] = [0, PEERS_MAX, PEERS_MAX + LEARNED_PEERS_MAX - 1];

  test("claim no node of a named peer, which claims theirs", async () => {
    const { routes, announcements } = table(100);
    await announcements.announce(NAMED, list(1, 2));
    await announcements.announce(STRANGER, list(2, 3, 4));
    expect([1, 2, 3, 4].map((id) => routes.find(id))).toEqual([NAMED, NAMED, STRANGER, STRANGER]);
    await announcements.announce(NAMED, list(1, 2, 3));
    expect([2, 3, 4].map((id) => routes.find(id))).toEqual([NAMED, NAMED, STRANGER]);
    expect([NAMED, STRANGER].map((peer) => announcements.routes(peer))).toEqual([3, 1]);
    // Once the named one gives it up, the next to claim it has it, as ever.
    await announcements.announce(NAMED, list(1));
    expect([2, 3].map((id) => routes.find(id))).toEqual([NO_PEER, NO_PEER]);
    await announcements.announce(STRANGER, list(2, 3, 4));
    expect([1, 2, 3, 4].map((id) => routes.find(id))).toEqual([
      NAMED,
      STRANGER,
      STRANGER,
      STRANGER,
    ]);
    expect(announcements.refused).toBe(0);
  });

  test("among themselves, the last to claim a node has it", async () => {
    const { routes, announcements } = table(100);
    await announcements.announce(STRANGER, list(1, 2));
    await announcements.announce(OTHER, list(2, 3));
    expect([1, 2, 3].map((id) => routes.find(id))).toEqual([STRANGER, OTHER, OTHER]);
  });

  test("make room in a full table, and take none that is in use", async () => {
    const { routes, announcements } = table(100);
    await announcements.announce(STRANGER, range(1000, 60));
    await announcements.announce(OTHER, range(2000, 60));
    expect([routes.size, announcements.refused]).toEqual([100, 20]);
    await announcements.announce(NAMED, range(1, 90));
    expect(announcements.routes(NAMED)).toBe(90);
    expect(announcements.refused).toBe(20);
    await announcements.announce(STRANGER, range(1000, 60));
    expect([NAMED, STRANGER].map((peer) => announcements.routes(peer))).toEqual([90, 10]);
    await announcements.announce(NAMED, range(1, 101));
    expect([NAMED, STRANGER, OTHER].map((peer) => announcements.routes(peer))).toEqual([100, 0, 0]);
  });
});

describe("peers whose nodes the directory tells", () => {
  const TOLD = 5;
  const OTHER = 6;

  test("keep their routes when their lists are released, and lists that come are theirs no longer to withdraw", async () => {
    const { routes, announcements } = table(100);
    await announcements.announce(TOLD, list(1, 2, 3));
    await announcements.release(TOLD);
    expect([1, 2, 3].map((id) => routes.find(id))).toEqual([TOLD, TOLD, TOLD]);
    expect(announcements.list(TOLD).length).toBe(0);
    await announcements.withdraw(TOLD);
    expect([announcements.routes(TOLD), routes.size]).toEqual([3, 3]);
  });

  test("are released once no list of theirs is under way, however long", async () => {
    const { routes, announcements } = table(2 * LIST_MAX);
    void announcements.announce(TOLD, range(1, LIST_MAX));
    void announcements.announce(OTHER, range(70_001, LIST_MAX));
    await announcements.release(TOLD);
    const size = routes.routesOf(TOLD);
    await announcements.announce(OTHER, list());
    expect([routes.routesOf(TOLD), announcements.list(TOLD).length]).toEqual([size, 0]);
  });

  test("lose to others' lists only what is new in those", async () => {
    const { routes, announcements } = table(100);
    await announcements.announce(OTHER, list(1, 2));
    await announcements.release(TOLD);
    routes.claim(1, TOLD, 1000, 1); // as the directory tells it
    await announcements.announce(OTHER, list(1, 2));
    expect([routes.find(1), routes.find(2)]).toEqual([TOLD, OTHER]);
    await announcements.announce(OTHER, list(2));
    await announcements.announce(OTHER, list(1, 2));
    expect([routes.find(1), routes.find(2)]).toEqual([OTHER, OTHER]);
  });

  test("are as all others once they are taken back", async () => {
    const { routes, announcements } = table(100);
    await announcements.announce(OTHER, list(1, 2));
    await announcements.release(TOLD);
    routes.claim(1, TOLD, 1000, 1);
    announcements.takeBack(TOLD);
    await announcements.announce(OTHER, list(1, 2));
    expect(routes.find(1)).toBe(OTHER);
    await announcements.announce(TOLD, list(1));
    expect(routes.find(1)).toBe(TOLD);
    await announcements.announce(TOLD, list());
    expect([routes.find(1), routes.size]).toEqual([NO_PEER, 1]);
  });

  test("claims have the time of the clock, and the other routes receive claims and withdrawals", async () => {
    const memory = new SharedMemory({ workers: 1, nodesMax: 1, routesMax: 100 });
    memory.words[HASH_SECRET] = 0x5ec2_e701;
    const routes = new RouteTableOwner(memory);
    routes.keepClaims();
    const claimed: number[] = [];
    let nowMs = 1000;
    const withdrawn: number[] = [];
    const announcements = new Announcements(routes, () => nowMs);
    announcements.others = {
      routesRefused: 0,
      forget: async () => {},
      claimedByGossip: (nodeId, isNew) => {
        expect(routes.find(nodeId)).not.toBe(TOLD); // called before the claim
        if (isNew) claimed.push(nodeId);
      },
      withdrawnByGossip: (nodeId) => withdrawn.push(nodeId),
    };
    await announcements.announce(TOLD, list(1, 2));
    nowMs = 2000;
    await announcements.announce(TOLD, list(1, 2, 3));
    expect([1, 2, 3].map((id) => routes.claimedMs(id))).toEqual([1000, 1000, 2000]);
    expect([claimed, withdrawn]).toEqual([[1, 2, 3], []]);
    routes.claim(2, TOLD + 1);
    await announcements.announce(TOLD, list(2));
    expect([claimed, withdrawn]).toEqual([
      [1, 2, 3],
      [1, 3],
    ]);
  });
});

describe("Announcements against a map", () => {
  const LEARNED = [PEERS_MAX, PEERS_MAX + LEARNED_PEERS_MAX - 1];
  const PEERS = [0, 1, PEERS_MAX - 1, ...LEARNED];
  const ids = [-0x8000_0000, -2, -1, 1, 2, 3, 4, 5, 6, 0x7fff_ffff];

  class Model {
    readonly owners = new Map<number, number>();
    readonly #lists = new Map<number, Set<number>>();
    refused = 0;

    constructor(private readonly routesMax: number) {}

    apply(peer: number, nodeIds: Int32Array): void {
      const wanted = new Set(nodeIds);
      wanted.delete(0);
      for (const id of this.#lists.get(peer) ?? [])
        if (!wanted.has(id) && this.owners.get(id) === peer) this.owners.delete(id);
      // Which ones a full table refuses is nobody's business but this order's.
      const learned = LEARNED.includes(peer);
      for (const id of [...wanted].sort((a, b) => a - b)) {
        const owner = this.owners.get(id);
        if (learned && owner !== undefined && !LEARNED.includes(owner)) continue;
        if (!learned && owner === undefined && this.owners.size >= this.routesMax) this.#makeRoom();
        if (this.owners.has(id) || this.owners.size < this.routesMax) this.owners.set(id, peer);
        else this.refused++;
      }
      this.#lists.set(peer, wanted);
    }

    /** The first of the learned peers that have any loses its routes. */
    #makeRoom(): void {
      const loser = LEARNED.find((peer) => [...this.owners.values()].includes(peer));
      for (const [id, owner] of this.owners) if (owner === loser) this.owners.delete(id);
    }

    /**
     * What is announced at once: the first is applied, of the others each peer's last, in the place
     * of its first.
     */
    applyBurst(burst: readonly Announcement[]): void {
      const [first, ...others] = burst;
      if (first !== undefined) this.apply(first.peer, first.nodeIds);
      for (const [peer, nodeIds] of new Map(others.map((one) => [one.peer, one.nodeIds])))
        this.apply(peer, nodeIds);
    }
  }

  interface Announcement {
    readonly peer: number;
    readonly nodeIds: Int32Array;
  }

  const announcement: fc.Arbitrary<Announcement> = fc.record({
    peer: fc.constantFrom(...PEERS),
    nodeIds: fc.oneof(
      { weight: 1, arbitrary: fc.constant(list()) },
      {
        weight: 5,
        arbitrary: fc
          .array(fc.constantFrom(0, ...ids), { maxLength: 14 })
          .map((some) => list(...some)),
      },
    ),
  });
  const bursts = fc.array(fc.array(announcement, { minLength: 1, maxLength: 6 }), {
    minLength: 1,
    maxLength: 12,
  });

  test("any sequence of lists and withdrawals, some of them at once", async () => {
    await fc.assert(
      fc.asyncProperty(bursts, fc.constantFrom(3, 6, 100), async (sequence, routesMax) => {
        const { routes, announcements } = table(routesMax);
        const model = new Model(routesMax);
        for (const burst of sequence) {
          model.applyBurst(burst);
          await Promise.all(
            burst.map(({ peer, nodeIds }) =>
              nodeIds.length === 0
                ? announcements.withdraw(peer)
                : announcements.announce(peer, nodeIds.slice()),
            ),
          );
          for (const id of ids) expect(routes.find(id)).toBe(model.owners.get(id) ?? NO_PEER);
          for (const peer of PEERS) {
            const owned = [...model.owners.values()].filter((owner) => owner === peer).length;
            expect(announcements.routes(peer)).toBe(owned);
          }
          expect(routes.size).toBe(model.owners.size);
          expect(announcements.refused).toBe(model.refused);
        }
      }),
      { numRuns: 200 },
    );
  });
});
