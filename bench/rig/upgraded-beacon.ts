/**
 * A beacon in a namespace that hands over, again and again, and of which one process or the other
 * is killed on the way.
 */
import { readdirSync, readFileSync } from "node:fs";
import { isAlive, type LogLine, type Program, Programs } from "../../test/e2e/support/program.ts";
import { until } from "../../test/e2e/support/wait.ts";
import { beaconCommand } from "./beacon.ts";
import type { Namespace } from "./namespace.ts";

/** recvmmsg's number, by architecture: <asm/unistd.h>. */
const RECVMMSG = process.arch === "arm64" ? 243 : 299;

/** What the old process's log says of an upgrade, in this order. */
export const STEPS = [
  "started",
  "prepared",
  "receiving stops",
  "all is told",
  "the new process goes",
  "the new process serves",
] as const;
export type Step = (typeof STEPS)[number];

export class UpgradedBeacon {
  private constructor(
    private readonly programs: Programs,
    /** The log of all of its processes. */
    private readonly program: Program,
    /** Who serves. */
    public pid: number,
  ) {}

  static async start(namespace: Namespace, flags: readonly string[] = []): Promise<UpgradedBeacon> {
    const programs = new Programs();
    const program = programs.spawn(beaconCommand(namespace, ["--log-level=debug", ...flags]));
    await program.listening();
    return new UpgradedBeacon(programs, program, program.pid);
  }

  /** Begins an upgrade. @returns waits for a step of it */
  begin(): (step: Step) => Promise<{ successor: number; line: LogLine }> {
    const from = this.program.lines.length;
    process.kill(this.pid, "SIGUSR2");
    return async (step) => {
      const line = await this.program.logged(new RegExp(`^upgrade: ${step}$|^no upgrade`), from);
      if (line["successor"] === undefined) throw new Error(line.msg);
      return { successor: line["successor"] as number, line };
    };
  }

  /**
   * Hands over, and waits until the process before has ended.
   * @returns what it says of how long that took, from its last receive on
   */
  async upgrade(): Promise<number> {
    const { successor, line } = await this.begin()("the new process serves");
    const before = this.pid;
    this.pid = successor;
    await until("the process before ends", () => !isAlive(before));
    return line["ms"] as number;
  }

  async kill(): Promise<void> {
    if (isAlive(this.pid)) process.kill(this.pid, "SIGKILL");
    await this.programs.kill();
  }
}

/**
 * Whether a thread of a process is in a call that receives datagrams, which is where workers are
 * nearly always.
 */
export function receives(pid: number): boolean {
  try {
    return readdirSync(`/proc/${pid}/task`).some((thread) =>
      readFileSync(`/proc/${pid}/task/${thread}/syscall`, "utf8").startsWith(`${RECVMMSG} `),
    );
  } catch {
    return false; // it has ended
  }
}
