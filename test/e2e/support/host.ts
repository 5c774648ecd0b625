/**
 * Troubles of the host around a beacon: no files left, files that wait, hostile working
 * directories.
 */
import {
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { until } from "./wait.ts";

const WAITING = 20;

/**
 * Lets a process open no file beyond the highest that it has (prlimit(1)), and takes what is free
 * below by connections to it.
 * @param port of a TCP server of that process, on `host`
 * @returns what gives it room again
 */
export async function exhaustFiles(pid: number, host: string, port: number): Promise<() => void> {
  const open = () => readdirSync(`/proc/${pid}/fd`).map(Number);
  const limits = readFileSync(`/proc/${pid}/limits`, "utf8");
  const before = /^Max open files +(\d+)/m.exec(limits)![1]!;
  const max = Math.max(...open()) + 1;
  allow(pid, max);
  // More than it has room for: those that wait take what it closes meanwhile.
  const sockets = Array.from({ length: max - open().length + WAITING }, () =>
    connect({ host, port }).on("error", () => {}),
  );
  await until("it has no file left", () => open().length >= max);
  return () => {
    allow(pid, before);
    for (const socket of sockets) socket.destroy();
  };
}

function allow(pid: number, files: number | string): void {
  const { success, stderr } = Bun.spawnSync(
    ["prlimit", "--pid", String(pid), `--nofile=${files}:`],
    {
      stderr: "pipe",
    },
  );
  if (!success) throw new Error(`prlimit: ${stderr}`);
}

export class ConfigPipe {
  private constructor(readonly path: string) {}

  static make(path: string): ConfigPipe {
    if (!Bun.spawnSync(["mkfifo", path]).success) throw new Error(`no named pipe at ${path}`);
    return new ConfigPipe(path);
  }

  /**
   * Waits until a beacon reads its configuration, and lets it have an empty one.
   * @param first done while it waits
   */
  async feed(first: () => void = () => {}): Promise<void> {
    const fd = await until("a reader of the configuration", () => {
      try {
        return openSync(this.path, constants.O_WRONLY | constants.O_NONBLOCK);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === "ENXIO") return undefined;
        throw error;
      }
    });
    try {
      first();
      writeSync(fd, "{}");
    } finally {
      closeSync(fd);
    }
  }
}

export class HostileDirectory {
  /** @param path is made */
  constructor(readonly path: string) {
    mkdirSync(path);
    const write = (name: string, text: string) => writeFileSync(join(path, name), text);
    for (const name of [".env", ".env.local", ".env.production", ".env.development", ".env.test"])
      write(name, `BEACON_LOG_LEVEL=from-${name}\n`);
    write("evil.ts", `require("node:fs").writeFileSync(${JSON.stringify(this.#trace)}, "ran");\n`);
    write("bunfig.toml", 'preload = ["./evil.ts"]\n[run]\npreload = ["./evil.ts"]\n');
    const paths = Object.fromEntries(
      ["pino", "commander", "valibot", "*"].map((name) => [name, ["./evil.ts"]]),
    );
    write("tsconfig.json", JSON.stringify({ compilerOptions: { baseUrl: ".", paths } }));
    const imports = { "#pino": "./evil.ts", pino: "./evil.ts", commander: "./evil.ts" };
    write(
      "package.json",
      JSON.stringify({ name: "evil", main: "evil.ts", imports, exports: "./evil.ts" }),
    );
    for (const name of ["pino", "commander"]) {
      mkdirSync(join(path, "node_modules", name), { recursive: true });
      write(`node_modules/${name}/package.json`, JSON.stringify({ name, main: "../../evil.ts" }));
    }
  }

  get #trace(): string {
    return join(this.path, "trace");
  }

  /** Whether any code in the directory has run. */
  get hasRun(): boolean {
    return existsSync(this.#trace);
  }
}
