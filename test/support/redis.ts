/**
 * Redis and Valkey servers, as processes of their own on free ports of the loopback, with their
 * data in a folder of their own.
 *
 *   const server = await RedisServer.start({ password: "s3cret" });
 *   await server.command("SET", "key", "value");
 *   …
 *   await server.stop();
 */
import { describe } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hostPort } from "../../ffi/host-port.ts";
import { CLEAN_ENV, Program } from "../e2e/support/program.ts";
import { until } from "../e2e/support/wait.ts";
import type { Certificate } from "./websocket.ts";

/** What speaks the protocol: its name, and its program, if it is there. */
export interface RedisImplementation {
  readonly name: string;
  readonly program: string | undefined;
}

export const REDIS: RedisImplementation = {
  name: "Redis",
  program: Bun.which("redis-server") ?? undefined,
};
/** BEACON_TEST_VALKEY names one that is not installed. */
export const VALKEY: RedisImplementation = {
  name: "Valkey",
  program: process.env["BEACON_TEST_VALKEY"] ?? Bun.which("valkey-server") ?? undefined,
};

/** Groups the same tests once for each of them; those of one that is not installed are skipped. */
export function describeImplementations(
  tests: (implementation: RedisImplementation) => void,
): void {
  for (const implementation of [REDIS, VALKEY]) {
    const isMissing = implementation.program === undefined;
    const note = isMissing ? ` (needs ${implementation.name.toLowerCase()}-server)` : "";
    describe.skipIf(isMissing)(`with ${implementation.name}${note}`, () => tests(implementation));
  }
}

export interface RedisServerOptions {
  /** Default: Redis. */
  readonly implementation?: RedisImplementation;
  /** Default: 127.0.0.1. */
  readonly host?: string;
  /** Default: a free one. */
  readonly port?: number;
  /** It speaks TLS alone then, and asks for no certificate of clients. */
  readonly tls?: Certificate;
  /** Of the default user. */
  readonly password?: string;
  readonly sentinel?: boolean;
  /** More of what a configuration file holds, as arguments: ["--maxmemory", "1mb"]. */
  readonly config?: readonly string[];
  /** Variables added to the server's environment. */
  readonly env?: Readonly<Record<string, string>>;
}

/** Somebody else may take a port that was free. */
const TRIES = 5;

export class RedisServer {
  #client: Bun.RedisClient | undefined;

  private constructor(
    readonly host: string,
    readonly port: number,
    private readonly options: RedisServerOptions,
    private readonly program: Program,
    private readonly folder: string,
  ) {}

  /** Returns when it takes connections. @throws Error if it does not start */
  static async start(options: RedisServerOptions = {}): Promise<RedisServer> {
    for (let left = TRIES; ; left--) {
      try {
        return await RedisServer.#start(options);
      } catch (error) {
        if (left === 1 || options.port !== undefined) throw error;
      }
    }
  }

  static async #start(options: RedisServerOptions): Promise<RedisServer> {
    const {
      implementation = REDIS,
      host = "127.0.0.1",
      port = freeTcpPort(host),
      sentinel = false,
    } = options;
    if (implementation.program === undefined)
      throw new Error(`${implementation.name} is not installed`);
    const folder = mkdtempSync(join(tmpdir(), "beacon-redis-"));
    const ownConfig = join(folder, "server.conf"); // a Sentinel writes into it
    writeFileSync(ownConfig, "");
    const flags = [
      ...["--bind", host, "--dir", folder],
      ...(options.tls ? ["--port", "0", "--tls-port", `${port}`] : ["--port", `${port}`]),
      ...(options.tls ? tlsConfig(options.tls) : []),
      ...(sentinel ? ["--sentinel"] : ["--save", "", "--repl-diskless-sync-delay", "0"]),
      ...(options.password === undefined ? [] : ["--requirepass", options.password]),
      ...(options.config ?? []),
    ];
    const env = { ...CLEAN_ENV, ...options.env };
    const program = Program.spawn([implementation.program, ownConfig, ...flags], { env });
    try {
      await program.line(
        "it is ready",
        (line) => /Ready to accept|Sentinel ID/.exec(line) ?? undefined,
      );
      return new RedisServer(host, port, options, program, folder);
    } catch (error) {
      await program.kill();
      rmSync(folder, { recursive: true });
      throw error;
    }
  }

  /** "host:port". */
  get name(): string {
    return hostPort(this.host, this.port);
  }

  get pid(): number {
    return this.program.pid;
  }

  /** Its answer, as Bun's client has it. @throws Error for an answer that is one */
  async command(command: string, ...args: readonly string[]): Promise<unknown> {
    const { tls, password } = this.options;
    const login = password === undefined ? "" : `:${encodeURIComponent(password)}@`;
    this.#client ??= new Bun.RedisClient(`${tls ? "rediss" : "redis"}://${login}${this.name}`, {
      ...(tls ? { tls: { ca: tls.cert, rejectUnauthorized: false } } : {}),
    });
    return this.#client.send(command, [...args]);
  }

  /** It takes connections, and does nothing. */
  pause(): void {
    this.program.signal("SIGSTOP");
  }

  resume(): void {
    this.program.signal("SIGCONT");
  }

  /** Makes it a replica that has what the other has. */
  async replicaOf({ host, port }: RedisServer): Promise<void> {
    await this.command("REPLICAOF", host, `${port}`);
    await until("the replica has caught up", async () =>
      String(await this.command("INFO", "replication")).includes("master_link_status:up"),
    );
  }

  /** Makes it a primary. */
  async promote(): Promise<void> {
    await this.command("REPLICAOF", "NO", "ONE");
  }

  /** Ends it without a word, as a crash does. Safe more than once. */
  async stop(): Promise<void> {
    this.#client?.close();
    this.#client = undefined;
    await this.program.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Servers that are ended together, whatever becomes of the test. */
export class RedisServers {
  readonly #servers: RedisServer[] = [];

  constructor(private readonly implementation: RedisImplementation = REDIS) {}

  async start(options: RedisServerOptions = {}): Promise<RedisServer> {
    const server = await RedisServer.start({ implementation: this.implementation, ...options });
    this.#servers.push(server);
    return server;
  }

  async stop(): Promise<void> {
    await Promise.all(this.#servers.splice(0).map((server) => server.stop()));
  }
}

function tlsConfig({ certPath, keyPath }: Certificate): string[] {
  return [
    ...["--tls-cert-file", certPath, "--tls-key-file", keyPath],
    ...["--tls-ca-cert-file", certPath, "--tls-auth-clients", "no"],
  ];
}

/**
 * A port that nobody has at the moment. Low enough that a cluster's node finds the one 10,000
 * above.
 */
export function freeTcpPort(hostname = "127.0.0.1"): number {
  for (;;) {
    const listener = Bun.listen({ hostname, port: 0, socket: { data() {} } });
    const { port } = listener;
    listener.stop(true);
    if (port <= 55_535) return port;
  }
}
