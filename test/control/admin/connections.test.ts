/** How many connections HTTP has, and how long it waits for their clients. */
import { beforeEach, describe, expect, test } from "bun:test";
import { EventEmitter } from "node:events";
import type { Socket } from "node:net";
import {
  type Connection,
  Connections,
  connectionsMax,
  KEEP_ALIVE_MS,
  READ_MS_MAX,
  REQUEST_MS_MAX,
} from "../../../src/control/admin/connections.ts";

/** HTTP may have 16 of these, and one address 4. */
const FILES_MAX = 128;
const [MAX, ADDRESS_MAX, SHORT_MAX] = [16, 4, 8];

class ScriptedSocket extends EventEmitter {
  destroyed = false;
  writableLength = 0;

  constructor(readonly remoteAddress: string | undefined) {
    super();
  }

  destroy(): void {
    this.destroyed = true;
    this.emit("close");
  }
}

let nowMs: number;
let connections: Connections;
beforeEach(() => {
  nowMs = 0;
  connections = new Connections(FILES_MAX, () => nowMs);
});

function admit(address: string | undefined = "127.0.0.1"): {
  socket: ScriptedSocket;
  connection: Connection | undefined;
} {
  nowMs++;
  const socket = new ScriptedSocket(address);
  return { socket, connection: connections.admit(socket as never as Socket) };
}

test("their number follows the files that the process may open, within bounds", () => {
  expect([24, 100, 256, 1024, 1_000_000, Number.POSITIVE_INFINITY].map(connectionsMax)).toEqual([
    8, 12, 32, 128, 256, 256,
  ]);
});

test("one that has left already is not admitted", () => {
  const socket = new ScriptedSocket(undefined);
  expect(connections.admit(socket as never as Socket)).toBeUndefined();
});

describe("without room", () => {
  test("the one that has waited longest makes some, whatever for", () => {
    const all = Array.from({ length: MAX }, () => admit());
    nowMs++;
    connections.waits(all[0]!.connection!, "next");
    nowMs++;
    connections.waits(all[1]!.connection!, "reader");
    for (let i = 2; i < MAX; i++) {
      admit();
      expect(all.map(({ socket }) => socket.destroyed)).toEqual(
        all.map((_, at) => at > 1 && at <= i),
      );
      expect(connections.count).toBe(MAX);
    }
    admit();
    expect([all[0]!.socket.destroyed, all[1]!.socket.destroyed]).toEqual([true, false]);
  });

  test("none for which an answer is made does; then no other is admitted", () => {
    const all = Array.from({ length: MAX }, () => admit());
    for (const { connection } of all) connections.waits(connection!, "nothing");
    expect(admit().connection).toBeUndefined();
    connections.waits(all[5]!.connection!, "next");
    expect(admit().connection).toBeDefined();
    expect(all.map(({ socket }) => socket.destroyed)).toEqual(all.map((_, at) => at === 5));
  });

  test("for one address, its own make room, and no others; this host's addresses may have all", () => {
    const other = admit("192.0.2.1");
    const all = Array.from({ length: ADDRESS_MAX }, () => admit("192.0.2.2"));
    const last = admit("192.0.2.2");
    expect([other.socket.destroyed, ...all.map(({ socket }) => socket.destroyed)]).toEqual([
      false,
      true,
      false,
      false,
      false,
    ]);
    for (const { connection } of [...all.slice(1), last]) connections.waits(connection!, "nothing");
    expect(admit("192.0.2.2").connection).toBeUndefined();
    expect(admit("192.0.2.3").connection).toBeDefined();
    connections.closeAll();
    for (let i = 0; i < MAX; i++) expect(admit("::1").connection).toBeDefined();
    expect(connections.count).toBe(MAX);
  });

  test("one that has ended has made it", () => {
    const all = Array.from({ length: MAX }, () => admit());
    all[3]!.socket.destroy();
    expect(connections.count).toBe(MAX - 1);
    admit();
    expect(all.filter(({ socket }) => socket.destroyed)).toHaveLength(1);
  });
});

describe("with time", () => {
  test.each([
    ["request", REQUEST_MS_MAX],
    ["next", KEEP_ALIVE_MS],
    ["reader", READ_MS_MAX],
  ] as const)("a client that owes its part (%s) is late after %d ms", (waitsFor, ms) => {
    const { socket, connection } = admit();
    connections.waits(connection!, waitsFor);
    nowMs += ms;
    connections.tick(false);
    expect(socket.destroyed).toBe(false);
    nowMs++;
    connections.tick(false);
    expect(socket.destroyed).toBe(true);
    expect(connections.count).toBe(0);
  });

  test("a client that waits for its answer is never late", () => {
    const { socket, connection } = admit();
    connections.waits(connection!, "nothing");
    nowMs += 1e9;
    connections.tick(false);
    expect(socket.destroyed).toBe(false);
  });

  test("a client that goes on reading is not late", () => {
    const { socket, connection } = admit();
    connections.waits(connection!, "reader");
    for (let unread = 10; unread > 0; unread--) {
      socket.writableLength = unread;
      connections.tick(false);
      nowMs += READ_MS_MAX;
    }
    connections.tick(false);
    expect(socket.destroyed).toBe(false);
    nowMs += READ_MS_MAX + 1;
    connections.tick(false);
    expect(socket.destroyed).toBe(true);
  });
});

test("when files are short, those that wait go, the longest first, until few are left", () => {
  const all = Array.from({ length: MAX }, () => admit());
  connections.waits(all[0]!.connection!, "nothing");
  connections.tick(true);
  expect(all.map(({ socket }) => socket.destroyed)).toEqual(
    all.map((_, at) => at > 0 && at <= MAX - SHORT_MAX),
  );
  for (const { connection } of all) connections.waits(connection!, "nothing");
  connections.tick(true);
  expect(connections.count).toBe(SHORT_MAX);
});

test("tells whether clients have yet to ask, or to be answered", () => {
  expect([connections.areBusy, connections.areOwed]).toEqual([false, false]);
  const { connection } = admit();
  expect([connections.areBusy, connections.areOwed]).toEqual([true, false]);
  connection!.owed++;
  connections.waits(connection!, "nothing");
  expect([connections.areBusy, connections.areOwed]).toEqual([true, true]);
  connection!.owed--;
  connections.waits(connection!, "next");
  expect([connections.areBusy, connections.areOwed]).toEqual([false, false]);
});
