/** The process that takes over: how it is started, and what it finds when it is. */
import { UnixChannel } from "../../../ffi/unix-channel.ts";
import { Channel } from "./channel.ts";

/** Names the descriptor of its end of the channel to a process that is started to take over. */
export const CHANNEL_VARIABLE = "BEACON_UPGRADE_FD";
/** The first one behind the standard files. */
const CHANNEL_FD = 3;

/** How the process that takes over is started. */
export interface Successor {
  /** Program and arguments; it passes `TakeOver.fromEnvironment()` to `listen`. */
  readonly command: readonly string[];
  /** Its working directory; this process's unless given. */
  readonly folder?: string | undefined;
  /** How long it may take until it is ready to serve; 30 s unless given. */
  readonly prepareMs?: number;
  /** Called once it serves, before it learns so: names it to a service manager. */
  readonly onServing?: (pid: number) => void;
  /** Is called when that process died all the same and this one serves again. */
  readonly onServingAgain?: () => void;
  /** Why no process can take over from this one; the message says what to do. */
  readonly obstacle?: string | undefined;
}

/** A process that was started to take over. */
export interface Started {
  readonly channel: Channel;
  readonly child: Bun.Subprocess;
}

/**
 * Starts it, with the standard files and the environment of this process.
 * @throws SyscallError, or Error of Bun.spawn with `code` ENOENT, EACCES …
 */
export function start({ command, folder }: Successor): Started {
  const [ours, theirs] = UnixChannel.pair();
  try {
    // WATCHDOG_PID names this process, and would have that one think that nobody watches it.
    const { WATCHDOG_PID: _, ...env } = process.env;
    const child = Bun.spawn([...command], {
      stdio: ["inherit", "inherit", "inherit", theirs.fd],
      ...(folder !== undefined && { cwd: folder }),
      env: { ...env, [CHANNEL_VARIABLE]: String(CHANNEL_FD) },
    });
    child.unref();
    return { channel: new Channel(ours), child };
  } catch (error) {
    ours.close();
    throw error;
  } finally {
    theirs.close(); // so that its death is seen
  }
}
