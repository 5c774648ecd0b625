/** An upgrade of a beacon that has a directory. */
import { afterEach, describe, expect, test } from "bun:test";
import { Beacon } from "../../src/beacon.ts";
import { REDIS, RedisServer } from "../support/redis.ts";
import { UNLIMITED } from "./support/beacon.ts";
import { Client } from "./support/client.ts";
import { isAlive, Programs } from "./support/program.ts";
import { until } from "./support/wait.ts";
import { decode } from "./support/wire.ts";

const NODES = 20;
const programs = new Programs();
const endings: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of endings.splice(0).reverse()) await end();
  await programs.kill();
});

async function clientOf(port: number): Promise<Client> {
  const client = await Client.open("127.0.0.1", { address: "127.0.0.1", port });
  endings.push(() => client.close());
  return client;
}

/** Sends to a node through one beacon until the node has it. */
async function expectReached(sender: Client, nodeId: number, node: Client): Promise<void> {
  const isIt = (bytes: Uint8Array) => {
    const message = decode(bytes);
    return message.type === "deliver" && Buffer.from(message.payload).readUInt32BE(0) === nodeId;
  };
  const payload = Buffer.alloc(4);
  payload.writeUInt32BE(nodeId);
  await until(`node ${nodeId} is reached`, async () => {
    await sender.relay(1, nodeId, payload);
    return node.take().some(({ bytes }) => isIt(bytes));
  });
}

describe.skipIf(!REDIS.program)(
  `a beacon with a directory${REDIS.program ? "" : " (needs redis-server)"}`,
  () => {
    test("hands over what it was told, and the next process goes on with it while the directory is away", async () => {
      let server = await RedisServer.start();
      endings.push(() => server.stop());
      const directory = `redis://127.0.0.1:${server.port}`;
      const other = new Beacon({
        ...{
          addr: "127.0.0.1:0",
          workers: 1,
          maxNodes: 1000,
          beaconId: 1,
          directory,
          selfCheck: false,
        },
        ...UNLIMITED,
      });
      await other.listen();
      endings.push(() => other.close());
      const flags = [
        "--addr=127.0.0.1:0",
        "--http=off",
        "--log-format=json",
        "--max-nodes=1000",
        "--beacon-id=2",
      ];
      const program = programs.beacon([
        ...flags,
        `--directory=${directory}`,
        "--workers=1",
        "--self-check=off",
        "--relay-limit=0",
        "--relay-address-limit=0",
      ]);
      const { port } = await program.listening();
      const [node, sender, mover] = [
        await clientOf(other.address.port),
        await clientOf(port),
        await clientOf(port),
      ];
      for (let nodeId = 100; nodeId < 100 + NODES; nodeId++) await node.discover(nodeId);
      await mover.discover(50);
      for (let nodeId = 100; nodeId < 100 + NODES; nodeId++)
        await expectReached(sender, nodeId, node);
      await server.stop();
      program.signal("SIGUSR2");
      const { successor } = await program.logged(/serves; this one ends$/);
      endings.push(() => kill(successor as number));
      await until("the old process ends", () => !isAlive(program.pid));
      for (let nodeId = 100; nodeId < 100 + NODES; nodeId++) {
        node.take();
        await sender.relay(1, nodeId, Buffer.from([0, 0, 0, nodeId]));
        expect(decode((await node.next()).bytes)).toMatchObject({ type: "deliver" });
      }
      // And once it is there again: its own nodes are told, and others' moves are heard.
      server = await RedisServer.start({ port: server.port });
      await expectReached(await clientOf(other.address.port), 50, mover);
      const moved = await clientOf(other.address.port);
      await moved.discover(50);
      await expectReached(sender, 50, moved);
      expect(program.log().filter(({ level }) => level === "error" || level === "fatal")).toEqual(
        [],
      );
    });
  },
);

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {} // it has ended
}
