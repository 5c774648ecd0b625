/** A Redis or Valkey server of a bench's own, on the loopback interface, that saves nothing. */
import { LOOPBACK } from "./place.ts";
import { ALL_CPUS, startTarget, type Target, temporaryFolder } from "./targets.ts";

export const DIRECTORY_PROGRAMS = ["redis-server", "valkey-server"] as const;

/** Undefined where neither is installed. */
export const directoryProgram = (): string | undefined =>
  DIRECTORY_PROGRAMS.find((name) => Bun.which(name) !== null);
export const NO_DIRECTORY_PROGRAM = `none of ${DIRECTORY_PROGRAMS.join(", ")} is installed (Debian package redis-server)`;

export interface ServerOptions {
  /** CPU list for taskset; all CPUs by default. */
  readonly cpus?: string;
  /** One of DIRECTORY_PROGRAMS; the first that is installed by default. */
  readonly program?: string | undefined;
  /** Variables added to the server's environment. */
  readonly env?: Readonly<Record<string, string>>;
}

export interface ServerUse {
  /** Bytes that it ever got, and sent. */
  readonly bytesIn: number;
  readonly bytesOut: number;
  /** Memory of its data, now and at most. */
  readonly memoryBytes: number;
  readonly memoryPeakBytes: number;
}

export class DirectoryServer {
  #target: Target | undefined;

  private constructor(
    readonly port: number,
    private readonly options: ServerOptions,
  ) {}

  /** Chooses a port; the server does not run yet. */
  static async prepare(options: ServerOptions = {}): Promise<DirectoryServer> {
    return new DirectoryServer(await freeTcpPort(), options);
  }

  get url(): string {
    return `redis://127.0.0.1:${this.port}`;
  }

  get pid(): number {
    return this.#target!.pid;
  }

  /** Starts it, empty. @throws Error where no server is installed */
  async start(): Promise<void> {
    const { cpus = ALL_CPUS, program = directoryProgram(), env = {} } = this.options;
    if (program === undefined) throw new Error(NO_DIRECTORY_PROGRAM);
    const flags = [
      "--port",
      String(this.port),
      "--bind",
      "127.0.0.1",
      "--save",
      "",
      "--appendonly",
      "no",
    ];
    const command = [program, ...flags, "--dir", temporaryFolder()];
    const read = (line: string) => ({
      port: line.includes("Ready to accept connections") ? this.port : 0,
      http: "",
      wss: "",
    });
    this.#target = await startTarget(command, LOOPBACK, cpus, read, env);
  }

  async use(): Promise<ServerUse> {
    const info = String(await this.command("INFO"));
    const number = (name: string) => Number(new RegExp(`^${name}:(\\d+)`, "m").exec(info)?.[1]);
    return {
      bytesIn: number("total_net_input_bytes"),
      bytesOut: number("total_net_output_bytes"),
      memoryBytes: number("used_memory"),
      memoryPeakBytes: number("used_memory_peak"),
    };
  }

  /** Sends a command on a connection of its own. @throws Error for an error reply */
  async command(command: string, ...args: readonly string[]): Promise<unknown> {
    const client = new Bun.RedisClient(this.url);
    try {
      return await client.send(command, [...args]);
    } finally {
      client.close();
    }
  }

  /** As a power cut would. */
  async kill(): Promise<void> {
    process.kill(this.pid, "SIGKILL");
    await this.stop();
  }

  async stop(): Promise<void> {
    await this.#target?.stop();
    this.#target = undefined;
  }
}

async function freeTcpPort(): Promise<number> {
  const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const { port } = listener;
  await listener.stop(true);
  return port;
}
