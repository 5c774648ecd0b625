/** This process's command without arguments; read before the working directory changes. */
import { resolve } from "node:path";

/** A compiled program's own modules lie here. */
const INSIDE_BINARY = "/$bunfs/";

/**
 * The program, and what Bun needs before the program's own arguments. A compiled program is named
 * by the path that it was started by, and not by the file that this led to: what lies there by then
 * is what is to run.
 */
export function programCommand(): readonly string[] {
  if (!Bun.main.startsWith(INSIDE_BINARY)) return [process.execPath, ...process.execArgv, Bun.main];
  const name = process.argv0;
  return [name.includes("/") ? resolve(name) : (Bun.which(name) ?? process.execPath)];
}
