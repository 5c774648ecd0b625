/**
 * Relative paths: resolved against the directory that the process was started in, which may be gone
 * by the time of a reload.
 */
import { existsSync } from "node:fs";
import { isAbsolute, resolve } from "node:path";
import { ConfigError } from "./units.ts";

/** Undefined if it was removed before the start. */
const startFolder = currentFolder();

function currentFolder(): string | undefined {
  try {
    return process.cwd();
  } catch {
    return undefined; // Bun (1.4.5) resolves against the folder of its own executable then
  }
}

/**
 * The absolute path.
 * @throws ConfigError for a relative one if the process was started in a removed directory
 */
export function pathFromStart(path: string): string {
  if (isAbsolute(path)) return path;
  if (startFolder === undefined)
    throw new ConfigError("must be an absolute path, as the working directory was removed");
  return resolve(startFolder, path);
}

/**
 * Where a new process with the same relative paths has to start; undefined if that directory is
 * gone.
 */
export function folderForSuccessor(): string | undefined {
  return startFolder !== undefined && existsSync(startFolder) ? startFolder : undefined;
}
