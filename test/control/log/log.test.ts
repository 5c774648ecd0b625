import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { createLogger, type LoggerOptions } from "../../../src/control/log/log.ts";
import { temporaryFolder } from "../../support/folder.ts";

function logged(options: Omit<LoggerOptions, "destination">) {
  const lines: string[] = [];
  const log = createLogger({ ...options, destination: { write: (line) => lines.push(line) } });
  return { log, lines };
}

describe("json", () => {
  test("one object a line, with ISO time and the level's name", () => {
    const { log, lines } = logged({ level: "info", format: "json" });
    log.child({ part: "http" }).warn({ addr: ":9001\n" }, "taken");
    expect(lines).toHaveLength(1);
    expect(lines[0]).toEndWith("}\n");
    const entry = JSON.parse(lines[0]!);
    expect(entry).toMatchObject({ level: "warn", part: "http", addr: ":9001\n", msg: "taken" });
    expect(new Date(entry.time).toISOString()).toBe(entry.time);
  });
});

describe("text", () => {
  test("time, level, message and the rest as JSON, on one line without colour", () => {
    const { log, lines } = logged({ level: "info", format: "text" });
    log.info({ addr: ":9001\n\x1b[31m", nodes: { known: 3 } }, "listening");
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatch(
      /^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\] INFO: listening \{"addr":":9001\\n\\u001b\[31m","nodes":\{"known":3\}\}\n$/,
    );
  });

  test("an error comes with its message and stack", () => {
    const { log, lines } = logged({ level: "info", format: "text" });
    log.error({ err: new Error("no luck") }, "stopped");
    expect(lines.join("")).toContain("ERROR: stopped");
    expect(lines.join("")).toContain("Error: no luck");
    expect(lines.join("")).toContain("log.test.ts");
  });
});

test("levels below the chosen one are left out, and silent leaves out all", () => {
  for (const format of ["text", "json"] as const) {
    const { log, lines } = logged({ level: "warn", format });
    log.info("unheard");
    log.warn("heard");
    log.fatal("heard");
    expect(lines.map((line) => line.includes("unheard"))).toEqual([false, false]);
    const silent = logged({ level: "silent", format });
    silent.log.fatal("unheard");
    expect(silent.lines).toEqual([]);
  }
});

describe("standard output", () => {
  const folder = temporaryFolder();
  const script = join(folder, "script.ts");
  const source = JSON.stringify(join(import.meta.dir, "../../../src/control/log/log.ts"));
  // More than a pipe holds, so that the reader's end is felt.
  writeFileSync(
    script,
    `import { createLogger } from ${source};
    const log = createLogger({ level: "info", format: process.argv[2] });
    for (let i = 0; i < 5000; i++) log.info("line %d", i);
    log.info("last");
    console.error("still here");
    process.exit(7);`,
  );

  function shell(redirect: string, format: string) {
    const command = `{ "$0" "$1" "$2"; echo "status $?" >&2; } ${redirect}`;
    const child = Bun.spawnSync(["sh", "-c", command, process.execPath, script, format]);
    return { out: child.stdout.toString(), err: child.stderr.toString() };
  }

  for (const format of ["text", "json"]) {
    test(`${format}: everything is out before process.exit, without colour`, () => {
      const { out, err } = shell("", format);
      const lines = out.trimEnd().split("\n");
      expect(lines).toHaveLength(5001);
      expect(lines.at(-1)).toContain("last");
      expect(out).not.toContain("\x1b");
      expect(err).toBe("still here\nstatus 7\n");
    });

    test(`${format}: a reader that goes, or a full disk, is survived without a word`, () => {
      for (const redirect of ["| true", "| head -n 1", "> /dev/full", ">&-"])
        expect(shell(redirect, format).err).toBe("still here\nstatus 7\n");
    });
  }
});
