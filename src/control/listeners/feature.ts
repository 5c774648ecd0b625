/** Listening sockets of HTTP and the bridge, and files for their connections. */
import * as v from "valibot";
import type { ListeningSocket, ListenOptions } from "../../../ffi/listening-socket.ts";
import type {
  AnyFeature,
  HandOverPhase,
  HandOverSections,
  Host,
  SendSection,
  Service,
} from "../feature.ts";
import { readJson, text } from "../hand-over/format.ts";
import { FilesLeft, filesAdvice, filesNeeded, openFilesMax } from "../kit/files-left.ts";
import { whileTaken } from "../kit/while-taken.ts";
import { type ListenerName, Listeners as ListeningSockets } from "./listeners.ts";

/** The names and configured addresses of listening sockets, in the order of their descriptors. */
const namesSchema = v.pipe(v.array(v.tuple([text, text])), v.maxLength(16));

class Listeners implements Service {
  readonly sockets = new ListeningSockets();
  readonly filesMax = openFilesMax();
  /** Whether too few files are left for more connections, as of the last tick. */
  filesAreShort = false;
  #files: FilesLeft | undefined;
  readonly handOver: HandOverSections = {
    sections: {
      listeners: { version: 1, readsFiles: true, read: (body, fds) => this.#adopt(body, fds) },
    },
    write: (phase, send) => this.#write(phase, send),
  };

  constructor(private readonly host: Host<{ readonly workers: number }>) {
    const needed = filesNeeded(host.config.workers);
    if (this.filesMax < needed)
      host.log.warn(
        `this process may open ${this.filesMax} files, fewer than the ${needed} that it needs: ` +
          "raise LimitNOFILE or ulimit -n",
      );
  }

  /** Opens a socket, or returns the inherited one. @throws Error that says what to do */
  async open(
    name: ListenerName,
    address: string,
    options?: ListenOptions,
  ): Promise<ListeningSocket> {
    try {
      const socket = await whileTaken(this.host.portPatienceMs, () =>
        this.sockets.open(name, address, options),
      );
      this.#files ??= new FilesLeft(this.filesMax);
      return socket;
    } catch (error) {
      throw this.cannotListen(name, address, error);
    }
  }

  cannotListen(name: ListenerName, address: string, error: unknown): Error {
    const { code = "failed" } = error as { code?: string };
    const advice =
      filesAdvice(code, this.host.config.workers, this.filesMax) ??
      `${code}: choose another address, or off`;
    return new Error(`${name} ${address}: ${advice}`, { cause: error });
  }

  tick(): void {
    this.filesAreShort = this.#files?.areShort() ?? false;
  }

  /** Sends the sockets: the successor accepts queued connections, so none is reset. */
  async #write(phase: HandOverPhase, send: SendSection): Promise<void> {
    const sockets = this.sockets.inheritable;
    if (phase !== "closing" || sockets.length === 0) return;
    await send(
      "listeners",
      sockets.map(({ name, address }) => [name, address]),
      sockets.map(({ fd }) => fd),
    );
  }

  #adopt(body: Uint8Array, fds: readonly number[]): void {
    const names = readJson(namesSchema, body);
    this.sockets.adopt(
      names.flatMap(([name, address], i) =>
        fds[i] === undefined ? [] : [{ name, address, fd: fds[i] }],
      ),
    );
  }

  stop(): void {
    this.sockets.close();
    this.#files?.close();
  }
}

export const listeners = {
  name: "listeners",
  create: (host: Host<{ readonly workers: number }>) => new Listeners(host),
} satisfies AnyFeature;
