/**
 * A server that answers as a test says, in bytes: what a Redis should say to enter it, and then
 * anything.
 */
import type { Socket } from "bun";

/** What is sent in answer to a command; undefined: nothing. */
export type Script = (command: string, args: readonly string[]) => string | Uint8Array | undefined;

export class ScriptedRedis {
  readonly host = "127.0.0.1";
  /** Asked anew for each command, so it may be changed at any time. */
  script: Script;
  /** What is sent as soon as there is a connection. */
  greeting = "";
  readonly #listener: Bun.TCPSocketListener<{ pending: Buffer }>;

  constructor(script: Script = entered) {
    this.script = script;
    this.#listener = Bun.listen<{ pending: Buffer }>({
      hostname: this.host,
      port: 0,
      socket: {
        open: (socket) => {
          socket.data = { pending: Buffer.alloc(0) };
          socket.write(this.greeting);
        },
        data: (socket, chunk) => this.#read(socket, chunk),
        error() {},
      },
    });
  }

  get port(): number {
    return this.#listener.port;
  }

  close(): void {
    this.#listener.stop(true);
  }

  #read(socket: Socket<{ pending: Buffer }>, chunk: Buffer): void {
    socket.data.pending = Buffer.concat([socket.data.pending, chunk]);
    for (;;) {
      const read = commandIn(socket.data.pending.toString("latin1"));
      if (read === undefined) return;
      socket.data.pending = socket.data.pending.subarray(read.length);
      const answer = this.script(read.words[0]!, read.words.slice(1));
      if (answer === "close") socket.end();
      else if (answer !== undefined) socket.write(answer);
    }
  }
}

/** The first command of a text, if all of it is there. */
function commandIn(text: string): { words: string[]; length: number } | undefined {
  const head = /^\*(\d+)\r\n/.exec(text);
  if (head === null) return undefined;
  const words: string[] = [];
  let at = head[0].length;
  while (words.length < Number(head[1])) {
    const bulk = /^\$(\d+)\r\n/.exec(text.slice(at));
    if (bulk === null) return undefined;
    const from = at + bulk[0].length;
    at = from + Number(bulk[1]) + 2;
    if (text.length < at) return undefined;
    words.push(text.slice(from, at - 2));
  }
  return { words, length: at };
}

/** Lets everybody in as a primary, and answers nothing else. */
export const entered: Script = (command, args) => {
  if (command === "HELLO") return "%2\r\n+mode\r\n+standalone\r\n+role\r\n+master\r\n";
  if (command === "XADD" && args.includes("NOMKSTREAM")) return "_\r\n";
  return undefined;
};
