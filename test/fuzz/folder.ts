/**
 * A folder for the files of cases: in memory where the host has such a place, as thousands are
 * written a second.
 */
import { existsSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const MEMORY = "/dev/shm";

export const fuzzFolder = (): string =>
  mkdtempSync(join(existsSync(MEMORY) ? MEMORY : tmpdir(), "beacon-fuzz-"));
