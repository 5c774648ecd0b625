/** The worked example of ARCHITECTURE.md: a capability is one folder, and two lines in the list. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { temporaryPaths } from "../support/folder.ts";
import { Programs } from "./support/program.ts";
import { TEST_TIMEOUT_MS, until } from "./support/wait.ts";

setDefaultTimeout(TEST_TIMEOUT_MS);

const ROOT = join(import.meta.dir, "../..");
const copy = temporaryPaths()();
const programs = new Programs();
afterAll(() => programs.kill());

const text = readFileSync(join(ROOT, "ARCHITECTURE.md"), "utf8");
const chapter = text.slice(text.indexOf("## Add a capability"));
const block = (language: string) =>
  new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\``, "ms").exec(chapter)![1]!;

/** Inserts the lines with a plus before the line that follows them, or before the first import. */
function applied(source: string): string {
  const lines = block("diff").trimEnd().split("\n");
  const added = lines.filter((line) => line.startsWith("+")).map((line) => line.slice(1));
  expect(added).toHaveLength(2);
  const [importLine, entry] = added as [string, string];
  const before = lines.at(-1)!.slice(1);
  expect(source).toContain(`\n${before}\n`);
  return source
    .replace(/^import /m, `${importLine}\nimport `)
    .replace(`\n${before}\n`, `\n${entry}\n${before}\n`);
}

beforeAll(() => {
  mkdirSync(join(copy, "src/control/quiet"), { recursive: true });
  for (const name of ["src", "ffi", "package.json", "tsconfig.json"])
    cpSync(join(ROOT, name), join(copy, name), { recursive: true });
  symlinkSync(join(ROOT, "node_modules"), join(copy, "node_modules"));
  writeFileSync(join(copy, "src/control/quiet/feature.ts"), block("ts"));
  const list = join(copy, "src/features.ts");
  writeFileSync(list, applied(readFileSync(list, "utf8")));
});

test("type-checks", () => {
  const { exitCode, stdout } = Bun.spawnSync(["node_modules/.bin/tsc", "--noEmit"], { cwd: copy });
  expect([stdout.toString(), exitCode]).toEqual(["", 0]);
});

describe("at work", () => {
  const main = join(copy, "src/main.ts");

  test("its flag is in the help", () => {
    const { stdout } = Bun.spawnSync([process.execPath, main, "--help"]);
    expect(stdout.toString()).toContain("--quiet <duration>");
  });

  test("it counts, warns, and goes on after an upgrade", async () => {
    const config = join(copy, "config.json");
    writeFileSync(config, '{ "quiet": "1s" }');
    const program = programs.spawn([
      ...[process.execPath, main, "supervise", "--addr=127.0.0.1:0", "--http=127.0.0.1:0"],
      ...["--log-format=json", "--workers=1", "--max-nodes=100", `--config=${config}`],
    ]);
    const { http } = await program.listening();
    const once = { headers: { connection: "close" } }; // the old process ends what is kept alive
    const stats = async () =>
      (await (await fetch(new URL("api/stats", http), once)).json()) as {
        quiet: { periods: number };
        warnings: string[];
      };
    await until("a quiet period", async () => (await stats()).quiet.periods === 1);
    expect((await stats()).warnings).toEqual([
      "no packet arrives: check the firewall and the route",
    ]);
    const metrics = await (await fetch(new URL("metrics", http))).text();
    expect(metrics).toContain("beacon_quiet_periods_total 1\n");

    writeFileSync(config, '{ "quiet": "1h" }'); // so that the new process counts none of its own
    const { pid } = program.log().find(({ msg }) => /listens on/.test(msg))!;
    process.kill(Number(pid), "SIGUSR2");
    await program.logged(/serves; this one ends$/);
    await until("the count", async () => (await stats()).quiet.periods >= 1);
    expect((await stats()).warnings).toEqual([]);
  });
});
