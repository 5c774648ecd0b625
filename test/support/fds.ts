/** File descriptors that are open in this process. */
import { readdirSync, readlinkSync } from "node:fs";

const FDS = "/proc/self/fd";

/** Each as its number and what it is: `7 socket:[4711]`. */
export function openFds(): Set<string> {
  const open = new Set<string>();
  for (const fd of readdirSync(FDS)) {
    try {
      open.add(`${fd} ${readlinkSync(`${FDS}/${fd}`)}`);
    } catch {
      // closed since it was listed, as the listing's own is
    }
  }
  return open;
}

/**
 * Those that were not open before. Not their number before and after: threads that earlier
 * tests had may still be closing theirs.
 */
export function openedSince(before: ReadonlySet<string>): string[] {
  return [...openFds()].filter((fd) => !before.has(fd));
}
