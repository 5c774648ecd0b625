/** Listening TCP sockets of HTTP and the bridge, and the files that are left for their connections. */
import type { ListeningSocket, ListenOptions } from "../../../ffi/listening-socket.ts";
import type { Config } from "../../config.ts";
import type { AnyFeature, Host, Service } from "../feature.ts";
import { FilesLeft, filesAdvice, filesNeeded, openFilesMax } from "../kit/files-left.ts";
import { whileTaken } from "../kit/while-taken.ts";
import { type InheritedListener, type ListenerName, Listeners as ListeningSockets } from "./listeners.ts";

type ListenersConfig = Pick<Config, "workers">;

class Listeners implements Service {
  readonly sockets = new ListeningSockets();
  readonly filesMax = openFilesMax();
  /** Whether too few files are left for more connections, as of the last tick. */
  filesAreShort = false;
  #files: FilesLeft | undefined;
  predecessor: (() => { listeners: readonly InheritedListener[] }) | undefined;

  constructor(private readonly host: Host<ListenersConfig>) {
    const needed = filesNeeded(host.config.workers);
    if (this.filesMax < needed)
      host.log.warn(
        `this process may open ${this.filesMax} files, fewer than the ${needed} that it needs: ` +
          "raise LimitNOFILE or ulimit -n",
      );
  }

  /**
   * Opens a socket, or returns the one of the old process.
   * @throws Error that names the address, the reason and what to do
   */
  async open(name: ListenerName, address: string, options?: ListenOptions): Promise<ListeningSocket> {
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
      filesAdvice(code, this.host.config.workers, this.filesMax) ?? `${code}: choose another address, or off`;
    return new Error(`${name} ${address}: ${advice}`, { cause: error });
  }

  start(): void {
    this.sockets.adopt(this.predecessor?.().listeners ?? []);
  }

  tick(): void {
    this.filesAreShort = this.#files?.areShort() ?? false;
  }

  stop(): void {
    this.sockets.close();
    this.#files?.close();
  }
}

export const listeners = {
  name: "listeners",
  create: (host: Host<ListenersConfig>) => new Listeners(host),
} satisfies AnyFeature;
