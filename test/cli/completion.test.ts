/** What shells complete. Each shell that is there reads its own. */
import { expect, test } from "bun:test";
import { completion } from "../../src/cli/completion.ts";
import { SHELLS } from "../../src/cli/program.ts";
import { commands } from "../../src/config/commands.ts";
import { settings } from "../../src/settings.ts";

/** What bash offers at the end of a line. */
function offered(...words: string[]): string[] {
  const script = `${completion("bash")}
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _beacon; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout, stderr } = Bun.spawnSync(["bash", "-c", script, "bash", "beacon", ...words], {
    cwd: "/",
  });
  expect(stderr.toString()).toBe("");
  return stdout.toString().trim().split("\n");
}

const bash = Bun.which("bash") !== null;

test.skipIf(!bash)(
  `bash completes commands, flags and values${bash ? "" : " (needs bash)"}`,
  () => {
    const everything = [...Object.keys(commands), ...settings.map(({ flag }) => `--${flag}`)];
    expect(offered("")).toEqual(expect.arrayContaining(everything));
    expect(offered("sta")).toEqual(["status"]);
    expect(offered("--max-n")).toEqual(["--max-nodes"]);
    expect(offered("--workers", "2", "--max-n")).toEqual(["--max-nodes"]);
    expect(offered("--log-format", "")).toEqual(["text", "json"]);
    expect(offered("--gossip-strict", "o")).toEqual(["on", "off"]);
    expect(offered("--state-file", "et")).toEqual(["etc"]);
    expect(offered("nodes", "--m")).toEqual(["--min-age", "--max-age"]);
    expect(offered("status", "--admin-token-file", "et")).toEqual(["etc"]);
    expect(offered("check-config", "--max-n")).toEqual(["--max-nodes"]);
    expect(offered("completion", "")).toEqual([...SHELLS, "--help"]);
    expect(offered("help", "pro")).toEqual(["probe"]);
    expect(offered("probe", "--max-n")).toEqual([""]);
  },
);

test.each([...SHELLS])("%s can read its own", (shell) => {
  const script = completion(shell);
  for (const name of Object.keys(commands)) expect(script).toContain(name);
  for (const { flag } of settings) expect(script).toContain(flag);
  // Nobody's help text ends a quotation.
  for (const line of script.split("\n"))
    expect([line, line.split("'").length % 2]).toEqual([line, 1]);
  if (Bun.which(shell) === null) return; // its syntax is for those who have it
  const { exitCode, stderr } = Bun.spawnSync([shell, "-n"], {
    stdin: new TextEncoder().encode(script),
  });
  expect([exitCode, stderr.toString()]).toEqual([0, ""]);
});
