/** Datagrams that no beacon answers or passes on: other types, and messages that are too short. */
import { AF_INET } from "../../ffi/abi.ts";
import { UdpSocket } from "../../ffi/socket.ts";
import {
  DISCOVER,
  DISCOVER_BYTES,
  DISCOVER_EX,
  PUNCH_REQUEST,
  PUNCH_REQUEST_BYTES,
  RELAY,
  RELAY_BYTES,
  SYNC,
  SYNC_BYTES,
} from "../../src/protocol.ts";
import { sendOnce } from "./load.ts";
import type { Address } from "./register.ts";

const KINDS = 256;
const BYTES_MAX = 1400;
/** Types from here on are none of the protocol's. */
const FOREIGN_FROM = 0x10;
const BYTES_MIN = new Map([
  [DISCOVER, DISCOVER_BYTES],
  [PUNCH_REQUEST, PUNCH_REQUEST_BYTES],
  [RELAY, RELAY_BYTES],
  [SYNC, SYNC_BYTES],
  [DISCOVER_EX, DISCOVER_BYTES],
]);

/**
 * Every second one a message that is cut short, the others of a type that there is not; the same
 * ones in every run.
 */
export function garbage(): Uint8Array[] {
  let state = 1;
  /**
   * A number from 0 to `below - 1`, by a linear congruential generator (the constants of C's
   * example of rand).
   */
  const next = (below: number) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return (state >>> 16) % below;
  };
  const types = [...BYTES_MIN.keys()];
  return Array.from({ length: KINDS }, (_, i) => {
    const cut = i % 2 === 0;
    const type = cut ? types[next(types.length)]! : FOREIGN_FROM + next(256 - FOREIGN_FROM);
    const bytes = new Uint8Array(cut ? 1 + next(BYTES_MIN.get(type)! - 1) : 1 + next(BYTES_MAX));
    for (let at = 1; at < bytes.length; at++) bytes[at] = next(256);
    bytes[0] = type;
    return bytes;
  });
}

export class GarbageSender {
  readonly #socket = UdpSocket.open(AF_INET);
  readonly #datagrams = garbage();
  #next = 0;

  /** Sends so many. */
  send(target: Address, count: number): void {
    for (let i = 0; i < count; i++) {
      sendOnce(this.#socket, this.#datagrams[this.#next]!, target);
      this.#next = (this.#next + 1) % this.#datagrams.length;
    }
  }

  close(): void {
    this.#socket.close();
  }
}
