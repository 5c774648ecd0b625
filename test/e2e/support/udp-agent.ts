/**
 * Sockets in another network namespace, driven by lines of JSON on standard input: each line sends
 * a datagram or waits for the next one, which is printed as a line with its source. `UdpAgent` is
 * the driver.
 */
import { readFileSync } from "node:fs";
import { AF_INET, AF_INET6 } from "../../../ffi/abi.ts";
import { endpointOf } from "../../../ffi/endpoint.ts";
import { Peer } from "../../support/peer.ts";
import type { Program } from "./program.ts";
import type { WireAddress } from "./wire.ts";

interface Command {
  /** Name of the socket, which is opened by its first command. */
  readonly socket: string;
  /** Address that it is bound to. */
  readonly host: string;
  /** Where the datagram goes; without it the command waits for one. */
  readonly to?: WireAddress & { readonly link?: string };
  readonly hex?: string;
}

export interface Received {
  readonly from: WireAddress;
  readonly hex: string;
}

/** One socket of an agent, which talks to one address of a beacon. */
export class UdpAgent {
  #read = 0;

  constructor(
    private readonly program: Program,
    private readonly host: string,
    readonly to: NonNullable<Command["to"]>,
    private readonly socket = `${host} to ${to.address}`,
  ) {}

  async send(bytes: Uint8Array): Promise<void> {
    await this.#write({ to: this.to, hex: Buffer.from(bytes).toString("hex") });
  }

  /** The next datagram of this socket. @throws Error if none comes in time */
  async receive(): Promise<Received> {
    const from = this.program.lines.length;
    await this.#write({});
    const line = await this.program.line("a datagram", (text) => text, Math.max(from, this.#read));
    this.#read = from + 1;
    const received = JSON.parse(line) as Received | null;
    if (received === null) throw new Error(`nothing came from ${this.to.address} to ${this.host}`);
    return received;
  }

  #write(command: Pick<Command, "to" | "hex">): Promise<void> {
    return this.program.write(JSON.stringify({ socket: this.socket, host: this.host, ...command }));
  }
}

function endpoint({ address, port, link }: NonNullable<Command["to"]>): Int32Array {
  const words = endpointOf(address, port);
  if (link !== undefined) words[5] = Number(readFileSync(`/sys/class/net/${link}/ifindex`, "utf8"));
  return words;
}

if (import.meta.main) {
  const sockets = new Map<string, Peer>();
  for await (const line of console) {
    const { socket, host, to, hex = "" } = JSON.parse(line) as Command;
    let peer = sockets.get(socket);
    if (peer === undefined) {
      peer = new Peer(host.includes(":") ? AF_INET6 : AF_INET, host);
      sockets.set(socket, peer);
    }
    if (to !== undefined) {
      peer.send(Buffer.from(hex, "hex"), endpoint(to));
      continue;
    }
    const datagram = peer.receive();
    const { address, port } = datagram?.from ?? {};
    console.log(
      JSON.stringify(
        datagram
          ? { from: { address, port }, hex: Buffer.from(datagram.bytes).toString("hex") }
          : null,
      ),
    );
  }
}
