/** An attack of connections, at a server that takes them. */
import { afterEach, expect, test } from "bun:test";
import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import type { Scene } from "../../../bench/rig/hostile/attack.ts";
import { Crowd } from "../../../bench/rig/hostile/crowd.ts";
import { until } from "../../e2e/support/wait.ts";

const HOST = "127.0.0.1";
const MOST = 20;
const scene = { connectionsPerS: 1000, connectionsMax: MOST } as Scene;

const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});

async function serve(): Promise<{
  port: number;
  sockets: Set<Socket>;
  heard: string[];
  accepted: () => number;
}> {
  const sockets = new Set<Socket>();
  const heard: string[] = [];
  let accepted = 0;
  const server = createServer((socket) => {
    accepted++;
    sockets.add(socket);
    socket.on("data", (bytes) => heard.push(bytes.toString()));
    socket.on("error", () => {}); // a reset
    socket.on("close", () => sockets.delete(socket));
  });
  servers.push(server);
  server.listen(0, HOST);
  await once(server, "listening");
  return {
    port: (server.address() as { port: number }).port,
    sockets,
    heard,
    accepted: () => accepted,
  };
}

test("as many as it may have, each as it should behave, and none afterwards", async () => {
  const { port, sockets, heard, accepted } = await serve();
  const crowd = new Crowd({ address: HOST, port }, scene, {
    opened: (socket, n) => void socket.write(`<${n}>`),
    turn: (socket) => void socket.write("."),
  });
  await until(
    "all said what they had to",
    () => (heard.join("").match(/\./g)?.length ?? 0) >= 3 * MOST,
  );
  expect(sockets.size).toBe(MOST);
  expect(accepted()).toBe(MOST);
  expect(await crowd.stop()).toEqual({ of: "connections", count: MOST, bytes: 0, heard: {} });
  const said = heard.join("").match(/<\d+>/g)!;
  expect(said.toSorted()).toEqual(Array.from({ length: MOST }, (_, n) => `<${n}>`).toSorted());
  await until("the last is gone", () => sockets.size === 0);
  expect(accepted()).toBe(MOST);
});

test("others come in the place of those that the server turns away", async () => {
  const { port, sockets, accepted } = await serve();
  const crowd = new Crowd({ address: HOST, port }, scene, {});
  await until("a full house", () => sockets.size === MOST);
  for (const socket of sockets) socket.destroy();
  await until("another one", () => accepted() >= 2 * MOST);
  expect((await crowd.stop()).count).toBeGreaterThanOrEqual(2 * MOST);
});

test("connections that are refused were none", async () => {
  const { port } = await serve();
  for (const server of servers.splice(0)) server.close();
  let turns = 0;
  const crowd = new Crowd({ address: HOST, port }, scene, {});
  // As many again as it would have opened by now.
  await until("many attempts", () => ++turns > 20);
  expect((await crowd.stop()).count).toBe(0);
});
