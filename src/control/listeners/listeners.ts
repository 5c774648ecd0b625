/**
 * The sockets that HTTP and the bridge accept connections from. A process that takes over gets
 * them, with what waits in their queues, so that no connection is reset on the way.
 */
import { ListeningSocket, type ListenOptions } from "../../../ffi/listening-socket.ts";
import { parseHostPort } from "../../config/units.ts";

export type ListenerName = "http" | "wss";

/** A listening socket of another process. */
export interface InheritedListener {
  readonly name: string;
  /** As it was configured there. */
  readonly address: string;
  readonly fd: number;
}

export class Listeners {
  readonly #sockets = new Map<
    string,
    { readonly address: string; readonly socket: ListeningSocket }
  >();

  /** Opens a socket, or adopts the inherited one. @throws SyscallError */
  open(name: ListenerName, address: string, options?: ListenOptions): ListeningSocket {
    const inherited = this.#sockets.get(name);
    if (inherited?.address === address) return inherited.socket;
    // The new address may be another one of the same port, which the old process still holds.
    inherited?.socket.stopListening();
    inherited?.socket.close();
    this.#sockets.delete(name);
    const { host, port } = parseHostPort(address);
    const socket = ListeningSocket.open(host, port, options);
    this.#sockets.set(name, { address, socket });
    return socket;
  }

  /** Takes sockets of another process, to be found by `open`. */
  adopt(inherited: readonly InheritedListener[]): void {
    for (const { name, address, fd } of inherited) {
      const socket = ListeningSocket.adopt(fd);
      if (socket !== undefined) this.#sockets.set(name, { address, socket });
    }
  }

  /** Those that are open, for another process. */
  get inheritable(): InheritedListener[] {
    return [...this.#sockets].flatMap(([name, { address, socket }]) =>
      socket.isOpen ? [{ name, address, fd: socket.fd }] : [],
    );
  }

  /**
   * Has all stop listening, so that another process can open their ports; a server that starts on
   * one listens again. Where the system chose the port, the other process gets another one, and
   * this one would lose it.
   */
  stopListening(): void {
    for (const { address, socket } of this.#sockets.values())
      if (socket.isOpen && parseHostPort(address).port !== 0) socket.stopListening();
  }

  /** Closes all. */
  close(): void {
    for (const { socket } of this.#sockets.values()) socket.close();
  }
}
