/** Whether this process's watcher would follow a hand-over, or take it for an exit. */
import { readFileSync } from "node:fs";
import { basename } from "node:path";

type Environment = Readonly<Record<string, string | undefined>>;

/** Facts about a process, from /proc. */
export interface ProcessInfo {
  readonly parentPid: number;
  /** At most 15 bytes. */
  readonly name: string;
  readonly command: readonly string[];
}

/** Programs that watch their own child alone, and end or start another one when it ends. */
const WATCHERS: ReadonlySet<string> = new Set([
  ...[
    "tini",
    "tini-static",
    "docker-init",
    "dumb-init",
    "catatonit",
    "runsv",
    "s6-supervise",
    "supervisord",
  ],
  ...["supervise", "supervise-daemon".slice(0, 15), "perpd"],
]);
const SHELLS: ReadonlySet<string> = new Set(["sh", "bash", "dash", "ash", "ksh", "zsh", "busybox"]);
/** Scripts that call scripts. */
const ANCESTORS_MAX = 16;

const ADVICE = "start `beacon supervise` in place of the server, or restart it";

/**
 * Why this process must not hand over, or undefined. To be asked for at the start, as a parent may
 * end later.
 * @param read tells of a process, undefined if nothing can be known of it
 */
export function obstacleToUpgrade(
  env: Environment,
  pid = process.pid,
  read: (pid: number) => ProcessInfo | undefined = readProcess,
): string | undefined {
  if (pid === 1) return `this is process 1 of its container, which ends with it: ${ADVICE}`;
  if (env["NOTIFY_SOCKET"]) return undefined;
  let watcherPid = read(pid)?.parentPid ?? 0;
  for (let steps = 0; steps < ANCESTORS_MAX && watcherPid > 0; steps++) {
    const watcher = read(watcherPid);
    if (watcherPid === 1 || (watcher && WATCHERS.has(watcher.name)))
      return (
        `process ${watcherPid} (${watcher?.name ?? "?"}) waits for this process and would not follow ` +
        `a new one: ${ADVICE}`
      );
    if (!watcher || !isScript(watcher)) return undefined;
    watcherPid = watcher.parentPid; // which waits for the script, as that waits for this process
  }
  return undefined;
}

/** Whether it is a shell that runs a script or a command, and not one that somebody types into. */
function isScript({ command }: ProcessInfo): boolean {
  const [program = "", ...args] = command;
  return SHELLS.has(basename(program)) && args.some((arg) => arg === "-c" || !arg.startsWith("-"));
}

function readProcess(pid: number): ProcessInfo | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const [, name, parentPid] = /\((.*)\) \S (\d+)/s.exec(stat)!;
    const command = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").slice(0, -1);
    return { name: name!, parentPid: Number(parentPid), command };
  } catch {
    return undefined;
  }
}
