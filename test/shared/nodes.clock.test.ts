/** The node table does not go by the host's clock, which may be set back at any time. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { MovableClock } from "../../bench/rig/chaos/clock.ts";
import { CLEAN_ENV, installed, Program } from "../e2e/support/program.ts";
import { TEST_TIMEOUT_MS, until } from "../e2e/support/wait.ts";
import { temporaryFolder } from "../support/folder.ts";

const folder = temporaryFolder();

const LOCKED_TABLE = join(import.meta.dir, "../support/locked-table.ts");
const HOUR_S = 3600;

test.skipIf(!installed("cc"))(
  "whoever waits for a lock waits no longer when the clock is set back (needs cc)",
  async () => {
    const clock = MovableClock.make(folder)!;
    const program = Program.spawn([process.execPath, LOCKED_TABLE], {
      env: { ...CLEAN_ENV, ...clock.env },
    });
    try {
      await program.line("waits", (line) => line === "waits" || undefined);
      for (let hours = 1; hours <= 3; hours++) {
        clock.move(-hours * HOUR_S);
        const before = program.lines.length;
        await until("it gives up twice", () => program.lines.length > before + 1);
      }
      expect(program.stderr).toBe("");
    } finally {
      await program.kill();
    }
  },
  TEST_TIMEOUT_MS,
);
