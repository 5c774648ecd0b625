/** Looks into /proc. Nothing here throws: a process may end meanwhile, and /proc may hide it. */
import { readdirSync, readFileSync } from "node:fs";

/** Child processes of this one, adopted ones among them. */
export function childPids(): number[] {
  try {
    return readdirSync("/proc/self/task").flatMap((task) =>
      readFileSync(`/proc/self/task/${task}/children`, "utf8")
        .split(" ")
        .filter(Boolean)
        .map(Number),
    );
  } catch {
    return [];
  }
}

/** Whether a process was started with a variable of this value; false once it has ended. */
export function hasVariable(pid: number, name: string, value: string): boolean {
  try {
    return `\0${readFileSync(`/proc/${pid}/environ`, "utf8")}`.includes(`\0${name}=${value}\0`);
  } catch {
    return false;
  }
}
