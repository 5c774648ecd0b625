/**
 * Strangers who open more sockets than the process may have files: the bridge stands aside, and the
 * rest of the beacon goes on.
 */
import { afterEach, expect, setDefaultTimeout, test } from "bun:test";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BridgedNode, KnownNodes } from "./support/bridged.ts";
import { Client } from "./support/client.ts";
import { CLEAN_ENV, MAIN, Programs } from "./support/program.ts";
import { TEST_TIMEOUT_MS, until } from "./support/wait.ts";

setDefaultTimeout(2 * TEST_TIMEOUT_MS);

/** Files of the process: with what is spare, a beacon has some 200 at rest. */
const FILES_MAX = 500;
const SOCKETS = 600;
const [NODE, UDP_NODE] = [7, 8];

const folder = mkdtempSync(join(tmpdir(), "beacon-files-"));
const programs = new Programs();
const sockets: Socket[] = [];
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await programs.kill();
  rmSync(folder, { recursive: true });
});

test("the bridge takes no connections until files are there again; relays, health and who is connected go on", async () => {
  const nodes = new KnownNodes();
  const keys = join(folder, "keys.json");
  writeFileSync(keys, nodes.file([NODE]));
  const beacon = [
    process.execPath,
    MAIN,
    "--addr=127.0.0.1:0",
    "--http=127.0.0.1:0",
    "--wss=127.0.0.1:0",
  ];
  const flags = [`--wss-keys=${keys}`, "--workers=1", "--max-nodes=1000", "--log-format=json"];
  const program = programs.spawn(
    ["bash", "-c", `ulimit -n ${FILES_MAX} && exec "$@"`, "bash", ...beacon, ...flags],
    { env: CLEAN_ENV },
  );
  const { port, http, line } = await program.listening();
  const wss = String(line["wss"]);
  const node = await BridgedNode.connect(wss, nodes.identity(NODE));

  for (let i = 0; i < SOCKETS; i++) {
    const socket = connect(Number(new URL(wss).port), "127.0.0.1");
    socket.on("error", () => {});
    sockets.push(socket);
  }
  await Promise.all(sockets.map((socket) => once(socket, "connect")));
  await program.logged(/^the WebSocket bridge takes no connections for now/);

  const gauge = async () => {
    const text = await (await fetch(new URL("metrics", http), { keepalive: false })).text();
    return Number(/^beacon_wss_listening (\d)$/m.exec(text)?.[1]);
  };
  expect(await gauge()).toBe(0);
  const client = await Client.open("127.0.0.1", { address: "127.0.0.1", port });
  try {
    await client.discover(UDP_NODE);
    node.relay(UDP_NODE, new Uint8Array(3));
    expect(await client.message()).toMatchObject({ type: "deliver", senderId: NODE });
    await client.relay(UDP_NODE, NODE, new Uint8Array(4));
    expect(await node.message()).toMatchObject({ type: "deliver", senderId: UDP_NODE });
  } finally {
    client.close();
  }

  for (const socket of sockets.splice(0)) socket.destroy();
  await program.logged(/^the WebSocket bridge listens again$/);
  await until("a node is let in", () => BridgedNode.connect(wss, nodes.identity(NODE)));
  expect(await gauge()).toBe(1);
  expect(await node.connection.closed).toEqual({ code: 1000, reason: "replaced" });
});
