/**
 * HTTP and the bridge and their connections: no crowd shuts others out, and none is reset on the
 * way.
 */
import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import { ListeningSocket } from "../../ffi/listening-socket.ts";
import { Beacon } from "../../src/beacon.ts";
import { BridgeServer } from "../../src/control/bridge/server.ts";
import { temporaryFolder } from "../support/folder.ts";
import { silentLog } from "../support/log.ts";
import { makeCertificate } from "../support/websocket.ts";
import { BridgeBeacon, KnownNodes } from "./support/bridged.ts";
import { CLEAN_ENV, installed, isAlive, MAIN, type Program, Programs } from "./support/program.ts";
import { inTime, TEST_TIMEOUT_MS, until } from "./support/wait.ts";

setDefaultTimeout(2 * TEST_TIMEOUT_MS);

const folder = temporaryFolder();
const programs = new Programs();
const sockets: Socket[] = [];
const beacons: Beacon[] = [];
/** Processes that took over: nobody's children any more. */
const successors: number[] = [];
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  for (const pid of successors.splice(0))
    try {
      process.kill(pid, "SIGKILL");
    } catch {} // it has ended
  await programs.kill();
  for (const beacon of beacons.splice(0)) await beacon.close();
});

const FLAGS = ["--addr=127.0.0.1:0", "--workers=1", "--max-nodes=1000", "--log-format=json"];

function limited(filesMax: number, flags: readonly string[]): Program {
  const command = [process.execPath, MAIN, ...FLAGS, ...flags];
  return programs.spawn(["bash", "-c", `ulimit -n ${filesMax} && exec "$@"`, "bash", ...command], {
    env: CLEAN_ENV,
  });
}

async function start(): Promise<URL> {
  const beacon = new Beacon({
    addr: "127.0.0.1:0",
    http: "127.0.0.1:0",
    workers: 1,
    maxNodes: 1000,
  });
  beacons.push(beacon);
  await beacon.listen();
  return beacon.httpUrl!;
}

interface Sent {
  readonly socket: Socket;
  /** Bytes received until now. */
  text(): string;
  /** All that came, once the connection has ended. */
  readonly ended: Promise<string>;
}

/** Connects and sends. @param isHalf shuts down its side behind that */
async function send(port: number | string, bytes: string, isHalf = false): Promise<Sent> {
  const socket = connect({ port: Number(port), host: "127.0.0.1", allowHalfOpen: true });
  sockets.push(socket);
  let text = "";
  socket.on("data", (chunk: Buffer) => {
    text += chunk.toString("latin1");
  });
  socket.on("error", () => {});
  const ended = new Promise<string>((resolve) => {
    for (const event of ["end", "close"]) socket.once(event, () => resolve(text));
  });
  await once(socket, "connect");
  if (isHalf) socket.end(bytes);
  else socket.write(bytes);
  return { socket, text: () => text, ended };
}

const GET = (path: string) => `GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`;
const healthy = async (http: URL) =>
  (await fetch(new URL("healthz", http), { keepalive: false, signal: AbortSignal.timeout(10_000) }))
    .status;

describe("a crowd of connections at HTTP", () => {
  test.each([
    ["says nothing", ""],
    ["begins a request", "GET /healthz HTTP/1.1\r\nHos"],
    ["has had an answer", GET("/healthz")],
    ["owes a body", "POST /api/drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"],
  ])(
    "that %s leaves health and metrics within reach, with more of them than files",
    async (_, bytes) => {
      const program = limited(256, ["--http=127.0.0.1:0"]);
      const http = new URL((await program.listening()).http!);
      const crowd = await Promise.all(Array.from({ length: 300 }, () => send(http.port, bytes)));
      for (let i = 0; i < 20; i++) expect(await healthy(http)).toBe(200);
      const metrics = await (await fetch(new URL("metrics", http), { keepalive: false })).text();
      expect(metrics).toContain("beacon_nodes");
      const files = () =>
        readFileSync(`/proc/${program.pid}/status`, "utf8").match(/^FDSize:\s+(\d+)/m)?.[1];
      expect(Number(files())).toBeLessThanOrEqual(256);
      // The connection that waited longest has made room.
      await inTime("the first one ends", crowd[0]!.ended);
      expect(program.log().filter(({ level }) => level === "error")).toEqual([]);
    },
  );

  test("does not end a client that follows the stream", async () => {
    const program = limited(256, ["--http=127.0.0.1:0"]);
    const http = new URL((await program.listening()).http!);
    const follower = await send(http.port, GET("/api/stats/stream"));
    await until("a line", () => follower.text().includes('"uptimeS"'));
    await Promise.all(Array.from({ length: 300 }, () => send(http.port, "")));
    expect(await healthy(http)).toBe(200);
    const lines = () => follower.text().split('"uptimeS"').length;
    const before = lines();
    await until("more lines", () => lines() > before + 1);
  });
});

