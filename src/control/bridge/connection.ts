/** One WebSocket connection of the bridge, from its upgrade to its end. */
import { endpointOf } from "../../../ffi/endpoint.ts";
import type { Challenge } from "./handshake.ts";

export type BridgeSocket = Bun.ServerWebSocket<Connection>;

/** challenged: must prove its id. verifying: replied. open: the node's. closing: ignored. */
export type ConnectionState = "challenged" | "verifying" | "open" | "closing";

export class Connection {
  state: ConnectionState = "challenged";
  /** The node that it has proven to be, signed; 0 before that. */
  nodeId = 0;
  /** Once it is open. */
  socket!: BridgeSocket;
  challenge: Challenge | undefined;
  /** Frames for the next flush of the outbox, and bytes that the client has not read yet. */
  readonly pending: Uint8Array[] = [];
  bufferedBytes = 0;
  /** Whether the socket is closed. */
  isGone = false;
  /** Times by performance.now: opened, last received, last pinged, closing since. */
  openedMs = 0;
  heardMs = 0;
  pingedMs = 0;
  closingMs = 0;
  /** The endpoint that it comes from: the client's address, and the port of the connection. */
  readonly endpoint: Int32Array;

  constructor(address: string, port: number) {
    this.endpoint = endpointOf(address, port);
  }
}
