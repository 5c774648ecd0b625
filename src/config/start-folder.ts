/** Relative paths, resolved against the start directory, which may be gone at a reload. */
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

/** The absolute path. @throws ConfigError for a relative one from a removed directory */
export function pathFromStart(path: string): string {
  if (isAbsolute(path)) return path;
  if (startFolder === undefined)
    throw new ConfigError("must be an absolute path, as the working directory was removed");
  return resolve(startFolder, path);
}

/** Returns the start directory for a new process; undefined if that directory is gone. */
export function folderForSuccessor(): string | undefined {
  return startFolder !== undefined && existsSync(startFolder) ? startFolder : undefined;
}
