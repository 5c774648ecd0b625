/** The beacon serves, and ends, while nothing reads its standard output and error. */
import { afterEach, describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { temporaryFolder } from "../support/folder.ts";
import { freeTcpPort } from "../support/redis.ts";
import { installed, isAlive, MAIN, Program } from "./support/program.ts";
import { until } from "./support/wait.ts";

const STALLED_OUTPUT = join(import.meta.dir, "support/stalled_output.py");

const TOKEN = "t".repeat(32);
const folder = temporaryFolder();
const tokenFile = join(folder, "token");
writeFileSync(tokenFile, TOKEN, { mode: 0o600 });

let helper: Program | undefined;
let pid = 0;
let successorPid = 0;
afterEach(async () => {
  for (const left of [pid, successorPid])
    if (left !== 0 && isAlive(left)) process.kill(left, "SIGKILL");
  pid = successorPid = 0;
  await helper?.kill();
});

/** Starts a beacon whose output stalls from the start. @returns where its HTTP is */
async function start(kind: string, ...flags: string[]): Promise<string> {
  const http = `127.0.0.1:${freeTcpPort()}`;
  const beacon = [
    process.execPath,
    MAIN,
    "--addr=127.0.0.1:0",
    "--workers=1",
    `--http=${http}`,
    "--drain=0s",
  ];
  helper = Program.spawn(
    ["python3", STALLED_OUTPUT, kind, ...beacon, "--log-format=json", ...flags],
    {
      stdin: "pipe",
    },
  );
  pid = await helper.line("its pid", (line) => Number(/^pid (\d+)$/.exec(line)?.[1]) || undefined);
  return `http://${http}`;
}

/** An answer, however long the beacon takes to serve. */
const answer = (url: string) =>
  until(`an answer of ${url}`, () =>
    fetch(url, { signal: AbortSignal.timeout(1000) }).catch(() => undefined),
  );

/** The only child of a process; undefined while there is none. */
const childOf = (parent: number) =>
  Number(readFileSync(`/proc/${parent}/task/${parent}/children`, "utf8").trim().split(" ")[0]) ||
  undefined;

const ended = () => helper!.line("it has ended", (line) => /^ended (-?\d+)$/.exec(line)?.[1]);

describe.skipIf(!installed("python3"))(
  "standard output and error that nobody reads (python3)",
  () => {
    test.each(["pipe", "socket", "terminal"])(
      "%s: the beacon starts, serves and ends",
      async (kind) => {
        const http = await start(kind);
        expect((await answer(`${http}/healthz`)).status).toBe(200);
        process.kill(pid, "SIGTERM");
        expect(await ended()).toBe("0");
      },
    );

    test("an upgrade hands over, and the new process serves and ends", async () => {
      const http = await start("pipe");
      expect((await answer(`${http}/healthz`)).status).toBe(200);
      process.kill(pid, "SIGUSR2");
      successorPid = await until("a new process", () => childOf(pid));
      expect(await ended()).toBe("0");
      expect((await answer(`${http}/healthz`)).status).toBe(200);
      process.kill(successorPid, "SIGTERM");
      await until("it has ended", () => !isAlive(successorPid));
    });

    test("dropped lines are counted, and one line reports them once the reader is back", async () => {
      const http = await start("pipe", `--admin-token-file=${tokenFile}`);
      expect((await answer(`${http}/healthz`)).status).toBe(200);
      const dropped = async () => {
        const metrics = await (await fetch(`${http}/metrics`)).text();
        return Number(/^beacon_log_lines_dropped_total (\d+)$/m.exec(metrics)?.[1]);
      };
      expect(await dropped()).toBe(0);
      // Each of these requests is logged.
      const request = {
        method: "POST",
        headers: { authorization: `Bearer ${TOKEN}` },
        body: JSON.stringify({ on: true }),
      };
      const switchOn = () => fetch(`${http}/api/breakers/relay`, request);
      await until("lines are dropped", async () => {
        const answers = await Promise.all(Array.from({ length: 100 }, switchOn));
        expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200));
        return (await dropped()) > 0;
      });
      expect((await fetch(`${http}/healthz`)).status).toBe(200);
      await helper!.write("read");
      const reported = await helper!.line(
        "the report",
        (line) => /"dropped":(\d+)/.exec(line)?.[1],
      );
      expect(Number(reported)).toBe(await dropped());
      process.kill(pid, "SIGTERM");
      expect(await ended()).toBe("0");
      await helper!.line("the last line", (line) => line.includes("beacon closed") || undefined);
      expect(helper!.lines.filter((line) => line.includes('"dropped":'))).toHaveLength(1);
    });
  },
);
