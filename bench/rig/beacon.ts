/** A beacon in a namespace: the program itself, as operators start it. */
import { CLEAN_ENV, MAIN, type Program, Programs } from "../../test/e2e/support/program.ts";
import type { Namespace } from "./namespace.ts";

export const BEACON_PORT = 9001;
/** Reached inside its namespace only. */
export const BEACON_STATS = "http://127.0.0.1:9002/api/stats";

export class RigBeacon {
  readonly #programs = new Programs();
  #program: Program | undefined;

  private constructor(
    private readonly namespace: Namespace,
    private readonly flags: readonly string[],
  ) {}

  /** Starts one and waits until it listens. @param flags beside those for its ports and its log */
  static async start(namespace: Namespace, flags: readonly string[] = []): Promise<RigBeacon> {
    const beacon = new RigBeacon(namespace, flags);
    await beacon.startAgain();
    return beacon;
  }

  /** Starts it with the flags it had before; it must have ended. */
  async startAgain(): Promise<void> {
    this.#program = this.#programs.spawn(beaconCommand(this.namespace, this.flags), {
      env: CLEAN_ENV,
    });
    await this.#program.listening();
  }

  /** Sends a signal and waits until it has ended. */
  async end(signal: "SIGTERM" | "SIGKILL"): Promise<void> {
    this.#program?.signal(signal);
    await this.#program?.exited();
  }

  async kill(): Promise<void> {
    await this.#programs.kill();
  }
}

/** The command that runs one. @param flags beside those for its ports and its log */
export function beaconCommand(namespace: Namespace, flags: readonly string[]): readonly string[] {
  const fixed = [
    `--addr=:${BEACON_PORT}`,
    "--workers=2",
    "--http=127.0.0.1:9002",
    "--log-format=json",
  ];
  return namespace.exec(process.execPath, MAIN, ...fixed, ...flags);
}
