/** Processes inside namespaces, driven from outside; those that hold nodes above all. */
import { inTime } from "../../test/e2e/support/wait.ts";
import type { WireAddress } from "../../test/e2e/support/wire.ts";
import type { Namespace } from "./namespace.ts";
import type { Node, NodeOptions } from "./node.ts";

export type Command =
  | { readonly do: "open"; readonly options: NodeOptions }
  | { readonly do: "nameless"; readonly options: Omit<NodeOptions, "id" | "port"> }
  | { readonly do: "fetch"; readonly url: string }
  | {
      readonly do: "call";
      readonly node: number;
      readonly method: keyof Node;
      readonly args: unknown[];
    };

/** To the command of the same number; 0 says that the process is ready. */
export interface Answer {
  readonly number: number;
  readonly value?: unknown;
  readonly error?: string;
}

/** Beyond anything that a node is told to do; a process that is stuck fails the run. */
const ANSWER_MS_MAX = 60_000;

/** A process that answers commands over Bun's IPC, inside a namespace or outside of all. */
export class RemoteProcess<C> {
  readonly #child: Bun.Subprocess;
  readonly #waiting = new Map<
    number,
    { resolve(value: unknown): void; reject(error: Error): void }
  >();
  readonly #ready: Promise<unknown>;
  #commands = 0;

  /** @param program a file beside this one */
  constructor(
    namespace: Namespace | undefined,
    private readonly program: string,
  ) {
    this.#ready = new Promise((resolve, reject) => this.#waiting.set(0, { resolve, reject }));
    const path = new URL(program, import.meta.url).pathname;
    const command = [process.execPath, path];
    this.#child = Bun.spawn(namespace?.exec(...command) ?? command, {
      stdin: "ignore",
      stdout: "inherit",
      stderr: "inherit",
      ipc: (answer: Answer) => this.#settle(answer),
      onExit: () => {
        for (const number of [...this.#waiting.keys()])
          this.#settle({ number, error: `${program} in ${namespace?.name ?? "this host"} ended` });
      },
    });
    this.#ready.catch(() => {}); // whoever tells it something hears of it
  }

  get pid(): number {
    return this.#child.pid;
  }

  async kill(): Promise<void> {
    this.#child.kill();
    await this.#child.exited;
  }

  async tell(command: C, timeoutMs = ANSWER_MS_MAX): Promise<unknown> {
    await inTime(`${this.program} is ready`, this.#ready);
    const number = ++this.#commands;
    const answer = new Promise<unknown>((resolve, reject) => {
      this.#waiting.set(number, { resolve, reject });
      this.#child.send({ number, command });
    });
    return inTime(`an answer to ${JSON.stringify(command)}`, answer, timeoutMs);
  }

  #settle({ number, value, error }: Answer): void {
    const waiting = this.#waiting.get(number);
    this.#waiting.delete(number);
    if (error === undefined) waiting?.resolve(value);
    else waiting?.reject(new Error(error));
  }
}

/** The other end of a RemoteProcess, to be called once, when it is ready. */
export function obey<C>(carryOut: (command: C) => unknown): void {
  process.on("message", async ({ number, command }: { number: number; command: C }) => {
    let answer: Answer;
    try {
      answer = { number, value: await carryOut(command) };
    } catch (error) {
      answer = { number, error: (error instanceof Error && error.stack) || String(error) };
    }
    process.send?.(answer);
  });
  process.on("disconnect", () => process.exit(0));
  process.send?.({ number: 0, value: null } satisfies Answer); // ready
}

/** A process for nodes. */
export class NodeHost extends RemoteProcess<Command> {
  constructor(namespace: Namespace) {
    super(namespace, "node-process.ts");
  }

  /** Opens a node's socket. */
  async open(options: NodeOptions): Promise<RemoteNode> {
    await this.tell({ do: "open", options });
    return new RemoteNode(this, options.id);
  }

  async discoverNameless(
    options: Omit<NodeOptions, "id" | "port">,
  ): Promise<WireAddress | undefined> {
    return (await this.tell({ do: "nameless", options })) as WireAddress | undefined;
  }

  /** What an HTTP server of that namespace says. */
  async fetchText(url: string): Promise<string> {
    return (await this.tell({ do: "fetch", url })) as string;
  }

  /** The same, from JSON. */
  async fetch(url: string): Promise<unknown> {
    return JSON.parse(await this.fetchText(url));
  }
}

type Method = {
  [M in keyof Node]: Node[M] extends (...args: never[]) => unknown ? M : never;
}[keyof Node];

/** A node in another process. */
export class RemoteNode {
  constructor(
    private readonly host: NodeHost,
    readonly id: number,
  ) {}

  async call<M extends Method>(
    method: M,
    ...args: Parameters<Node[M]>
  ): Promise<Awaited<ReturnType<Node[M]>>> {
    return (await this.host.tell({ do: "call", node: this.id, method, args })) as Awaited<
      ReturnType<Node[M]>
    >;
  }
}
