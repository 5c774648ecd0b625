/** The beacons of the chaos: processes that are watched, told to do things, and started again. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import type { Stats } from "../../../src/beacon.ts";
import { CLEAN_ENV, type LogLine, Program, ROOT } from "../../../test/e2e/support/program.ts";
import type { WireAddress } from "../../../test/e2e/support/wire.ts";
import { residentBytes } from "../../harness/usage.ts";
import type { BeaconName } from "./pairs.ts";

const PROGRAM = join(ROOT, "test/e2e/support/killable-beacon.ts");
/** A beacon that does not answer by then is busy, or cannot take a connection. */
const ANSWER_MS_MAX = 1000;
const PORTS = { udp: 9001, http: 9002, wss: 9003 } as const;

export interface Usage {
  readonly files: number;
  readonly threads: number;
  readonly residentMb: number;
}

export class ChaosBeacon {
  /** Its numbers when it showed them last. */
  lastStats: Stats | undefined;
  /** Whether it is meant to run now. */
  isWanted = false;
  #program: Program | undefined;
  readonly #ends: string[] = [];

  /** @param host its address, from which it speaks with its peers */
  constructor(
    readonly name: BeaconName,
    readonly host: string,
    private readonly flags: readonly string[],
    private readonly env: Record<string, string> = {},
  ) {}

  get udp(): WireAddress {
    return { address: this.host, port: PORTS.udp };
  }

  /** As its peers call it. */
  get peerName(): string {
    return `${this.host}:${PORTS.udp}`;
  }

  get http(): URL {
    return new URL(`http://${this.host}:${PORTS.http}`);
  }

  get wss(): URL {
    return new URL(`ws://${this.host}:${PORTS.wss}/v1/compat`);
  }

  get pid(): number {
    return this.#mustRun().pid;
  }

  /** How often and how it ended when nobody had asked it to. */
  get ends(): readonly string[] {
    return this.#ends;
  }

  /** Starts it and waits until it listens; if it was started before, it must have ended. */
  async start(): Promise<void> {
    const addresses = [`--addr=${this.host}:${PORTS.udp}`, `--http=${this.host}:${PORTS.http}`];
    if (this.name === "subject") addresses.push(`--wss=${this.host}:${PORTS.wss}`);
    const command = [process.execPath, PROGRAM, ...addresses, "--log-format=json", ...this.flags];
    const program = Program.spawn(command, { env: { ...CLEAN_ENV, ...this.env }, stdin: "pipe" });
    this.#program = program;
    this.isWanted = true;
    void program.exited(2 ** 31 - 1).then((code) => {
      if (this.#program === program && this.isWanted)
        this.#ends.push(`code ${code}: ${lastWords(program)}`);
    });
    await program.listening();
  }

  signal(signal: NodeJS.Signals): void {
    this.#mustRun().signal(signal);
  }

  async kill(): Promise<void> {
    this.isWanted = false;
    await this.#program?.kill();
  }

  async killWorker(worker: number): Promise<void> {
    await this.#mustRun().write(`kill ${worker}`);
  }

  /** Its numbers, or undefined if it does not answer now. */
  async stats(): Promise<Stats | undefined> {
    try {
      this.lastStats = (await (await this.get("api/stats")).json()) as Stats;
      return this.lastStats;
    } catch {
      return undefined;
    }
  }

  /** On a connection of its own. @throws Error if no answer comes in time */
  async get(path: string): Promise<Response> {
    const signal = AbortSignal.timeout(ANSWER_MS_MAX);
    return fetch(new URL(path, this.http), {
      signal,
      headers: { connection: "close" },
      keepalive: false,
    });
  }

  /** What it logs from now on: each call looks for a line among those since. */
  log(): (finds: (line: LogLine) => boolean) => LogLine | undefined {
    const program = this.#mustRun();
    const from = program.lines.length;
    return (finds) =>
      program.lines
        .slice(from)
        .flatMap((line) => (line.startsWith("{") ? [JSON.parse(line) as LogLine] : []))
        .find(finds);
  }

  /** What it uses now; undefined if it does not run. */
  usage(): Usage | undefined {
    try {
      const { pid } = this;
      return {
        files: readdirSync(`/proc/${pid}/fd`).length,
        threads: readdirSync(`/proc/${pid}/task`).length,
        residentMb: residentBytes(pid) / 1e6,
      };
    } catch {
      return undefined; // it has ended
    }
  }

  #mustRun(): Program {
    if (this.#program === undefined) throw new Error(`the ${this.name} was not started`);
    return this.#program;
  }
}

const lastWords = ({ lines, stderr }: Program): string =>
  [...lines.slice(-2), stderr.trim()].filter(Boolean).join("\n");
