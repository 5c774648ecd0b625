/** What the server would make of its configuration. */
import { afterEach, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { run } from "../../src/cli/main.ts";
import { defaultConfig, maskedConfig } from "../../src/config.ts";
import { temporaryFolder } from "../support/folder.ts";
import { TestConsole } from "./support/console.ts";
import { FakeApi } from "./support/fake.ts";

const folder = temporaryFolder();
const file = (name: string, text: string) => {
  writeFileSync(join(folder, name), text);
  return join(folder, name);
};

let fake: FakeApi | undefined;
afterEach(async () => {
  await fake?.stop();
  fake = undefined;
});

async function check(args: readonly string[], env: Record<string, string> = {}) {
  const out = new TestConsole(env);
  return { code: await run(["check-config", ...args], out), out };
}

test("a good one, and where each part of it is from; secrets stay where they are", async () => {
  const config = file("good.json", '{"max-nodes": 5, "registry-admin-token": "hunter2"}');
  const { code, out } = await check(["-workers", "2", `--config=${config}`, "--http=off"], {
    BEACON_BEACON_ID: "7",
  });
  expect([code, out.problems]).toEqual([0, []]);
  const lines = out.lines.filter((line) => !line.startsWith("checked as root"));
  expect(lines.map((line) => line.trim())).toEqual([
    "the configuration is good",
    "other than the defaults were given:",
    "--beacon-id             BEACON_BEACON_ID=7",
    expect.stringMatching(
      /^--registry-admin-token {2}.*good\.json: "registry-admin-token": \*\*\*$/,
    ),
    expect.stringMatching(/^--max-nodes .*good\.json: "max-nodes": 5$/),
    "--workers               --workers 2",
    "--http                  --http off",
  ]);
});

test.each([
  {
    name: "an unknown flag",
    args: ["--adr", ":1"],
    says: "--adr: unknown flag; did you mean --addr?",
  },
  { name: "a bad value", args: ["--workers=0"], says: "--workers 0: must be" },
  {
    name: "what does not go together",
    args: ["--registry=a:1"],
    says: "--registry needs --beacon-id",
  },
  { name: "a word", args: ["serve"], says: "only flags are taken" },
])("$name: what the server says, exit code 2", async ({ args, says }) => {
  const { code, out } = await check(args);
  expect(code).toBe(2);
  expect(out.problems).toEqual([expect.stringContaining(says)]);
  const json = await check(["--json", ...args]);
  expect(json.code).toBe(2);
  expect(json.out.values).toEqual([
    expect.objectContaining({ ok: false, problems: out.problems, config: null }),
  ]);
});

test("files that cannot be read, all of them", async () => {
  const args = [
    "gossip-key-file",
    "directory-auth-file",
    "admin-token-file",
    "wss-keys",
    "wss-tls-cert",
    "wss-tls-key",
  ].map((flag) => `--${flag}=${join(folder, `no-${flag}`)}`);
  args.push("--wss=:0", "--directory=redis://127.0.0.1:1", "--beacon-id=1", "--addr=127.0.0.1:0");
  const { code, out } = await check([
    ...args,
    `--state-file=${join(folder, "none/state")}`,
    "--http=off",
  ]);
  expect(code).toBe(2);
  expect(out.problems).toHaveLength(6); // the certificate's key is read once the certificate is
  for (const problem of out.problems) expect(problem).toMatch(/ENOENT/);
  mkdirSync(join(folder, "is-there"));
  const good = await check([
    `--gossip-key-file=${file("key", "k".repeat(32))}`,
    `--state-file=${join(folder, "is-there/state")}`,
    "--http=off",
  ]);
  expect(good.code).toBe(0);
});

test("beside a beacon that runs: what a SIGHUP changes, and what needs a restart", async () => {
  fake = new FakeApi(() => Response.json(running));
  const http = fake.url.host;
  const token = file("token", "another");
  const running = maskedConfig({
    ...defaultConfig,
    http,
    maxNodes: 5,
    registryAdminTokenFile: token,
  });
  const args = [
    `--http=${http}`,
    "--relay-limit=7",
    "--max-nodes=6",
    `--registry-admin-token-file=${token}`,
  ];
  const { code, out } = await check(args);
  expect(code).toBe(0);
  expect(out.lines.slice(-2)).toEqual([
    "  a SIGHUP changes     --relay-limit",
    "  a restart is needed  for --max-nodes",
  ]);
  const json = await check(["--json", ...args]);
  expect(json.out.values).toEqual([
    expect.objectContaining({
      ok: true,
      running: { url: fake.url.href, reloaded: ["--relay-limit"], needRestart: ["--max-nodes"] },
    }),
  ]);
  expect(JSON.stringify(json.out.values)).not.toContain("another");
});

test("without one it is as good", async () => {
  fake = new FakeApi(() => Response.json({}));
  const { host } = fake.url;
  await fake.stop();
  const { code, out } = await check([`--http=${host}`]);
  expect(code).toBe(0);
  expect(out.lines.at(-1)).toMatch(/^not compared with a running beacon: .*connection refused/);
});

test("a beacon that asks for its token is there, and check-config says so", async () => {
  fake = new FakeApi(() => new Response("the admin token is needed", { status: 401 }));
  const { code, out } = await check([`--http=${fake.url.host}`]);
  expect(code).toBe(0);
  expect(out.lines.at(-1)).toMatch(
    /^not compared with a running beacon: .*give it with --admin-token-file$/,
  );
});

test("--help is its own, --version the server's", async () => {
  expect((await check(["--help"])).out.text).toStartWith("Usage: beacon check-config");
  expect((await check(["--version"])).out.text).toMatch(/^pilot-beacon \d/);
});
