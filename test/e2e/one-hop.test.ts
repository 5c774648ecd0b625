/** A relay passes one beacon at most on its way, whatever gossip claims, forged gossip included. */
import { afterEach, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { type BeaconProcess, freePort, Mesh } from "./support/mesh.ts";
import { installed } from "./support/program.ts";
import { until, untilEqual } from "./support/wait.ts";
import { relay, sync } from "./support/wire.ts";

const NODE = 777;
const SENDER = 5;
const PACKETS = 100;
const FORGER = join(import.meta.dir, "support/raw_udp.py");
const why =
  process.getuid?.() !== 0 ? " (needs root)" : installed("python3") ? "" : " (needs python3)";

let mesh = new Mesh();
afterEach(async () => {
  await mesh.close();
  mesh = new Mesh();
});

/** Sends a datagram to one beacon in the name of another. */
function forge(from: BeaconProcess, to: BeaconProcess, payload: Uint8Array): void {
  const hex = Buffer.from(payload).toString("hex");
  const ends = [from.at.address, String(from.at.port), to.at.address, String(to.at.port)];
  const { success, stderr } = Bun.spawnSync(["python3", FORGER, ...ends, hex], { stderr: "pipe" });
  if (!success) throw new Error(stderr.toString());
}

/**
 * Has each beacon believe that the one after it has the node; none may look for peers in the
 * meantime.
 */
async function believe(pairs: readonly (readonly [BeaconProcess, BeaconProcess])[]): Promise<void> {
  for (const [believer, claimer] of pairs) forge(claimer, believer, sync(9, [NODE]));
  for (const [believer] of pairs)
    await until("the claim is believed", async () => (await believer.learned()).routes > 0);
}

const beacons = (count: number, flags: readonly string[]) =>
  Promise.all(Array.from({ length: count }, () => mesh.beacon("127.0.0.1:0", flags)));

/**
 * Sends relays for the node to the first beacon, from a node that registered there, and from a
 * source that did not.
 */
async function flood(first: BeaconProcess): Promise<void> {
  const [node, other] = [await mesh.client(first), await mesh.client(first)];
  await node.discover(SENDER);
  for (const client of [node, other])
    for (let i = 0; i < PACKETS; i++) await client.send(relay(SENDER, NODE, Uint8Array.of(i)));
}

/**
 * Waits for these counts, and then asks again behind a packet that came after all that could still
 * be on its way.
 */
async function expectRelays(beacon: BeaconProcess, received: number, peer: number): Promise<void> {
  const expected = { received, local: 0, peer, notFound: received - peer };
  await untilEqual(`relays at ${beacon.name}`, () => beacon.relays(), expected);
  await (await mesh.client(beacon)).discover(0);
  expect(await beacon.relays()).toEqual(expected);
}

describe.skipIf(why !== "")(`with gossip of unlisted beacons accepted${why}`, () => {
  const OPEN = ["--gossip-strict=off", "--peer-timeout=1h"];

  test("packets of a ring of three beacons end after one hop", async () => {
    const [a, b, c] = (await beacons(3, OPEN)) as [BeaconProcess, BeaconProcess, BeaconProcess];
    await believe([
      [a, b],
      [b, c],
      [c, a],
    ]);
    await flood(a);
    await expectRelays(a, 2 * PACKETS, PACKETS);
    await expectRelays(b, PACKETS, 0);
    await expectRelays(c, 0, 0);
  });

  test("packets of two beacons that each believe the other end after one hop", async () => {
    const [a, b] = (await beacons(2, OPEN)) as [BeaconProcess, BeaconProcess];
    await believe([
      [a, b],
      [b, a],
    ]);
    await flood(a);
    await expectRelays(a, 2 * PACKETS, PACKETS);
    await expectRelays(b, PACKETS, 0);
  });

  test("gossip in a beacon's own name is rejected", async () => {
    const [a] = (await beacons(1, OPEN)) as [BeaconProcess];
    forge(a, a, sync(9, [NODE]));
    await untilEqual("refused", () => a.refused(), { denied_endpoint: 1 });
    await flood(a);
    await expectRelays(a, 2 * PACKETS, 0);
  });

  test("packets of an unlisted beacon do not go on to a listed peer", async () => {
    const [c] = (await beacons(1, [])) as [BeaconProcess];
    const [b] = (await beacons(1, [...OPEN, `--peers=${c.name}`])) as [BeaconProcess];
    const [a] = (await beacons(1, OPEN)) as [BeaconProcess];
    await believe([[a, b]]);
    forge(c, b, sync(9, [NODE]));
    await untilEqual("routes", async () => (await b.routes())[c.name], 1);
    await flood(a);
    await expectRelays(a, 2 * PACKETS, PACKETS);
    await expectRelays(b, PACKETS, 0);
    await expectRelays(c, 0, 0);
  });
});

describe.skipIf(why !== "")(`with default options${why}`, () => {
  test("gossip of unlisted beacons is rejected, so a ring has no routes", async () => {
    const [a, b, c] = (await beacons(3, [])) as [BeaconProcess, BeaconProcess, BeaconProcess];
    for (const [believer, claimer] of [
      [a, b],
      [b, c],
      [c, a],
    ] as const)
      forge(claimer, believer, sync(9, [NODE]));
    for (const one of [a, b, c])
      await untilEqual("rejected", () => one.rejected(), { unknown_peer: 1 });
    await flood(a);
    await expectRelays(a, 2 * PACKETS, 0);
  });

  test("packets of a chain of listed peers end after one hop", async () => {
    const [atA, atB, atC] = [0, 0, 0].map(() => `127.0.0.1:${freePort()}`) as [
      string,
      string,
      string,
    ];
    const start = (at: string, ...peers: string[]) =>
      mesh.beacon(at, ["--peer-timeout=1h", "--gossip-interval=1m", `--peers=${peers.join()}`]);
    const [a, b, c] = [await start(atA, atB), await start(atB, atA, atC), await start(atC, atB)];
    forge(b, a, sync(9, [NODE]));
    forge(c, b, sync(9, [NODE]));
    await untilEqual("routes of the first", async () => (await a.routes())[b.name], 1);
    await untilEqual("routes of the second", async () => (await b.routes())[c.name], 1);
    await flood(a);
    await expectRelays(a, 2 * PACKETS, 2 * PACKETS);
    await expectRelays(b, 2 * PACKETS, 0);
    await expectRelays(c, 0, 0);
  });
});
