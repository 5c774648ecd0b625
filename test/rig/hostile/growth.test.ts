/** What two scrapes tell, from texts as a beacon writes them. */
import { expect, test } from "bun:test";
import {
  addGrowths,
  grown,
  growthBetween,
  parseScrape,
  showGrowth,
} from "../../../bench/rig/hostile/growth.ts";

const scrape = (relay: number, unknown: number, nodes: number) =>
  parseScrape(`# HELP beacon_limited_total What limits dropped.
# TYPE beacon_limited_total counter
beacon_limited_total{limit="relay",worker="0"} ${relay}
beacon_limited_total{limit="relay",worker="1"} 5
beacon_limited_total{limit="answer",worker="0"} 7
beacon_gossip_rejected_total{worker="0",reason="unknown_peer"} ${unknown}
beacon_relay_not_found_total{worker="0"} 1
beacon_nodes ${nodes}
`);

test("samples of all workers are added", () => {
  expect(Object.fromEntries(scrape(1e3, 2, 9))).toEqual({
    'beacon_limited_total{limit="relay"}': 1005,
    'beacon_limited_total{limit="answer"}': 7,
    'beacon_gossip_rejected_total{reason="unknown_peer"}': 2,
    beacon_relay_not_found_total: 1,
    beacon_nodes: 9,
  });
});

test("what has grown, of what tells something", () => {
  const growth = growthBetween(scrape(10, 0, 1), scrape(1010, 3, 500));
  expect(growth).toEqual({
    'beacon_limited_total{limit="relay"}': 1000,
    'beacon_gossip_rejected_total{reason="unknown_peer"}': 3,
  });
  expect(grown(growth, "beacon_limited_total")).toBe(1000);
  expect(grown(growth, 'beacon_limited_total{limit="answer"}')).toBe(0);
  expect(showGrowth(growth)).toBe("limited relay 1000, gossip_rejected unknown_peer 3");
  expect(showGrowth(growthBetween(scrape(1, 1, 1), scrape(1, 1, 1)))).toBe("nothing");
});

test("growth of several rounds", () => {
  const rounds = [
    growthBetween(scrape(0, 0, 0), scrape(5, 0, 0)),
    growthBetween(scrape(5, 0, 0), scrape(6, 4, 0)),
  ];
  expect(addGrowths(rounds)).toEqual({
    'beacon_limited_total{limit="relay"}': 6,
    'beacon_gossip_rejected_total{reason="unknown_peer"}': 4,
  });
});
