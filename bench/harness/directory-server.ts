/** A Redis or Valkey server of a bench's own, on the loopback interface, that saves nothing. */
import { LOOPBACK } from "./place.ts";
import { ALL_CPUS, startTarget, type Target, temporaryFolder } from "./targets.ts";

const PROGRAMS = ["redis-server", "valkey-server"];

/** Undefined where neither is installed. */
export const directoryProgram = (): string | undefined => PROGRAMS.find((name) => Bun.which(name) !== null);
export const NO_DIRECTORY_PROGRAM = `none of ${PROGRAMS.join(", ")} is installed (Debian package redis-server)`;

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
    private readonly cpus: string,
  ) {}

  /** One that does not run yet. @param cpus it is to be kept to, a list for taskset */
  static async prepare(cpus = ALL_CPUS): Promise<DirectoryServer> {
    return new DirectoryServer(await freeTcpPort(), cpus);
  }

  get url(): string {
    return `redis://127.0.0.1:${this.port}`;
  }

  get pid(): number {
    return this.#target!.pid;
  }

  /** Starts it, empty. @throws Error where no server is installed */
  async start(): Promise<void> {
    const program = directoryProgram();
    if (program === undefined) throw new Error(NO_DIRECTORY_PROGRAM);
    const flags = ["--port", String(this.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
    const command = [program, ...flags, "--dir", temporaryFolder()];
    this.#target = await startTarget(command, LOOPBACK, this.cpus, (line) => ({
      port: line.includes("Ready to accept connections") ? this.port : 0,
      http: "",
      wss: "",
    }));
  }

  async use(): Promise<ServerUse> {
    const client = new Bun.RedisClient(this.url);
    const info = String(await client.send("INFO", []));
    client.close();
    const number = (name: string) => Number(new RegExp(`^${name}:(\\d+)`, "m").exec(info)?.[1]);
    return {
      bytesIn: number("total_net_input_bytes"),
      bytesOut: number("total_net_output_bytes"),
      memoryBytes: number("used_memory"),
      memoryPeakBytes: number("used_memory_peak"),
    };
  }

  /** As somebody does who takes it for another one. */
  async empty(): Promise<void> {
    const client = new Bun.RedisClient(this.url);
    await client.send("FLUSHALL", []);
    client.close();
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
