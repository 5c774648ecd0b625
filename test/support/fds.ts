/** File descriptors that are open in this process. */
import { readdirSync } from "node:fs";

export function openFds(): number {
  return readdirSync("/proc/self/fd").length;
}
