/**
 * Which punches led nowhere, as a beacon with real workers and sockets counts it; its clock is put
 * forward in place of a wait.
 */
import { afterEach, expect, spyOn, test } from "bun:test";
import { Beacon, type PunchedPairs, type Stats } from "../../src/beacon.ts";
import { SETTLE_S, WATCH_S } from "../../src/shared/punch-watch.ts";
import { UNLIMITED } from "./support/beacon.ts";
import { type Client, Clients } from "./support/client.ts";
import { until, untilEqual } from "./support/wait.ts";

let beacon: Beacon;
const clients = new Clients(() => beacon.address);
const now = performance.now.bind(performance);
let aheadMs = 0;
const clock = spyOn(performance, "now").mockImplementation(() => now() + aheadMs);
afterEach(async () => {
  clients.close();
  await beacon.close();
  clock.mockRestore();
});

const pairs = (): PunchedPairs => beacon.stats().punchedPairs;
const received = ({ workers }: Stats) =>
  workers.reduce((all, one) => all + one.packetsReceived["relay"]!, 0);

/** Two nodes that are told of each other. */
async function punched(
  ids: readonly [number, number],
  hosts: readonly [string, string],
): Promise<Client> {
  const [one, other] = [await clients.open(hosts[0]), await clients.open(hosts[1])];
  await other.discover(ids[1]);
  await one.punch(...ids);
  for (const end of [one, other]) expect((await end.message()).type).toBe("punchCommand");
  return one;
}

test("of pairs that punched, those that go on relaying are told from those that do not", async () => {
  beacon = new Beacon({ addr: ":0", http: "127.0.0.1:0", workers: 2, maxNodes: 100, ...UNLIMITED });
  await beacon.listen();
  const relaying = await punched([1, 2], ["127.0.0.1", "127.0.0.1"]);
  const early = await punched([3, 4], ["::1", "::1"]);
  await punched([5, 6], ["127.0.0.1", "::1"]);
  await early.relay(3, 4, new Uint8Array(9));
  await untilEqual("pairs", () => pairs().watching, 3);

  aheadMs += (SETTLE_S + 1) * 1000;
  await punched([7, 8], ["127.0.0.1", "127.0.0.1"]);
  await untilEqual("pairs, and so a tick of the clock that is ahead", () => pairs().watching, 4);
  await relaying.relay(1, 2, new Uint8Array(9));
  await until("relays", () => received(beacon.stats()) === 2);
  aheadMs += WATCH_S * 1000;
  await untilEqual("outcomes", pairs, {
    direct: { ipv4: 1, ipv6: 1, mixed: 1 },
    relayed: { ipv4: 1, ipv6: 0, mixed: 0 },
    unwatched: 0,
    watching: 0,
  });
  const metrics = await (await fetch(new URL("/metrics", beacon.httpUrl))).text();
  for (const sample of [
    'beacon_punched_pairs_total{outcome="relayed",family="ipv4"} 1',
    'beacon_punched_pairs_total{outcome="direct",family="mixed"} 1',
    "beacon_punched_pairs_watched 0",
  ])
    expect(metrics).toContain(`\n${sample}\n`);

  beacon.reconfigure({ ...beacon.config, punchWatch: false });
  await punched([7, 9], ["127.0.0.1", "127.0.0.1"]);
  beacon.reconfigure({ ...beacon.config, punchWatch: true });
  await punched([7, 10], ["127.0.0.1", "127.0.0.1"]);
  await untilEqual("the pair after the watch is on again, alone", () => pairs().watching, 1);
});
