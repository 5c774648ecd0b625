/**
 * Frames on their way to nodes behind the bridge. They are collected, and what a connection gets is
 * handed to the kernel in one piece.
 *
 * What a node does not read in time waits in memory, up to a bound; what would go beyond is
 * dropped, as the kernel does with datagrams that find a socket's buffer full. The bound of one
 * node shrinks as others fill their part, so that there is room for the next one, however many stop
 * reading. The first frame that a node does not take waits even so, as nobody can tell before;
 * where that breaks the bound of all, the node loses its connection.
 */
import { FIRST_ID_AT, RELAY_DELIVER } from "../../protocol.ts";
import { RELAYED_TO_BRIDGE, REPLIES_SENT, SENT_BYTES } from "../../shared/counters.ts";
import { DropLog, nodeDrop } from "../../shared/drops.ts";
import type { SharedMemory } from "../../shared/memory.ts";
import type { Connection } from "./connection.ts";

/** What may wait for one node: at 10 Mbit/s, a fifth of a second. */
export const NODE_BUFFERED_BYTES_MAX = 256 * 1024;
/** What may wait for all. */
export const BUFFERED_BYTES_MAX = 64 * 1024 * 1024;
/** A node may have this part of what the others leave. */
const SHARE = 1 / 8;

const SLOW_READER = nodeDrop("slow_reader");

export class Outbox {
  /** Frames sent, dropped because the node did not read, and dropped because it left. */
  sent = 0;
  dropped = 0;
  gone = 0;
  /** Connections ended because what waits for all was too much. */
  disconnects = 0;
  /** Bytes that wait for nodes to read, in all. */
  bufferedBytes = 0;
  readonly #pending: Connection[] = [];
  readonly #drops: DropLog;

  constructor(private readonly memory: SharedMemory) {
    this.#drops = new DropLog(memory, memory.bridgeRow);
  }

  /** @param frame must stay as it is until `flush` */
  put(connection: Connection, frame: Uint8Array): void {
    if (connection.pending.length === 0) this.#pending.push(connection);
    connection.pending.push(frame);
  }

  /** Sends what was put in. */
  flush(): void {
    for (const connection of this.#pending) {
      if (connection.isGone) this.gone += connection.pending.length;
      else connection.socket.cork(() => this.#send(connection));
      connection.pending.length = 0;
      this.update(connection); // what the kernel did not take is known once the cork is out
      if (this.bufferedBytes > BUFFERED_BYTES_MAX && connection.bufferedBytes > 0) {
        this.disconnects++;
        connection.socket.terminate();
      }
    }
    this.#pending.length = 0;
  }

  #send(connection: Connection): void {
    const { socket, pending } = connection;
    for (const frame of pending) {
      if (
        connection.bufferedBytes > 0 &&
        connection.bufferedBytes + frame.length > this.#bytesMax
      ) {
        this.dropped++;
        this.#noteDrop(connection, frame);
        continue;
      }
      // 0: it is closing, or control frames have filled its buffer. -1: taken, but not by the
      // kernel yet.
      const taken = socket.sendBinary(frame);
      if (taken === 0) {
        this.gone++;
        continue;
      }
      this.sent++;
      const { counters, bridgeRow } = this.memory;
      counters[bridgeRow + (frame[0] === RELAY_DELIVER ? RELAYED_TO_BRIDGE : REPLIES_SENT)]!++;
      counters[bridgeRow + SENT_BYTES]! += frame.length;
      if (taken < 0) this.update(connection);
    }
  }

  #noteDrop({ nodeId }: Connection, frame: Uint8Array): void {
    if (frame[0] !== RELAY_DELIVER) return;
    const senderId = new DataView(frame.buffer, frame.byteOffset).getInt32(FIRST_ID_AT);
    this.#drops.note(nodeId, senderId, SLOW_READER);
  }

  /** What may wait for one node now. */
  get #bytesMax(): number {
    return Math.min(NODE_BUFFERED_BYTES_MAX, (BUFFERED_BYTES_MAX - this.bufferedBytes) * SHARE);
  }

  /** To be called when something of what waited was sent, or the connection is gone. */
  update(connection: Connection): void {
    const bytes = connection.isGone ? 0 : connection.socket.getBufferedAmount();
    this.bufferedBytes += bytes - connection.bufferedBytes;
    connection.bufferedBytes = bytes;
  }
}