describe("few files", () => {
  test("100 are enough", async () => {
    const program = limited(100, ["--http=127.0.0.1:0"]);
    expect(await healthy(new URL((await program.listening()).http!))).toBe(200);
    expect(program.log().filter(({ level }) => level !== "info")).toEqual([]);
  });

  test("fewer than it needs: a warning says how many", async () => {
    const program = limited(60, ["--http=127.0.0.1:0"]);
    await program.listening();
    const { msg } = await program.logged(/may open 60 files/);
    expect(msg).toContain("fewer than the 68 that it needs: raise LimitNOFILE or ulimit -n");
  });
});

describe("a client that shuts down its side behind its request gets its answer:", () => {
  test.each([
    "/healthz",
    "/readyz",
    "/metrics",
    "/",
    "/api",
    "/api/stats",
    "/api/peers",
    "/api/workers",
    "/api/config",
    "/api/breakers",
    "/api/nodes",
    "/api/nodes/7",
  ])("%s", async (path) => {
    const { port } = await start();
    const { ended } = await send(port, GET(path), true);
    const [head, body = ""] = (await inTime("the answer", ended)).split("\r\n\r\n");
    expect(head).toStartWith("HTTP/1.1 200 ");
    expect(body.length).toBe(Number(/^content-length: (\d+)/im.exec(head!)![1]));
  });

  test("the stream, line by line", async () => {
    const { port } = await start();
    const { text } = await send(port, GET("/api/stats/stream"), true);
    await until("three lines", () => text().split('"uptimeS"').length > 3);
  });

  test("a request in place of which something else comes is refused", async () => {
    const { port } = await start();
    const { ended } = await send(port, "GET /healthz HTTP/1.1\r\nHo", true);
    expect(await inTime("the end", ended)).toMatch(/^$|^HTTP\/1.1 400 /);
  });
});

describe("bounds of HTTP requests", () => {
  test.each([
    ["a head of 100 KB", `GET / HTTP/1.1\r\nHost: x\r\nA: ${"a".repeat(100_000)}\r\n\r\n`, 431],
    [
      "100 KB of header lines",
      `GET / HTTP/1.1\r\nHost: x\r\n${"A: b\r\n".repeat(17_000)}\r\n`,
      431,
    ],
    ["a path of 100 KB", `GET /${"a".repeat(100_000)} HTTP/1.1\r\nHost: x\r\n\r\n`, 431],
    ["no host", "GET /healthz HTTP/1.1\r\n\r\n", 400],
    [
      "a body of 1,025 bytes",
      `POST /api/drain HTTP/1.1\r\nHost: x\r\nContent-Length: 1025\r\n\r\n`,
      413,
    ],
    [
      "chunks of 2 KB",
      `POST /api/drain HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n800\r\n${"a".repeat(2048)}\r\n`,
      413,
    ],
    ["no request", "\x00\x01\x02\r\n\r\n", 400],
  ])("%s", async (_, bytes, status) => {
    const http = await start();
    const { ended } = await send(http.port, bytes);
    expect(await inTime("the connection ends", ended)).toStartWith(`HTTP/1.1 ${status} `);
    expect(await healthy(http)).toBe(200);
  });

  test("a head or a body that trickles in is not waited for, nor is silence", async () => {
    const http = await start();
    const POST = "POST /api/drain HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n";
    const slow = [
      ["GET / HTTP/1.1\r\n", "a: b\r\n"],
      [POST, "a"],
      ["", ""],
    ] as const;
    const ends = slow.map(async ([first, more]) => {
      const { socket, ended } = await send(http.port, first);
      const timer = setInterval(() => socket.writable && socket.write(more), 500);
      await inTime("the connection ends", ended).finally(() => clearInterval(timer));
    });
    await Promise.all(ends);
  });

  test("requests that come before the first one's answer are answered in their order", async () => {
    const http = await start();
    const paths = ["/healthz", "/api", "/nothing", "/readyz"];
    const last = GET("/healthz").replace("Host", "Connection: close\r\nHost");
    const { ended } = await send(http.port, paths.map(GET).join("") + last);
    const answers = await inTime("the answers", ended);
    expect(answers.match(/(?<=HTTP\/1.1 )\d+/g)).toEqual(["200", "200", "404", "200", "200"]);
  });
});

/** Clients that connect, wait up to 200 ms, and only then ask, again and again. */
class Clients {
  answered = 0;
  readonly failures: string[] = [];
  #isRunning = true;
  readonly #loops: Promise<void>[];

