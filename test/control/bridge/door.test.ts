/** Who may come to the bridge's door. */
import { describe, expect, test } from "bun:test";
import { Connection } from "../../../src/control/bridge/connection.ts";
import { Door, type DoorOptions } from "../../../src/control/bridge/door.ts";

const OPTIONS: DoorOptions = {
  maxPeers: 1600,
  upgradeLimit: 0,
  failureLimit: 0,
  limitsShadow: false,
};
const BURST_S = 10;
/** A quarter of all, and a quarter of that. */
const [UNPROVEN_MAX, OF_ONE_ADDRESS_MAX] = [400, 100];
const START_NS = 5e9;

/** A door at which time passes when it is told to. */
function doorWith(options: Partial<DoorOptions>) {
  const time = { ns: START_NS };
  const door = new Door({ ...OPTIONS, ...options }, { nowNs: () => time.ns });
  return { door, time };
}

const from = (address: string) => new Connection(address, 1);

/** Asks so many times. @returns how many are let in */
function letIn(door: Door, address: string, times: number): number {
  let count = 0;
  for (let i = 0; i < times; i++) count += Number(!door.isLimited(from(address)));
  return count;
}

/** Opens so many connections, which prove nothing. */
function open(door: Door, address: string, count: number, openedMs = 0): Connection[] {
  return Array.from({ length: count }, () => {
    const connection = from(address);
    connection.openedMs = openedMs;
    door.opened(connection);
    return connection;
  });
}

/** Lets one in. */
function prove(door: Door, connection: Connection): void {
  door.replied(connection);
  connection.nodeId = 7;
  door.proven(connection);
}

describe("upgrades", () => {
  test("ten seconds' worth at once, then as many a second as the limit says; other addresses have their own", () => {
    const { door, time } = doorWith({ upgradeLimit: 5 });
    expect(letIn(door, "203.0.113.1", 100)).toBe(5 * BURST_S);
    time.ns += 2e9;
    expect(letIn(door, "203.0.113.1", 100)).toBe(2 * 5);
    expect(letIn(door, "203.0.113.2", 100)).toBe(5 * BURST_S);
    time.ns += 60e9;
    expect(letIn(door, "203.0.113.1", 100)).toBe(5 * BURST_S);
  });

  test("of IPv6, a network of 64 bits is one address", () => {
    const { door } = doorWith({ upgradeLimit: 1 });
    expect(letIn(door, "2001:db8::1", BURST_S)).toBe(BURST_S);
    expect(letIn(door, "2001:db8::ffff:1", 1)).toBe(0);
    expect(letIn(door, "2001:db8:0:1::1", 1)).toBe(1);
  });

  test.each(["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])(
    "from %s are not limited",
    (address) => {
      const { door } = doorWith({ upgradeLimit: 1, failureLimit: 1 });
      for (let i = 0; i < 100; i++) door.failed(from(address));
      open(door, address, OF_ONE_ADDRESS_MAX);
      expect(letIn(door, address, 100)).toBe(100);
    },
  );

  test("0 is no limit, and one that is changed counts from then on", () => {
    const { door } = doorWith({});
    expect(letIn(door, "203.0.113.1", 10_000)).toBe(10_000);
    door.configure({ ...OPTIONS, upgradeLimit: 1 });
    expect(letIn(door, "203.0.113.1", 100)).toBe(BURST_S);
    door.configure(OPTIONS);
    expect(letIn(door, "203.0.113.1", 100)).toBe(100);
  });

  test("in shadow all are let in, and counted", () => {
    const { door } = doorWith({ upgradeLimit: 1, limitsShadow: true });
    expect(letIn(door, "203.0.113.1", BURST_S + 7)).toBe(BURST_S + 7);
    expect(door.shadowed).toBe(7);
  });
});

describe("failures", () => {
  test("ten seconds' worth, and the address has to wait; time makes it good, and others do not wait", () => {
    const { door, time } = doorWith({ failureLimit: 2 });
    const fail = (times: number) => {
      for (let i = 0; i < times; i++) door.failed(from("203.0.113.1"));
    };
    fail(2 * BURST_S - 1);
    expect(letIn(door, "203.0.113.1", 5)).toBe(5);
    fail(1);
    expect(letIn(door, "203.0.113.1", 5)).toBe(0);
    expect(letIn(door, "203.0.113.2", 5)).toBe(5);
    fail(1000); // more than there is: no debt that grows
    time.ns += 0.4e9;
    expect(letIn(door, "203.0.113.1", 1)).toBe(0);
    time.ns += 0.1e9;
    expect(letIn(door, "203.0.113.1", 5)).toBe(5);
    fail(1);
    expect(letIn(door, "203.0.113.1", 1)).toBe(0);
  });

  test("an upgrade that is refused for them is not counted as one", () => {
    const { door, time } = doorWith({ upgradeLimit: 1, failureLimit: 1 });
    for (let i = 0; i < BURST_S; i++) door.failed(from("203.0.113.1"));
    expect(letIn(door, "203.0.113.1", 1000)).toBe(0);
    time.ns += 1e9;
    expect(letIn(door, "203.0.113.1", 1000)).toBe(BURST_S);
  });
});

describe("connections that have proven nothing", () => {
  test("of one address: a sixteenth of all; each that proves itself or goes makes room", () => {
    const { door } = doorWith({});
    const [first, second] = open(door, "203.0.113.1", OF_ONE_ADDRESS_MAX);
    expect(letIn(door, "203.0.113.1", 1)).toBe(0);
    expect(letIn(door, "203.0.113.2", 1)).toBe(1);
    prove(door, first!);
    expect(letIn(door, "203.0.113.1", 1)).toBe(1);
    open(door, "203.0.113.1", 1);
    expect(letIn(door, "203.0.113.1", 1)).toBe(0);
    door.gone(second!);
    expect(letIn(door, "203.0.113.1", 1)).toBe(1);
    door.gone(first!); // it has made its room already
    open(door, "203.0.113.1", 1);
    expect(letIn(door, "203.0.113.1", 1)).toBe(0);
  });

  test("together: a quarter of all, those that are told to go included until they are gone", () => {
    const { door } = doorWith({});
    const connections = open(door, "203.0.113.1", UNPROVEN_MAX);
    expect(door.isCrowded).toBe(true);
    door.dismissed(connections[0]!);
    expect(door.isCrowded).toBe(true);
    door.gone(connections[0]!);
    expect(door.isCrowded).toBe(false);
    open(door, "203.0.113.1", 1);
    expect(door.isCrowded).toBe(true);
    prove(door, connections[1]!);
    expect(door.isCrowded).toBe(false);
  });

  test("the oldest that owes a reply, or its end, makes room after two seconds; one whose proof is looked at does not", () => {
    const { door } = doorWith({});
    const [first, second] = open(door, "203.0.113.1", 2, 10_000);
    expect(door.overdue(12_000)).toBeUndefined();
    expect(door.overdue(12_001)).toBe(first!);
    door.replied(first!);
    expect(door.overdue(12_001)).toBe(second!);
    prove(door, second!);
    expect(door.overdue(99_000)).toBeUndefined();
    door.dismissed(second!); // a node's connection goes its own way
    expect(door.overdue(99_000)).toBeUndefined();
    door.dismissed(first!);
    expect(door.overdue(12_001)).toBe(first!);
    door.gone(first!);
    expect(door.overdue(99_000)).toBeUndefined();
  });
});
