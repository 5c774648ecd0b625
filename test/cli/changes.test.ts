/** What changes a beacon. */
import { afterEach, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { run } from "../../src/cli/main.ts";
import { temporaryFolder } from "../support/folder.ts";
import { TestConsole } from "./support/console.ts";
import { FakeApi } from "./support/fake.ts";

const folder = temporaryFolder();
const tokenFile = join(folder, "token");
writeFileSync(tokenFile, "a-token-of-16-characters\n");

let fake: FakeApi;
afterEach(() => fake?.stop());

test.each([
  {
    args: ["disconnect", "42"],
    path: "/api/nodes/42/disconnect",
    answer: { id: 42, was: "local\x1b[2J" },
    says: "node 42 is forgotten; it was local?[2J",
  },
  ...[
    {
      answer: { drainMs: 5000, leftMs: 5000, wasDraining: false },
      says: "the beacon drains, and exits in 5 s",
    },
    {
      answer: { drainMs: 0, leftMs: 0, wasDraining: false },
      says: "the beacon drains, and exits now",
    },
    {
      answer: { drainMs: 5000, leftMs: 1234, wasDraining: true },
      says: "the beacon was draining already, and exits in 1.234 s",
    },
    // of an older beacon
    { answer: { drainMs: 5000 }, says: "the beacon drains, and exits in 5 s" },
  ].map((of) => ({ args: ["drain"], path: "/api/drain", ...of })),
  {
    args: ["upgrade"],
    path: "/api/upgrade",
    answer: { pid: 4712, version: "0.2.0" },
    says: "beacon 0.2.0 serves now, as process 4712",
  },
])("$args", async ({ args, path, answer, says }) => {
  fake = new FakeApi(() => Response.json(answer));
  const out = new TestConsole({ BEACON_HTTP: fake.url.host, BEACON_ADMIN_TOKEN_FILE: tokenFile });
  expect(await run(args, out)).toBe(0);
  expect(await run([...args, "--json"], out)).toBe(0);
  expect(fake.asked[0]).toEqual({
    method: "POST",
    path,
    authorization: "Bearer a-token-of-16-characters",
  });
  expect(out.lines).toEqual([says]);
  expect(out.values).toEqual([answer]);
});

test("a beacon that says no, and why", async () => {
  fake = new FakeApi(() => new Response("the new one ended: exit code 2\n", { status: 500 }));
  const out = new TestConsole();
  expect(await run(["upgrade", "--http", fake.url.host], out)).toBe(1);
  expect(out.problems).toEqual(["api/upgrade: the new one ended: exit code 2 (500)"]);
});

test.each(["0", "-1", "4294967296", "x"])("%s is no node", async (id) => {
  const out = new TestConsole();
  expect(await run(["disconnect", "--", id], out)).toBe(2);
  expect(out.problems).toEqual([expect.stringContaining("from 1 to 4294967295")]);
});
