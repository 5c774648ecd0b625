/** The beacon, or anything else, as a process of its own. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { LogLine } from "../../support/log.ts";
import { inTime, PATIENCE_MS } from "./wait.ts";

export type { LogLine } from "../../support/log.ts";

export const ROOT = join(import.meta.dir, "../../..");
export const MAIN = join(ROOT, "src/main.ts");

/**
 * What a program finds in its environment unless told otherwise: no BEACON_ variables of the
 * machine it runs on.
 */
export const CLEAN_ENV: Record<string, string> = Object.fromEntries(
  Object.entries(process.env).flatMap(([name, value]) =>
    value === undefined || name.startsWith("BEACON_") ? [] : [[name, value]],
  ),
);

/** A beacon's process; its standard output is read line by line. */
export class Program {
  readonly lines: string[] = [];
  stderr = "";
  #ended = false;
  #wake: (() => void)[] = [];
  readonly #done: Promise<number>;

  private constructor(private readonly child: Bun.Subprocess<"ignore" | "pipe", "pipe", "pipe">) {
    const out = this.#read(child.stdout, (text, rest) => {
      const lines = (rest + text).split("\n");
      this.lines.push(...lines.slice(0, -1));
      return lines.at(-1)!;
    });
    const err = this.#read(child.stderr, (text) => {
      this.stderr += text;
      return "";
    });
    this.#done = Promise.all([out, err, child.exited]).then(([rest, , code]) => {
      if (rest !== "") this.lines.push(rest);
      this.#ended = true;
      this.#notify();
      return code;
    });
  }

  /**
   * @param command as for execve; environment without BEACON_ variables, and no standard input,
   * unless given
   */
  static spawn(
    command: readonly string[],
    options: {
      readonly env?: Record<string, string>;
      readonly cwd?: string;
      readonly stdin?: "ignore" | "pipe";
      /** Descriptors that it finds behind its standard files, from 3 on. */
      readonly files?: readonly number[];
    } = {},
  ): Program {
    const { env = CLEAN_ENV, cwd = ROOT, stdin = "ignore", files = [] } = options;
    return new Program(
      Bun.spawn([...command], { env, cwd, stdio: [stdin, "pipe", "pipe", ...files] }),
    );
  }

  /** Runs src/main.ts with these flags. */
  static beacon(flags: readonly string[], env: Record<string, string> = {}): Program {
    return Program.spawn([process.execPath, MAIN, ...flags], { env: { ...CLEAN_ENV, ...env } });
  }

  get pid(): number {
    return this.child.pid;
  }

  /**
   * Waits for a line that `find` finds something in.
   * @param from the first line to look at
   * @throws Error if the program ends, or takes too long
   */
  async line<T>(what: string, find: (line: string) => T | undefined, from = 0): Promise<T> {
    const search = async () => {
      for (let at = from; ; ) {
        for (; at < this.lines.length; at++) {
          const found = find(this.lines[at]!);
          if (found !== undefined) return found;
        }
        if (this.#ended) throw new Error(`ended without a line: ${what}\n${this.output()}`);
        await new Promise<void>((resolve) => this.#wake.push(resolve));
      }
    };
    return inTime(`a line: ${what}`, search());
  }

  /**
   * Waits for a message that `pattern` matches, of a beacon that logs JSON.
   * @param from the first line to look at
   */
  async logged(pattern: RegExp, from = 0): Promise<LogLine> {
    const find = (text: string) => {
      const line = text.startsWith("{") ? (JSON.parse(text) as LogLine) : undefined;
      return line !== undefined && pattern.test(line.msg) ? line : undefined;
    };
    return this.line(String(pattern), find, from);
  }

  /** Waits until a beacon with JSON logs listens. */
  async listening(): Promise<{ port: number; http: string | undefined; line: LogLine }> {
    return this.line("listens on", (text) => {
      if (!text.startsWith("{")) return undefined;
      const line = JSON.parse(text) as LogLine;
      const port = /listens on .*:(\d+)$/.exec(line.msg)?.[1];
      if (port === undefined) return undefined;
      return { port: Number(port), http: line["http"] as string | undefined, line };
    });
  }

  /** The log, of a beacon that logs JSON. @throws SyntaxError for a line that is none */
  log(): LogLine[] {
    return this.lines.map((line) => JSON.parse(line) as LogLine);
  }

  /** Writes a line to its standard input, which must be a pipe. */
  async write(line: string): Promise<void> {
    const { stdin } = this.child;
    if (stdin === undefined) throw new Error("this program was started without a standard input");
    stdin.write(`${line}\n`);
    await stdin.flush();
  }

  output(): string {
    return `stdout: ${this.lines.join("\n")}\nstderr: ${this.stderr}`;
  }

  signal(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }

  /** The exit code. @throws Error if it does not end in time */
  async exited(timeoutMs = PATIENCE_MS): Promise<number> {
    return inTime("the program ends", this.#done, timeoutMs);
  }

  /** Ends it for good; for clean-up. */
  async kill(): Promise<void> {
    this.child.kill("SIGKILL");
    await this.#done;
  }

  async #read(
    stream: ReadableStream<Uint8Array>,
    take: (text: string, rest: string) => string,
  ): Promise<string> {
    const decoder = new TextDecoder();
    let rest = "";
    for await (const bytes of stream) {
      rest = take(decoder.decode(bytes, { stream: true }), rest);
      this.#notify();
    }
    return rest;
  }

  #notify(): void {
    for (const wake of this.#wake.splice(0)) wake();
  }
}

/** Programs that are ended together, whatever becomes of the test. */
export class Programs {
  readonly #programs: Program[] = [];

  add(program: Program): Program {
    this.#programs.push(program);
    return program;
  }

  spawn(...args: Parameters<typeof Program.spawn>): Program {
    return this.add(Program.spawn(...args));
  }

  beacon(flags: readonly string[], env?: Record<string, string>): Program {
    return this.add(Program.beacon(flags, env));
  }

  async kill(): Promise<void> {
    await Promise.all(this.#programs.splice(0).map((program) => program.kill()));
  }
}

/** Whether a command is there. */
export const installed = (command: string): boolean => Bun.which(command) !== null;

/** Whether a process runs; one that has ended may wait for a while to be asked for its code. */
export function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}
