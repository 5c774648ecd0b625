/** Temporary folders of tests. */
import { afterAll } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Returns a new folder, which is removed after the tests of the file or `describe` that calls. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "beacon-test-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Returns a function that makes up paths of files in a folder, none of them twice. */
export function temporaryPaths(folder = temporaryFolder()): () => string {
  let files = 0;
  return () => join(folder, `file-${files++}`);
}
