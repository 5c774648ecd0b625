/** A node's UDP socket that hears one beacon and nobody else. */
import { isIPv6 } from "node:net";
import type { SocketAddress } from "./probe.ts";

/** Looks at a datagram. @returns undefined if it is not the one that is waited for */
export type Reader<T> = (bytes: Buffer) => T | undefined;

export class ProbeSocket {
  /** Last error of the kernel: "ECONNREFUSED" if the port is closed. */
  error: string | undefined;
  #receive: (bytes: Buffer) => void = () => {};
  #endWait: () => void = () => {};

  private constructor(private readonly socket: Bun.udp.ConnectedSocket<"buffer">) {}

  /** @throws Error with `code` when there is no way to that address */
  static async open({ address, port }: SocketAddress): Promise<ProbeSocket> {
    let opened: ProbeSocket | undefined;
    const socket = await Bun.udpSocket({
      hostname: isIPv6(address) ? "::" : "0.0.0.0",
      port: 0,
      binaryType: "buffer",
      connect: { hostname: address, port },
      socket: {
        data(_, bytes) {
          if (opened !== undefined) opened.#receive(bytes);
        },
        error(error) {
          if (opened !== undefined) opened.#failed(error);
        },
      },
    });
    opened = new ProbeSocket(socket);
    return opened;
  }

  /** As this host has it. */
  get address(): SocketAddress {
    const { address } = this.socket.address;
    return { address, port: this.socket.port };
  }

  /** What cannot be sent is lost, as it would be on the way. */
  send(bytes: Uint8Array): void {
    try {
      this.socket.send(bytes);
    } catch (error) {
      this.#failed(error);
    }
  }

  /** Gets every datagram from now on, in place of whoever got them before. */
  receive(take: (bytes: Buffer) => void): void {
    this.#receive = take;
  }

  /** Returns what `read` makes of the next known datagram; undefined after the timeout. */
  next<T>(read: Reader<T>, timeoutMs: number): Promise<T | undefined> {
    return new Promise((resolve) => {
      const done = (value: T | undefined) => {
        clearTimeout(timer);
        this.#receive = () => {};
        this.#endWait = () => {};
        resolve(value);
      };
      this.#endWait = () => done(undefined);
      const timer = setTimeout(() => done(undefined), timeoutMs);
      this.#receive = (bytes) => {
        const value = read(bytes);
        if (value !== undefined) done(value);
      };
    });
  }

  close(): void {
    this.socket.close();
  }

  #failed(error: unknown): void {
    const { code } = error as { code?: string };
    this.error = code ?? String(error);
    this.#endWait();
  }
}
