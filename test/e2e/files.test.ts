/** A beacon that can open no more files: it goes on with those that it has. */
import { afterEach, expect, test } from "bun:test";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import type { Stats } from "../../src/beacon.ts";
import { Clients } from "./support/client.ts";
import { exhaustFiles } from "./support/host.ts";
import { CLEAN_ENV, installed, type Program, Programs } from "./support/program.ts";
import { until } from "./support/wait.ts";

const KILLABLE = join(import.meta.dir, "support/killable-beacon.ts");
const FLAGS = ["--addr=127.0.0.1:0", "--http=127.0.0.1:0", "--log-format=json", "--max-nodes=1000"];
const hasPrlimit = installed("prlimit");

const programs = new Programs();
let port = 0;
const clients = new Clients(() => ({ port }));
const sockets: Socket[] = [];
let giveBack: (() => void) | undefined;
afterEach(async () => {
  giveBack?.();
  giveBack = undefined;
  clients.close();
  for (const socket of sockets.splice(0)) socket.destroy();
  await programs.kill();
});

/**
 * Starts a beacon.
 * @returns how it is asked for its numbers, on a connection that it has already
 */
async function start(
  workers = 1,
): Promise<{ program: Program; http: URL; stats(): Promise<Stats> }> {
  const command = [process.execPath, KILLABLE, ...FLAGS, `--workers=${workers}`];
  const program = programs.spawn(command, { env: CLEAN_ENV, stdin: "pipe" });
  const listening = await program.listening();
  port = listening.port;
  const http = new URL(listening.http!);
  const socket = connect({ host: http.hostname, port: Number(http.port) });
  sockets.push(socket);
  await once(socket, "connect");
  let text = "";
  socket.on("data", (chunk: Buffer) => {
    text += chunk;
  });
  const stats = async () => {
    text = "";
    socket.write(`GET /api/stats HTTP/1.1\r\nHost: ${http.host}\r\n\r\n`);
    const answer = () => {
      const [head, body] = text.split("\r\n\r\n");
      const length = Number(/^content-length: (\d+)/im.exec(head!)?.[1]);
      if (body === undefined || body.length < length) return undefined;
      if (!head!.startsWith("HTTP/1.1 200 ")) throw new Error(text);
      return JSON.parse(body) as Stats;
    };
    try {
      return await until("it answers", answer);
    } catch (error) {
      throw new Error(`${(error as Error).message}\n${text}\n${program.output()}`);
    }
  };
  return { program, http, stats };
}

async function exhaust({ program, http }: { program: Program; http: URL }): Promise<void> {
  giveBack = await exhaustFiles(program.pid, http.hostname, Number(http.port));
}

test.skipIf(!hasPrlimit)(
  "its numbers are still there, with the memory as it was (needs prlimit)",
  async () => {
    const beacon = await start();
    const { residentBytes } = await beacon.stats();
    expect(residentBytes).toBeGreaterThan(1e6);
    await exhaust(beacon);
    expect((await beacon.stats()).residentBytes).toBe(residentBytes);
  },
);

test.skipIf(!hasPrlimit)(
  "a worker that dies is replaced all the same, again and again (needs prlimit)",
  async () => {
    const beacon = await start();
    const client = await clients.open();
    await exhaust(beacon);
    for (let death = 1; death <= 3; death++) {
      await beacon.program.write("kill 0");
      await until("it is replaced", async () => {
        const [worker] = (await beacon.stats()).workers;
        return worker!.restarts === death && worker!.alive;
      });
      expect(await client.discover(death)).toEqual({ type: "discoverReply", ...client.address });
    }
  },
);

test.skipIf(!hasPrlimit)(
  "workers that die together are replaced all the same (needs prlimit)",
  async () => {
    const WORKERS = 4;
    const beacon = await start(WORKERS);
    await exhaust(beacon);
    for (let deaths = 1; deaths <= 3; deaths++) {
      for (let worker = 0; worker < WORKERS; worker++) await beacon.program.write(`kill ${worker}`);
      await until("all are replaced", async () => {
        const { workers } = await beacon.stats();
        return workers.every(({ restarts, alive }) => restarts === deaths && alive);
      });
    }
  },
);
