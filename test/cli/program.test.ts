/** The commands that there are. */
import { expect, test } from "bun:test";
import { run } from "../../src/cli/main.ts";
import { createProgram } from "../../src/cli/program.ts";
import { commands, isCommand } from "../../src/config/commands.ts";
import { TestConsole } from "./support/console.ts";

test("are those that the entry knows, each with a help of its own", async () => {
  const names = createProgram().commands.map((command) => command.name());
  expect(["help", ...names].sort()).toEqual(Object.keys(commands).sort());
  for (const name of names) {
    const out = new TestConsole();
    expect(await run([name, "--help"], out)).toBe(0);
    expect(out.text).toStartWith(`Usage: beacon ${name}`);
    const help = new TestConsole();
    expect(await run(["help", name], help)).toBe(0);
    expect(help.text).toBe(out.text);
    for (const line of out.text.split("\n")) expect(line.length).toBeLessThanOrEqual(110);
  }
  const out = new TestConsole();
  expect(await run(["help"], out)).toBe(0);
  for (const name of names) expect(out.text).toContain(`\n  ${name} `);
});

test("are words and no flags", () => {
  for (const word of ["status", "check-config", "help"]) expect(isCommand(word)).toBe(true);
  for (const word of ["--status", "serve", "", "constructor", undefined])
    expect(isCommand(word)).toBe(false);
});

test.each([
  [["status", "--nope"], "unknown option '--nope' (see beacon help)"],
  [["status", "word"], "too many arguments"],
  [["status", "--http"], "argument missing"],
  [["probe"], "missing required argument 'host:port'"],
  [["probe", "x"], "x: must be host:port"],
  [["probe", "x:1", "--count=0"], "from 1 to 100000"],
  [["nodes", "--all", "--limit=1"], "cannot be used with"],
  [["completion", "csh"], "bash, zsh, fish"],
  [["explain", "\x1b"], "?"],
] as [string[], string][])("%j: one line, exit code 2", async (args, says) => {
  const out = new TestConsole();
  expect(await run(args, out)).toBe(2);
  expect(out.problems).toEqual([expect.stringContaining(says)]);
  expect(out.text).toBe("");
});
