/** Gossip of peers that do not exist. */
import { UDP_PAYLOAD_MAX } from "../../ffi/abi.ts";
import { SYNC, SYNC_BYTES, SYNC_COUNT_AT } from "../../src/protocol.ts";

/** Nodes that one message holds: 16,375. */
export const GOSSIP_NODES_MAX = Math.floor((UDP_PAYLOAD_MAX - SYNC_BYTES) / 4);

/** First id of the peers' nodes, above those of load generators. */
export const PEER_NODES_FROM = 0x4000_0000;
/** Far enough apart that ids of different ages never meet. */
const AGE_IDS = 0x0100_0000;

/**
 * A peer's message.
 * @param changed share of the nodes, 0 to 1, that have other ids in each `age`
 * @param age 0 to 190
 */
export function gossipMessage(
  firstId: number,
  count: number,
  changed: number,
  age: number,
): Uint8Array {
  const message = new DataView(new ArrayBuffer(SYNC_BYTES + 4 * count));
  message.setUint8(0, SYNC);
  message.setUint16(SYNC_COUNT_AT, count);
  for (let i = 0; i < count; i++) {
    const changes = Math.floor((i + 1) * changed) > Math.floor(i * changed);
    message.setUint32(SYNC_BYTES + 4 * i, firstId + i + (changes ? age * AGE_IDS : 0));
  }
  return new Uint8Array(message.buffer);
}
