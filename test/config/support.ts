/** What the tests of the configuration share. */
import { expect } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Config, ConfigError, parseCommandLine } from "../../src/config.ts";

export type Environment = Record<string, string | undefined>;

/**
 * A folder for one test file: `file` writes a new file into it, as JSON unless it is text or bytes.
 */
export function temporaryFiles() {
  const folder = mkdtempSync(join(tmpdir(), "beacon-config-"));
  let filesWritten = 0;
  const file = (content: string | Uint8Array | object): string => {
    const path = join(folder, `${filesWritten++}.json`);
    const plain = typeof content === "string" || content instanceof Uint8Array;
    writeFileSync(path, plain ? content : JSON.stringify(content));
    return path;
  };
  return { file, folder, remove: () => rmSync(folder, { recursive: true }) };
}

export function run(argv: readonly string[], env: Environment = {}): Config {
  const line = parseCommandLine(argv, env, "1.2.3");
  if (line.kind !== "run") throw new Error(`printed instead: ${line.text}`);
  return line.config;
}

/** The message of the ConfigError that `read` throws. */
export function refusal(read: () => unknown): string {
  try {
    read();
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    return (error as ConfigError).message;
  }
  throw new Error("was not refused");
}
