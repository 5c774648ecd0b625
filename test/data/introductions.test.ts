import { describe, expect, test } from "bun:test";
import { AF_INET } from "../../ffi/abi.ts";
import { endpointOf } from "../../ffi/endpoint.ts";
import { EAGAIN, ENETUNREACH } from "../../ffi/errno.ts";
import { packetStats } from "../../src/control/workers/packet-stats.ts";
import { Introductions } from "../../src/data/introductions.ts";
import { ANSWER_LIMIT, RateLimitOwner } from "../../src/shared/limits.ts";
import {
  CLOCK_S,
  HASH_SECRET,
  MAIN_THREAD_LOCK,
  PUNCH_WATCH,
  SharedMemory,
} from "../../src/shared/memory.ts";
import { NodeTableOwner } from "../../src/shared/nodes-owner.ts";
import { PunchWatchOwner } from "../../src/shared/punch-watch.ts";
import { nameFromBytes } from "../support/arbitraries.ts";
import { hex, ScriptedKernel } from "../support/kernel.ts";

const TARGET = 0xffff_fff0;
const REQUESTER = 7;
const ASKING = endpointOf("192.0.2.9", 4009);
const HOME = endpointOf("192.0.2.1", 4001);
const command = (host: number, port: number) =>
  hex(new Uint8Array([4, 4, 192, 0, 2, host, port >> 8, port]));
const nameOf = (host: number, port: number) =>
  hex(
    new Uint8Array(nameFromBytes(AF_INET, new Uint8Array([192, 0, 2, host]), port).buffer, 0, 16),
  );

function office() {
  const kernel = new ScriptedKernel(EAGAIN);
  const memory = new SharedMemory({ workers: 2, nodesMax: 10, routesMax: 1 });
  memory.words[CLOCK_S] = 1;
  memory.words[HASH_SECRET] = 5;
  memory.words[memory.rulesAt + PUNCH_WATCH] = 1;
  const nodes = new NodeTableOwner(memory, MAIN_THREAD_LOCK);
  nodes.record(TARGET, HOME, 0, 0, 1);
  const clock = { nowNs: () => 1e9 };
  const introductions = new Introductions(kernel, memory, nodes, { fd: 5, family: AF_INET }, clock);
  const sent = () => kernel.datagrams.map(({ name, bytes }) => [name, hex(bytes)]);
  const stats = () => packetStats(memory, memory.grantsRow);
  /** Pairs that are watched from the beginning. */
  const watched = () => new PunchWatchOwner(memory).sweep(1, () => {});
  return { kernel, memory, nodes, introductions, sent, stats, watched };
}

const BOTH = [
  [nameOf(9, 4009), command(1, 4001)],
  [nameOf(1, 4001), command(9, 4009)],
];

describe("an introduction", () => {
  test("tells both ends of each other, at once, and counts so in a row of its own", () => {
    const { kernel, memory, introductions, sent, stats } = office();
    introductions.introduce(ASKING, REQUESTER, TARGET);
    expect(sent()).toEqual(BOTH);
    expect(kernel.sendCalls).toEqual([{ wait: false, offered: 2 }]);
    expect(stats().punches).toEqual({ sent: 1, target_unknown: 0, bridged: 0 });
    expect(stats().sentBytes).toBe(16);
    introductions.introduce(ASKING, REQUESTER, TARGET | 0);
    expect(sent()).toEqual([...BOTH, ...BOTH]);
    for (const row of [memory.counterRow(0), memory.counterRow(1), memory.bridgeRow])
      expect(packetStats(memory, row).punches["sent"]).toBe(0);
  });

  test("goes to where the target is by then, or nowhere", () => {
    const { nodes, introductions, sent, stats, watched } = office();
    nodes.record(TARGET, endpointOf("192.0.2.7", 4007), 0, 0, 1);
    introductions.introduce(ASKING, REQUESTER, TARGET);
    expect(sent()).toEqual([
      [nameOf(9, 4009), command(7, 4007)],
      [nameOf(7, 4007), command(9, 4009)],
    ]);
    expect(watched()).toBe(1);
    nodes.bridge(TARGET, 1);
    introductions.introduce(ASKING, REQUESTER, TARGET);
    nodes.unbridge(TARGET);
    for (let shard = 0; shard < nodes.shards; shard++)
      nodes.expire(shard, 0, nodes.slotsPerShard, 2);
    introductions.introduce(ASKING, REQUESTER, TARGET);
    expect(sent()).toHaveLength(2);
    expect(stats().punches).toEqual({ sent: 1, target_unknown: 1, bridged: 1 });
  });

  test("keeps to the limit of answers, for each end", () => {
    const { memory, introductions, sent, stats, watched } = office();
    new RateLimitOwner(memory, ANSWER_LIMIT).set(1, 1);
    introductions.introduce(ASKING, REQUESTER, TARGET);
    introductions.introduce(endpointOf("192.0.2.8", 4008), 8, TARGET);
    expect(sent()).toEqual([...BOTH, [nameOf(8, 4008), command(1, 4001)]]);
    expect(stats().limited["answer"]).toBe(1);
    expect(watched()).toBe(1); // the other pair's target does not know
  });

  test("that the kernel does not take is counted, an end at a time", () => {
    const { kernel, introductions, sent, stats } = office();
    kernel.sends.push(() => -ENETUNREACH);
    introductions.introduce(ASKING, REQUESTER, TARGET);
    expect(sent()).toEqual(BOTH.slice(1));
    expect(stats().replyDropped["unreachable"]).toBe(1);
  });
});
