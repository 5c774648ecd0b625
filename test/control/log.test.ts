import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createLineWriter, createLogger, type LoggerOptions } from "../../src/control/log.ts";

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

/** A kernel that follows a script: a number is how many bytes it takes, a string is the error it gives. */
function scripted(script: (number | string)[]) {
  let taken = "";
  let calls = 0;
  const writer = createLineWriter((bytes) => {
    calls++;
    const step = script.shift() ?? bytes.length;
    if (typeof step === "string") throw Object.assign(new Error(step), { code: step });
    taken += new TextDecoder().decode(bytes.subarray(0, step));
    return step;
  });
  return { writer, taken: () => taken, calls: () => calls };
}

describe("createLineWriter", () => {
  test("finishes a line that the kernel took in parts", () => {
    const { writer, taken, calls } = scripted([1, 2]);
    writer.write("abcdef\n");
    expect(taken()).toBe("abcdef\n");
    expect(calls()).toBe(3);
  });

  test("gives up for good when the reader is gone", () => {
    const { writer, calls } = scripted(["EPIPE"]);
    writer.write("a\n");
    writer.write("b\n");
    expect(calls()).toBe(1);
  });

  test("loses only the line when the disk is full", () => {
    const { writer, taken } = scripted(["ENOSPC"]);
    writer.write("a\n");
    writer.write("b\n");
    expect(taken()).toBe("b\n");
  });

  test("waits for a slow reader", () => {
    const { writer, taken } = scripted(["EAGAIN", 1, "EAGAIN"]);
    writer.write("ab\n");
    expect(taken()).toBe("ab\n");
  });

  test("waits only once for a stalled reader, until it reads again", () => {
    const { writer, taken, calls } = scripted([...Array<string>(104).fill("EAGAIN"), 2, "EAGAIN"]);
    writer.write("a\n");
    expect(calls()).toBe(101);
    for (const line of ["b\n", "c\n", "d\n", "e\n"]) writer.write(line);
    expect(calls()).toBe(105);
    expect(taken()).toBe("e\n");
    writer.write("f\n");
    expect(taken()).toBe("e\nf\n");
  });
});

describe("standard output", () => {
  const folder = mkdtempSync(join(tmpdir(), "beacon-log-"));
  afterAll(() => rmSync(folder, { recursive: true }));
  const script = join(folder, "script.ts");
  const source = JSON.stringify(join(import.meta.dir, "../../src/control/log.ts"));
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
