/**
 * Beacons that share a directory, on real servers: whose nodes are reached through whom, as nodes
 * and beacons come, move and go.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Config } from "../../src/beacon.ts";
import { temporaryPaths } from "../support/folder.ts";
import {
  describeImplementations,
  REDIS,
  type RedisServer,
  RedisServers,
  VALKEY,
} from "../support/redis.ts";
import { sum } from "./support/beacon.ts";
import { BurstSocket } from "./support/bursts.ts";
import { Client } from "./support/client.ts";
import {
  expectReached,
  Fleet,
  type FleetBeacon,
  type FleetNode,
  LEASE_MS,
  newId,
  UdpNode,
  untilNotFound,
  untilReached,
} from "./support/directory.ts";
import { freePort, Mesh, nameOf } from "./support/mesh.ts";
import { encodeState } from "./support/state.ts";
import { until, untilEqual } from "./support/wait.ts";
import { decodeSync, discover, relay, sync } from "./support/wire.ts";

const SYNC = 0x07;

const newPath = temporaryPaths();

describeImplementations((implementation) => {
  const servers = new RedisServers(implementation);
  let server: RedisServer;
  beforeAll(async () => {
    server = await servers.start();
  });
  afterAll(() => servers.stop());

  let prefixes = 0;
  /** Each fleet has keys of its own. */
  const fleetOptions = (): Partial<Config> => ({
    directory: `redis://${server.name}`,
    directoryPrefix: `fleet-${prefixes++}`,
  });

  describe("three beacons", () => {
    const token = "correct-horse-battery-staple";
    const tokenFile = newPath();
    let fleet: Fleet;
    let beacons: readonly FleetBeacon[];
    let here: FleetBeacon;
    let there: FleetBeacon;
    let elsewhere: FleetBeacon;
    beforeAll(async () => {
      writeFileSync(tokenFile, token, { mode: 0o600 });
      fleet = new Fleet({ ...fleetOptions(), wss: "127.0.0.1:0", adminTokenFile: tokenFile });
      beacons = await fleet.startAll(3);
      [here, there, elsewhere] = beacons as [FleetBeacon, FleetBeacon, FleetBeacon];
    });
    afterAll(() => fleet.close());

    /** From every beacon, and with every packet. */
    async function reachedFromAll(node: FleetNode, ...lost: FleetNode[]): Promise<void> {
      for (const beacon of beacons) await untilReached(beacon, node);
      for (const one of lost) one.take();
      for (const beacon of beacons) await expectReached(beacon, node);
      for (const one of lost) expect(one.take()).toEqual([]);
    }

    const ask = (beacon: FleetBeacon, path: string, method = "GET") =>
      fetch(new URL(path, beacon.beacon.httpUrl), {
        method,
        headers: { authorization: `Bearer ${token}` },
      });

    /** Nobody finds it any more. */
    async function unknownToAll(id: number): Promise<void> {
      for (const beacon of beacons) {
        await until(`${beacon.name} knows nothing of it`, async () => {
          const { where } = (await (await ask(beacon, `api/nodes/${id}`)).json()) as {
            where: string;
          };
          return where === "unknown";
        });
        await untilNotFound(beacon, id);
      }
    }

    test("one that arrives, by UDP or over the bridge, is reached from everywhere", async () => {
      await reachedFromAll(await here.udp());
      await reachedFromAll(await there.bridged());
    });

    test("one that moves is reached where it is, also from where it was, there and back", async () => {
      const id = newId();
      const first = await here.udp(id);
      await reachedFromAll(first);
      const second = await there.udp(id);
      await reachedFromAll(second, first);
      await first.discover();
      await reachedFromAll(first, second);
      await second.discover();
      await reachedFromAll(second, first);
      const third = await elsewhere.udp(id);
      await reachedFromAll(third, first, second);
      expect(beacons.map(({ nodes }) => nodes).reduce((all, nodes) => all + nodes)).toBe(3);
    });

    test("one that goes back and forth without a pause ends where it was last", async () => {
      const id = newId();
      const places = [await here.udp(id), await there.udp(id), await elsewhere.udp(id)];
      let last = places[0]!;
      for (let i = 0; i < 50; i++) {
        const next = places[i % 3]!;
        if (next !== last) last = next;
        await last.discover();
        await Bun.sleep(i % 7); // hosts' clocks agree to far less
      }
      await reachedFromAll(last, ...places.filter((place) => place !== last));
    });

    test("one that is disconnected is found by nobody, until it is heard again", async () => {
      const node = await here.udp();
      await reachedFromAll(node);
      expect((await ask(here, `api/nodes/${node.id}/disconnect`, "POST")).status).toBe(200);
      await unknownToAll(node.id);
      await node.discover();
      await reachedFromAll(node);
    });

    test("one whose WebSocket ends is found by nobody", async () => {
      for (const leave of ["close", "destroy"] as const) {
        const node = await there.bridged();
        await reachedFromAll(node);
        node.connection[leave]();
        await unknownToAll(node.id);
      }
    });

    test("a bridged one that is heard by UDP elsewhere is there, and its WebSocket is closed", async () => {
      const bridged = await here.bridged();
      await reachedFromAll(bridged);
      const udp = await there.udp(bridged.id);
      expect(await bridged.connection.closed).toEqual({ code: 1013, reason: "disconnected" });
      await reachedFromAll(udp);
      const again = await elsewhere.bridged(bridged.id);
      await reachedFromAll(again, udp);
    });

    test("nothing is untold, malformed or warned of", () => {
      for (const one of beacons) {
        const { directory, beacon } = one;
        const { state, untold, entriesMalformed, entriesStale, claimsRefused, claimsFromFuture } =
          directory;
        expect({
          state,
          untold,
          entriesMalformed,
          entriesStale,
          claimsRefused,
          claimsFromFuture,
        }).toEqual({
          ...{ state: "ok", untold: 0, entriesMalformed: 0 },
          ...{ entriesStale: 0, claimsRefused: 0, claimsFromFuture: 0 },
        });
        expect(directory.failures).toEqual({});
        expect(one.warnings(/^(?!node \d+ is to be forgotten)/)).toEqual([]);
        expect(beacon.stats().mesh.learnedPeers).toBe(0);
      }
    });
  });

  // What takes long, with one of them.
  const isDone = implementation === VALKEY && REDIS.program !== undefined;
  describe.skipIf(isDone)(
    `with a fleet of its own each${isDone ? " (needs Redis to be missing)" : ""}`,
    () => {
      /** All at a time: they wait most of the time. */
      const alone = (
        name: string,
        run: (fleet: Fleet) => Promise<void>,
        options: Partial<Config> = {},
      ) =>
        test.concurrent(name, async () => {
          const fleet = new Fleet({ ...fleetOptions(), ...options });
          try {
            await run(fleet);
          } finally {
            await fleet.close();
          }
        });

      const NODES = 3000;
      /** So many nodes at a beacon, from one socket. */
      async function populate(fleet: Fleet, beacon: FleetBeacon): Promise<void> {
        const socket = fleet.with(new BurstSocket("127.0.0.1", beacon.at));
        for (let left = NODES; left > 0; left -= 100) {
          socket.sendEach(Array.from({ length: 100 }, () => discover(newId())));
          await socket.arrivals(100);
        }
      }

      alone(
        "a node that is not heard for its time to live is withdrawn everywhere",
        async (fleet) => {
          const [a, b] = [await fleet.start({ nodeTtlMs: 2000 }), await fleet.start()];
          await fleet.untilWhole();
          const node = await a.udp();
          await untilReached(b, node);
          await untilEqual("routes", () => b.routes(a), 0);
          await untilNotFound(b, node.id);
          expect(a.directory.goneTold).toBe(1);
        },
      );

      alone(
        "a beacon that comes late knows all that were there, and they know of its nodes",
        async (fleet) => {
          const [a, b] = (await fleet.startAll(2, { maxNodes: 10_000 })) as [
            FleetBeacon,
            FleetBeacon,
          ];
          const [nodeA, nodeB] = [await a.udp(), await b.udp()];
          await populate(fleet, a);
          const late = await fleet.start();
          await fleet.untilWhole();
          await untilEqual("routes", () => [late.routes(a), late.routes(b)], [NODES + 1, 1]);
          const nodeC = await late.udp();
          await expectReached(late, nodeA);
          await expectReached(late, nodeB);
          await untilReached(a, nodeC);
          await untilReached(b, nodeC);
        },
      );

      alone(
        "one that leaves: its routes are gone at once; back at the same address, so are they",
        async (fleet) => {
          const [a, b] = (await fleet.startAll(2, { stateFile: "off" })) as [
            FleetBeacon,
            FleetBeacon,
          ];
          const [node, id] = [await b.udp(), newId()];
          await untilReached(a, node);
          fleet.beacons.splice(1, 1);
          await b.close();
          await until("its routes are gone", () => a.routes(b) === undefined);
          expect(a.messages(/was not heard for its lease/)).toEqual([]);
          await untilNotFound(a, node.id);
          expect(a.directory.beacons).toEqual([]);
          expect(
            await server.command("HKEYS", `{${a.beacon.config.directoryPrefix}}:beacons`),
          ).toEqual([a.name]);

          const again = await fleet.start({ addr: b.name, beaconId: b.beacon.config.beaconId });
          await fleet.untilWhole();
          await untilReached(a, await again.udp(id));
          expect(a.warnings()).toEqual([]);
          expect(again.warnings()).toEqual([]);
        },
      );

      alone(
        "one that comes back with its state file tells what was in it, but for a node that is elsewhere",
        async (fleet) => {
          const a = await fleet.start();
          const at = { address: "127.0.0.1", port: freePort() };
          const client = async () => fleet.with(await Client.open(at.address, at));
          const [stayed, left] = [
            new UdpNode(newId(), await client()),
            new UdpNode(newId(), await client()),
          ];
          const stateFile = newPath();
          // As it was some seconds ago: ages are whole ones.
          const nodes = [stayed, left].map(({ id, client: { address } }) => ({
            ...{ nodeId: id, ...address, ageS: 2, wantsDest: false },
          }));
          writeFileSync(stateFile, encodeState({ savedMs: Date.now() - 5000, nodes }));
          const moved = await a.udp(left.id);
          const b = await fleet.start({ stateFile, addr: `${at.address}:${at.port}` });
          await fleet.untilWhole();
          await untilReached(a, stayed);
          await untilReached(b, moved);
          await expectReached(a, moved);
          await untilEqual("nodes that it gave up", () => b.directory.nodesLost, 1);
          expect([a.nodes, b.nodes]).toEqual([1, 1]);
        },
      );

      alone(
        "one that is killed: its routes are gone when its lease is over; restarted, they are back",
        async (fleet) => {
          const a = await fleet.start();
          const { directoryPrefix } = a.beacon.config;
          const mesh = fleet.with(new Mesh());
          const flags = [
            ...[`--directory=redis://${server.name}`, `--directory-prefix=${directoryPrefix}`],
            ...["--directory-lease=3s", "--beacon-id=4711"],
          ];
          const address = `127.0.0.1:${freePort()}`;
          const b = await mesh.beacon(address, flags);
          await until("it is followed", () => a.follows([b]));
          const client = await mesh.client(b);
          const id = newId();
          await client.discover(id);
          await untilEqual("routes", () => a.routes(b), 1);
          b.program.signal("SIGKILL");
          await b.program.exited();
          await expectRoutesWhile(() => a.told(b)!.ageS < (LEASE_MS - 500) / 1000, a, b);
          await until("its routes are gone", () => a.routes(b) === undefined);
          await untilNotFound(a, id);
          expect(a.messages(/was not heard for its lease/)).toHaveLength(1);

          const again = await mesh.beacon(address, flags);
          await client.discover(id);
          await untilEqual("routes", () => a.routes(again), 1);
          expect(a.warnings()).toEqual([]);
          expect(again.warnings()).toEqual([]);
        },
      );

      /** Its routes are known for as long. */
      async function expectRoutesWhile(
        still: () => boolean,
        at: FleetBeacon,
        other: { name: string },
      ) {
        while (still()) {
          expect(at.routes(other)).toBe(1);
          await Bun.sleep(50);
        }
      }

      describe("beside gossip", () => {
        const GOSSIP_MS = 100;

        /**
         * Beacons that are configured as each other's peers, too, and somebody who plays a peer
         * that has no directory.
         */
        const GOSSIP: Partial<Config> = { gossipIntervalMs: GOSSIP_MS, peerTimeoutMs: 60_000 };

        async function mixed(fleet: Fleet, count: number, options: Partial<Config> = {}) {
          const names = Array.from({ length: count }, () => `127.0.0.1:${freePort()}`);
          const peer = fleet.with(
            await Client.open("127.0.0.1", { address: "127.0.0.1", port: 9 }),
          );
          const start = (i: number, more: Partial<Config> = {}) => {
            const others = names.filter((name) => name !== names[i]);
            return fleet.start({
              addr: names[i]!,
              peers: [...others, nameOf(peer)],
              ...options,
              ...more,
            });
          };
          const beacons: FleetBeacon[] = [];
          for (let i = 0; i < count; i++) beacons.push(await start(i));
          await fleet.untilWhole();
          return { peer, beacons, start };
        }

        const gossiping = (name: string, run: (fleet: Fleet) => Promise<void>) =>
          alone(name, run, GOSSIP);

        const gossipReceived = ({ beacon }: FleetBeacon) =>
          sum(beacon.stats(), (w) => w.gossipReceived);

        /** Nodes in the next gossip that the peer gets of a beacon. */
        async function gossipOf(beacon: FleetBeacon, peer: Client): Promise<readonly number[]> {
          for (;;) {
            const { bytes, from } = await peer.next();
            if (bytes[0] === SYNC && Bun.deepEquals(from, beacon.at))
              return decodeSync(bytes).nodeIds;
          }
        }

        /** The peer says what nodes it has. */
        async function announce(
          peer: Client,
          beacons: readonly FleetBeacon[],
          ...nodeIds: number[]
        ) {
          for (const beacon of beacons) {
            const before = gossipReceived(beacon);
            await peer.send(sync(900, nodeIds), beacon.at);
            await untilEqual("gossip", () => gossipReceived(beacon), before + 1);
          }
        }

        async function untilReachedPeer(
          via: FleetBeacon,
          peer: Client,
          nodeId: number,
        ): Promise<void> {
          const sender = await via.sender();
          const packet = relay(1, nodeId, crypto.getRandomValues(new Uint8Array(20)));
          await until(`node ${nodeId} of the peer is reached through ${via.name}`, async () => {
            await sender.send(packet);
            await Bun.sleep(20);
            return peer.take().some(({ bytes }) => Buffer.compare(bytes, packet) === 0);
          });
        }

        gossiping(
          "a peer without the directory is gossiped to and believed; who has it is not gossiped to",
          async (fleet) => {
            const { peer, beacons } = await mixed(fleet, 2);
            const [a, b] = beacons as [FleetBeacon, FleetBeacon];
            const [nodeA, nodeB] = [await a.udp(), await b.udp()];
            await until("gossip of a", async () => (await gossipOf(a, peer)).includes(nodeA.id));
            await until("gossip of b", async () => (await gossipOf(b, peer)).includes(nodeB.id));
            await untilReached(a, nodeB);
            await untilReached(b, nodeA);
            const before = beacons.map(gossipReceived);
            for (let i = 0; i < 5; i++) {
              expect(await gossipOf(a, peer)).toEqual([nodeA.id]);
              expect(await gossipOf(b, peer)).toEqual([nodeB.id]);
            }
            expect(beacons.map(gossipReceived)).toEqual(before);
            for (const [one, other] of [
              [a, b],
              [b, a],
            ] as const) {
              const shown = one.beacon
                .stats()
                .mesh.peers.map(({ address, isInDirectory }) => [address, isInDirectory]);
              expect(Object.fromEntries(shown)).toEqual({
                [other.name]: true,
                [nameOf(peer)]: false,
              });
            }
            const its = newId();
            await announce(peer, beacons, its);
            await untilReachedPeer(a, peer, its);
            await untilReachedPeer(b, peer, its);
            expect([...a.warnings(), ...b.warnings()]).toEqual([]);
          },
        );

        gossiping("a node that comes from such a peer, and goes back there", async (fleet) => {
          const { peer, beacons } = await mixed(fleet, 3);
          const [a, b, c] = beacons as [FleetBeacon, FleetBeacon, FleetBeacon];
          const id = newId();
          await announce(peer, beacons, id);
          await untilReachedPeer(b, peer, id);
          const node = await a.udp(id);
          await untilReached(b, node);
          await announce(peer, beacons, id); // it has not noticed yet
          for (const via of beacons) await expectReached(via, node);
          await announce(peer, beacons);
          for (const via of beacons) await expectReached(via, node);
          await announce(peer, beacons, id); // it is there again
          for (const via of [b, c]) await untilReachedPeer(via, peer, id);
          await node.discover(); // and here again
          await untilReached(b, node);
          await untilReached(c, node);
        });

        gossiping(
          "lost for longer than lease and grace: it is all gossip, and the directory's again when that is back",
          async (fleet) => {
            const own = await servers.start();
            const { beacons } = await mixed(fleet, 2, {
              directory: `redis://${own.name}`,
              directoryGraceMs: 0,
            });
            const [a, b] = beacons as [FleetBeacon, FleetBeacon];
            const [nodeA, nodeB] = [await a.udp(), await b.udp()];
            await untilReached(a, nodeB);
            await untilReached(b, nodeA);
            await own.stop();
            await until("nobody follows anybody", () => a.follows([]) && b.follows([]));
            const nodes = [await a.udp(), nodeA, await b.udp(), nodeB];
            for (const node of nodes) for (const via of beacons) await untilReached(via, node);
            expect(beacons.every((one) => gossipReceived(one) > 0)).toBe(true);

            await servers.start({ port: own.port });
            await fleet.untilWhole();
            const before = beacons.map(gossipReceived);
            nodes.push(await a.udp(), await b.udp());
            for (const node of nodes) for (const via of beacons) await untilReached(via, node);
            await Bun.sleep(3 * GOSSIP_MS);
            expect(beacons.map(gossipReceived)).toEqual(before);
          },
        );

        gossiping(
          "who comes back with old nodes does not take them by gossip from those who have them now",
          async (fleet) => {
            const stateFile = newPath();
            const { beacons, start } = await mixed(fleet, 3);
            const [a, b, c] = beacons as [FleetBeacon, FleetBeacon, FleetBeacon];
            const node = await b.udp();
            await untilReached(a, node);
            fleet.beacons.pop();
            await c.close();
            await until("it is gone", () => a.told(c) === undefined);
            const { address, port } = node.client.address;
            const nodes = [{ nodeId: node.id, address, port, ageS: 20, wantsDest: false }];
            writeFileSync(stateFile, encodeState({ savedMs: Date.now(), nodes }));
            const again = await start(2, { stateFile });
            await untilEqual("nodes that it gave up", () => again.directory.nodesLost, 1);
            for (const via of [a, b]) await expectReached(via, node);
            await untilReached(again, node);
          },
        );
      });

      describe("two of the same", () => {
        alone("id: both say so, and go on", async (fleet) => {
          const [a, b] = (await fleet.startAll(2, { beaconId: 77 })) as [FleetBeacon, FleetBeacon];
          for (const [one, other] of [
            [a, b],
            [b, a],
          ] as const) {
            const warning = await until("it is warned of", () => one.warnings(/have the id 77/)[0]);
            expect(warning).toContain(one.name);
            expect(warning).toContain(other.name);
            expect(warning).toContain("--beacon-id");
          }
          await untilReached(a, await b.udp());
          await untilReached(b, await a.udp());
          expect([...a.warnings(), ...b.warnings()]).toHaveLength(2);
          expect([a.directory.state, b.directory.state]).toEqual(["ok", "ok"]);
        });

        // They cannot both be where they say; but each has nodes, and whoever began later is
        // believed.
        alone(
          "name: the one that began later goes on; the other one comes back when that one ends",
          async (fleet) => {
            const watcher = await fleet.start();
            const advertiseAddr = `127.0.0.1:${freePort()}`;
            const first = await fleet.start({ addr: advertiseAddr, advertiseAddr });
            await fleet.untilWhole();
            const node = await first.udp();
            await untilReached(watcher, node);

            const second = await fleet.start({ advertiseAddr });
            const lost = await second.udp();
            await untilEqual("state of the first", () => first.directory.state, "duplicate");
            const advice = `two beacons say that they are at ${advertiseAddr}: give each its own --advertise-addr`;
            const warning = await until("the first warns of it", () => first.warnings()[0]);
            expect(warning).toBe(advice);
            expect(await first.readyz()).toMatch(
              new RegExp(`^ready.*duplicate for \\d+ s: ${advice}`),
            );
            await until(
              "the second is followed",
              () =>
                watcher.told({ name: advertiseAddr })?.beaconId === second.beacon.config.beaconId,
            );
            await untilEqual("routes", () => watcher.routes({ name: advertiseAddr }), 1);
            await first.udp(); // which nobody is told of
            await Bun.sleep(LEASE_MS / 2);
            expect(watcher.routes({ name: advertiseAddr })).toBe(1);
            expect(second.directory.state).toBe("ok");

            fleet.beacons.pop();
            await second.close();
            await untilEqual("state of the first", () => first.directory.state, "ok");
            await fleet.untilWhole();
            await untilEqual("routes", () => watcher.routes(first), 2);
            await expectReached(watcher, node);
            await untilNotFound(watcher, lost.id);
            expect(await first.readyz()).toBe("ready");
            expect(first.warnings()).toEqual([advice]);
          },
        );
      });

      alone("nothing is left of one that is closed: the process ends by itself", async (fleet) => {
        const a = await fleet.start();
        const script = newPath();
        const options = { ...fleetOptions(), directoryPrefix: a.beacon.config.directoryPrefix };
        writeFileSync(
          script,
          `import { Beacon } from "${join(import.meta.dir, "../../src/beacon.ts")}";
          const options = { addr: "127.0.0.1:0", workers: 1, maxNodes: 1000, beaconId: 4712, ...${JSON.stringify(options)} };
          const beacon = new Beacon(options);
          await beacon.listen();
          while (beacon.stats().directory.beacons[0]?.state !== "following") await Bun.sleep(5);
          await beacon.close();
          console.log("closed");
          setTimeout(() => console.log("goes on"), 1000).unref();`,
        );
        const mesh = fleet.with(new Mesh());
        const one = mesh.spawn([process.execPath, script]);
        await one.line("it is closed", (line) => line === "closed" || undefined);
        expect(await one.exited()).toBe(0);
        expect(one.lines.at(-1)).toBe("closed");
        expect(one.stderr).toBe("");
        await untilEqual("beacons", () => a.directory.beacons, []);
      });
    },
  );
});
