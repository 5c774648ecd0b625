/** The command line, as a process. */
import { afterAll, afterEach, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import type { Stats } from "../../src/beacon.ts";
import { temporaryFolder } from "../support/folder.ts";
import { Client } from "./support/client.ts";
import { type Program, Programs } from "./support/program.ts";

const DEFAULT_HTTP_PORT = 9002;
/** A free port, no HTTP, and lines that a test can read. */
const FLAGS = [
  "--addr=127.0.0.1:0",
  "--http=off",
  "--log-format=json",
  "--workers=1",
  "--max-nodes=1000",
];

const programs = new Programs();
const folder = temporaryFolder();
afterEach(() => programs.kill());

async function expectServed(port: number) {
  const client = await Client.open("127.0.0.1", { address: "127.0.0.1", port });
  try {
    expect(await client.discover(7)).toEqual({ type: "discoverReply", ...client.address });
  } finally {
    client.close();
  }
}

/** Listens on a TCP port. @returns undefined if it cannot be had */
async function occupy(port: number): Promise<Server | undefined> {
  const server = createServer();
  return new Promise((resolve) => {
    server.once("error", () => resolve(undefined));
    server.listen(port, "127.0.0.1", () => resolve(server));
  });
}

const httpTaken = await occupy(DEFAULT_HTTP_PORT);
afterAll(() => httpTaken?.close());

async function stats(program: Program): Promise<Stats> {
  const { http } = await program.listening();
  return (await (await fetch(new URL("api/stats", http))).json()) as Stats;
}

describe("flags", () => {
  test.each([
    {
      name: "one dash and a space",
      flags: ["-addr", "127.0.0.1:0", "-http", "off", "-log-format", "json"],
    },
    { name: "one dash and =", flags: ["-addr=127.0.0.1:0", "-http=off", "-log-format=json"] },
    {
      name: "two dashes and a space",
      flags: ["--addr", "127.0.0.1:0", "--http", "off", "--log-format", "json"],
    },
    { name: "two dashes and =", flags: ["--addr=127.0.0.1:0", "--http=off", "--log-format=json"] },
  ])("$name", async ({ flags }) => {
    const program = programs.beacon([...flags, "--workers=1", "--max-nodes=1000"]);
    const { port } = await program.listening();
    await expectServed(port);
  });

  test.each([
    { name: "unknown flag", flags: ["--adr", ":0"], names: "--adr" },
    { name: "bad number", flags: ["--workers=0"], names: "--workers" },
    { name: "bad address", flags: ["--addr=localhost"], names: "--addr" },
    { name: "missing value", flags: ["--addr"], names: "--addr" },
    { name: "no flag at all", flags: ["serve"], names: "serve" },
  ])("$name: one line on stderr, exit code 2", async ({ flags, names }) => {
    const program = programs.beacon(flags);
    expect(await program.exited()).toBe(2);
    expect(program.lines).toEqual([]);
    expect(program.stderr).toMatch(/^beacon: .+\n$/);
    expect(program.stderr).toContain(names);
  });

  test("--version", async () => {
    const program = programs.beacon(["--version"]);
    expect(await program.exited()).toBe(0);
    expect(program.lines).toEqual([expect.stringMatching(/^pilot-beacon \d+\.\d+\.\d+$/)]);
    expect(program.stderr).toBe("");
  });

  test.each(["--help", "-help", "-h"])("%s", async (flag) => {
    const program = programs.beacon([flag]);
    expect(await program.exited()).toBe(0);
    for (const name of ["--addr", "--workers", "--http", "BEACON_ADDR"]) {
      expect(program.output()).toContain(name);
    }
    expect(program.stderr).toBe("");
  });
});

describe("addresses", () => {
  test("a UDP port that is taken: one clear line, exit code 1", async () => {
    const first = programs.beacon(FLAGS);
    const { port } = await first.listening();
    for (const workers of [1, 2]) {
      const second = programs.beacon([
        `--addr=127.0.0.1:${port}`,
        "--http=off",
        "--log-format=json",
        `--workers=${workers}`,
      ]);
      expect(await second.exited()).toBe(1);
      const fatal = second.log().filter(({ level }) => level === "fatal");
      expect(fatal).toHaveLength(1);
      expect(fatal[0]!.msg).toContain("EADDRINUSE");
      expect(fatal[0]!.msg).toContain(`127.0.0.1:${port}`);
      expect(second.log().filter(({ level }) => level === "info")).toEqual([]);
      expect(second.stderr).toBe("");
    }
    await expectServed(port);
  });

  test.skipIf(httpTaken === undefined)(
    `the default HTTP address being taken is only a warning (needs port ${DEFAULT_HTTP_PORT})`,
    async () => {
      const program = programs.beacon(FLAGS.filter((flag) => flag !== "--http=off"));
      const { port, http } = await program.listening();
      expect(http).toBeUndefined();
      const warnings = program
        .log()
        .filter(({ level, msg }) => level === "warn" && msg.includes("http"));
      expect(warnings).toHaveLength(1);
      expect(warnings[0]!.msg).toContain(String(DEFAULT_HTTP_PORT));
      await expectServed(port);
    },
  );

  test("a given HTTP address being taken is an error, and leaves nothing behind", async () => {
    const taken = (await occupy(0))!;
    const { port } = taken.address() as { port: number };
    const program = programs.beacon([
      "--log-format=json",
      "--addr=127.0.0.1:0",
      `--http=127.0.0.1:${port}`,
    ]);
    expect(await program.exited()).toBe(1);
    taken.close();
    const fatal = program.log().filter(({ level }) => level === "fatal");
    expect(fatal).toHaveLength(1);
    expect(fatal[0]!.msg).toContain("EADDRINUSE");
    expect(fatal[0]!.msg).toContain(`127.0.0.1:${port}`);
  });

  test("an address that is not this host's", async () => {
    const program = programs.beacon(["--log-format=json", "--addr=192.0.2.1:0", "--http=off"]);
    expect(await program.exited()).toBe(1);
    expect(program.log().map(({ level, msg }) => `${level} ${msg}`)).toEqual([
      expect.stringMatching(/^fatal .*192\.0\.2\.1.*EADDRNOTAVAIL/),
    ]);
  });
});

describe("signals", () => {
  test.each(["SIGTERM", "SIGINT"] as const)("%s ends it with exit code 0", async (signal) => {
    const program = programs.beacon(
      [...FLAGS, "--workers=2"].filter((flag) => flag !== "--workers=1"),
    );
    const { port } = await program.listening();
    await expectServed(port);
    program.signal(signal);
    expect(await program.exited()).toBe(0);
    expect(program.log().at(-1)!.msg).toBe("beacon closed");
    expect(program.stderr).toBe("");
  });

  test("signals that arrive together are one", async () => {
    const program = programs.beacon(FLAGS);
    await program.listening();
    // Held meanwhile, so that both wait for it when it goes on.
    program.signal("SIGSTOP");
    program.signal("SIGTERM");
    program.signal("SIGINT");
    program.signal("SIGCONT");
    expect(await program.exited()).toBe(0);
    expect(program.log().at(-1)!.msg).toBe("beacon closed");
  });

  test("SIGUSR1, which means nothing to it, does not end it", async () => {
    const program = programs.beacon(FLAGS);
    await program.listening();
    program.signal("SIGUSR1");
    expect((await program.logged(/means nothing/)).msg).toStartWith("SIGUSR1");
    program.signal("SIGTERM");
    expect(await program.exited()).toBe(0);
  });
});

describe("log", () => {
  test("JSON: every line an object with time, level and message", async () => {
    const program = programs.beacon(FLAGS);
    const { port, line } = await program.listening();
    expect(line).toMatchObject({ level: "info", workers: 1, maxNodes: 1000 });
    await expectServed(port);
    program.signal("SIGTERM");
    await program.exited();
    const log = program.log();
    for (const entry of log) {
      expect(["info", "warn"]).toContain(entry.level);
      expect(entry.msg).toBeString();
      expect(new Date(entry["time"] as string).toISOString()).toBe(entry["time"] as string);
    }
    expect(log.find(({ msg }) => msg === "statistics")).toMatchObject({
      nodes: 1,
      discovers: 1,
      received: 1,
    });
  });

  test("text is for people, and silent is silent", async () => {
    const flags = FLAGS.filter((flag) => !flag.startsWith("--log-format"));
    const program = programs.beacon(flags);
    const port = await program.line(
      "listens on",
      (line) => /INFO.* listens on 127\.0\.0\.1:(\d+)/.exec(line)?.[1],
    );
    await expectServed(Number(port));
    program.signal("SIGTERM");
    await program.exited();
    expect(program.lines.at(-1)).toContain("beacon closed");

    const silent = programs.beacon(["--log-level=silent", "--addr=192.0.2.1:0", "--http=off"]);
    expect(await silent.exited()).toBe(1);
    expect(silent.lines).toEqual([]);
  });
});

describe("configuration", () => {
  const HTTP = ["--http=127.0.0.1:0", "--log-format=json", "--workers=1"];

  function configFile(name: string, content: unknown): string {
    const path = join(folder, name);
    writeFileSync(path, JSON.stringify(content));
    return path;
  }

  test("a flag outranks the environment, which outranks the file, which outranks the default", async () => {
    const path = configFile("beacon.json", {
      addr: "127.0.0.1:0",
      "max-nodes": 3000,
      "beacon-id": 33,
      "log-level": "debug",
    });
    const program = programs.beacon([...HTTP, "--max-nodes=1000"], {
      BEACON_CONFIG: path,
      BEACON_MAX_NODES: "2000",
      BEACON_BEACON_ID: "22",
    });
    expect(await stats(program)).toMatchObject({
      nodesMax: 1000, // the flag
      beaconId: 22, // the environment
      address: { address: "127.0.0.1" }, // the file
    });
  });

  test("--config, and what it says is in effect", async () => {
    const path = configFile("two.json", { addr: "127.0.0.1:0", "max-nodes": 3000, offload: false });
    const program = programs.beacon([...HTTP, `--config=${path}`]);
    expect(await stats(program)).toMatchObject({ nodesMax: 3000, beaconId: 0 });
    expect((await program.listening()).line).toMatchObject({ offload: false, maxNodes: 3000 });
  });

  test("a mistake in the file or the environment, exit code 2", async () => {
    const path = configFile("bad.json", { "max-nodes": "many" });
    for (const [flags, env, names] of [
      [[`--config=${path}`], {}, "max-nodes"],
      [[`--config=${join(folder, "missing.json")}`], {}, "missing.json"],
      [[], { BEACON_WORKERS: "-1" }, "BEACON_WORKERS"],
    ] as [string[], Record<string, string>, string][]) {
      const program = programs.beacon(flags, env);
      expect(await program.exited()).toBe(2);
      expect(program.stderr).toMatch(/^beacon: .+\n$/);
      expect(program.stderr).toContain(names);
      expect(program.lines).toEqual([]);
    }
  });
});
