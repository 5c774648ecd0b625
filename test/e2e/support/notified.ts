/**
 * A service manager's end of sd_notify(3), in a process of its own: Bun has no Unix datagram
 * sockets. Needs python3.
 */
import type { Program, Programs } from "./program.ts";

/** Prints each notification as a JSON string. */
const RECEIVER = `
import json, socket, sys
receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
receiver.bind(sys.argv[1])
print("bound", flush=True)
while True: print(json.dumps(receiver.recv(65536).decode()), flush=True)
`;

const BOUND = "bound";

export class Notified {
  private constructor(
    /** What NOTIFY_SOCKET should say. */
    readonly path: string,
    private readonly program: Program,
  ) {}

  static async bind(programs: Programs, path: string): Promise<Notified> {
    const program = programs.spawn(["python3", "-c", RECEIVER, path]);
    await program.line(BOUND, (line) => line === BOUND || undefined);
    return new Notified(path, program);
  }

  /** Notifications so far, each without its line breaks: "READY=1 STATUS=serving". */
  get texts(): string[] {
    return this.program.lines.slice(1).map(textOf);
  }

  /** Waits for a notification that `pattern` matches. @param from the first to look at */
  async text(pattern: RegExp, from = 0): Promise<string> {
    const find = (line: string) => (pattern.test(textOf(line)) ? textOf(line) : undefined);
    return this.program.line(`a notification ${pattern}`, find, 1 + from);
  }
}

const textOf = (line: string) => (JSON.parse(line) as string).replaceAll("\n", " ");
