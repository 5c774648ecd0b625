/** What the benches measure: a beacon, and the reference relay in C, each as a fresh process on one core. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** The core that targets run on, all their threads; the load generator has the other one. */
const TARGET_CPU = "0";
const GENERATOR_CPU = "1";

export interface Target {
  readonly pid: number;
  readonly port: number;
  /** Where it serves HTTP, and WebSocket; "" for what it does not serve. */
  readonly http: string;
  readonly wss: string;
  stop(): Promise<void>;
}

export interface TargetOptions {
  readonly offload: boolean;
  readonly batch: number;
}

/** Moves a process, this one unless given, to the generators' core. */
export function pinGenerator(pid = process.pid): void {
  Bun.spawnSync(["taskset", "-apc", GENERATOR_CPU, String(pid)]);
}

/** Compiles the reference relay. @returns its path; the folder is removed when this process ends */
export function compileReference(): string {
  const folder = mkdtempSync(join(tmpdir(), "beacon-bench-"));
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  const binary = join(folder, "relay");
  const source = new URL("reference/relay.c", import.meta.url).pathname;
  const compiled = Bun.spawnSync(["cc", "-O2", "-o", binary, source], { stderr: "pipe" });
  if (!compiled.success) throw new Error(`the reference relay needs a C compiler (cc): ${compiled.stderr}`);
  return binary;
}

export async function startReference(binary: string, { offload, batch }: TargetOptions): Promise<Target> {
  return start([binary, String(batch), offload ? "1" : "0"], (line) => ({
    port: Number(line),
    http: "",
    wss: "",
  }));
}

/** A WebSocket server that does nothing but send back what it gets. Its port is that of TCP. */
export async function startEcho(): Promise<Target> {
  const echo = new URL("reference/echo.ts", import.meta.url).pathname;
  return start([process.execPath, echo], (line) => ({
    port: Number(new URL(line).port),
    http: "",
    wss: line,
  }));
}

/** @param extra further flags */
export async function startBeacon({ offload, batch }: TargetOptions, extra: string[] = []): Promise<Target> {
  const main = new URL("../src/main.ts", import.meta.url).pathname;
  const flags = ["--workers=1", "--addr=127.0.0.1:0", "--http=127.0.0.1:0", "--log-format=json"];
  const command = [
    process.execPath,
    main,
    ...flags,
    `--offload=${offload ? "on" : "off"}`,
    `--batch=${batch}`,
  ];
  return start([...command, ...extra], (line) => {
    const { msg, http = "", wss = "" } = JSON.parse(line) as { msg: string; http?: string; wss?: string };
    return { port: Number(/listens on .*:(\d+)$/.exec(msg)?.[1]), http, wss };
  });
}

async function start(
  command: string[],
  read: (line: string) => Omit<Target, "pid" | "stop">,
): Promise<Target> {
  const child = Bun.spawn(["taskset", "-c", TARGET_CPU, ...command], { stdout: "pipe", stderr: "inherit" });
  const reader = child.stdout.getReader();
  const decoder = new TextDecoder();
  let output = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error(`${command[0]} ended before it was ready: ${output}`);
    output += decoder.decode(value);
    for (const line of output.split("\n").slice(0, -1)) {
      const found = read(line);
      if (found.port > 0) {
        reader.releaseLock();
        return { pid: child.pid, ...found, stop: () => stop(child) };
      }
    }
  }
}

async function stop(child: Bun.Subprocess): Promise<void> {
  child.kill();
  await child.exited;
}

/**
 * CPU time that the threads of a process have used, in nanoseconds (proc_pid_schedstat).
 * @param counts whether the thread of this name counts; without it, all do
 */
export function cpuNs(pid: number, counts: (thread: string) => boolean = () => true): number {
  let total = 0;
  for (const task of readdirSync(`/proc/${pid}/task`)) {
    if (!counts(readFileSync(`/proc/${pid}/task/${task}/comm`, "utf8").trim())) continue;
    total += Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, "utf8").split(" ")[0]);
  }
  return total;
}

/** Resident memory of a process, in bytes. */
export function residentBytes(pid: number): number {
  const line = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
  return Number(line?.[1]) * 1024;
}
