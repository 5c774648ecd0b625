import { describe, expect, test } from "bun:test";
import { Contested } from "../../../src/control/directory/contested.ts";
import { BOOT_MS, host } from "./fleet-parts.ts";

const PEER = 4;

function contested() {
  const parts = host();
  const again: number[] = [];
  const made = new Contested({ ...parts, claimAgain: (nodeId) => again.push(nodeId) });
  /** What the looks from here on claim again. */
  const look = () => {
    made.look();
    return again.splice(0);
  };
  /** Gossip says that the peer has it. */
  const gossip = (nodeId: number) => {
    parts.table.claim(nodeId, PEER, BOOT_MS + parts.at.ms);
    made.claimed(nodeId);
  };
  return { ...parts, look, gossip, claimed: (nodeId: number) => made.claimed(nodeId) };
}

describe("Contested", () => {
  test("what is heard after gossip claimed it is claimed again, once", () => {
    const { own, at, look, gossip } = contested();
    own.heard.set(5, at.ms);
    own.heard.set(6, at.ms);
    at.ms += 100;
    gossip(5);
    gossip(6);
    expect(look()).toEqual([]);
    at.ms += 100;
    own.heard.set(5, at.ms);
    expect(look()).toEqual([5]);
    own.heard.set(5, ++at.ms);
    expect(look()).toEqual([]); // gossip has nothing new to say of it
    gossip(5);
    own.heard.set(5, ++at.ms);
    expect(look()).toEqual([5]);
  });

  test("what the peer no longer claims is claimed again, though it was not heard", () => {
    const { own, at, table, look, gossip } = contested();
    own.heard.set(5, at.ms);
    at.ms += 100;
    gossip(5);
    expect(look()).toEqual([]);
    table.withdraw(5, PEER);
    expect(look()).toEqual([5]);
  });

  test("what is not here is none of its business, nor what has gone", () => {
    const { own, at, look, gossip } = contested();
    gossip(5);
    own.heard.set(6, at.ms);
    gossip(6);
    own.heard.delete(6);
    expect(look()).toEqual([]);
    own.heard.set(5, ++at.ms);
    own.heard.set(6, at.ms);
    expect(look()).toEqual([]);
  });

  test("gossip that names more than is sensible takes no more room", () => {
    const { own, at, look, claimed } = contested();
    for (let nodeId = 1; nodeId <= 20_000; nodeId++) own.heard.set(nodeId, at.ms);
    for (let nodeId = 1; nodeId <= 20_000; nodeId++) claimed(nodeId);
    expect(look()).toHaveLength(16_384);
  });
});
