/** Verdicts on an attack: first of all, that there was one. */
import { expect, test } from "bun:test";
import type { Attack, Evidence } from "../../../bench/rig/hostile/attack.ts";
import { ATTACKS } from "../../../bench/rig/hostile/attacks.ts";
import { arrivedBetween, parseScrape } from "../../../bench/rig/hostile/growth.ts";
import type { Service } from "../../../bench/rig/hostile/honest.ts";
import { judge } from "../../../bench/rig/hostile/verdicts.ts";

const FLOOD: Attack = {
  name: "a flood",
  does: "floods",
  stage: "alone",
  start: () => ({}) as never,
};
const HONEST: readonly Service[] = [{ kind: "UDP", sent: 400, delivered: 400, p50Ms: 1, p99Ms: 2 }];

const evidence = (some: Partial<Evidence> = {}): Evidence => ({
  effort: { of: "packets", count: 10_000, bytes: 1, heard: {} },
  victim: { packets: 0, bytes: 0 },
  growth: {},
  arrived: 10_400,
  attackedS: 1,
  ...some,
});

/** Verdicts that do not hold, and those that no excuse helps. */
function failed(attack: Attack, known: Evidence, honest = HONEST, isWelcome?: boolean) {
  const verdicts = judge(attack, known, honest, isWelcome).filter(({ holds }) => !holds);
  return { all: verdicts.length, needed: verdicts.filter(({ isNeeded }) => isNeeded).length };
}

test("an attack that came to the beacon and harmed nobody holds", () => {
  expect(failed(FLOOD, evidence())).toEqual({ all: 0, needed: 0 });
  // some was lost before
  expect(failed(FLOOD, evidence({ arrived: 5400 }))).toEqual({ all: 0, needed: 0 });
});

test.each([
  ["sent nothing", { effort: { of: "packets", count: 0, bytes: 0, heard: {} }, arrived: 400 }, 2],
  ["says that it sent, and nothing came", { arrived: 400 }, 1],
  ["came as a trickle", { arrived: 1000 }, 1],
  ["opened no connection", { effort: { of: "connections", count: 0, bytes: 0, heard: {} } }, 1],
] as const)("an attack that %s is none, excused or not", (_, some, needed) => {
  for (const excuse of [undefined, "UDP"]) {
    const attack = excuse === undefined ? FLOOD : { ...FLOOD, excuse };
    expect(failed(attack, evidence(some)).needed).toBe(needed);
  }
});

test("what misses the beacon on purpose need not come to it", () => {
  expect(failed({ ...FLOOD, missesBeacon: true }, evidence({ arrived: 400 })).all).toBe(0);
  const missing = ATTACKS.filter(({ missesBeacon }) => missesBeacon).map(({ name }) => name);
  expect(missing).toEqual(["control, one source", "control, spoofed"]);
});

test("honest packets lost, none sent, a limit that dropped nothing, a newcomer turned away: none of it holds", () => {
  const service = (sent: number, delivered: number) => [{ ...HONEST[0]!, sent, delivered }];
  expect(failed(FLOOD, evidence(), service(400, 379)).all).toBe(1);
  expect(failed(FLOOD, evidence(), service(400, 380)).all).toBe(0);
  expect(failed(FLOOD, evidence(), service(0, 0)).all).toBe(1);
  const limited = { ...FLOOD, limits: ["relay"], counts: ["beacon_wss_dropped_total"] };
  expect(failed(limited, evidence()).all).toBe(2);
  const growth = {
    'beacon_limited_total{limit="relay"}': 1,
    'beacon_wss_dropped_total{reason="gone"}': 1,
  };
  expect(failed(limited, evidence({ growth })).all).toBe(0);
  expect(failed({ ...FLOOD, newcomer: "joins" }, evidence(), HONEST, false).all).toBe(1);
  expect(failed({ ...FLOOD, newcomer: "joins" }, evidence(), HONEST, true).all).toBe(0);
});

test("what came to the beacon is what it read, and not what the kernel dropped", () => {
  const scrape = (relays: number, drops: number) =>
    parseScrape(`beacon_packets_received_total{worker="0",type="relay"} ${relays}
beacon_packets_received_total{worker="1",type="unknown"} 3
beacon_socket_receive_drops_total{worker="0"} ${drops}
beacon_relay_not_found_total{worker="0"} ${relays}
`);
  expect(arrivedBetween(scrape(10, 0), scrape(1010, 7))).toBe(1000);
});