  /** @param ask sends the request, and returns the answer's beginning */
  constructor(port: number, count: number, ask: (socket: Socket) => Promise<string>) {
    this.#loops = Array.from({ length: count }, async () => {
      while (this.#isRunning) await this.#ask(port, ask);
    });
  }

  async #ask(port: number, ask: (socket: Socket) => Promise<string>): Promise<void> {
    const socket = connect(port, "127.0.0.1");
    try {
      await once(socket, "connect");
      await Bun.sleep(Math.random() * 200);
      const answer = await inTime("an answer", ask(socket));
      if (answer.includes(" 200 ")) this.answered++;
      else this.failures.push(answer || "closed");
    } catch (error) {
      this.failures.push((error as NodeJS.ErrnoException).code ?? String(error));
    } finally {
      socket.destroy();
    }
  }

  async stop(): Promise<void> {
    this.#isRunning = false;
    await Promise.all(this.#loops);
  }
}

async function askPlain(socket: Socket, path = "/health"): Promise<string> {
  socket.write(GET(path));
  return firstBytes(socket);
}

async function askTls(socket: Socket): Promise<string> {
  const tls = connectTls({ socket, rejectUnauthorized: false });
  await once(tls, "secureConnect");
  tls.write(GET("/health"));
  return firstBytes(tls);
}

function firstBytes(socket: Socket): Promise<string> {
  return new Promise((resolve, reject) => {
    socket.once("data", (chunk: Buffer) => resolve(chunk.toString("latin1")));
    socket.once("error", reject);
    socket.once("close", () => resolve(""));
  });
}

const hasOpenssl = installed("openssl");
const CLIENTS = 10;
const TIMES = 10;

describe("no connection is reset", () => {
  test.skipIf(!hasOpenssl)(
    "by ten renewals of the bridge's certificate (needs openssl)",
    async () => {
      const [one, two] = ["one", "two"].map((name) => {
        const { certPath, keyPath } = makeCertificate(folder, name);
        return { wssTlsCert: certPath, wssTlsKey: keyPath };
      });
      const host = await BridgeBeacon.start(one);
      const clients = new Clients(Number(host.url.port), CLIENTS, askTls);
      try {
        for (let i = 1; i <= TIMES; i++) {
          const { answered } = clients;
          await until("clients are answered", () => clients.answered > answered + CLIENTS);
          host.beacon.reconfigure({ ...host.beacon.config, ...(i % 2 === 0 ? one : two) });
        }
      } finally {
        await clients.stop();
        await host.close();
      }
      expect(clients.failures).toEqual([]);
    },
  );

  test("by ten pauses of the bridge", async () => {
    const socket = ListeningSocket.open("127.0.0.1", 0);
    const options = { trustedProxies: [], tls: undefined };
    const server = new BridgeServer(socket, "127.0.0.1", options, silentLog, () => undefined, {
      message: () => {},
    });
    const clients = new Clients(socket.port, CLIENTS, askPlain);
    try {
      for (let i = 1; i <= TIMES; i++) {
        const { answered } = clients;
        await until("clients are answered", () => clients.answered > answered + CLIENTS);
        server.tick(true);
        await Bun.sleep(100);
        server.tick(false);
      }
    } finally {
      await clients.stop();
      await server.stop();
      socket.close();
    }
    expect(clients.failures).toEqual([]);
  });

  test("by ten upgrades, at HTTP and the bridge", async () => {
    const nodes = new KnownNodes();
    const keys = join(folder, "keys.json");
    writeFileSync(keys, nodes.file([7]));
    const flags = ["--http=127.0.0.1:0", "--wss=127.0.0.1:0", `--wss-keys=${keys}`];
    const program = programs.beacon([...FLAGS, ...flags]);
    const { http, line } = await program.listening();
    const atHttp = new Clients(Number(new URL(http!).port), CLIENTS, (socket) =>
      askPlain(socket, "/healthz"),
    );
    const atBridge = new Clients(Number(new URL(String(line["wss"])).port), CLIENTS, askPlain);
    let { pid } = program;
    try {
      for (let i = 1; i <= TIMES; i++) {
        const from = program.lines.length;
        process.kill(pid, "SIGUSR2");
        const { successor } = await program.logged(/serves; this one ends$/, from);
        const old = pid;
        pid = Number(successor);
        successors.push(pid);
        await until("the old process ends", () => !isAlive(old));
      }
    } finally {
      await Promise.all([atHttp.stop(), atBridge.stop()]);
    }
    expect({ http: atHttp.failures, bridge: atBridge.failures }).toEqual({ http: [], bridge: [] });
    expect(Math.min(atHttp.answered, atBridge.answered)).toBeGreaterThan(TIMES * CLIENTS);
  });
});
